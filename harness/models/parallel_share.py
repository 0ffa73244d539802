"""A rank's share of a model: local shapes, forward calls of its modules, and all of it on the meta device."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from harness.kernels import KernelKind
from harness.models.parallel_local import localise
from harness.models.parallel_styles import Collective, Part, Style, collectives_of, part_of, spans_of
from harness.models.plans import TensorPlan

ExchangeCall = Callable[[Any, Collective, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One collective of one forward call."""

    module: str  # path
    kind: KernelKind
    shape: tuple[int, ...]  # what this rank gives: all of a sum, or its slice (rank 0's, as wide as any) of a whole
    dtype: torch.dtype
    degree: int

    @property
    def size_bytes(self) -> int:
        """Bytes that this rank gives. What travels over links depends on the algorithm."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def local_part(
    model: Any, plan: TensorPlan, path: str, shape: tuple[int, ...], *, degree: int, rank: int = 0
) -> Part | None:
    """A rank's part of the parameter at ``path``, whose whole shape is ``shape``; None for all of it."""
    style = plan.parameter_style(path)
    if style is None:
        return None
    owner, _, name = path.rpartition(".")
    kv_width = None
    if style is Style.QKV_MULTI_QUERY:
        kv_width = 2 * int(model.get_submodule(owner.rpartition(".")[0]).head_dim)
    return part_of(style, name, shape, degree, rank=rank, kv_width=kv_width)


def local_shape(
    model: Any, plan: TensorPlan, path: str, shape: tuple[int, ...], *, degree: int, rank: int = 0
) -> tuple[int, ...]:
    """Shape of a rank's part of the parameter at ``path``, whose whole shape is ``shape``."""
    part = local_part(model, plan, path, shape, degree=degree, rank=rank)
    return shape if part is None else (*shape[: part.dim], part.width, *shape[part.dim + 1 :])


def local_tensor(
    model: Any, plan: TensorPlan, path: str, tensor: torch.Tensor, *, degree: int, rank: int
) -> torch.Tensor:
    """A copy of a rank's part of the whole parameter at ``path``; the parameter itself where a rank has all of it."""
    part = local_part(model, plan, path, tuple(tensor.shape), degree=degree, rank=rank)
    if part is None:
        return tensor
    pieces = [tensor.narrow(part.dim, span.start, span.stop - span.start) for span in part.spans]
    return torch.cat(pieces, dim=part.dim) if pieces else tensor.narrow(part.dim, 0, 0).clone()


def local_elements(model: Any, plan: TensorPlan, *, degree: int, rank: int = 0) -> int:
    """Elements of all parameters that a rank holds; parameters shared by two modules are counted once."""
    return sum(
        torch.Size(local_shape(model, plan, path, tuple(parameter.shape), degree=degree, rank=rank)).numel()
        for path, parameter in model.named_parameters()
    )


def share_on_meta(
    model: Any,
    plan: TensorPlan,
    *,
    degree: int,
    rank: int = 0,
    observe: Callable[[Exchange], None] | None = None,
    exchange: ExchangeCall | None = None,
) -> None:
    """Turn a whole model on the meta device into a rank's share of it, in place.

    Forward calls then run with local shapes and hand each collective to ``observe`` where it would happen, after the
    module's own kernels, or do it with ``exchange``, as ``share_forward`` says. Raises ``ValueError`` for a degree that
    ``check_degree`` refuses. Call it once.
    """
    if degree == 1:
        return
    _shrink(model, plan, degree, rank)
    localise(model, plan, degree=degree, rank=rank)
    for path, module in list(model.named_modules()):
        style = plan.module_style(path)
        if style is not None:
            simulated = _Simulated(path=path, degree=degree, observe=observe or _nobody)
            module.forward = share_forward(module, style, degree=degree, rank=rank, exchange=exchange or simulated)


def share_forward(module: Any, style: Style, *, degree: int, rank: int, exchange: ExchangeCall) -> Callable[..., Any]:
    """The forward call of one module, whose parameters are local, as a rank makes it.

    ``exchange(module, collective, tensor)`` is called for what the ranks exchange, and returns the tensor that each of
    them has afterwards. A bias that belongs to the sum is added after it, as a kernel of its own.
    """
    whole = module.forward
    collectives = collectives_of(style)
    if style is Style.EMBEDDING_ROWWISE:
        module.padding_idx = None  # it may lie in another rank's rows, and matters for gradients alone

    def forward(*args: Any, **kwargs: Any) -> Any:
        args = _own_input(style, args, degree, rank)
        bias = module._parameters.get("bias") if any(each.bias_after for each in collectives) else None
        if style is Style.CONV1D_ROWWISE:
            output = conv1d_product(module, args[0])
        else:
            with nullcontext() if bias is None else without_bias(module):
                output = whole(*args, **kwargs)
        for collective in collectives:
            output = exchange(module, collective, output)
        if style is Style.MLA_KV_A_PROJ:  # transformers takes it apart for its gradients, and puts it together again
            output = torch.cat([output[..., :-1], output[..., -1:]], dim=-1)
        return output if bias is None else output + bias

    return forward


def _own_input(style: Style, args: tuple[Any, ...], degree: int, rank: int) -> tuple[Any, ...]:
    if style is Style.ROWWISE_SPLIT_INPUT:  # every rank has the whole input, and takes its part
        (span,) = spans_of(args[0].shape[-1], blocks=1, degree=degree, rank=rank)
        return (args[0][..., span.start : span.stop], *args[1:])
    if style is Style.MOE_IDENTITY_EXPERT:  # the same on every rank, and summed over them afterwards
        return (args[0] / degree, *args[1:])
    return args


def conv1d_product(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    """What a Conv1D computes, [..., in] to [..., out], without its bias."""
    product = torch.mm(tensor.view(-1, tensor.shape[-1]), module.weight)
    return product.view(*tensor.shape[:-1], product.shape[-1])


@contextmanager
def without_bias(module: Any) -> Iterator[None]:
    """A linear module that has no bias inside."""
    bias, module._parameters["bias"] = module._parameters.get("bias"), None
    try:
        yield
    finally:
        module._parameters["bias"] = bias


def _shrink(model: Any, plan: TensorPlan, degree: int, rank: int) -> None:
    local: dict[int, torch.nn.Parameter] = {}  # by identity, so that shared parameters stay shared
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        owner, _, name = path.rpartition(".")
        if id(parameter) not in local:
            shape = local_shape(model, plan, path, tuple(parameter.shape), degree=degree, rank=rank)
            local[id(parameter)] = torch.nn.Parameter(parameter.new_empty(shape), requires_grad=parameter.requires_grad)
        model.get_submodule(owner)._parameters[name] = local[id(parameter)]


def _nobody(_exchange: Exchange) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Simulated:
    """Shapes of an exchange, without anybody to exchange with."""

    path: str
    degree: int
    observe: Callable[[Exchange], None]

    def __call__(self, module: Any, collective: Collective, tensor: torch.Tensor) -> torch.Tensor:
        shape, result = tuple(tensor.shape), tensor
        if collective.kind is KernelKind.ALL_GATHER:
            width = int(getattr(module, "out_features", None) or module.embedding_dim)
            shape = (*shape[:-1], math.ceil(width / self.degree))  # padded, so that all give the same
            result = tensor.new_empty((*shape[:-1], width))
        seen = Exchange(module=self.path, kind=collective.kind, shape=shape, dtype=tensor.dtype, degree=self.degree)
        self.observe(seen)
        return result
