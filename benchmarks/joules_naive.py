"""How others read a phase's energy, on the same virtual machine: each at its own default and at our window length.

- *counter*: read the counters, run, read the counters again, whenever that is (Zeus, ``ZeusMonitor``): one pass.
- *polled*: the driver's trailing mean of the power, polled every 100 ms over 0.3 s of work, times the time of a pass
  (NVIDIA's aiconfigurator, collector of kernel power).
- *difference*: decode as the whole request less the prefill, each read by *counter*.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from harness.campaign.works import WorkSpec
from harness.records import Part
from harness.requests import Request
from harness.virtual.machine import VirtualMachine

POLL_S = 0.1
POLLED_S = 0.3
REST_S = 1.0  # between two readings, as a script has that prints what it found

Run = Callable[[WorkSpec, int, Callable[[], None] | None], float]  # passes of a work -> time they took


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveReading:
    """One reading of one phase, over all GPUs, per pass."""

    method: str  # counter, polled or difference
    equal_window: bool  # as long as ours; else the method's own default
    part: Part
    energy_j: float


class Naive:
    """Reads a machine as others do. ``run`` runs passes of a work and says how long they took."""

    def __init__(self, machine: VirtualMachine, run: Run, window_s: float) -> None:
        self._machine = machine
        self._run = run
        self._window_s = window_s

    def readings(self, request: Request) -> list[NaiveReading]:
        """Every method on every phase, once at its default and once at our window length."""
        specs = {Part.PREFILL: WorkSpec(part=Part.PREFILL)}
        if request.decode_steps:
            whole = WorkSpec(part=Part.DECODE, context_tokens=request.prompt_tokens, steps=request.decode_steps)
            specs[Part.DECODE] = whole
        found = []
        for equal_window in (False, True):
            for part, spec in specs.items():
                pass_s = self._run(spec, 1, None)
                counter_j = self._counter(spec, self._passes(pass_s, self._window_s if equal_window else 0.0))
                polled_s = self._window_s if equal_window else POLLED_S
                polled_j = self._polled(spec, self._passes(pass_s, polled_s), pass_s)
                found += [
                    NaiveReading(method="counter", equal_window=equal_window, part=part, energy_j=counter_j),
                    NaiveReading(method="polled", equal_window=equal_window, part=part, energy_j=polled_j),
                ]
            if request.decode_steps:
                difference_j = self._difference(equal_window=equal_window)
                found.append(
                    NaiveReading(
                        method="difference", equal_window=equal_window, part=Part.DECODE, energy_j=difference_j
                    )
                )
        return found

    def _difference(self, *, equal_window: bool) -> float:
        energies_j = []
        for part in (Part.RUN, Part.PREFILL):
            spec = WorkSpec(part=part)
            pass_s = self._run(spec, 1, None)
            energies_j.append(self._counter(spec, self._passes(pass_s, self._window_s if equal_window else 0.0)))
        return energies_j[0] - energies_j[1]

    def _counter(self, spec: WorkSpec, passes: int) -> float:
        self._machine.clock.pause(REST_S)
        before_j = [meter.read_j() for meter in self._machine.meters()]
        self._run(spec, passes, None)
        after_j = [meter.read_j() for meter in self._machine.meters()]
        return (sum(after_j) - sum(before_j)) / passes

    def _polled(self, spec: WorkSpec, passes: int, pass_s: float) -> float:
        powers_w: list[float] = []

        def poll() -> None:
            powers_w.append(sum(meter.average_power_w() for meter in self._machine.meters()))

        self._machine.clock.pause(REST_S)
        self._run(spec, passes, poll)
        if not powers_w:
            poll()
        return fmean(powers_w) * pass_s

    @staticmethod
    def _passes(pass_s: float, window_s: float) -> int:
        return max(1, math.ceil(window_s / pass_s))
