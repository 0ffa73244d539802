"""Time and power of work on a virtual GPU at given clocks: the formulas of ``harness.virtual``, vectorised.

A *piece* is the work between two moments at which clocks may change, a *cycle* is one piece at given clocks.
Axes: G GPUs, S segments, K kernels, M points in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from harness.errors import UsageError
from harness.hardware import Hardware
from harness.virtual.gpu import Load
from harness.virtual.program import MATRIX_DTYPE, FloatArray, IntArray, Segments

PIECE_S = 0.25  # clocks and temperature are reconsidered about this often
_CYCLES_KEPT = 256  # per piece; one is a few kilobytes
_J_PER_PJ = 1e-12


class Cycle:
    """One piece at given clocks, as it goes on every GPU: dynamic energy (above idle and leakage) against time.

    Between two points power is constant. All GPUs start together, and end together after ``period_s``.
    """

    def __init__(self, piece: "Piece", shares: FloatArray, load: Load) -> None:
        work_s, work_j = piece.work(shares)
        gap_s = piece.gap(work_s)
        wait_s, last_s = _waits(work_s + gap_s, piece.collectives)
        self._kernel, self._kernels = piece.kernel, piece.kernels
        self._work_s, self._work_j, self._wait_s = work_s, work_j, wait_s
        self._wait_w, self._gap_w = load.wait_w, load.gap_w
        self.gap_s: FloatArray = gap_s.sum(axis=1) + last_s  # [G]
        gpus, segments = work_s.shape
        parts_s = np.zeros((gpus, 3 * segments + 2))  # from 0: wait, work, gap of each segment; at last the others
        parts_j = np.zeros_like(parts_s)
        parts_s[:, 1:-1:3], parts_j[:, 1:-1:3] = wait_s, wait_s * load.wait_w
        parts_s[:, 2:-1:3], parts_j[:, 2:-1:3] = work_s, work_j
        parts_s[:, 3:-1:3], parts_j[:, 3:-1:3] = gap_s, gap_s * load.gap_w
        parts_s[:, -1], parts_j[:, -1] = last_s, last_s * load.gap_w
        self.times_s: FloatArray = parts_s.cumsum(axis=1)  # [G, M]
        self.energies_j: FloatArray = parts_j.cumsum(axis=1)  # [G, M]
        self.period_s = float(self.times_s[:, -1].max())
        self.energy_j: FloatArray = self.energies_j[:, -1]  # [G]
        self.power_w: FloatArray = self.energy_j / self.period_s  # [G]

    def energy_at(self, gpu: int, since_s: FloatArray) -> FloatArray:
        """Dynamic energy of one GPU, this long after the first of many repetitions began."""
        repetitions = np.floor(since_s / self.period_s)
        rest_s = since_s - repetitions * self.period_s
        within_j = np.interp(rest_s, self.times_s[gpu], self.energies_j[gpu])
        return np.asarray(repetitions * self.energy_j[gpu] + within_j, dtype=np.float64)

    @property
    def gap_j(self) -> FloatArray:
        """Dynamic energy of the gaps, [G]."""
        return self.gap_s * self._gap_w

    @cached_property
    def wait_s(self) -> FloatArray:
        """Waiting for the last GPU, by kernel, [G, K]."""
        return self._by_kernel(self._wait_s)

    @property
    def wait_j(self) -> FloatArray:
        """Dynamic energy of waiting, by kernel, [G, K]."""
        return self.wait_s * self._wait_w

    @cached_property
    def kernel_s(self) -> FloatArray:
        """Time in kernels, waiting included, [G, K]."""
        return self._by_kernel(self._work_s) + self.wait_s

    @cached_property
    def kernel_j(self) -> FloatArray:
        """Dynamic energy of kernels, waiting included, [G, K]."""
        return self._by_kernel(self._work_j) + self.wait_j

    def _by_kernel(self, values: FloatArray) -> FloatArray:
        """Sum [G, S] over the segments of each kernel: [G, K]."""
        return np.stack([by_kernel(self._kernel, row, self._kernels) for row in values])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The clocks that a GPU can run at, the full one first."""

    clocks_mhz: FloatArray  # [F]

    @classmethod
    def of(cls, load: Load) -> "Ladder":
        """From the full clock down in steps, never below the lowest."""
        steps = int((load.clock_mhz - load.lowest_clock_mhz) / load.clock_step_mhz + 1e-9)
        return cls(clocks_mhz=load.clock_mhz - load.clock_step_mhz * np.arange(steps + 1.0))

    @property
    def lowest(self) -> int:
        """Rung of the lowest clock."""
        return len(self.clocks_mhz) - 1

    def rung_of_share(self, share: float) -> int:
        """The highest clock that is at most this share of the full one; the lowest if none is."""
        fitting = np.flatnonzero(self.clocks_mhz <= share * self.clocks_mhz[0])
        return int(fitting[0]) if fitting.size else self.lowest

    def share(self, rungs: Sequence[int]) -> FloatArray:
        """Clocks as shares of the full one."""
        return np.asarray(self.clocks_mhz[list(rungs)] / self.clocks_mhz[0], dtype=np.float64)


