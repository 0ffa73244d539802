"""What a virtual GPU is given to do: segments, each some launches of one kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.tracing.graph import COLLECTIVES, GraphKernel, KernelGraph
from harness.tracing.placement import is_matrix_product

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MATRIX_DTYPE = "bfloat16"  # what pj_per_flop of a virtual GPU refers to


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Work in order: S segments of K kernels. Amounts are totals over the launches of a segment."""

    kernels: tuple[str, ...]  # [K] names; truth is kept by them
    collective: tuple[bool, ...]  # [K] whether it starts only when all GPUs have arrived
    dtypes: tuple[str, ...] = ()  # [K] whose peak its FLOP are held against; empty: bfloat16
    kernel: IntArray  # [S] index into kernels
    launches: FloatArray  # [S]
    flop: FloatArray  # [S]
    traffic_bytes: FloatArray  # [S]
    link_bytes: FloatArray  # [S] that each GPU sends

    def __post_init__(self) -> None:
        sizes = {array.shape for array in (self.kernel, *self.amounts)}
        if len(sizes) != 1 or len(next(iter(sizes))) != 1 or not self.kernel.size:
            raise ValueError(f"segments need arrays of one length, at least 1, not {sorted(sizes)}")
        if len(self.collective) != len(self.kernels) or len(self.dtypes) not in (0, len(self.kernels)):
            raise ValueError("segments need one collective flag, and one or no dtype, per kernel")
        if len(set(self.kernels)) != len(self.kernels):
            raise ValueError("two kernels of these segments have the same name, so their truth could not be told apart")
        if not 0 <= self.kernel.min() <= self.kernel.max() < len(self.kernels):
            raise ValueError("a segment names a kernel that is not there")
        if any(not np.all(np.isfinite(array)) or array.min() < 0 for array in self.amounts) or self.launches.min() == 0:
            raise ValueError("amounts of work are finite and not negative, and each segment is launched")

    @property
    def amounts(self) -> tuple[FloatArray, ...]:
        """Launches, FLOP, traffic and link bytes, each [S]."""
        return (self.launches, self.flop, self.traffic_bytes, self.link_bytes)

    def dtype_of(self, kernel: int) -> str:
        """The dtype whose peak the FLOP of a kernel are held against."""
        return self.dtypes[kernel] if self.dtypes else MATRIX_DTYPE

    def only(self, name: str) -> "Segments":
        """The segments of one kernel, as a replay of it alone wants them; raises ``ValueError`` for an unknown one."""
        index = self.kernels.index(name)
        mine = self.kernel == index
        return Segments(
            kernels=(name,),
            collective=(self.collective[index],),
            dtypes=(self.dtype_of(index),),
            kernel=np.zeros(int(mine.sum()), dtype=np.int64),
            **dict(zip(_AMOUNTS, (array[mine] for array in self.amounts), strict=True)),
        )


_AMOUNTS = ("launches", "flop", "traffic_bytes", "link_bytes")


def segments_of(graph: KernelGraph, *, name: Callable[[int], str] | None = None, rounds: int = 1) -> Segments:
    """The kernels of a graph in its order, all launches of a kernel one after another.

    ``name`` gives the name of a kernel by its index in the graph; by default index and operator, ``3:aten::mm``. With
    as many ``rounds`` as the model has layers, what layers repeat is spread over rounds, as it is in truth.
    """
    kernels = graph.kernels
    named = name or (lambda index: f"{index}:{kernels[index].op}")
    whole = Segments(
        kernels=tuple(named(index) for index in range(len(kernels))),
        collective=tuple(kernel.kind in COLLECTIVES for kernel in kernels),
        dtypes=tuple(_dtype(kernel) for kernel in kernels),
        kernel=np.arange(len(kernels), dtype=np.int64),
        launches=np.array([kernel.launches for kernel in kernels], dtype=np.float64),
        flop=np.array([kernel.flop for kernel in kernels], dtype=np.float64),
        traffic_bytes=np.array([kernel.traffic_bytes for kernel in kernels], dtype=np.float64),
        link_bytes=np.array([kernel.link_bytes for kernel in kernels], dtype=np.float64),
    )
    return whole if rounds == 1 else _in_rounds(whole, rounds)


def joined(parts: Sequence[Segments]) -> Segments:
    """One after another: the steps of a decode, or a prefill and its decode. Kernels of one name become one.

    Raises ``ValueError`` where two kernels of one name differ in dtype or in being a collective.
    """
    known: dict[str, tuple[bool, str]] = {}
    for part in parts:
        for index, name in enumerate(part.kernels):
            nature = (part.collective[index], part.dtype_of(index))
            if known.setdefault(name, nature) != nature:
                raise ValueError(f"two kernels are called {name!r} and differ in dtype or in being a collective")
    place = {name: index for index, name in enumerate(known)}
    return Segments(
        kernels=tuple(known),
        collective=tuple(collective for collective, _ in known.values()),
        dtypes=tuple(dtype for _, dtype in known.values()),
        kernel=np.concatenate(
            [np.array([place[name] for name in part.kernels], dtype=np.int64)[part.kernel] for part in parts]
        ),
        **{key: np.concatenate([getattr(part, key) for part in parts]) for key in _AMOUNTS},
    )


def _in_rounds(segments: Segments, rounds: int) -> Segments:
    """Share out evenly all segments from the first to the last that has a launch for each round."""
    repeated = np.flatnonzero(segments.launches >= rounds)
    if not repeated.size:
        return segments
    first, end, size = int(repeated[0]), int(repeated[-1]) + 1, segments.kernel.size
    order = np.concatenate([np.arange(first), np.tile(np.arange(first, end), rounds), np.arange(end, size)])
    share = np.where((order >= first) & (order < end), 1 / rounds, 1.0)
    amounts = {key: getattr(segments, key)[order] * share for key in _AMOUNTS}
    return replace(segments, kernel=segments.kernel[order], **amounts)


def _dtype(kernel: GraphKernel) -> str:
    """Arithmetic outside matrix products runs outside the tensor cores, mostly in float32, as in ``placement``."""
    return kernel.dtype if is_matrix_product(kernel) else "float32"
