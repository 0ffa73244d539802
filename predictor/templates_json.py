"""Graphs and facts as plain JSON, and back with every number checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import CorruptFile
from harness.kernels import KernelKind
from predictor.kernel_table import DIMENSIONS, DTYPES, KINDS, Floats
from predictor.lowering_ops import ServedModel, ServedOp, edges_from
from predictor.templates_basis import Basis
from predictor.templates_graph import COUNTS, PhaseGraph, Region, RowGraph

_MOST_ROWS, _MOST_BASES, _MOST_OPS = 2000, 64, 500


def phase_json(graph: PhaseGraph) -> list[dict[str, Any]]:
    """One object for each region."""
    return [
        {"last_context": region.last_context, "single": region.single, **_graph_json(region.graph)}
        for region in graph.regions
    ]


def phase_from(values: Sequence[Mapping[str, Any]]) -> PhaseGraph:
    """Inverse of ``phase_json``; raises ``CorruptFile``."""
    try:
        regions = [
            Region(last_context=value["last_context"], single=value["single"], graph=_graph_from(value))
            for value in values
        ]
        if not regions:
            raise ValueError("it has no regions")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise _damaged(error) from error
    return PhaseGraph(regions=tuple(regions))


def served_json(served: ServedModel) -> dict[str, Any]:
    """Operators and edges."""
    return {"ops": [op.to_json() for op in served.ops], "edges": [list(edge) for edge in served.edges]}


def served_from(values: Mapping[str, Any]) -> ServedModel:
    """Inverse of ``served_json``; raises ``CorruptFile``."""
    try:
        ops = tuple(ServedOp.from_json(value) for value in values["ops"])
        if not 0 < len(ops) <= _MOST_OPS:
            raise ValueError(f"it has {len(ops)} operators")
        return ServedModel(ops=ops, edges=edges_from(values["edges"], len(ops)))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> CorruptFile:
    return CorruptFile(f"The shipped kernel graphs are damaged: {error}.\nInstall joulegraph again.")


def _graph_json(graph: RowGraph) -> dict[str, Any]:
    rows = [
        [
            str(KINDS[graph.kind[row]]),
            DTYPES[graph.dtype[row]],
            int(graph.linear[row]) + 2 * int(graph.experts[row]),
            [_sparse(graph.counts[count, row]) for count in range(len(COUNTS))],
        ]
        for row in range(graph.rows)
    ]
    sizes = [
        [int(row), DIMENSIONS[dimension], int(summed), _sparse(values)]
        for row, dimension, summed, values in zip(
            graph.size_row, graph.size_dimension, graph.size_summed, graph.sizes, strict=True
        )
    ]
    return {
        "bases": [basis.to_json() for basis in graph.bases],
        "rows": rows,
        "sizes": sizes,
        "edges": graph.edges.T.tolist(),
    }


def _sparse(values: Floats) -> list[float]:
    """Index and value in turn, of what is not 0."""
    found: list[float] = []
    for index in np.flatnonzero(values):
        value = float(values[index])
        found += [int(index), int(value) if value.is_integer() else value]
    return found


def _dense(values: Sequence[float], length: int) -> Floats:
    dense = np.zeros(length)
    dense[np.asarray(values[::2], dtype=np.int64)] = np.asarray(values[1::2], dtype=np.float64)
    if not np.isfinite(dense).all():
        raise ValueError("a coefficient is no number")
    return dense


def _graph_from(values: Mapping[str, Any]) -> RowGraph:
    bases = tuple(Basis.from_json(value) for value in values["bases"])
    rows, sizes = values["rows"], values["sizes"]
    if not 0 < len(rows) <= _MOST_ROWS or not 0 < len(bases) <= _MOST_BASES or len(sizes) > 20 * len(rows):
        raise ValueError("it is too large, or empty")
    counts = np.stack([[_dense(row[3][count], len(bases)) for row in rows] for count in range(len(COUNTS))])
    edges = np.asarray(values["edges"], dtype=np.int64).reshape(-1, 2)
    size_row = np.array([size[0] for size in sizes], dtype=np.int64)
    for indices in (edges, size_row):
        if indices.size and not (indices.min() >= 0 and indices.max() < len(rows)):
            raise ValueError("something belongs to no row")
    return RowGraph(
        bases=bases,
        kind=np.array([KINDS.index(KernelKind(row[0])) for row in rows], dtype=np.int64),
        dtype=np.array([DTYPES.index(row[1]) for row in rows], dtype=np.int64),
        linear=np.array([bool(row[2] & 1) for row in rows], dtype=np.bool_),
        experts=np.array([bool(row[2] & 2) for row in rows], dtype=np.bool_),
        counts=counts,
        size_row=size_row,
        size_dimension=np.array([DIMENSIONS.index(size[1]) for size in sizes], dtype=np.int64),
        size_summed=np.array([bool(size[2]) for size in sizes], dtype=np.bool_),
        sizes=np.array([_dense(size[3], len(bases)) for size in sizes]).reshape(len(sizes), len(bases)),
        edges=edges.T,
    )
