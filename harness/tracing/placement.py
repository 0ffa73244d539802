"""Where the kernels of a graph stand on one GPU's Roofline: the time each takes at least, and what sets it.

    placed = place(graph, find("NVIDIA H100 80GB HBM3"))
    placed.kernels[0].side, placed.kernels[0].share

These times are lower bounds from published peaks, not measurements: a real kernel reaches a part of a peak, and a
launch takes some microseconds however little it does. A share is a kernel's part of the sum of these bounds.
"""

from dataclasses import dataclass, fields
from enum import StrEnum

from harness.errors import UsageError
from harness.hardware import Hardware, Peaks
from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.graph import GraphKernel, KernelGraph

_MATRIX_KINDS = frozenset({KernelKind.GEMM, KernelKind.MOE_GEMM, KernelKind.ATTENTION})
_MATRIX_SIZES = frozenset({"m", "n", "k"})


class Side(StrEnum):
    """What sets the Roofline time of a kernel."""

    COMPUTE = "compute"
    MEMORY = "memory"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedKernel:
    """One kernel of a graph on one GPU. Times are lower bounds, summed over the kernel's launches."""

    kernel: GraphKernel
    peak_flop_per_s: float | None  # that its FLOP are held against; None: it has none
    compute_s: float
    memory_s: float
    link_s: float
    side: Side
    time_s: float  # arithmetic, memory and link overlap, so only the slowest counts
    share: float  # of the graph's ``time_s``

    @property
    def launch_s(self) -> float:
        """Roofline time of one launch."""
        return self.time_s / self.kernel.launches


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedGraph:
    """All kernels of a graph on one GPU, in the graph's order. Kernels follow one another, so times add up."""

    graph: KernelGraph
    hardware: Hardware
    kernels: tuple[PlacedKernel, ...]

    @property
    def time_s(self) -> float:
        """Roofline time of the pass on this rank."""
        return sum(placed.time_s for placed in self.kernels)

    def share_of(self, side: Side) -> float:
        """Part of the time in kernels of one side, from 0 to 1."""
        return sum(placed.share for placed in self.kernels if placed.side is side)

    @property
    def side(self) -> Side:
        """What most of the time is spent on."""
        return max(Side, key=self.share_of)

    @property
    def by_share(self) -> tuple[int, ...]:
        """Indices of the kernels, those with the largest share first."""
        return tuple(sorted(range(len(self.kernels)), key=lambda index: -self.kernels[index].share))


def place(graph: KernelGraph, hardware: Hardware) -> PlacedGraph:
    """Place every kernel of a graph on a GPU.

    Time of a kernel: max(FLOP / peak, traffic / bandwidth, link bytes / link bandwidth), each over all its launches.
    Matrix products and attention are held against the dense peak of their dtype; all other arithmetic runs outside the
    tensor cores, mostly in float32, and is held against the float32 peak (that of its dtype where none is known).
    float32 products are held against float32, not TF32, as PyTorch computes them by default.

    Raises ``UsageError`` that names the figure the hardware table lacks.
    Source: Williams, Waterman, Patterson, "Roofline", Communications of the ACM 52(4), 2009.
    """
    bounds = [_bounds(kernel, hardware) for kernel in graph.kernels]
    total_s = sum(bound.time_s for bound in bounds)
    return PlacedGraph(
        graph=graph,
        hardware=hardware,
        kernels=tuple(
            PlacedKernel(
                kernel=kernel,
                peak_flop_per_s=bound.peak_flop_per_s,
                compute_s=bound.compute_s,
                memory_s=bound.memory_s,
                link_s=bound.link_s,
                side=bound.side,
                time_s=bound.time_s,
                share=bound.time_s / total_s if total_s else 0.0,
            )
            for kernel, bound in zip(graph.kernels, bounds, strict=True)
        ),
    )


def is_matrix_product(kernel: GraphKernel) -> bool:
    """Whether a kernel's FLOP run on the units for matrix products: GEMMs, attention, and products inside a scan."""
    return kernel.kind in _MATRIX_KINDS or set(shape_dimensions(kernel.shape)) >= _MATRIX_SIZES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    peak_flop_per_s: float | None
    compute_s: float
    memory_s: float
    link_s: float

    @property
    def side(self) -> Side:
        """The slowest; memory where a kernel asks nothing of anything."""
        times = {Side.MEMORY: self.memory_s, Side.COMPUTE: self.compute_s, Side.LINK: self.link_s}
        return max(times, key=lambda side: times[side])

    @property
    def time_s(self) -> float:
        return max(self.compute_s, self.memory_s, self.link_s)


def _bounds(kernel: GraphKernel, hardware: Hardware) -> _Bounds:
    peak = _peak_flop_per_s(kernel, hardware) if kernel.flop else None
    return _Bounds(
        peak_flop_per_s=peak,
        compute_s=kernel.flop / peak if peak else 0.0,
        memory_s=_transfer_s(kernel, kernel.traffic_bytes, hardware, "peak_bytes_per_s", hardware.peak_bytes_per_s),
        link_s=_transfer_s(kernel, kernel.link_bytes, hardware, "link_bytes_per_s", hardware.link_bytes_per_s),
    )


def _peak_flop_per_s(kernel: GraphKernel, hardware: Hardware) -> float:
    peaks = hardware.peak_flop_per_s
    if not is_matrix_product(kernel):
        if peaks.float32 is not None:
            return peaks.float32
        if kernel.dtype not in {field.name for field in fields(Peaks)}:  # integers
            raise _missing(kernel, hardware, "peak_flop_per_s.float32")
    return hardware.peak_flop_per_s_for(kernel.dtype)


def _transfer_s(
    kernel: GraphKernel, size_bytes: int, hardware: Hardware, field: str, rate_bytes_per_s: float | None
) -> float:
    if not size_bytes:
        return 0.0
    if rate_bytes_per_s is None:
        raise _missing(kernel, hardware, field)
    return size_bytes / rate_bytes_per_s


def _missing(kernel: GraphKernel, hardware: Hardware, field: str) -> UsageError:
    return UsageError(
        f"The hardware table has no {field} for {hardware.name}, which the Roofline time of {kernel.op} needs.\n"
        "Name another device with --gpu, or give the figure in a --hardware file."
    )
