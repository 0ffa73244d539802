"""Zeus, codecarbon and our meter on the same loads, in one process that sees the stand-in for NVML's library.

The load is in the library's file; this process only waits, as one does who has launched work and synchronises. Around
each load:

    ours: wait for a step of each counter │ codecarbon start_task │ Zeus begin_window
    ─────────────────── load ───────────────────
    Zeus end_window │ codecarbon stop_task │ ours: wait for a step of each counter

The work of each tool is what lies between the return of its beginning and the call of its end, and the truth is the
energy in just that time. Work that begins at a planned time makes our window begin up to a few counter steps earlier
than it does in a campaign: those are rest, and count as the window's lead.
"""

import importlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.zeus_driver import begin, describe
from benchmarks.zeus_records import CODECARBON, OURS, ZEUS, Comparison, Load, Plan, Reading
from harness.measuring.precision import Precision, precision_of
from harness.measuring.results import IdleFloor, reading95_j, work_energy_j
from harness.measuring.windows import SteadyClock, Window, WindowTaker
from harness.meters.selection import MeterBank, meters_for
from tests.native.nvml_file import NvmlFile

_SPIN_S: Final = 0.002  # a sleep may end so late
_STEPS_AHEAD: Final = 2.3  # so long before a load our window begins: it surely sees a step, or two
_CALLS_S: Final = 0.06  # … and the others can begin
_AHEAD_S: Final = 0.03  # codecarbon takes up to some milliseconds to begin
_BEFORE_S: Final = 0.01  # Zeus reads one counter per GPU
_SOON_S: Final = 0.5  # to write the file
_FIRST_S: Final = 0.3  # some counter steps
_J_PER_KWH: Final = 3.6e6


@dataclass(slots=True, kw_only=True)
class _Taken:
    """What the other tools said of one load, and when they were told to begin and to end."""

    begun_s: float = 0.0
    ended_s: float = 0.0
    zeus_j: float = 0.0
    codecarbon_begun_s: float = 0.0
    codecarbon_ended_s: float = 0.0
    codecarbon_j: float = 0.0


def compare(plan: Plan, gpus: Path) -> Comparison:
    """Measure every load of a plan with every tool; takes as long as the plan does."""
    file = NvmlFile(gpus)
    origin_s = time.perf_counter()
    describe(file, plan, origin_s=origin_s)
    file.write()
    bank = meters_for("cuda", gpu_indices=range(plan.scenario.gpus))
    try:
        return _Process(plan, file, bank, origin_s).compare()
    finally:
        bank.close()


