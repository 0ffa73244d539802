"""Fewer rows from a captured graph: what runs in one module without being a product is one row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.graph import Edge, GraphKernel, KernelGraph
from harness.tracing.names import NORM_MODULE
from predictor.kernel_table import DIMENSIONS
from predictor.templates_graph import COUNTS

_ALONE = frozenset(
    {
        KernelKind.GEMM,
        KernelKind.ATTENTION,
        KernelKind.MOE_GEMM,
        KernelKind.EMBEDDING,
        KernelKind.ALL_REDUCE,
        KernelKind.ALL_GATHER,
        KernelKind.REDUCE_SCATTER,
        KernelKind.ALL_TO_ALL,
    }
)
_PICKING = frozenset({"aten::embedding", "aten::index", "aten::index_select"})
_LAYER = "*"  # stands for the number of a layer in the path of a module


@dataclass(slots=True, kw_only=True)
class MergedRow:
    """Kernels of a graph that are one row."""

    key: tuple[str, ...]  # the same at all sizes of a pass
    kind: KernelKind
    members: list[GraphKernel] = field(default_factory=list)

    @property
    def alone(self) -> bool:
        """Whether the row is one kernel, with the sizes that the capture gives it."""
        return self.kind in _ALONE

    @property
    def dtype(self) -> str:
        """Of the most traffic."""
        traffic: dict[str, int] = {}
        for kernel in self.members:
            traffic[kernel.dtype] = traffic.get(kernel.dtype, 0) + kernel.traffic_bytes
        return max(traffic, key=lambda dtype: traffic[dtype])

    @property
    def counts(self) -> list[int]:
        """In the order of ``COUNTS``."""
        return [sum(_count(kernel, name) for kernel in self.members) for name in COUNTS]

    @property
    def sizes(self) -> dict[str, int]:
        """By dimension; elements of merged kernels are those of all launches."""
        if self.alone:
            return _named(self.members[0])
        elements = sum(_elements(kernel) * kernel.launches for kernel in self.members)
        return {"elements": elements} if elements else {}


def merged(graph: KernelGraph) -> tuple[tuple[MergedRow, ...], tuple[Edge, ...]]:
    """Rows in the order of their first kernels, and edges between them, from earlier to later ones."""
    rows: dict[tuple[str, ...], MergedRow] = {}
    row_of: list[int] = []
    places: dict[tuple[str, ...], int] = {}
    seen: dict[tuple[str, ...], int] = {}
    for kernel in graph.kernels:
        kind, key = _kind_and_key(kernel)
        if kind in _ALONE:  # several in one module differ by their shapes, which vary: count them
            seen[key] = seen.get(key, -1) + 1
            key = (*key, str(seen[key]))
        rows.setdefault(key, MergedRow(key=key, kind=kind)).members.append(kernel)
        row_of.append(places.setdefault(key, len(places)))
    return tuple(rows.values()), contracted(graph.edges, row_of)


def contracted(edges: Sequence[Edge], row_of: Sequence[int]) -> tuple[Edge, ...]:
    """Edges between rows, those against the order of rows left out."""
    pairs = {(row_of[edge.source], row_of[edge.target]) for edge in edges}
    return tuple(Edge(source=source, target=target) for source, target in sorted(pairs) if source < target)


def _kind_and_key(kernel: GraphKernel) -> tuple[KernelKind, tuple[str, ...]]:
    module = kernel.module or ""
    if kernel.kind in _ALONE:
        return kernel.kind, (kernel.kind, kernel.op, module, kernel.dtype)
    if kernel.kind is KernelKind.SCAN:
        return KernelKind.SCAN, (KernelKind.SCAN, module)
    if NORM_MODULE.search(module):
        return KernelKind.NORM, (KernelKind.NORM, module)
    if _LAYER not in module.split("."):
        return KernelKind.OTHER, (KernelKind.OTHER,)
    return kernel.kind, (kernel.kind, module)


def _count(kernel: GraphKernel, name: str) -> int:
    """Rows picked from a table of weights count as often as they are picked, which keeps the count a polynomial."""
    if name == "weight_bytes" and kernel.weight_bytes and kernel.op in _PICKING:
        return min(kernel.read_bytes, kernel.write_bytes)
    return int(getattr(kernel, name))


def _named(kernel: GraphKernel) -> dict[str, int]:
    """Sizes by the names of the table."""
    sizes = shape_dimensions(kernel.shape)
    if kernel.kind is KernelKind.GEMM and "batch" in sizes:
        sizes["matrices"] = sizes.pop("batch")
    if kernel.kind is KernelKind.EMBEDDING:
        return {"tokens": sizes["rows"], "hidden": sizes["width"]}
    return {name: size for name, size in sizes.items() if name in DIMENSIONS}


def _elements(kernel: GraphKernel) -> int:
    sizes = shape_dimensions(kernel.shape)
    if "elements" in sizes:
        return sizes["elements"]
    product = 1
    for size in sizes.values():
        product *= size
    return product if sizes else 0
