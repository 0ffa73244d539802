"""The kernel graph: what runs on one rank's device in one forward pass, and how data flows between the kernels.

Counts of a kernel are totals over its ``launches``. A kernel of a layer that occurs eighty times is one kernel with
eighty launches, so a graph has tens of kernels; its edges are those inside the layer and to what comes before and
after, not the eighty times round. A decode graph describes one step at its stated context.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from harness.errors import InvalidGraph
from harness.kernels import KernelKind, Phase, shape_dimensions

MAX_KERNELS = 1_000_000  # a graph read from a file that claims more is no graph
_HEADER_COUNTS = ("batch_size", "query_tokens", "context_tokens", "tensor_parallel")
_COUNTS = ("launches", "flop", "read_bytes", "write_bytes", "weight_bytes", "link_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphKernel:
    """One class of device kernel."""

    kind: KernelKind
    op: str  # operator that launches it, e.g. aten::mm; c10d::allreduce_ for a collective
    module: str | None  # path with layer numbers as *, e.g. model.layers.*.mlp.up_proj; None: outside any module
    dtype: str  # of its first operand
    shape: str  # named dimensions of one launch, as in the dataset
    launches: int
    flop: int
    read_bytes: int
    write_bytes: int
    weight_bytes: int  # part of read_bytes that is parameters
    link_bytes: int  # bytes this rank sends

    @property
    def traffic_bytes(self) -> int:
        """Memory traffic: read and written."""
        return self.read_bytes + self.write_bytes

    @property
    def arithmetic_intensity(self) -> float | None:
        """FLOP per byte of memory traffic; None without traffic."""
        return self.flop / self.traffic_bytes if self.traffic_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Edge:
    """Data that one kernel writes and another reads: indices into the graph's kernels."""

    source: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelGraph:
    """The kernels of one forward pass of one model on one rank."""

    model: str
    phase: Phase
    batch_size: int
    query_tokens: int  # of each sequence that go through the model in this pass
    context_tokens: int  # of each sequence in the KV cache after it
    dtype: str
    attention: str
    tensor_parallel: int
    kernels: tuple[GraphKernel, ...]
    edges: tuple[Edge, ...]

    @property
    def graph_id(self) -> str:
        """Content hash, 20 hexadecimal digits."""
        return hashlib.sha256(_canonical(_content(self)).encode()).hexdigest()[:20]

    @property
    def flop(self) -> int:
        """FLOP of the pass on this rank."""
        return sum(kernel.flop for kernel in self.kernels)

    @property
    def traffic_bytes(self) -> int:
        """Memory traffic of the pass on this rank."""
        return sum(kernel.traffic_bytes for kernel in self.kernels)

    @property
    def weight_bytes(self) -> int:
        """Parameters read in the pass on this rank."""
        return sum(kernel.weight_bytes for kernel in self.kernels)

    @property
    def link_bytes(self) -> int:
        """Bytes this rank sends in the pass."""
        return sum(kernel.link_bytes for kernel in self.kernels)

    @property
    def launches(self) -> int:
        """Kernels launched in the pass on this rank."""
        return sum(kernel.launches for kernel in self.kernels)

    def of_kind(self, *kinds: KernelKind) -> tuple[GraphKernel, ...]:
        """The kernels of some kinds."""
        return tuple(kernel for kernel in self.kernels if kernel.kind in kinds)

    def validate(self) -> None:
        """Raise ``InvalidGraph``, which names the offending kernel or edge; a graph that passes is consistent."""
        problem = _header_problem(self)
        if problem is not None:
            raise InvalidGraph(f"The graph of {self.model} ({self.phase}) {problem}.\nCapture it again.")
        for number, kernel in enumerate(self.kernels):
            problem = _problem(kernel)
            if problem is not None:
                place = f"{kernel.op} in {kernel.module}" if kernel.module else kernel.op
                raise InvalidGraph(f"Kernel {number} ({place}) of the graph of {self.model}: {problem}.")
        seen: set[Edge] = set()
        for edge in self.edges:
            ends = f"The edge from kernel {edge.source!r} to {edge.target!r}"
            if not _leads_on(edge, len(self.kernels)):
                raise InvalidGraph(
                    f"{ends} of the graph of {self.model} leads nowhere: edges go from an earlier to a later one of "
                    f"the {len(self.kernels)} kernels."
                )
            if edge in seen:
                raise InvalidGraph(f"{ends} is there twice.")
            seen.add(edge)

    def to_json(self) -> str:
        """Canonical JSON: the same graph gives the same text everywhere."""
        return _canonical({"graph_id": self.graph_id, **_content(self)})

    @classmethod
    def from_json(cls, text: str) -> "KernelGraph":
        """Inverse of ``to_json``; raises ``InvalidGraph`` for anything else."""
        try:
            values = json.loads(text)
            stated = values.pop("graph_id")
            kernels, edges = values.pop("kernels"), values.pop("edges")
            if len(kernels) > MAX_KERNELS or len(edges) > 100 * MAX_KERNELS:
                raise ValueError("it is too large")
            phase = Phase(values.pop("phase"))
            graph = cls(**values, phase=phase, kernels=kernels_from(kernels), edges=edges_from(edges))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidGraph(
                f"This is no kernel graph: {error}.\n`python -m harness.graph --json` writes one."
            ) from error
        graph.validate()
        if graph.graph_id != stated:
            raise InvalidGraph(f"The graph says that it is {stated} and is {graph.graph_id}: it was changed.")
        return graph


