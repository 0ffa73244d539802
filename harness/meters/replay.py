"""A meter that plays a given power profile over a given clock: for tests and demonstrations."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import MeterFailed
from harness.meters.base import Clock, Conditions, DeviceFacts, closed
from harness.records import Provenance

_ROUNDING = 1e-9  # of a step: 0.3 / 0.1 must count as three whole steps


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyPoint:
    """A point of a profile: the joules used up to a time. Between two points power is constant."""

    t_s: float
    energy_j: float


class Profile:
    """Energy against time through given points; the power of the last segment goes on for ever.

    Raises ``ValueError`` unless there are two points or more, later in time and not lower in energy each.
    """

    __slots__ = ("_points", "_times_s")

    def __init__(self, points: Sequence[EnergyPoint]) -> None:
        self._points = tuple(points)
        self._times_s = [point.t_s for point in points]
        steps = list(zip(self._points, self._points[1:], strict=False))
        if not steps or any(b.t_s <= a.t_s or b.energy_j < a.energy_j for a, b in steps):
            raise ValueError("a profile needs two points or more, each later than the last and not lower in energy")

    @classmethod
    def constant(cls, power_w: float) -> "Profile":
        """The same power all the time."""
        return cls((EnergyPoint(t_s=0, energy_j=0), EnergyPoint(t_s=1, energy_j=power_w)))

    def energy_j(self, t_s: float) -> float:
        """Joules used up to a time; before the first point none are."""
        if t_s <= self._times_s[0]:
            return self._points[0].energy_j
        i = min(bisect_right(self._times_s, t_s), len(self._points) - 1)
        a, b = self._points[i - 1], self._points[i]
        return a.energy_j + (b.energy_j - a.energy_j) * (t_s - a.t_s) / (b.t_s - a.t_s)


class ReplayMeter:
    """Plays a profile as a counter that moves every ``step_s``; 0 is a counter without steps.

    The profile's origin is the clock's reading when the meter is made. ``conditions`` gives what the demonstration
    wants the device to report. Nothing it says is a measurement: provenance is ``simulated``.
    """

    method = "replay"
    provenance = Provenance.SIMULATED

    def __init__(
        self,
        profile: Profile,
        clock: Clock,
        *,
        step_s: float = 0.1,
        name: str = "replay",
        conditions: Callable[[], Conditions] = Conditions,
    ) -> None:
        self.name = name
        self.step_s = step_s
        self._played_step_s = step_s
        self._profile = profile
        self._clock = clock
        self._conditions = conditions
        self._origin_s = clock.now_s()
        self._failure: str | None = None
        self._closed = False

    def fail(self, reason: str) -> None:
        """From now on behave as a meter that stopped answering."""
        self._failure = reason

    def read_j(self) -> float:
        """Joules since the meter was made, as of the last whole step."""
        if self._closed:
            raise closed(self.name)
        if self._failure is not None:
            raise MeterFailed(f"{self.name}: the counter stopped answering: {self._failure}.\nOpen a new meter.")
        elapsed_s = self._clock.now_s() - self._origin_s
        if self._played_step_s:
            elapsed_s = int(elapsed_s / self._played_step_s + _ROUNDING) * self._played_step_s
        return self._profile.energy_j(elapsed_s)

    def close(self) -> None:
        """Let go of the counter."""
        self._closed = True

    def conditions(self, *, powers: bool = True) -> Conditions:  # noqa: ARG002  as every meter
        """What the demonstration wants the device to report."""
        return self._conditions()

    def facts(self) -> DeviceFacts:
        """A device that does not exist."""
        return DeviceFacts(name=self.name)
