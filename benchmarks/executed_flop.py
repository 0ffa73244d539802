"""FLOP of matmuls and attention of really executing a tiny model of a causal-LM type on the CPU.

The reference that captured kernel graphs are compared with, so nothing of the capture is used here. Counted are the
operator calls that reach the dispatcher below autograd, by ``torch.utils.flop_counter`` and formulas for what it
misses. An operator that has no formula and is not known to hold no matrix product ends the count, so that nothing is
silently 0. Multiply-adds are 2 FLOP, and attention counts the full square of query and context, masked or not.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.execution import BATCH_SIZE, PROMPT_TOKENS, Execution, PhaseFlop, Status
from benchmarks.plain_operators import PLAIN
from harness.models.caches import cache_argument
from harness.models.quiet import quiet_transformers
from harness.models.steps import forward_options
from harness.models.tiny import NOT_EXECUTABLE, tiny_model, tiny_prompt

_REASON_LETTERS = 300
Shape = torch.Size


class UncountedOperator(Exception):
    """An operator without formula that may hold a matrix product."""


class _NoCache(Exception):
    """The model gives no cache to step with."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A pass and what it cost."""

    output: Any  # what it returned
    flop: PhaseFlop


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    prefill: PhaseFlop
    decode: PhaseFlop


def executed_flop(
    model_type: str, *, batch_size: int = BATCH_SIZE, prompt_tokens: int = PROMPT_TOKENS, seed: int = 0
) -> Execution:
    """Build the tiny model of a type, run a prefill and one decode step, and count.

    Done twice, with other weights and prompts, to see whether the count depends on them. Whatever goes wrong becomes
    the reason of an ``Execution`` that cannot run.
    """
    begun_s = time.perf_counter()
    try:
        first, second = (_execution(model_type, batch_size, prompt_tokens, seed + more) for more in (0, 1))
    except Exception as error:  # noqa: BLE001  189 types of somebody else's code can raise anything
        reason = f"{type(error).__name__}: {_one_line(error)}"
        if model_type in NOT_EXECUTABLE:
            reason = f"{NOT_EXECUTABLE[model_type]} ({reason})"
        return Execution(
            model_type=model_type,
            status=Status.CANNOT_RUN,
            reason=reason,
            duration_s=time.perf_counter() - begun_s,
        )
    vary = (first.prefill, first.decode) != (second.prefill, second.decode)
    return dataclasses.replace(first, flop_vary=vary, duration_s=time.perf_counter() - begun_s)


def _execution(model_type: str, batch_size: int, prompt_tokens: int, seed: int) -> Execution:
    model = tiny_model(model_type, seed=seed)
    prompt = tiny_prompt(model, batch_size=batch_size, prompt_tokens=prompt_tokens, seed=seed)
    text = model.config.get_text_config(decoder=True)
    problem = None
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        try:
            request = _stepped(model, prompt)
        except UncountedOperator:
            raise
        except Exception as error:  # noqa: BLE001  the model's own code; what it raises is kept
            problem = _one_line(error)
            request = _recomputed(model, prompt)
    return Execution(
        model_type=model_type,
        status=Status.OK,
        duration_s=0.0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=getattr(text, "num_hidden_layers", None),
        attention=text._attn_implementation,
        experts=text._experts_implementation if model._can_set_experts_implementation() else None,
        kv_cache=problem is None,
        kv_cache_problem=problem,
        prefill=request.prefill,
        decode=request.decode,
    )


def _stepped(model: Any, prompt: torch.Tensor) -> _Request:  # prompt: [batch, prompt_tokens]
    """Prefill and step as ``harness.models.steps`` does them."""
    name, options = cache_argument(model), forward_options(model, kv_cache=True)
    if name is None:
        raise _NoCache("its forward pass takes no cache")
    prefill = counted(lambda: model(prompt, **options))
    cache = getattr(prefill.output, name, None)
    if cache is None:
        raise _NoCache("its forward pass hands out no cache")
    step = counted(lambda: model(_next_token(prefill), **{name: cache}, **options))
    return _Request(prefill=prefill.flop, decode=step.flop)


