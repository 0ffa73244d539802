"""What others count: ``python -m benchmarks.graph_comparison > docs/graph-counts.md``.

Three ways to the FLOP of one forward pass of the same models, none of which needs weights or a GPU:

- the kernel graph, captured from the model's own code;
- an analyser as people write it (LLM-Viewer and its like): six numbers of the config, a formula per layer;
- ``torch.utils.flop_counter.FlopCounterMode`` over all layers on the meta device, as it is.

Every difference between the graph and the analyser is stated as a term of its own, and the page is only written if
the terms add up to the difference. The page is the same everywhere; times go to standard error.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.handwritten_counts import Gap, Pass, analyser_flop, gaps_of
from harness.kernels import KernelKind, Phase
from harness.models.caches import cache_argument
from harness.models.facts import unquantised_config
from harness.models.meta import meta_model
from harness.models.shipped import shipped_config
from harness.models.source import resolve
from harness.models.steps import forward_options
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph

BATCH = 2
PRODUCTS = (KernelKind.GEMM, KernelKind.MOE_GEMM, KernelKind.ATTENTION)
TIMED = ("meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-405B", "deepseek-ai/DeepSeek-V3")
REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and how long its context is: longer than a window, where it has one."""

    name: str
    tokens: int
    attention: str = "sdpa"

    def run(self, phase: Phase) -> Pass:
        """The prompt, or the step after it."""
        if phase is Phase.PREFILL:
            return Pass(phase=phase, batch=BATCH, query=self.tokens, context=self.tokens)
        return Pass(phase=phase, batch=BATCH, query=1, context=self.tokens + 1)


