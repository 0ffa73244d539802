"""One case of ``benchmarks.joules``: measured as a run is, and held against what the virtual machine knows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.joules_machines import Bench, Case, bench_of
from benchmarks.joules_naive import POLL_S, Naive, NaiveReading, Run
from harness.campaign.execution import measure
from harness.campaign.virtual_crew import VirtualCrew
from harness.campaign.works import WorkSpec
from harness.kernels import Phase
from harness.measuring.protocol import STANDARD
from harness.measuring.windows import PausingClock
from harness.records import Measurement, Status
from harness.virtual.truth import Passes

_WARM_UP = "warm-up:"
KERNEL_SHARE = 0.01  # of their phase: smaller kernels are measured together and not scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One number with its truth."""

    what: str  # phase, run, replay, regressed, apportioned
    estimate: float
    half_width: float | None
    truth: float

    @property
    def error(self) -> float:
        """Relative to the truth."""
        return self.estimate / self.truth - 1

    @property
    def held(self) -> bool:
        """Whether the truth is inside the stated interval."""
        return self.half_width is not None and abs(self.estimate - self.truth) <= self.half_width


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What one case gave."""

    case: Case
    gpus: int
    status: str  # why nothing could be scored; ok
    phases: tuple[Scored, ...] = ()
    run: Scored | None = None
    kernels: tuple[Scored, ...] = ()
    residual_share: float | None = None  # of the run's energy
    residual_held: bool | None = None  # inside its interval
    naive: tuple[tuple[NaiveReading, float], ...] = ()  # each with the truth
    windows: int = 0
    virtual_s: float = 0.0


def score(case: Case) -> CaseResult:
    """Measure a case and score it."""
    bench = bench_of(case)
    crew = _BenchCrew(bench)
    measured = measure(bench.task, "1970-01-01T00:00:00+00:00", crew)
    if measured.run.status is not Status.OK:
        return CaseResult(case=case, gpus=bench.machine.gpus, status=measured.run.status_detail or "failed")
    truth = Truths.of(bench)
    ledger = measured.run.residual_j is not None and measured.run.energy_j is not None
    window_s = STANDARD.shortest_window_s(bench.machine.gpu.sensor.counter_period_s)
    naive = Naive(bench.machine, _runner(bench, crew), window_s).readings(bench.task.job.request) if case.exact else []
    return CaseResult(
        case=case,
        gpus=bench.machine.gpus,
        status="ok",
        phases=tuple(_phase_scores(measured, truth)),
        run=_scored("run", measured.run.energy_j, measured.run.energy_ci95_j, truth.run_j),
        kernels=tuple(_kernel_scores(measured, truth)),
        residual_share=(measured.run.residual_j or 0.0) / (measured.run.energy_j or 1.0) if ledger else None,
        residual_held=abs(measured.run.residual_j or 0.0) <= (measured.run.residual_ci95_j or 0.0) if ledger else None,
        naive=tuple((each, truth.phases_j[Phase(each.part.value)]) for each in naive),
        windows=len(measured.readings) // bench.machine.gpus,
        virtual_s=bench.machine.clock.now_s(),
    )


class _BenchCrew(VirtualCrew):
    """Tells warm-up from windows in the machine's book: a colder machine leaks less."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.task, bench.machine)
        self.stage = _WARM_UP
        self.clock = _NoticingClock(bench.machine.clock, self)


class _NoticingClock:
    """The machine's clock; the first idle window ends the warm-up."""

    def __init__(self, clock: PausingClock, crew: _BenchCrew) -> None:
        self._clock, self._crew = clock, crew

    def now_s(self) -> float:
        return self._clock.now_s()

    def pause(self, duration_s: float) -> None:
        if duration_s >= STANDARD.idle_s:
            self._crew.stage = ""
        self._clock.pause(duration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truths:
    """What passes really used in the windows that measured them: at the temperatures and clocks there were."""

    run: Passes
    phases_j: dict[Phase, float]

    @property
    def run_j(self) -> float:
        """Energy of one whole request, over all GPUs."""
        return _pass_j(self.run)

    @classmethod
    def of(cls, bench: Bench) -> "Truths":
        """Read the truth of a machine after the measurement.

        A decode that was measured at some contexts only never ran whole on its own: its truth is that of the whole
        requests less that of their prefills.
        """
        truth, request = bench.machine.truth, bench.task.job.request
        run, prefill_j = truth.of("run"), _pass_j(truth.of("prefill"))
        phases_j = {Phase.PREFILL: prefill_j}
        if request.decode_steps:
            whole = f"decode:{request.prompt_tokens}+{request.decode_steps}"
            decode_j = _pass_j(truth.of(whole)) if whole in truth.labels else _pass_j(run) - prefill_j
            phases_j[Phase.DECODE] = decode_j
        return cls(run=run, phases_j=phases_j)


def _pass_j(passes: Passes) -> float:
    return float(passes.energy_j.sum()) / passes.passes


def _runner(bench: Bench, crew: VirtualCrew) -> Run:
    def run(spec: WorkSpec, passes: int, meanwhile: Callable[[], None] | None) -> float:
        label = f"naive:{spec.part.value}"
        ran = bench.machine.run(crew.program(spec), passes, label=label, meanwhile=meanwhile, every_s=POLL_S)
        return ran.duration_s

    return run


def _phase_scores(measured: Measurement, truth: Truths) -> Iterator[Scored]:
    for row in measured.phases:
        yield _scored("phase", row.energy_j, row.energy_ci95_j, truth.phases_j[row.phase])


def _kernel_scores(measured: Measurement, truth: Truths) -> Iterator[Scored]:
    """Gross energies of kernels worth a hundredth of their phase on their rank, as they ran in whole requests."""
    run, ranks = truth.run, len(truth.run.energy_j)
    for row in measured.kernel_energies:
        if row.phase is None or row.energy_j is None:
            continue
        column = run.kernels.index(f"{row.phase}/{row.kernel_id}")
        truth_j = float(run.kernel_energy_j[row.rank, column]) / run.passes
        if truth_j >= KERNEL_SHARE * truth.phases_j[row.phase] / ranks:
            yield _scored(row.method.value, row.energy_j, row.energy_ci95_j, truth_j)


def _scored(what: str, estimate: float | None, half_width: float | None, truth: float) -> Scored:
    if estimate is None:
        raise ValueError(f"{what}: a run that is ok has this number")
    return Scored(what=what, estimate=estimate, half_width=half_width, truth=truth)
