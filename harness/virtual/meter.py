"""The meter of one virtual GPU: what NVML would say of it, at the virtual clock."""

import hashlib
from collections.abc import Mapping
from itertools import cycle as endlessly
from typing import Final, Protocol

import numpy as np

from harness.errors import MeterCause, MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import Conditions, DeviceFacts, closed
from harness.records import Provenance
from harness.virtual.evolution import Evolution
from harness.virtual.faults import OF_THE_GPU, Fault, FaultKind, only
from harness.virtual.gpu import VirtualGpu
from harness.virtual.sensor import Draws, EnergyCounter, PowerField, View, normal, uniform

STEP_S: Final = 0.1  # what is said of NVML's counters; what this one does is for software to find out
_COUNTER: Final = "energy counter"
_LATENCIES = 1021
_REFUSED = (FaultKind.NO_PERMISSION, FaultKind.NOT_SUPPORTED)
# By fault: the cause, what the driver would answer and why, and what to do.
_ADVICE: Final[Mapping[FaultKind, tuple[MeterCause, str, str]]] = {
    FaultKind.LOST: (
        MeterCause.DEVICE_LOST,
        "the driver answered 'GPU is lost' (15): the GPU fell off the bus or was taken away",
        "Reset the GPU or reboot, then run again: finished runs are kept.",
    ),
    FaultKind.HANGS: (
        MeterCause.HUNG,
        "the call has not come back, so it is given up (time-out)",
        "See whether `nvidia-smi` answers; if not, reset the GPU or reboot.",
    ),
    FaultKind.NO_PERMISSION: (
        MeterCause.NO_PERMISSION,
        "the driver answered 'Insufficient Permissions' (4): it keeps this for the administrator",
        "Run as a user who may read it, or ask the administrator to lift the restriction.",
    ),
    FaultKind.NOT_SUPPORTED: (
        MeterCause.NOT_SUPPORTED,
        "the driver answered 'Not Supported' (3): this virtual GPU does not have it",
        "Use a virtual GPU whose sensor has it.",
    ),
}


class _Clock(Protocol):
    def now_s(self) -> float: ...
    def pause(self, duration_s: float) -> None: ...


