"""A kernel graph whose counts are functions of the sizes of a pass, and its expansion into tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.kernel_table import DIMENSIONS, Floats, Integers, KernelTable
from predictor.templates_basis import Basis, PassSizes, evaluated

COUNTS = ("launches", "flop", "read_bytes", "write_bytes", "weight_bytes", "link_bytes")
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGraph:
    """R kernels. A count is the sum over N bases of coefficient · basis; so is a size."""

    bases: tuple[Basis, ...]  # N
    kind: Integers  # [R] index into kernel_table.KINDS
    dtype: Integers  # [R] index into kernel_table.DTYPES
    linear: Flags  # [R] a product with weights that a quantised checkpoint holds in fewer bits
    experts: Flags  # [R] such a product, of experts
    counts: Floats  # [len(COUNTS), R, N]
    size_row: Integers  # [Z]
    size_dimension: Integers  # [Z] index into kernel_table.DIMENSIONS
    size_summed: Flags  # [Z] the size is a sum over the launches: that of one is the mean
    sizes: Floats  # [Z, N]
    edges: Integers  # [2, E] rows: from, to

    @property
    def rows(self) -> int:
        """R."""
        return len(self.kind)

    def expand(self, sizes: PassSizes) -> KernelTable:
        """The kernels of P passes, those of one pass together."""
        basis = evaluated(self.bases, sizes)  # [P, N]
        passes, rows = len(basis), self.rows
        counted = {name: basis @ values.T for name, values in zip(COUNTS, self.counts, strict=True)}  # each [P, R]
        launches = np.rint(counted["launches"])
        shaped = np.full((passes, rows, len(DIMENSIONS)), np.nan)
        values = basis @ self.sizes.T  # [P, Z]
        summed = self.size_summed
        values[:, summed] /= np.maximum(launches[:, self.size_row[summed]], 1.0)
        shaped[:, self.size_row, self.size_dimension] = values
        offsets = rows * np.arange(passes, dtype=np.int64)
        return KernelTable(
            pass_index=np.repeat(np.arange(passes, dtype=np.int64), rows),
            kind=np.tile(self.kind, passes),
            dtype=np.tile(self.dtype, passes),
            launches=launches.ravel(),
            flop=counted["flop"].ravel(),
            read_bytes=counted["read_bytes"].ravel(),
            write_bytes=counted["write_bytes"].ravel(),
            weight_bytes=counted["weight_bytes"].ravel(),
            link_bytes=counted["link_bytes"].ravel(),
            sizes=shaped.reshape(passes * rows, len(DIMENSIONS)),
            edges=(self.edges[:, None, :] + offsets[None, :, None]).reshape(2, -1),
            passes=passes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where one graph holds."""

    last_context: int | None  # tokens after the pass, at most; None: no end
    single: bool | None  # only for one sequence, only for more; None: for both
    graph: RowGraph

    def holds(self, sizes: PassSizes) -> Flags:
        """[P] whether each pass is inside."""
        inside = np.ones(len(sizes.batch), dtype=np.bool_)
        if self.last_context is not None:
            inside &= sizes.context <= self.last_context
        if self.single is not None:
            inside &= (sizes.batch == 1) == self.single
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseGraph:
    """The graph of one phase, in pieces where a model does something else (its window is full, a batch is one)."""

    regions: tuple[Region, ...]  # of those that hold the first counts; the last one holds everywhere

    def expand(self, sizes: PassSizes) -> KernelTable:
        """The kernels of P passes, in the order of the passes."""
        if len(self.regions) == 1:
            return self.regions[0].graph.expand(sizes)
        left = np.arange(len(sizes.batch), dtype=np.int64)
        parts, indices = [], []
        for region in self.regions:
            inside = region.holds(sizes.chosen(left))
            chosen, left = left[inside], left[~inside]
            if len(chosen):
                parts.append(region.graph.expand(sizes.chosen(chosen)))
                indices.append(chosen)
        return parts[0] if len(parts) == 1 else _interleaved(parts, indices)


def _interleaved(parts: Sequence[KernelTable], indices: Sequence[Integers]) -> KernelTable:
    """One table from several, given which passes each holds; each pass keeps its rows together."""
    pass_index = np.concatenate([which[part.pass_index] for part, which in zip(parts, indices, strict=True)])
    starts = np.cumsum([0, *(len(part.kind) for part in parts[:-1])])
    edges = np.concatenate([part.edges + start for part, start in zip(parts, starts, strict=True)], axis=1)
    order = np.argsort(pass_index, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))

    def column(name: str) -> "np.ndarray[Any, np.dtype[Any]]":
        return np.concatenate([getattr(part, name) for part in parts])[order]

    return KernelTable(
        pass_index=pass_index[order],
        kind=column("kind"),
        dtype=column("dtype"),
        launches=column("launches"),
        flop=column("flop"),
        read_bytes=column("read_bytes"),
        write_bytes=column("write_bytes"),
        weight_bytes=column("weight_bytes"),
        link_bytes=column("link_bytes"),
        sizes=column("sizes"),
        edges=place[edges],
        passes=sum(part.passes for part in parts),
    )


def mapped(graph: PhaseGraph, change: "GraphChange") -> PhaseGraph:
    """The same with every piece changed."""
    return PhaseGraph(regions=tuple(replace(region, graph=change.changed(region.graph)) for region in graph.regions))


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphChange:
    """Another dtype for the numbers of a graph that was captured in 16 bits."""

    plain: int  # index into DTYPES: of all that is not quantised
    matrices: int  # of the products with quantised weights
    weight_share: float  # bytes of such a weight, in parts of 16 bits
    input_share: float  # of what such a product reads beside them
    all_share: float = 1.0  # of everything
    only_experts: bool = False
    captured: int  # index into DTYPES: what the graph was captured in

    def changed(self, graph: RowGraph) -> RowGraph:
        """Counts and dtypes after the change."""
        stored = graph.experts if self.only_experts else graph.linear | graph.experts
        dtype = np.where(graph.dtype == self.captured, self.plain, graph.dtype)
        dtype = np.where(stored, self.matrices, dtype)
        counts = graph.counts.copy()
        weights = COUNTS.index("weight_bytes")
        read = COUNTS.index("read_bytes")
        given = (counts[read] - counts[weights])[stored]
        counts[weights, stored] *= self.weight_share
        counts[read, stored] = given * self.input_share + counts[weights, stored]
        counts[2:] *= self.all_share
        return replace(graph, dtype=dtype.astype(np.int64), counts=counts)