class _Process:
    def __init__(self, plan: Plan, file: NvmlFile, bank: MeterBank, origin_s: float) -> None:
        self._plan, self._file, self._bank, self._origin_s = plan, file, bank, origin_s
        self._clock = SteadyClock()
        self._zeus = _zeus(plan.scenario.gpus)
        self._codecarbon = _codecarbon(plan.scenario.gpus)
        bank.measure_steps()
        self._precision = _precision(plan, bank)
        # Nothing is refused for being short: that is what is compared.
        self._taker = WindowTaker(bank, self._clock, shortest_s=0.0, precision=self._precision)
        self._begun_s = 0.0  # of the plan, on the monotonic clock

    def compare(self) -> Comparison:
        self._begin()
        idle = [self._idle()]
        pairs = [(load, self._take(load)) for load in self._plan.loads]
        idle.append(self._idle())
        floor = IdleFloor(windows=tuple(idle))
        used = [(load, *taken) for load, taken in pairs if taken is not None]
        return Comparison(
            scenario=self._plan.scenario,
            readings=tuple(reading for each in used for reading in self._readings(*each, floor)),
            missed=len(pairs) - len(used),
            periods_s=tuple(meter.step_s for meter in self._bank.meters),
        )

    def _begin(self) -> None:
        """Start the plan. The library reads the file at the next call: made now, so that no reading pays for it."""
        self._begun_s = self._clock.now_s() + _SOON_S
        begin(self._file, self._plan, at_s=self._begun_s - self._origin_s)
        self._file.write()
        self._bank.read_start()

    def _idle(self) -> Window:
        return self._taker.take(lambda: self._clock.pause(self._plan.idle_s))

    def _take(self, load: Load) -> tuple[Window, _Taken] | None:
        """One load; None where it had begun before every tool was ready."""
        start_s = self._begun_s + load.start_s
        _sleep_until(start_s - _STEPS_AHEAD * self._bank.step_s - _CALLS_S)
        taken = _Taken()
        window = self._taker.take(lambda: self._work(load, taken))
        if taken.begun_s > start_s:
            print(
                "MISSED",
                load.length_s,
                window.spans[0].started_s - start_s,
                window.started_s - start_s,
                taken.codecarbon_begun_s - start_s,
                taken.begun_s - start_s,
                flush=True,
            )
            return None
        return _of_the_work(window, taken.begun_s, taken.ended_s), taken

    def _work(self, load: Load, taken: _Taken) -> None:
        key = "load"
        start_s, end_s = self._begun_s + load.start_s, self._begun_s + load.end_s
        _sleep_until(start_s - _AHEAD_S)
        self._codecarbon.start_task(key)
        taken.codecarbon_begun_s = self._clock.now_s()
        _spin_until(start_s - _BEFORE_S)
        self._zeus.begin_window(key, sync_execution=False)
        taken.begun_s = self._clock.now_s()
        _spin_until(end_s)
        taken.ended_s = self._clock.now_s()
        taken.zeus_j = float(self._zeus.end_window(key, sync_execution=False).total_energy)
        taken.codecarbon_ended_s = self._clock.now_s()
        taken.codecarbon_j = float(self._codecarbon.stop_task().gpu_energy) * _J_PER_KWH

    def _readings(self, load: Load, window: Window, taken: _Taken, idle: IdleFloor) -> tuple[Reading, ...]:
        half = reading95_j(window, idle, self._precision, step_s=self._bank.step_s)
        truth_j = self._truth_j(taken.begun_s, taken.ended_s)
        codecarbon_j = self._truth_j(taken.codecarbon_begun_s, taken.codecarbon_ended_s)
        ours_j = sum(work_energy_j(window, idle, device) for device in range(len(window.spans)))
        ours = Reading(
            tool=OURS,
            length_s=load.length_s,
            energy_j=ours_j,
            truth_j=truth_j,
            random95_j=half.random_j,
            common95_j=half.common_j,
        )
        return (
            ours,
            Reading(tool=ZEUS, length_s=load.length_s, energy_j=taken.zeus_j, truth_j=truth_j),
            Reading(tool=CODECARBON, length_s=load.length_s, energy_j=taken.codecarbon_j, truth_j=codecarbon_j),
        )

    def _truth_j(self, start_s: float, end_s: float) -> float:
        return self._plan.energy_j(start_s - self._begun_s, end_s - self._begun_s)


def _precision(plan: Plan, bank: MeterBank) -> Precision:
    """What is known of the meter: of a counter that looks now and then, how often, as a calibration finds it."""
    share = plan.sensor.duty_cycle if plan.sensor.counter_sampled else 1.0
    return replace(precision_of(bank.method), sampled_share=share)


def _of_the_work(window: Window, begun_s: float, ended_s: float) -> Window:
    """The window with the work where it was told to be: the wait before it is rest, as ``jitter_s`` makes one."""
    spans = tuple(
        replace(span, lead_s=begun_s - span.started_s, tail_s=span.started_s + span.duration_s - ended_s)
        for span in window.spans
    )
    return replace(window, spans=spans, started_s=begun_s, work_s=ended_s - begun_s)


def _zeus(gpus: int) -> Any:
    """Zeus' monitor, as its guide has it, once tried out: first calls take longer."""
    monitor = importlib.import_module("zeus.monitor").ZeusMonitor(gpu_indices=list(range(gpus)), cpu_indices=[])
    monitor.begin_window("first", sync_execution=False)
    time.sleep(_FIRST_S)
    monitor.end_window("first", sync_execution=False)
    return monitor


def _codecarbon(gpus: int) -> Any:
    """The offline tracker of codecarbon, once tried out: its first task looks for hardware, for a second."""
    tracker = importlib.import_module("codecarbon").OfflineEmissionsTracker(
        country_iso_code="FRA",  # only for carbon
        gpu_ids=list(range(gpus)),
        save_to_file=False,
        allow_multiple_runs=True,
        log_level="error",
    )
    tracker.start_task("first")
    time.sleep(_FIRST_S)
    tracker.stop_task()
    return tracker


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.perf_counter()))


def _spin_until(at_s: float) -> None:
    """To within microseconds, as the return of a synchronisation."""
    _sleep_until(at_s - _SPIN_S)
    while time.perf_counter() < at_s:
        pass