class VirtualMeter:
    """The energy counter of one virtual GPU, with its power fields. Every call takes virtual time.

    Nothing it says is a measurement: provenance is ``simulated``.
    """

    method = "virtual-counter"
    provenance = Provenance.SIMULATED

    def __init__(
        self,
        gpu: VirtualGpu,
        index: int,
        *,
        seed: int,
        clock: _Clock,
        evolution: Evolution,
        faults: tuple[Fault, ...],
    ) -> None:
        self.name = f"virtual:{index}"
        self.step_s = STEP_S
        self._gpu, self._index, self._seed = gpu, index, seed
        self._label = f"{self.name} (VIRTUAL {gpu.load.hardware.name})"
        self._clock, self._evolution = clock, evolution
        self._faults = tuple(fault for fault in faults if fault.kind not in OF_THE_GPU)
        self._strangers = tuple(fault for fault in faults if fault.kind is FaultKind.FOREIGN_PROCESS)
        self._latched_j: dict[Fault, float] = {}
        self._closed = False
        self._has_counter = gpu.sensor.has("counter")
        key = (seed, 1 + index)
        draw = np.random.default_rng(key)
        half_s = gpu.sensor.read_latency_s + gpu.sensor.read_latency_jitter_s * draw.uniform(size=_LATENCIES)
        self._half_latencies_s = endlessly((half_s / 2).tolist())
        self._build_sensor(View(timeline=evolution.timeline, gpu=index, sensor=gpu.sensor), draw, key)

    def _build_sensor(self, view: View, draw: np.random.Generator, key: tuple[int, ...]) -> None:
        sensor = view.sensor
        phases = draw.uniform(size=3)
        self._counter = EnergyCounter(
            view,
            phase_s=phases[0] * sensor.counter_period_s,
            origin_j=float(draw.integers(10_000, 10_000_000)),  # since the driver was loaded
            noise=Draws((*key, 1), normal),
            jitter=Draws((*key, 2), uniform),
        )
        self._instant = PowerField(
            view,
            phase_s=(phases[1] - 1) * sensor.instant_period_s,
            period_s=sensor.instant_period_s,
            window_s=sensor.duty_period_s,
            noise=Draws((*key, 3), normal),
        )
        self._average = PowerField(
            view,
            phase_s=(phases[2] - 1) * sensor.average_period_s,
            period_s=sensor.average_period_s,
            window_s=sensor.average_window_s,
            noise=Draws((*key, 4), normal),
        )

    # ---- energy and power ----

    def read_j(self) -> float:
        """Joules since an arbitrary origin, as of the counter's last move.

        Raises ``MeterUnavailable`` for a sensor without counter and ``MeterFailed`` for a fault.
        """
        if self._closed:
            raise closed(self.name)
        if not self._has_counter:
            raise self._error(FaultKind.NOT_SUPPORTED, _COUNTER, MeterUnavailable)
        half_s = next(self._half_latencies_s)
        self._clock.pause(half_s)
        now_s = self._clock.now_s()
        value_j = self._faulty_j(now_s) if self._faults else self._counter.at(now_s)
        self._clock.pause(half_s)
        return value_j

    def instant_power_w(self) -> float:
        """NVML's POWER_INSTANT; raises as ``read_j``."""
        return self._power_w(self._instant, "instant")

    def average_power_w(self) -> float:
        """NVML's PowerUsage, a trailing mean; raises as ``read_j``."""
        return self._power_w(self._average, "average")

    def open(self) -> None:
        """Read again after ``close``: the sensor has gone on."""
        self._closed = False

    def close(self) -> None:
        """Let go of the counter."""
        self._closed = True

    def catch_up(self) -> float:
        """Let the sensor see all that happened so far; gives the time before which it will not look again."""
        now_s = self._clock.now_s()
        self._latch_faults(now_s)
        self._counter.at(now_s)
        sensor = self._gpu.sensor
        windows_s = sensor.average_window_s + sensor.average_period_s + sensor.duty_period_s + sensor.instant_period_s
        return now_s - windows_s - sensor.counter_period_s - sensor.counter_jitter_s

    # ---- the device ----

    def conditions(self, *, powers: bool = True) -> Conditions:
        """What the sensor tells of the device; nothing if it is lost or hangs."""
        half_s = next(self._half_latencies_s)
        self._clock.pause(half_s)
        told = Conditions()
        if self._dead() is None:
            told = self._told(self._clock.now_s(), powers=powers)
        self._clock.pause(half_s)
        return told

    def facts(self) -> DeviceFacts:
        """What it stands for, with a name that says that it is virtual."""
        identity = f"virtual:{self._gpu.name}:{self._seed}:{self._index}"
        load = self._gpu.load
        return DeviceFacts(
            name=f"VIRTUAL {load.hardware.name}",
            uuid_sha256=hashlib.sha256(identity.encode()).hexdigest(),
            power_limit_w=self._evolution.power_limit_w(self._index, self._clock.now_s()),
            set_power_limit_w=load.power_limit_w,
            memory_bytes=load.hardware.memory_bytes,
        )

    def _told(self, now_s: float, *, powers: bool) -> Conditions:
        has, index, timeline = self._gpu.sensor.has, self._index, self._evolution.timeline
        block = timeline.block_at(self._instant.renewed_s(now_s))
        average_w = self._average.at(now_s) if powers and has("average") else None
        return Conditions(
            sm_clock_mhz=timeline.clock_mhz(index, block) if has("clocks") else None,
            temperature_c=float(round(timeline.temperature_c(index, block))) if has("temperature") else None,
            power_w=self._instant.at(now_s) if powers and has("instant") else None,
            reported_power_w=average_w,
            average_power_w=average_w,
            throttle_reasons=timeline.throttle(index, block) if has("throttle") else None,
            power_limit_w=self._evolution.power_limit_w(index, now_s),
            set_power_limit_w=self._gpu.load.power_limit_w,
            other_processes=sum(fault.active(now_s) for fault in self._strangers) if has("processes") else None,
        )

    def _power_w(self, field: PowerField, feature: str) -> float:
        if self._closed:
            raise closed(self.name)
        if not self._gpu.sensor.has(feature):
            raise self._error(FaultKind.NOT_SUPPORTED, f"{feature} power", MeterUnavailable)
        half_s = next(self._half_latencies_s)
        self._clock.pause(half_s)
        if (dead := self._dead()) is not None:
            raise self._error(dead, f"{feature} power", MeterFailed)
        value_w = field.at(self._clock.now_s())
        self._clock.pause(half_s)
        return value_w

    # ---- faults ----

    def _dead(self) -> FaultKind | None:
        """Why the GPU does not answer; a call that hangs takes its time."""
        now_s = self._clock.now_s()
        if (hanging := only(self._faults, FaultKind.HANGS, now_s)) is not None:
            self._clock.pause(hanging.amount)
            return FaultKind.HANGS
        return FaultKind.LOST if only(self._faults, FaultKind.LOST, now_s) is not None else None

    def _faulty_j(self, now_s: float) -> float:
        if (dead := self._dead()) is not None:
            raise self._error(dead, _COUNTER, MeterFailed)
        for kind in _REFUSED:
            if only(self._faults, kind, now_s) is not None:
                raise self._error(kind, _COUNTER, MeterFailed)
        self._latch_faults(now_s)
        value_j = self._counter.at(now_s)
        for fault, latched_j in self._latched_j.items():
            if fault.active(now_s):
                value_j = _distorted_j(fault, value_j, latched_j)
        return value_j

    def _latch_faults(self, now_s: float) -> None:
        """Keep what the counter showed when each fault began: its past cannot be asked for later."""
        due = [fault for fault in self._faults if fault.at_s <= now_s and fault not in self._latched_j]
        for fault in sorted(due, key=lambda fault: fault.at_s):
            self._latched_j[fault] = self._counter.at(fault.at_s)

    def _error(self, kind: FaultKind, what: str, failure: type[MeterError]) -> MeterError:
        cause, why, remedy = _ADVICE[kind]
        return failure(f"{self._label}: {what}: {why}.\n{remedy}", cause=cause)


def _distorted_j(fault: Fault, value_j: float, latched_j: float) -> float:
    """What a counter shows under a fault that began when it showed ``latched_j``."""
    if fault.kind is FaultKind.STANDS_STILL:
        return latched_j
    if fault.kind is FaultKind.JUMPS:
        return value_j + fault.amount
    if fault.kind is FaultKind.GOES_BACK:
        return value_j - latched_j + fault.amount
    return value_j
