"""Which kernel of the graph a kernel of the profiler is.

Rules, the strictest first; each takes what those before it left:

    name    same operator, module and shape
    work    same kind, module and shape: another implementation of the same work (fused attention has many names)
    place   same kind or operator, and module: another shape (a neighbouring decode step), another library's version
    part    a step of what is one kernel in the graph: attention or a scan that this device takes apart

What no rule pairs stays unmatched, and is counted with its share of the time.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.kernels import KernelKind
from harness.tracing.graph import GraphKernel, KernelGraph
from harness.tracing.timeline import TracedKernel


class Rule(StrEnum):
    """How a pair was found."""

    NAME = "name"
    WORK = "work"
    PLACE = "place"
    PART = "part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A traced kernel and its place in the graph; both None where it has none."""

    traced: TracedKernel
    kernel: int | None
    rule: Rule | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMatch:
    """All kernels of a trace, in its order, and the kernels of the graph that none of them is."""

    pairs: tuple[Pair, ...]
    untraced: tuple[int, ...]

    @property
    def unmatched(self) -> tuple[TracedKernel, ...]:
        """Traced kernels that are not in the graph, the most time-consuming first."""
        left = [pair.traced for pair in self.pairs if pair.kernel is None]
        return tuple(sorted(left, key=lambda kernel: -kernel.traced_duration_s))

    @property
    def matched_time_share(self) -> float:
        """Share of the traced time that has a place in the graph; 1 for an empty trace."""
        total_s = sum(pair.traced.traced_duration_s for pair in self.pairs)
        found_s = sum(pair.traced.traced_duration_s for pair in self.pairs if pair.kernel is not None)
        return found_s / total_s if total_s else 1.0

    @property
    def matched_launch_share(self) -> float:
        """Share of the traced launches that has a place in the graph; 1 for an empty trace."""
        total = sum(pair.traced.launches for pair in self.pairs)
        found = sum(pair.traced.launches for pair in self.pairs if pair.kernel is not None)
        return found / total if total else 1.0


_Key = tuple[str | None, ...]
_Kernel = GraphKernel | TracedKernel
_RULES: tuple[tuple[Rule, Callable[[_Kernel], _Key]], ...] = (
    (Rule.NAME, lambda kernel: (kernel.op, kernel.module, kernel.shape)),
    (Rule.WORK, lambda kernel: (kernel.kind, kernel.module, kernel.shape)),
    (Rule.PLACE, lambda kernel: (_stem(kernel.op), kernel.module)),
    (Rule.PLACE, lambda kernel: (kernel.kind, kernel.module)),
)
_WHOLE = frozenset({KernelKind.ATTENTION, KernelKind.SCAN})
_LIBRARIES = re.compile(r"^.*::|^_|_$|_impl|mkldnn_|cudnn_|miopen_|thnn_|_depthwise\w*|_overrideable")


def _stem(op: str) -> str:
    """An operator without namespace, library and marks: ``aten::mkldnn_convolution`` is a convolution."""
    return _LIBRARIES.sub("", _LIBRARIES.sub("", op))


def match(graph: KernelGraph, traced: Sequence[TracedKernel]) -> GraphMatch:
    """Find each traced kernel in the graph of the same pass.

    Several traced kernels may be one of the graph (a cast and its copy, two steps of a decode). Where the looser rules
    leave a choice, kernels that nothing else is come first, then the order of the graph.
    """
    places: dict[int, tuple[int, Rule]] = {}
    for rule, key_of in _RULES:
        table = _table(graph.kernels, key_of)
        taken = {kernel for kernel, _ in places.values()}
        for number, kernel in enumerate(traced):
            if number in places:
                continue
            candidates = table.get(key_of(kernel), [])
            free = [candidate for candidate in candidates if candidate not in taken]
            if free or candidates:
                places[number] = ((free or candidates)[0], rule)
                taken.add(places[number][0])
    whole = {kernel.module: number for number, kernel in enumerate(graph.kernels) if kernel.kind in _WHOLE}
    for number, kernel in enumerate(traced):
        if number not in places and kernel.module in whole:
            places[number] = (whole[kernel.module], Rule.PART)
    pairs = tuple(_pair(kernel, places.get(number)) for number, kernel in enumerate(traced))
    found = {pair.kernel for pair in pairs}
    untraced = tuple(number for number in range(len(graph.kernels)) if number not in found)
    return GraphMatch(pairs=pairs, untraced=untraced)


def _table(kernels: Iterable[GraphKernel], key_of: Callable[[_Kernel], _Key]) -> dict[_Key, list[int]]:
    table: dict[_Key, list[int]] = {}
    for number, kernel in enumerate(kernels):
        table.setdefault(key_of(kernel), []).append(number)
    return table


def _pair(traced: TracedKernel, place: tuple[int, Rule] | None) -> Pair:
    kernel, rule = place if place is not None else (None, None)
    return Pair(traced=traced, kernel=kernel, rule=rule)
