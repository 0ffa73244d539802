"""Which meters measure a run, and why not better ones."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness.errors import MeterCause, MeterError, MeterFailed, MeterUnavailable, UsageError
from harness.meters.base import (
    Clock,
    Conditions,
    CounterRead,
    DeviceFacts,
    DeviceMeter,
    MonotonicClock,
    SampledMeter,
    TimedMeter,
)
from harness.meters.estimate import EstimateMeter
from harness.meters.gpus import GpuSearch, chosen_gpus, find_gpus, topology
from harness.meters.nvml import NvmlMeter
from harness.meters.nvml_device import GpuHandle
from harness.meters.nvml_power import open_power_meters
from harness.meters.period import measure_step_s, measure_steps_s
from harness.meters.power import Sampler
from harness.meters.rapl import POWERCAP, RaplMeter
from harness.meters.sampler import PowerSampler

__all__ = ["CounterRead", "GpuSearch", "MeterBank", "describe", "find_gpus", "meters_for"]

_DEAD_AFTER_S = 0.2  # a live RAPL counter moves two hundred times in it, even idle


class MeterBank:
    """All counters of a run behind one reader.

    At the start of a window the counters are read in the order 0 … N−1, at its end N−1 … 0, so the windows of the
    devices are nested and share their middle; each carries its own times. ``why`` says how the meters were chosen.
    """

    def __init__(
        self,
        meters: Sequence[DeviceMeter],
        clock: Clock,
        *,
        why: str,
        links: str | None = None,
        new_sampler: Callable[[], Sampler] | None = None,
    ) -> None:
        self.meters = tuple(meters)
        self.clock = clock
        self.why = why
        self._links = links
        self._new_sampler = new_sampler
        self._timed = {id(meter): meter for meter in self.meters if isinstance(meter, TimedMeter)}
        kinds = {(meter.provenance, meter.method) for meter in self.meters}
        if len(kinds) != 1:
            raise ValueError(f"a bank holds meters of one kind, not {len(kinds)}: provenance is never mixed")
        ((self.provenance, self.method),) = kinds

    @property
    def name(self) -> str:
        """The counters, as the record of the environment says them."""
        return ", ".join(meter.name for meter in self.meters)

    @property
    def step_s(self) -> float:
        """The step of the slowest counter."""
        return max(meter.step_s for meter in self.meters)

    @property
    def lag_s(self) -> float:
        """Energy shows at most this much later than it was used; 0 for counters."""
        return max(meter.lag_s if isinstance(meter, SampledMeter) else 0.0 for meter in self.meters)

    def read_start(self) -> tuple[CounterRead, ...]:
        """Read all counters, the first one first; one read per device, in the order of the devices."""
        return tuple(self._read(meter) for meter in self.meters)

    def read_end(self) -> tuple[CounterRead, ...]:
        """Read all counters, the last one first; one read per device, in the order of the devices."""
        return tuple(reversed([self._read(meter) for meter in reversed(self.meters)]))

    def read(self, device: int) -> CounterRead:
        """Read one counter."""
        return self._read(self.meters[device])

    def conditions(self, *, powers: bool = True) -> tuple[Conditions, ...]:
        """The state of each device now."""
        return tuple(meter.conditions(powers=powers) for meter in self.meters)

    def facts(self) -> tuple[DeviceFacts, ...]:
        """What each device is, with the links between them."""
        return tuple(replace(meter.facts(), topology=self._links) for meter in self.meters)

    def sampling95_j(self, start_s: float, end_s: float) -> tuple[float | None, ...] | None:
        """What integrating samples of power adds to the uncertainty of each device's energy between two times.

        Half widths of 95 % intervals; None for a device whose samples do not reach that far. None altogether for
        counters, which miss nothing.
        """
        sampled = [meter for meter in self.meters if isinstance(meter, SampledMeter)]
        return tuple(meter.sampling95_j(start_s, end_s) for meter in sampled) if sampled else None

    def sampler(self) -> Sampler | None:
        """A sampler of the power of these devices, in their order, not started yet; ``None`` where there is none."""
        return None if self._new_sampler is None else self._new_sampler()

    def measure_steps(self, max_wait_s: float = 2.0) -> None:
        """Set each meter's ``step_s`` to what its counter does here; raises ``MeterFailed`` if one stands still."""
        for meter, step_s in zip(self.meters, measure_steps_s(self.meters, self.clock, max_wait_s), strict=True):
            if step_s is None:
                raise MeterFailed(
                    f"{meter.name}: the counter stood still for {max_wait_s:g} s, so it would read as 0 J.\n"
                    "Check it with `python -m harness.doctor`; a GPU may need its driver reloaded.",
                    cause=MeterCause.COUNTER_STOOD_STILL,
                )
            meter.step_s = step_s

    def close(self) -> None:
        """Let go of all counters; may be called again."""
        for meter in self.meters:
            meter.close()

    def _read(self, meter: DeviceMeter) -> CounterRead:
        timed = self._timed.get(id(meter))
        if timed is not None:
            return timed.read_at(self.clock)
        before_s = self.clock.now_s()
        energy_j = meter.read_j()
        after_s = self.clock.now_s()
        return CounterRead(energy_j=energy_j, at_s=(before_s + after_s) / 2, latency_s=after_s - before_s)


