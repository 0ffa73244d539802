"""From the operators of a graph to those of a runtime: additions taken in, products joined, edges between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from harness.tracing.graph import COLLECTIVES, GraphKernel, KernelGraph
from predictor.lowering_ops import Role, ServedOp

_JOINED = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)


def with_residuals(ops: Sequence[ServedOp], residuals: int) -> list[ServedOp]:
    """Norms of whole tokens take the additions before them in, as far as there are any."""
    widest = max((op.n_whole for op in ops if op.role is Role.EMBEDDING), default=0)
    taking = [op for op in ops if op.role is Role.NORM and op.n_whole == widest]
    launches = sum(op.launches for op in taking)
    if not launches:
        return list(ops)
    share = min(1.0, residuals / launches)
    return [replace(op, residuals=round(share * op.launches)) if op in taking else op for op in ops]


def merged(ops: Sequence[ServedOp]) -> list[ServedOp]:
    """Products of the same input as one; the module of the result names all."""
    found: list[ServedOp] = []
    for op in ops:
        parent, _, name = op.module.rpartition(".")
        group = next((group for group in _JOINED if name in group), None)
        partner = next((index for index, other in enumerate(found) if group and _joins(other, op, parent, group)), None)
        if partner is None or op.role is not Role.LINEAR:
            found.append(op)
            continue
        other = found[partner]
        found[partner] = replace(
            other,
            module=f"{other.module}|{op.module}",
            n_whole=other.n_whole + op.n_whole,
            n_cut=other.n_cut + op.n_cut,
            n_kv=other.n_kv + op.n_kv,
            kv_heads=max(other.kv_heads, op.kv_heads),
        )
    return found


def _joins(other: ServedOp, op: ServedOp, parent: str, group: Sequence[str]) -> bool:
    own, _, name = other.module.split("|")[0].rpartition(".")
    same = (other.k_whole, other.k_cut, other.launches) == (op.k_whole, op.k_cut, op.launches)
    return other.role is Role.LINEAR and own == parent and name in group and same


def spans(ops: Sequence[ServedOp], ops_of: Mapping[GraphKernel, Sequence[str]]) -> dict[GraphKernel, list[int]]:
    """Of each kernel of the graph the operators that do its work."""
    places: dict[str, list[int]] = {}
    for index, op in enumerate(ops):
        for name in op.module.split("|"):
            places.setdefault(name, []).append(index)
    return {
        kernel: [index for name in dict.fromkeys(names) for index in places.get(name, ())]
        for kernel, names in ops_of.items()
    }


def edges(graph: KernelGraph, spans: Mapping[GraphKernel, Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Between operators; kernels that are part of none hand on what flows into them."""
    into: dict[int, set[int]] = {}
    for edge in graph.edges:
        into.setdefault(edge.target, set()).add(edge.source)
    reached: list[frozenset[int]] = []
    found = {pair for span in spans.values() for pair in pairwise(span)}
    for index, kernel in enumerate(graph.kernels):
        sources = frozenset[int]().union(*(reached[source] for source in into.get(index, ())))
        span = () if kernel.kind in COLLECTIVES else spans.get(kernel, ())
        if span:
            found.update((source, span[0]) for source in sources if source < span[0])
            later = {source for source in sources if source > span[-1]}  # of a layer that comes after: hand it on
            sources = frozenset({span[-1], *later})
        reached.append(sources)
    return iter(found)
