"""The meter protocol, the clocks, and the records a meter answers with."""

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from harness.errors import MeterCause, MeterFailed
from harness.records import Provenance


class Clock(Protocol):
    """Where durations come from; never the wall clock."""

    def now_s(self) -> float:
        """Seconds since an arbitrary, fixed origin. Never decreases."""
        ...


class MonotonicClock:
    """The machine's finest monotonic clock; on Linux CLOCK_MONOTONIC, which all processes of a machine share."""

    __slots__ = ()

    def now_s(self) -> float:
        """Seconds since an arbitrary, fixed origin."""
        return time.perf_counter()


class ManualClock:
    """A clock that moves when told: time for tests and simulations.

    ``per_read_s`` lets it move by that much at each reading too, so that a loop that spins on it comes to an end.
    """

    __slots__ = ("_now_s", "_per_read_s")

    def __init__(self, now_s: float = 0.0, per_read_s: float = 0.0) -> None:
        self._now_s = now_s
        self._per_read_s = per_read_s

    def now_s(self) -> float:
        """Seconds since the origin."""
        self._now_s += self._per_read_s
        return self._now_s

    def advance(self, duration_s: float) -> None:
        """Let time pass; raises ``ValueError`` for a negative duration."""
        if duration_s < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-duration_s} s")
        self._now_s += duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The state of a device at one instant; ``None`` where it is not known."""

    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None  # instantaneous
    reported_power_w: float | None = None  # NVML's PowerUsage: the mean of 1 s on Ampere (but GA100) and newer
    throttle_reasons: int | None = None  # NVML clocks-event bits
    power_limit_w: float | None = None  # enforced now; a change during a run spoils it
    other_processes: int | None = None  # compute processes on the device that are not this run's
    average_power_w: float | None = None  # NVML_FI_DEV_POWER_AVERAGE: a trailing mean
    set_power_limit_w: float | None = None  # what the administrator set; power_limit_w is the one in force
    performance_state: int | None = None  # 0 is the fastest, 15 the slowest


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What does not change while a meter is open; ``None`` where it is not known."""

    name: str
    uuid_sha256: str | None = None
    driver: str | None = None
    vbios: str | None = None
    power_limit_w: float | None = None
    ecc: bool | None = None
    mig: bool | None = None
    persistence_mode: bool | None = None
    memory_bytes: int | None = None
    topology: str | None = None  # links between the devices of one bank
    set_power_limit_w: float | None = None  # what the administrator set; power_limit_w is the one in force
    most_power_w: float | None = None  # the highest limit that can be set


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterRead:
    """One look at one counter."""

    energy_j: float
    at_s: float  # middle of the read
    latency_s: float  # how long the read took


class Meter(Protocol):
    """A cumulative energy counter: an odometer, not a stopwatch."""

    step_s: float
    """How often the counter moves; windows of a few steps are noise. A default until it has been measured."""

    @property
    def name(self) -> str:
        """Which counter, as the record will say, e.g. ``nvml:0``."""
        ...

    @property
    def method(self) -> str:
        """How the energy is read: ``nvml-counter``, ``nvml-power``, ``rapl``, ``codecarbon-cpu-load`` or ``replay``."""
        ...

    @property
    def provenance(self) -> Provenance:
        """How the energy came about."""
        ...

    def read_j(self) -> float:
        """Joules since an arbitrary, fixed origin. Never decreases; raises ``MeterFailed``."""
        ...

    def close(self) -> None:
        """Let go of the counter; may be called again. Reading a closed meter raises ``MeterFailed``."""
        ...


class DeviceProbe(Protocol):
    """What can be asked about the device beside its energy."""

    def conditions(self, *, powers: bool = True) -> Conditions:
        """The device's state now. A value that cannot be had is ``None``, not an error.

        Without ``powers`` its powers are not asked for, which takes less time.
        """
        ...

    def facts(self) -> DeviceFacts:
        """What the device is."""
        ...


class DeviceMeter(Meter, DeviceProbe, Protocol):
    """A meter that knows the device it is attached to, as all meters here do."""


@runtime_checkable
class TimedMeter(Protocol):
    """A meter that reads through another thread or process, and so knows best when its counter was read."""

    def read_at(self, clock: Clock) -> CounterRead:
        """The counter, with the time on ``clock`` around the look itself; raises ``MeterFailed``."""
        ...


@runtime_checkable
class SampledMeter(Protocol):
    """A meter without a counter: it integrates samples of power, and misses what happens between them."""

    @property
    def lag_s(self) -> float:
        """Energy shows this much later than it was used."""
        ...

    def sampling95_j(self, start_s: float, end_s: float) -> float | None:
        """Half width of the 95 % interval that sampling alone gives the energy between two times; None: not known."""
        ...


def closed(name: str) -> MeterFailed:
    """The error for reading a meter after ``close``."""
    return MeterFailed(
        f"{name}: this meter is closed, so there is no counter to read.\nOpen a new one.", cause=MeterCause.CLOSED
    )