SUBJECTS = (
    Subject(name="openai-community/gpt2", tokens=1000),
    Subject(name="facebook/opt-6.7b", tokens=2000),
    Subject(name="meta-llama/Llama-3.1-8B", tokens=6000),
    Subject(name="meta-llama/Llama-3.1-70B", tokens=6000),
    Subject(name="Qwen/Qwen3-8B", tokens=6000),
    Subject(name="mistralai/Mistral-7B-v0.1", tokens=6000),
    Subject(name="google/gemma-2-9b", tokens=6000, attention="eager"),  # its softcapping is not in sdpa
    Subject(name="mistralai/Mixtral-8x7B-v0.1", tokens=6000),
    Subject(name="deepseek-ai/DeepSeek-V3", tokens=6000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """FLOP of one pass, counted in three ways."""

    name: str
    run: Pass
    graph: KernelGraph
    analyser_flop: int
    counter_flop: int
    gaps: tuple[Gap, ...]

    @property
    def products_flop(self) -> int:
        """Products and attention, which is all that the other two count."""
        return flop_of(self.graph, *PRODUCTS)

    @property
    def experts_flop(self) -> int:
        """Grouped products of experts."""
        return flop_of(self.graph, KernelKind.MOE_GEMM)


def flop_of(graph: KernelGraph, *kinds: KernelKind) -> int:
    """FLOP of the kernels of some kinds."""
    return sum(kernel.flop for kernel in graph.of_kind(*kinds))


@cache
def config_of(name: str) -> Any:
    """The transformers config of a model that ships with the package."""
    path = shipped_config(name)
    if path is None:
        raise ValueError(f"{name} is not among the configs that ship")
    return unquantised_config(resolve(str(path), random_weights=True))


class Counter:
    """FlopCounterMode over all layers of a model on a device, without weights of any meaning."""

    def __init__(self, config: Any, attention: str, *, device: str = "meta") -> None:
        dtype = torch.bfloat16 if device == "meta" else torch.float32
        self._model = meta_model(config, dtype=dtype, attention=attention).model
        self._device = device
        if device != "meta":
            self._model.to_empty(device=device)
            for tensor in (*self._model.parameters(), *self._model.buffers()):
                tensor.data.zero_()

    @torch.no_grad()
    def flop(self, tokens: int) -> dict[Phase, int]:
        """FLOP of a prompt of so many tokens, and of the step after it."""
        options = forward_options(self._model, kv_cache=True)
        counted = {}
        for phase, query in ((Phase.PREFILL, tokens), (Phase.DECODE, 1)):
            with torch.device(self._device), FlopCounterMode(display=False) as counter:
                output = self._model(torch.zeros((BATCH, query), dtype=torch.int64), **options)
            counted[phase] = counter.get_total_flops()
            name = str(cache_argument(self._model))
            options[name] = getattr(output, name)
        return counted


ALL = frozenset(subject.name for subject in SUBJECTS)


def rows(counted_models: frozenset[str] = ALL) -> tuple[Row, ...]:
    """All models and phases. Raises ``ValueError`` where a difference is not explained.

    ``FlopCounterMode`` takes its time: a model that is not among ``counted_models`` is given what it should count.
    """
    found = []
    for subject in SUBJECTS:
        config = config_of(subject.name)
        capture = GraphCapture(config, model=subject.name, attention=subject.attention)
        counted = Counter(config, subject.attention).flop(subject.tokens) if subject.name in counted_models else {}
        for phase in Phase:
            run = subject.run(phase)
            graph = capture.capture(phase, batch_size=BATCH, tokens=subject.tokens)
            row = Row(
                name=subject.name,
                run=run,
                graph=graph,
                analyser_flop=analyser_flop(config, run),
                counter_flop=counted.get(phase, flop_of(graph, *PRODUCTS) - flop_of(graph, KernelKind.MOE_GEMM)),
                gaps=gaps_of(config, run),
            )
            _check(row)
            found.append(row)
    return tuple(found)


def _check(row: Row) -> None:
    unexplained = row.analyser_flop - row.products_flop - sum(gap.flop for gap in row.gaps)
    missed = row.products_flop - row.counter_flop - row.experts_flop
    if unexplained or missed:
        raise ValueError(
            f"{row.name}, {row.run.phase}: {unexplained} and {missed} FLOP of difference are not explained"
        )


def page(counted_models: frozenset[str] = ALL) -> str:
    """The Markdown page; ``counted_models`` as in ``rows``."""
    found = rows(counted_models)
    lines = [_INTRODUCTION, *_TABLE_HEAD]
    lines += [_table_line(row) for row in found]
    lines += ["", "## Where an analyser differs", "", *_ANALYSER_HEAD]
    lines += [
        f"| {_short(row.name)} | {row.run.phase} | {gap.why} | {gap.flop / row.products_flop:+.2%} |"
        for row in found
        for gap in row.gaps
    ]
    lines += [_COUNTER_TEXT, *_cpu_lines()]
    return "\n".join(lines) + "\n"


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _table_line(row: Row) -> str:
    difference = row.analyser_flop / row.products_flop - 1
    missed = row.counter_flop / row.products_flop - 1
    cells = [
        _short(row.name),
        str(row.run.phase),
        str(row.run.context),
        f"{row.graph.flop / 1e12:.4g}",
        f"{row.products_flop / 1e12:.4g}",
        f"{difference:+.2%}" if difference else "equal",
        f"{missed:+.2%}" if missed else "equal",
        f"{len(row.graph.kernels)} / {row.graph.launches}",
    ]
    return f"| {' | '.join(cells)} |"


def _cpu_lines() -> list[str]:
    """Small models that run for real, and are counted while they do."""
    small = {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 512, "vocab_size": 1000}
    mixtral = type(config_of("mistralai/Mixtral-8x7B-v0.1"))(**small, num_attention_heads=8, num_key_value_heads=2)
    subjects = {
        "gpt2, sdpa": (config_of("openai-community/gpt2"), "sdpa"),
        "gpt2, eager": (config_of("openai-community/gpt2"), "eager"),
        "Mixtral of 2 layers, sdpa": (mixtral, "sdpa"),
    }
    lines = [
        "| model, attention | phase | missed attention | missed experts | FlopCounterMode |",
        "|---|---|--:|--:|--:|",
    ]
    for name, (config, attention) in subjects.items():
        counted = Counter(config, attention, device="cpu").flop(tokens=32)
        capture = GraphCapture(config, model=name, dtype="float32", attention=attention)
        for phase in Phase:
            graph = capture.capture(phase, batch_size=BATCH, tokens=32)
            fused, experts, all_of_them = (
                flop_of(graph, *kinds) for kinds in ((KernelKind.ATTENTION,), (KernelKind.MOE_GEMM,), PRODUCTS)
            )
            if counted[phase] != all_of_them - fused - experts:
                raise ValueError(f"{name}, {phase}: what FlopCounterMode misses on a CPU is not explained")
            shares = [f"{part / all_of_them:.2%}" if part else "none" for part in (fused, experts)]
            lines.append(f"| {name} | {phase} | {' | '.join(shares)} | {counted[phase] / all_of_them - 1:+.2%} |")
    return lines


_INTRODUCTION = f"""# What a kernel graph counts, and what others count

Written by `python -m benchmarks.graph_comparison > docs/graph-counts.md`; a test says when it is stale, and the page
is only written if every difference is explained to the last FLOP. Batch {BATCH}; a step sees its context and itself.
A multiply-add is 2 FLOP; attention counts the full square of query and context, also where it is masked; logits are
those of the last position.

- *graph*: TFLOP of all kernels, and of the products and attention alone, which is all that the other two count.
- *analyser*: hand-written formulas over six numbers of the config, as in LLM-Viewer: heads share the width of the
  model, all layers are alike, a token goes through its share of the experts.
- *FlopCounterMode*: `torch.utils.flop_counter` over all layers on the meta device, as it is.
- Signs: what the other counts beside the graph's products and attention.
"""
_TABLE_HEAD = (
    "| model | phase | context | graph, all | graph, products | analyser | FlopCounterMode | kernels / launches |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
)
_ANALYSER_HEAD = ("| model | phase | why | difference |", "|---|---|---|--:|")
_COUNTER_TEXT = """
## Where FlopCounterMode differs

It has no formula for `aten::_grouped_mm`, so it misses the experts of a mixture and says nothing. On the meta device
attention is taken apart into batched products, which it counts; on a CPU it runs as
`aten::_scaled_dot_product_flash_attention_for_cpu`, for which it has no formula either. It also runs every layer, knows
no bytes, no data flow and no tensor parallelism without a process group.

On a CPU, as small models run there:
"""


def _best_s(work: Callable[[], object]) -> float:
    times_s = []
    for _ in range(REPEATS):
        begun_s = time.process_time()
        work()
        times_s.append(time.process_time() - begun_s)
    return min(times_s)


def _captured(config: Any, run: Pass) -> KernelGraph:
    return GraphCapture(config, model="timed").capture(run.phase, batch_size=BATCH, tokens=run.query)


def _counted(config: Any, run: Pass) -> dict[Phase, int]:
    return Counter(config, "sdpa").flop(run.query)


def print_times() -> None:
    """Processor time of each, the model's construction included, to standard error."""
    for name in TIMED:
        config = config_of(name)
        run = Subject(name=name, tokens=512).run(Phase.PREFILL)
        formulas_s = _best_s(partial(analyser_flop, config, run))
        graph_s = _best_s(partial(_captured, config, run))
        counter_s = _best_s(partial(_counted, config, run)) / len(Phase)
        print(
            f"{_short(name)}: graph {graph_s:.3f} s, FlopCounterMode {counter_s:.3f} s ({counter_s / graph_s:.1f} ×), "
            f"formulas {formulas_s * 1e6:.0f} µs",
            file=sys.stderr,
        )


def main() -> None:
    """Write the page to standard output, times to standard error."""
    print(page(), end="")
    print_times()


if __name__ == "__main__":
    main()
