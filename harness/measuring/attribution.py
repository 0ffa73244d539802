"""Share a phase's measured energy among its kernels and the gaps between them (method ``apportioned``).

A kernel lasts microseconds and a counter moves every 20–100 ms, so a kernel's energy is never read. Here the phase's
energy is split by modelled power × measured time, scaled so that kernels and host gaps fill the phase exactly.

Modelled active power of a kernel, as a share of the board's range above idle:

    busy + compute · (FLOP/s ÷ peak FLOP/s) + memory · (bytes/s ÷ peak bytes/s)

The linear form is that of Hong and Kim (ISCA 2010, "An integrated GPU power and performance model"); the three
shares are assumptions, fitted to nothing, chosen so that a kernel at peak bandwidth draws about half of the board
power and one at peak FLOP/s about all of it, as public kernel measurements of recent data-centre GPUs show.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.tracing.timeline import TracedKernel

IDLE_SHARE = 0.17  # idle power with a context resident, of board power, on public A100 and H100 measurements
BUSY_SHARE = 0.15
COMPUTE_SHARE = 0.65
MEMORY_SHARE = 0.30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Ceilings of one device for the run's dtype; None where unknown: that term is left out for every kernel."""

    flop_per_s: float | None
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelShare:
    """What one kernel of a phase took."""

    kernel: TracedKernel
    duration_s: float
    energy_j: float
    active_energy_j: float

    @property
    def wait_s(self) -> float | None:
        """Part of ``duration_s`` in which a collective waited, as the trace saw it; None where it does not say."""
        kernel = self.kernel
        if kernel.wait_s is None:
            return None
        untraced = self.duration_s / kernel.traced_duration_s if kernel.traced_duration_s > 0 else 1.0
        return kernel.wait_s * untraced


@dataclass(frozen=True, slots=True, kw_only=True)
class Apportionment:
    """A phase's energy, split: Σ kernels' ``energy_j`` + ``host_gap_energy_j`` = the phase's energy."""

    kernels: tuple[KernelShare, ...]
    host_gap_energy_j: float
    host_gap_s: float


def modelled_shares(kernels: Sequence[TracedKernel], ceilings: Ceilings) -> tuple[float, ...]:
    """Each kernel's share of the energy of all of them, by the model above and an assumed idle power: a guess.

    It decides which kernels are worth a loop of their own, before anything has been measured.
    """
    weights = [
        IDLE_SHARE * kernel.traced_duration_s
        + (1 - IDLE_SHARE) * _active_weight(kernel, kernel.traced_duration_s, ceilings)
        for kernel in kernels
    ]
    total = sum(weights)
    return tuple(weight / total if total > 0 else 0.0 for weight in weights)


def untraced_durations_s(kernels: Sequence[TracedKernel], duration_s: float) -> tuple[float, ...]:
    """Durations of the kernels in a pass without the profiler, which lasted ``duration_s``.

    The profiler makes operators on a CPU look longer. Where their sum exceeds the untraced pass, all are shortened by
    the same factor; otherwise they stand as traced.
    """
    traced_s = sum(kernel.traced_duration_s for kernel in kernels)
    factor = min(1.0, duration_s / traced_s) if traced_s > 0 else 1.0
    return tuple(kernel.traced_duration_s * factor for kernel in kernels)


def apportion(
    kernels: Sequence[TracedKernel],
    *,
    energy_j: float,
    duration_s: float,
    idle_power_w: float,
    ceilings: Ceilings,
    host_is_device: bool,
) -> Apportionment:
    """Split ``energy_j`` of one pass lasting ``duration_s`` among its kernels and host gaps.

    Every second is charged idle power; what the phase drew above idle is shared by modelled active power × time, in
    which a host gap draws none on a GPU and the busy share where the host is the device (a run on the CPU). Where
    nothing was drawn above idle (or no kernel ran) everything goes by time alone.
    """
    durations_s = untraced_durations_s(kernels, duration_s)
    gap_s = max(0.0, duration_s - sum(durations_s))
    active_j = energy_j - idle_power_w * duration_s
    weights = [_active_weight(kernel, time_s, ceilings) for kernel, time_s in zip(kernels, durations_s, strict=True)]
    gap_weight = BUSY_SHARE * gap_s if host_is_device else 0.0
    total = sum(weights) + gap_weight
    if active_j <= 0 or sum(weights) <= 0:
        return _by_time(kernels, durations_s, gap_s, energy_j, duration_s, idle_power_w)
    shares = tuple(
        KernelShare(
            kernel=kernel,
            duration_s=time_s,
            energy_j=idle_power_w * time_s + active_j * weight / total,
            active_energy_j=active_j * weight / total,
        )
        for kernel, time_s, weight in zip(kernels, durations_s, weights, strict=True)
    )
    host_gap_energy_j = idle_power_w * gap_s + active_j * gap_weight / total
    return Apportionment(kernels=shares, host_gap_energy_j=host_gap_energy_j, host_gap_s=gap_s)


def _active_weight(kernel: TracedKernel, duration_s: float, ceilings: Ceilings) -> float:
    """Modelled active power × time, in units of the board's range above idle × seconds."""
    weight = BUSY_SHARE * duration_s
    if ceilings.flop_per_s is not None and kernel.flop is not None:
        weight += COMPUTE_SHARE * min(duration_s, kernel.flop / ceilings.flop_per_s)
    if ceilings.bytes_per_s is not None and kernel.read_bytes is not None and kernel.write_bytes is not None:
        weight += MEMORY_SHARE * min(duration_s, (kernel.read_bytes + kernel.write_bytes) / ceilings.bytes_per_s)
    return weight


def _by_time(
    kernels: Sequence[TracedKernel],
    durations_s: Sequence[float],
    gap_s: float,
    energy_j: float,
    duration_s: float,
    idle_power_w: float,
) -> Apportionment:
    power_w = energy_j / duration_s
    active_power_w = (energy_j - idle_power_w * duration_s) / duration_s  # its sign is that of what is left above idle
    shares = tuple(
        KernelShare(
            kernel=kernel,
            duration_s=time_s,
            energy_j=power_w * time_s,
            active_energy_j=active_power_w * time_s,
        )
        for kernel, time_s in zip(kernels, durations_s, strict=True)
    )
    return Apportionment(kernels=shares, host_gap_energy_j=power_w * gap_s, host_gap_s=gap_s)
