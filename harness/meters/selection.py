"""Which meters measure a run, and why not better ones."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import MeterError, MeterFailed, MeterUnavailable, UsageError
from harness.meters.base import Clock, Conditions, DeviceFacts, DeviceMeter, MonotonicClock
from harness.meters.estimate import EstimateMeter
from harness.meters.nvml import GpuHandle, NvmlMeter, topology, visible_gpus
from harness.meters.period import measure_step_s, measure_steps_s
from harness.meters.rapl import POWERCAP, RaplMeter
from harness.meters.visible import ORDER_VARIABLE, PCI_ORDER, VARIABLE, order_is_certain

_DEAD_AFTER_S = 0.2  # a live RAPL counter moves two hundred times in it, even idle


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterRead:
    """One look at one counter."""

    energy_j: float
    at_s: float  # middle of the read
    latency_s: float  # how long the read took


class MeterBank:
    """All counters of a run behind one reader.

    At the start of a window the counters are read in the order 0 … N−1, at its end N−1 … 0, so the windows of the
    devices are nested and share their middle; each carries its own times. ``why`` says how the meters were chosen.
    """

    def __init__(self, meters: Sequence[DeviceMeter], clock: Clock, *, why: str, links: str | None = None) -> None:
        self.meters = tuple(meters)
        self.clock = clock
        self.why = why
        self._links = links
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

    def read_start(self) -> tuple[CounterRead, ...]:
        """Read all counters, the first one first; one read per device, in the order of the devices."""
        return tuple(self._read(meter) for meter in self.meters)

    def read_end(self) -> tuple[CounterRead, ...]:
        """Read all counters, the last one first; one read per device, in the order of the devices."""
        return tuple(reversed([self._read(meter) for meter in reversed(self.meters)]))

    def conditions(self) -> tuple[Conditions, ...]:
        """The state of each device now."""
        return tuple(meter.conditions() for meter in self.meters)

    def facts(self) -> tuple[DeviceFacts, ...]:
        """What each device is, with the links between them."""
        return tuple(replace(meter.facts(), topology=self._links) for meter in self.meters)

    def measure_steps(self, max_wait_s: float = 2.0) -> None:
        """Set each meter's ``step_s`` to what its counter does here; raises ``MeterFailed`` if one stands still."""
        for meter, step_s in zip(self.meters, measure_steps_s(self.meters, self.clock, max_wait_s), strict=True):
            if step_s is None:
                raise MeterFailed(
                    f"{meter.name}: the counter stood still for {max_wait_s:g} s, so it would read as 0 J.\n"
                    "Check it with `python -m harness.doctor`; a GPU may need its driver reloaded."
                )
            meter.step_s = step_s

    def close(self) -> None:
        """Let go of all counters; may be called again."""
        for meter in self.meters:
            meter.close()

    def _read(self, meter: DeviceMeter) -> CounterRead:
        before_s = self.clock.now_s()
        energy_j = meter.read_j()
        after_s = self.clock.now_s()
        return CounterRead(energy_j=energy_j, at_s=(before_s + after_s) / 2, latency_s=after_s - before_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSearch:
    """The GPUs that CUDA will use, or why there are none."""

    gpus: tuple[GpuHandle, ...]
    why_none: str | None  # null: there are some


def find_gpus(environ: Mapping[str, str] = os.environ) -> GpuSearch:
    """Look for GPUs without importing torch; never raises for their absence."""
    try:
        gpus = visible_gpus(environ)
    except MeterUnavailable as error:
        return GpuSearch(gpus=(), why_none=str(error))
    if gpus:
        return GpuSearch(gpus=gpus, why_none=None)
    hidden = f"{VARIABLE}={environ[VARIABLE]!r} hides all GPUs" if VARIABLE in environ else "the driver lists no GPU"
    return GpuSearch(gpus=(), why_none=f"NVML works, but {hidden}.")


def meters_for(
    device: str,
    *,
    gpu_indices: Sequence[int] = (0,),
    own_pids: frozenset[int] | None = None,
    clock: Clock | None = None,
    powercap: Path = POWERCAP,
    environ: Mapping[str, str] = os.environ,
) -> MeterBank:
    """Open the best meters for ``cuda`` or ``cpu``; raises ``MeterUnavailable``.

    ``gpu_indices`` are CUDA's numbers of the GPUs in use, ``own_pids`` the processes of this run on them. A GPU has
    its counter or nothing; on the CPU an estimate stands in for RAPL, and ``why`` says so.
    """
    clock = clock or MonotonicClock()
    if device == "cuda":
        return _gpu_bank(tuple(gpu_indices), own_pids, clock, environ)
    if device == "cpu":
        return _cpu_bank(clock, powercap)
    raise UsageError(f"no meter is known for the device {device!r}: it must be cuda or cpu.")


def _gpu_bank(
    indices: Sequence[int], own_pids: frozenset[int] | None, clock: Clock, environ: Mapping[str, str]
) -> MeterBank:
    gpus = visible_gpus(environ)
    chosen = _choose(gpus, indices, environ)
    with ExitStack() as on_error:
        meters: list[NvmlMeter] = []
        for index, gpu in zip(indices, chosen, strict=True):
            meters.append(NvmlMeter(gpu, index, own_pids))
            on_error.callback(meters[-1].close)
        bank = MeterBank(meters, clock, why="NVML's energy counter, one per GPU", links=topology(chosen))
        on_error.pop_all()
    return bank


def _choose(gpus: Sequence[GpuHandle], indices: Sequence[int], environ: Mapping[str, str]) -> tuple[GpuHandle, ...]:
    missing = [index for index in indices if not 0 <= index < len(gpus)]
    if missing:
        raise MeterUnavailable(
            f"GPU {', '.join(map(str, missing))} cannot be metered: {len(gpus)} GPU(s) are visible ({VARIABLE}="
            f"{environ.get(VARIABLE, 'unset')}).\nAsk for fewer GPUs or make more visible."
        )
    if not order_is_certain(environ, [gpu.name for gpu in gpus]):
        raise MeterUnavailable(
            "The visible GPUs are of different models, which CUDA numbers by speed and NVML by bus, so energy could "
            f"be read from the wrong one.\nSet {ORDER_VARIABLE}={PCI_ORDER}, or name the GPUs by UUID in {VARIABLE}."
        )
    chosen = tuple(gpus[index] for index in indices)
    if len({gpu.board_uuid for gpu in chosen}) < len(chosen):
        raise MeterUnavailable(
            "Two of the chosen devices are slices of one GPU, which has one counter for all of them, so their energy "
            "would be counted twice.\nUse one slice per GPU, or whole GPUs."
        )
    return chosen


def _cpu_bank(clock: Clock, powercap: Path) -> MeterBank:
    try:
        meter = _live_rapl(clock, powercap)
    except MeterError as error:
        estimate = EstimateMeter.of_this_machine(clock)
        reason = str(error).splitlines()[0]  # the remedy is the doctor's to tell
        return MeterBank((estimate,), clock, why=f"estimated, because no counter can be read. {reason}")
    return MeterBank((meter,), clock, why="RAPL, the CPU's energy counter")


def _live_rapl(clock: Clock, powercap: Path) -> RaplMeter:
    meter = RaplMeter(powercap)
    if measure_step_s(meter, clock, _DEAD_AFTER_S) is None:
        meter.close()
        raise MeterUnavailable(
            f"RAPL: the counters under {powercap} stand still, as in virtual machines that only pretend to have them.\n"
            "Measure on the machine itself."
        )
    return meter


def describe(bank: MeterBank) -> str:
    """The bank with its provenance, as the record of the environment says it: ``nvml:0 (measured)``."""
    return f"{bank.name} ({bank.provenance.value})"