def meters_for(
    device: str,
    *,
    gpu_indices: Sequence[int] = (0,),
    own_pids: frozenset[int] | None = None,
    clock: Clock | None = None,
    powercap: Path = POWERCAP,
    environ: Mapping[str, str] = os.environ,
    allow_sampled_power: bool = False,
) -> MeterBank:
    """Open the best meters for ``cuda`` or ``cpu``; raises ``MeterUnavailable``.

    ``gpu_indices`` are CUDA's numbers of the GPUs in use, ``own_pids`` the processes of this run on them. A GPU has
    its counter or nothing, unless ``allow_sampled_power`` lets GPUs without one be integrated from samples of their
    power (all of them then, so that a bank stays of one kind). On the CPU an estimate stands in for RAPL. ``why`` says
    which it is.
    """
    clock = clock or MonotonicClock()
    if device == "cuda":
        return _gpu_bank(tuple(gpu_indices), own_pids, clock, environ, allow_sampled_power)
    if device == "cpu":
        return _cpu_bank(clock, powercap)
    raise UsageError(f"no meter is known for the device {device!r}: it must be cuda or cpu.")


def _gpu_bank(
    indices: Sequence[int],
    own_pids: frozenset[int] | None,
    clock: Clock,
    environ: Mapping[str, str],
    allow_sampled_power: bool,
) -> MeterBank:
    gpus = chosen_gpus(indices, environ)
    links = topology(gpus)
    try:
        meters = _counters(gpus, indices, own_pids, clock)
    except MeterUnavailable as error:
        if error.cause is not MeterCause.NOT_SUPPORTED or not allow_sampled_power:
            raise
        sampled = open_power_meters(gpus, indices, own_pids, _sampler_of(gpus))
        why = f"integrated from sampled power, as was allowed, because a GPU has no counter. {_first_line(error)}"
        return MeterBank(sampled, clock, why=why, links=links, new_sampler=lambda: _sampler_of(gpus))
    why = "NVML's energy counter, one per GPU"
    return MeterBank(meters, clock, why=why, links=links, new_sampler=lambda: _sampler_of(gpus))


def _counters(
    gpus: Sequence[GpuHandle], indices: Sequence[int], own_pids: frozenset[int] | None, clock: Clock
) -> list[NvmlMeter]:
    with ExitStack() as on_error:
        meters: list[NvmlMeter] = []
        for index, gpu in zip(indices, gpus, strict=True):
            meters.append(NvmlMeter(gpu, index, own_pids, clock=clock))
            on_error.callback(meters[-1].close)
        on_error.pop_all()
    return meters


def _sampler_of(gpus: Sequence[GpuHandle]) -> PowerSampler:
    return PowerSampler([gpu.board_uuid for gpu in gpus])


def _cpu_bank(clock: Clock, powercap: Path) -> MeterBank:
    try:
        meter = _live_rapl(clock, powercap)
    except MeterError as error:
        estimate = EstimateMeter.of_this_machine(clock)
        return MeterBank((estimate,), clock, why=f"estimated, because no counter can be read. {_first_line(error)}")
    return MeterBank((meter,), clock, why="RAPL, the CPU's energy counter")


def _live_rapl(clock: Clock, powercap: Path) -> RaplMeter:
    meter = RaplMeter(powercap)
    if measure_step_s(meter, clock, _DEAD_AFTER_S) is None:
        meter.close()
        raise MeterUnavailable(
            f"RAPL: the counters under {powercap} stand still, as in virtual machines that only pretend to have them.\n"
            "Measure on the machine itself.",
            cause=MeterCause.COUNTER_STOOD_STILL,
        )
    return meter


def _first_line(error: MeterError) -> str:
    """What happened and why; the remedy is the doctor's to tell."""
    return str(error).splitlines()[0]


def describe(bank: MeterBank) -> str:
    """The bank with its provenance, as the record of the environment says it: ``nvml:0 (measured)``."""
    return f"{bank.name} ({bank.provenance.value})"