def _recomputed(model: Any, prompt: torch.Tensor) -> _Request:  # prompt: [batch, prompt_tokens]
    """Prefill and step without a cache: the step is a pass over one token more."""
    options = forward_options(model, kv_cache=False)
    prefill = counted(lambda: model(prompt, **options))
    tokens = torch.cat([prompt, _next_token(prefill)], dim=1)  # [batch, prompt_tokens + 1]
    step = counted(lambda: model(tokens, **options))
    return _Request(prefill=prefill.flop, decode=step.flop)


def _next_token(done: Counted) -> torch.Tensor:
    """The greedy choice, [batch, 1]. Raises FloatingPointError where logits are not finite: routing means nothing."""
    logits = done.output.logits[:, -1]  # [batch, vocabulary]
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("the logits are not finite, so what was computed is not what a real model computes")
    token: torch.Tensor = logits.argmax(dim=-1, keepdim=True)
    return token


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_REASON_LETTERS] or type(error).__name__


class _OperatorLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the operators that a ``FlopCounterMode`` inside of it lets through, composites taken apart."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(getattr(func, "_overloadpacket", func)))
        return func(*args, **(kwargs or {}))


def counted(forward: Callable[[], Any]) -> Counted:
    """Run something, without gradients, and count it; raises UncountedOperator."""
    log = _OperatorLog()
    counter = FlopCounterMode(display=False, custom_mapping=_MISSED)
    with torch.inference_mode(), log, counter:
        output = forward()
    unknown = sorted(log.names - _MATMULS - _ATTENTION - _CONVOLUTIONS - _SOLVES - PLAIN)
    if unknown:
        raise UncountedOperator(
            f"no formula for {', '.join(unknown)}: give one in executed_flop, or add what holds no matrix product to "
            "plain_operators"
        )
    flop = {str(packet): count for packet, count in counter.get_flop_counts().get("Global", {}).items()}

    def of(names: Iterable[str]) -> int:
        return sum(flop.get(name, 0) for name in names)

    return Counted(
        output=output,
        flop=PhaseFlop(
            matmul_flop=of(_MATMULS),
            attention_flop=of(_ATTENTION),
            convolution_flop=of(_CONVOLUTIONS),
            solve_flop=of(_SOLVES),
        ),
    )


def _attention_flop(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Two products: query [batch, heads, query, width] with every key, [batch, kv_heads, context, width], and value."""
    batch, heads, query_tokens, width = query
    return 2 * batch * heads * query_tokens * key[-2] * (width + value[-1])


def _grouped_flop(tokens: Shape, experts: Shape, *_: Any, **__: Any) -> int:
    """Tokens [m, k] sorted by expert, each times one of the matrices [experts, k, n]."""
    (m, k), n = tokens, experts[-1]
    return int(2 * m * k * n)


def _inner_product_flop(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """A matrix or vector times a vector: as many multiply-adds as the larger has elements."""
    return 2 * max(math.prod(left), math.prod(right))


def _added_inner_product_flop(_addend: Shape, matrix: Shape, vector: Shape, *_: Any, **__: Any) -> int:
    return _inner_product_flop(matrix, vector)


def _summed_products_flop(_addend: Shape, left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Products [batch, m, k] times [batch, k, n], added up."""
    return int(2 * math.prod(left) * right[-1])


def _triangular_solve_flop(matrix: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Substitution in a triangle [.., n, n] for right sides [.., n, m]: n²/2 multiply-adds for each of the m."""
    return int(math.prod(right) * matrix[-1])


_aten = torch.ops.aten
_MISSED = {  # by torch.utils.flop_counter
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
    _aten._grouped_mm: _grouped_flop,
    _aten.mv: _inner_product_flop,
    _aten.dot: _inner_product_flop,
    _aten.vdot: _inner_product_flop,
    _aten.addmv: _added_inner_product_flop,
    _aten.addbmm: _summed_products_flop,
    _aten.linalg_solve_triangular: _triangular_solve_flop,
}
_MATMULS = frozenset(
    f"aten.{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "mv", "dot", "vdot", "addmv", "addbmm")
)
_ATTENTION = frozenset({"aten._scaled_dot_product_flash_attention_for_cpu"})
_CONVOLUTIONS = frozenset({"aten.convolution"})
_SOLVES = frozenset({"aten.linalg_solve_triangular"})