class Piece:
    """Some segments on the GPUs of one machine. Raises ``UsageError`` for a figure the hardware table lacks."""

    def __init__(
        self,
        segments: Segments,
        chosen: IntArray,
        load: Load,
        ladder: Ladder,
        speeds: FloatArray,
        host_s: float,
        late_s: float = 0.0,
    ) -> None:
        self._load, self._ladder = load, ladder
        self.kernels = len(segments.kernels)
        self.kernel = segments.kernel[chosen]  # [S]
        self.collectives = np.flatnonzero(np.array(segments.collective)[self.kernel])
        launches, flop, traffic_bytes, link_bytes = (array[chosen] for array in segments.amounts)
        peaks = _peaks(segments, load.hardware)[self.kernel]
        slowness = 1 / speeds[:, None]
        self._compute_s = flop / (peaks * load.flop_efficiency) * slowness  # [G, S]
        rate = load.bytes_efficiency * _known(load.hardware.peak_bytes_per_s, "peak_bytes_per_s", load.hardware)
        self._other_s = np.maximum(traffic_bytes / rate * slowness, self._link_s(launches, link_bytes))
        self._launch_s = launches * load.launch_s
        self._host_s = launches * host_s
        self._late_s = late_s
        unit = _unit_peak(load.hardware) / peaks  # every unit draws the same power at its own peak
        self._flop_j = flop * unit * load.pj_per_flop * _J_PER_PJ
        self._bytes_j = (traffic_bytes * load.pj_per_byte + link_bytes * load.pj_per_link_byte) * _J_PER_PJ
        self._cycles: dict[tuple[int, ...], Cycle] = {}
        self._demands_w: dict[tuple[int, int], float] = {}

    def work(self, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Device time and dynamic energy of each segment, [G, S] each, at clocks [G] as shares of the full one."""
        share = shares[:, None]
        work_s = np.maximum(self._compute_s / share, self._other_s) + self._launch_s
        if self.collectives.size:
            work_s[:, self.collectives] = work_s[:, self.collectives].max(axis=0)  # they move data in step
        exponent = self._load.dynamic_exponent
        work_j = self._load.busy_w * share**exponent * work_s + self._flop_j * share ** (exponent - 1) + self._bytes_j
        return work_s, work_j

    def gap(self, work_s: FloatArray) -> FloatArray:
        """Time that the device waits for its host to launch, [G, S]: the host launches while the device works.

        The last GPU's host is late for every collective but one that comes first.
        """
        gap_s = np.maximum(self._host_s - work_s, 0.0)
        gap_s[-1, self.collectives[self.collectives > 0] - 1] += self._late_s
        return gap_s

    def cycle(self, rungs: tuple[int, ...]) -> Cycle:
        """How the piece goes at one clock per GPU."""
        found = self._cycles.get(rungs)
        if found is None:
            if len(self._cycles) >= _CYCLES_KEPT:
                self._cycles.clear()
            found = self._cycles[rungs] = Cycle(self, self._ladder.share(rungs), self._load)
        return found

    def rung_within(self, gpu: int, budget_w: float, from_rung: int) -> int:
        """The highest clock at which a GPU's mean dynamic power, waiting apart, stays within a budget.

        The lowest clock where none does. Dynamic power falls with the clock, so the rung is found by halving.
        """
        low, high = from_rung, self._ladder.lowest
        if low >= high or self._demand_w(gpu, low) <= budget_w:
            return low
        while high - low > 1:
            middle = (low + high) // 2
            if self._demand_w(gpu, middle) <= budget_w:
                high = middle
            else:
                low = middle
        return high

    def _demand_w(self, gpu: int, rung: int) -> float:
        demand_w = self._demands_w.get((gpu, rung))
        if demand_w is None:
            shares = self._ladder.share([rung] * len(self._compute_s))
            work_s, work_j = self.work(shares)
            gap_s = self.gap(work_s)
            demands_w = (work_j.sum(axis=1) + self._load.gap_w * gap_s.sum(axis=1)) / (work_s + gap_s).sum(axis=1)
            for other, value in enumerate(demands_w.tolist()):
                self._demands_w[other, rung] = value
            demand_w = self._demands_w[gpu, rung]
        return demand_w

    def _link_s(self, launches: FloatArray, link_bytes: FloatArray) -> FloatArray:
        """Latency and transfer of collectives, [S]; 0 for other segments."""
        link_s = np.zeros_like(link_bytes)
        link_s[self.collectives] = launches[self.collectives] * self._load.link_latency_s
        if link_bytes.any():
            hardware = self._load.hardware
            rate = self._load.link_efficiency * _known(hardware.link_bytes_per_s, "link_bytes_per_s", hardware)
            link_s += link_bytes / rate
        return link_s


def pieces_of(
    segments: Segments, load: Load, speeds: FloatArray, host_s: float, late_s: float = 0.0
) -> tuple[Piece, ...]:
    """Cut work where clocks may change: about every ``PIECE_S`` at the full clock.

    With several GPUs only after a collective, because elsewhere they are not at the same point.
    """
    ladder = Ladder.of(load)
    whole = Piece(segments, np.arange(segments.kernel.size), load, ladder, speeds, host_s, late_s)
    work_s, _ = whole.work(np.ones(len(speeds)))
    if not (work_s + whole.gap(work_s)).any():
        raise UsageError("This work takes no time on the virtual GPU: it has no FLOP, no bytes and no launch cost.")
    nominal = whole.cycle((0,) * len(speeds))
    if nominal.period_s <= PIECE_S:
        return (whole,)
    ends_s = nominal.times_s[0, 3:-1:3]  # [S]
    collective = np.zeros(segments.kernel.size, dtype=bool)
    collective[whole.collectives] = True
    may_end = collective if len(speeds) > 1 else np.ones_like(collective)
    cuts = [0]
    begun_s = 0.0
    for index in np.flatnonzero(may_end).tolist():
        if ends_s[index] - begun_s >= PIECE_S:
            cuts.append(index + 1)
            begun_s = float(ends_s[index])
    if ends_s[-1] > begun_s:
        cuts.append(segments.kernel.size)
    else:  # what is left takes no time
        cuts[-1] = segments.kernel.size
    return tuple(Piece(segments, np.arange(a, b), load, ladder, speeds, host_s, late_s) for a, b in pairwise(cuts))


def by_kernel(kernel: IntArray, values: FloatArray, kernels: int) -> FloatArray:
    """Sum of values, [S], over the segments of each kernel, [K]."""
    return np.asarray(np.bincount(kernel, weights=values, minlength=kernels), dtype=np.float64)


def _peaks(segments: Segments, hardware: Hardware) -> FloatArray:
    """Peak FLOP/s by kernel, [K]; that of 16-bit products for a kernel that computes nothing."""
    unit, flop = _unit_peak(hardware), by_kernel(segments.kernel, segments.flop, len(segments.kernels))
    return np.array([hardware.peak_flop_per_s_for(segments.dtype_of(k)) if flop[k] else unit for k in range(len(flop))])


def _unit_peak(hardware: Hardware) -> float:
    peaks = hardware.peak_flop_per_s
    peak = getattr(peaks, MATRIX_DTYPE) or peaks.float16
    return _known(peak, f"peak_flop_per_s.{MATRIX_DTYPE}", hardware)


def _known(figure: float | None, key: str, hardware: Hardware) -> float:
    if figure is None:
        raise UsageError(
            f"The hardware table has no {key} for {hardware.name}, which its virtual GPU needs.\n"
            "Give the figure in a --hardware file."
        )
    return figure


def _waits(own_s: FloatArray, collectives: IntArray) -> tuple[FloatArray, FloatArray]:
    """How long each GPU waits before each segment, [G, S], and at the end for the last GPU, [G].

    ``own_s`` is the time that each segment takes each GPU. A collective starts when the last GPU arrives and moves data
    in step: a GPU waits by what others are slower from one collective to the next.
    """
    waits_s = np.zeros_like(own_s)
    done_s = own_s.cumsum(axis=1)
    arrived_s = done_s[:, collectives] - own_s[:, collectives]
    stretches_s = np.diff(arrived_s, axis=1, prepend=0.0)
    waits_s[:, collectives] = stretches_s.max(axis=0) - stretches_s
    rest_s = done_s[:, -1] - (arrived_s[:, -1] if collectives.size else 0.0)
    return waits_s, rest_s.max() - rest_s
