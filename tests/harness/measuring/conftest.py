"""A machine in miniature: a clock that moves when told, power that depends on what is done, counters that step."""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from harness.kernels import KernelCount
from harness.measuring.precision import Precision
from harness.measuring.protocol import QUICK, Protocol
from harness.measuring.session import Session
from harness.measuring.windows import WindowTaker
from harness.meters.base import Clock, Conditions
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank
from harness.records import Part, Provenance

STEP_S = 0.02
# Time and power of one pass.
TRUTH = {Part.PREFILL: (0.07, 400.0), Part.DECODE: (0.23, 200.0), Part.RUN: (0.31, 240.0)}


class _History(Profile):
    """What a machine has used, as a profile that starts at a meter's first moment."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self._origin_s = machine.at_s

    def energy_j(self, t_s: float) -> float:
        # Rounded, so that a counter that stands still does so to the last digit.
        return round(self._machine.used_j(self._origin_s, self._origin_s + t_s), 6)


class _Estimating(ReplayMeter):
    """Computes its energy at each read."""

    provenance = Provenance.ESTIMATED

    def __init__(self, profile: Profile, clock: Clock, *, step_s: float, **options: Any) -> None:
        super().__init__(profile, clock, step_s=0, **options)
        self.step_s = step_s


class Machine:
    """Devices that idle while the clock pauses and draw ``load_w`` each while they are busy."""

    def __init__(self, *, idle_w: float = 60.0, load_w: float = 300.0, read_s: float = 0.0) -> None:
        self.idle_w = idle_w
        self.load_w = load_w
        self.at_s = 0.0
        self._read_s = read_s  # time that a look at the clock takes
        self._times_s = [0.0]
        self._energies_j = [0.0]
        self.conditions = Conditions()
        self.phases_s: list[float] = []

    def now_s(self) -> float:
        self._pass(self._read_s, self.idle_w)
        return self.at_s

    def pause(self, duration_s: float) -> None:
        self._pass(duration_s, self.idle_w)

    def busy(self, duration_s: float, power_w: float | None = None) -> None:
        self._pass(duration_s, self.load_w if power_w is None else power_w)

    def used_j(self, from_s: float, to_s: float) -> float:
        """True energy of one device between two moments; time yet to come is spent idle."""
        return self._until_j(to_s) - self._until_j(from_s)

    def history(self) -> Profile:
        """What is used from now on, as a profile."""
        return _History(self)

    def bank(
        self,
        *steps_s: float,
        phases_s: tuple[float, ...] = (),
        estimating: bool = False,
        conditions: Callable[[int], Conditions] | None = None,
    ) -> MeterBank:
        """One counter per step, each begun at its own phase."""
        kind = _Estimating if estimating else ReplayMeter
        meters = []
        for device, step_s in enumerate(steps_s):
            self.pause(phases_s[device] if phases_s else 0.0)
            asked = partial(conditions, device) if conditions is not None else self._conditions
            meters.append(kind(_History(self), self, step_s=step_s, name=f"replay:{device}", conditions=asked))
        return MeterBank(meters, self, why="a test")

    def taker(self, *steps_s: float, precision: Precision | None = None, **options: Any) -> WindowTaker:
        return WindowTaker(self.bank(*steps_s, **options), self, shortest_s=3 * max(steps_s), precision=precision)

    def session(self, protocol: Protocol = QUICK, *, window_s: float = 1.0, seed: int = 1, **options: Any) -> Session:
        return Session(self.taker(STEP_S, **options), self, protocol, window_s=window_s, rng=random.Random(seed))

    def works(self) -> list["FakeWork"]:
        """Prefill, decode and the whole request, as TRUTH has them."""
        return [FakeWork(self, part, pass_s=pass_s, power_w=power_w) for part, (pass_s, power_w) in TRUTH.items()]

    def _conditions(self) -> Conditions:
        return self.conditions

    def _pass(self, duration_s: float, power_w: float) -> None:
        if duration_s > 0:
            self.at_s += duration_s
            self._times_s.append(self.at_s)
            self._energies_j.append(self._energies_j[-1] + duration_s * power_w)

    def _until_j(self, at_s: float) -> float:
        place = bisect_right(self._times_s, at_s)
        if place == len(self._times_s):
            return self._energies_j[-1] + (at_s - self._times_s[-1]) * self.idle_w
        share = (at_s - self._times_s[place - 1]) / (self._times_s[place] - self._times_s[place - 1])
        return self._energies_j[place - 1] + share * (self._energies_j[place] - self._energies_j[place - 1])


class FakeWork:
    """A part of known energy and time per pass."""

    share = 1.0
    kernels: tuple[KernelCount, ...] = ()
    context_start_tokens: int | None = None
    mean_context_tokens: float | None = None

    def __init__(self, machine: Machine, part: Part, *, pass_s: float, power_w: float) -> None:
        self.part = part
        self.machine = machine
        self.pass_s = pass_s
        self.power_w = power_w
        self.slow_passes: Iterator[float] = iter(())  # how much longer the first passes take
        self.on_run: Callable[[int], None] = lambda passes: None
        self.calls: list[str] = []

    def prepare(self, passes: int) -> None:
        self.calls.append(f"prepare {passes}")

    def run(self, passes: int) -> None:
        self.calls.append(f"run {passes}")
        self.on_run(passes)
        for _ in range(passes):
            self.machine.busy(self.pass_s * next(self.slow_passes, 1.0), self.power_w)

    def release(self) -> None:
        self.calls.append("release")


@pytest.fixture
def make_machine() -> type[Machine]:
    return Machine


@pytest.fixture
def fake_work() -> type[FakeWork]:
    return FakeWork


@pytest.fixture
def truth() -> dict[Part, tuple[float, float]]:
    return TRUTH