def kernels_json(kernels: Iterable[GraphKernel]) -> str:
    """Canonical JSON list of kernels, as the dataset stores it."""
    return _canonical([_kernel_fields(kernel) for kernel in kernels])


def edges_json(edges: Iterable[Edge]) -> str:
    """Canonical JSON list of [from, to] kernel indices, as the dataset stores it."""
    return _canonical([[edge.source, edge.target] for edge in edges])


def kernels_from(values: Iterable[dict[str, Any]]) -> tuple[GraphKernel, ...]:
    """Kernels from parsed JSON; raises ``ValueError``, ``TypeError``, ``KeyError``."""
    return tuple(
        GraphKernel(**value | {"kind": KernelKind(value["kind"]), "shape": _canonical_shape(value["shape"])})
        for value in values
    )


def edges_from(values: Iterable[Any]) -> tuple[Edge, ...]:
    """Edges from parsed JSON; raises ``ValueError``, ``TypeError``."""
    return tuple(Edge(source=source, target=target) for source, target in values)


def _content(graph: KernelGraph) -> dict[str, object]:
    plain = {field.name: getattr(graph, field.name) for field in fields(graph)}
    return plain | {
        "kernels": [_kernel_fields(kernel) for kernel in graph.kernels],
        "edges": [[edge.source, edge.target] for edge in graph.edges],
    }


def _kernel_fields(kernel: GraphKernel) -> dict[str, object]:
    values = {field.name: getattr(kernel, field.name) for field in fields(kernel)}
    return values | {"shape": shape_dimensions(kernel.shape)}


def _canonical_shape(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    shape_dimensions(text)
    return text


def _canonical(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _header_problem(graph: KernelGraph) -> str | None:
    for name in _HEADER_COUNTS:
        count = getattr(graph, name)
        if type(count) is not int or count < 1:
            return f"states {name} {count!r}, and it must be a whole number from 1"
    for name in ("model", "dtype", "attention"):
        if not isinstance(getattr(graph, name), str):
            return f"states {name} {getattr(graph, name)!r}, and it must be text"
    return None if graph.kernels else "has no kernels"


def _leads_on(edge: Edge, kernels: int) -> bool:
    return type(edge.source) is int and type(edge.target) is int and 0 <= edge.source < edge.target < kernels


def _problem(kernel: GraphKernel) -> str | None:
    return _field_problem(kernel) or _count_problem(kernel)


def _field_problem(kernel: GraphKernel) -> str | None:
    for name in _COUNTS:
        count = getattr(kernel, name)
        if type(count) is not int or count < 0:
            return f"{name} is {count!r}, and must be a whole number from 0"
    for name in ("op", "dtype", "module"):
        text = getattr(kernel, name)
        if not isinstance(text, str) and (name != "module" or text is not None):
            return f"{name} is {text!r}, and must be text"
    try:
        sizes = shape_dimensions(kernel.shape)
    except ValueError as error:
        return str(error)
    return f"its shape {kernel.shape} has a negative size" if any(size < 0 for size in sizes.values()) else None


def _count_problem(kernel: GraphKernel) -> str | None:
    if kernel.launches == 0:
        return "it is never launched"
    if kernel.weight_bytes > kernel.read_bytes:
        return f"it reads {kernel.weight_bytes} bytes of weights and {kernel.read_bytes} bytes in all"
    if kernel.link_bytes and kernel.kind not in COLLECTIVES:
        return f"it sends {kernel.link_bytes} bytes over links and is no collective"
    if kernel.kind in _WORKERS and kernel.flop == 0:
        return f"a {kernel.kind} without FLOP"
    return None


COLLECTIVES = frozenset(
    {KernelKind.ALL_REDUCE, KernelKind.ALL_GATHER, KernelKind.REDUCE_SCATTER, KernelKind.ALL_TO_ALL}
)
_WORKERS = frozenset({KernelKind.GEMM, KernelKind.ATTENTION, KernelKind.MOE_GEMM})
