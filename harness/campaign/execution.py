"""One run, from loading the model to the rows of its measurement.

load → idle → windows of prefill, decode and the whole request, in random order → idle → kernel trace
       └────────── no profiler, no hooks: this is where energy is read ──────┘

A ``Crew`` is what makes the run: this process alone, or rank 0 with others that do the same in step.
"""

import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from harness.campaign.calibrated import calibrated
from harness.campaign.environment import environment_row
from harness.campaign.flags import busy_notes, flags
from harness.campaign.graph_rows import run_graphs
from harness.campaign.kernel_findings import kernel_findings
from harness.campaign.kernel_loops import Replayable
from harness.campaign.kernel_rows import Counted, PhaseKernels, ceilings_of_rank, counted_by, phase_splits
from harness.campaign.prepared import Prepared
from harness.campaign.rows import Loaded, Outcome, measurement_of, run_row, without_numbers
from harness.campaign.task import Task
from harness.campaign.watch import watching
from harness.campaign.works import WorkSpec, kernel_works
from harness.errors import HarnessError, MeterFailed, MeterUnavailable, MissingExtra, OutOfMemory
from harness.kernels import Phase
from harness.measuring.parts import decode_contexts
from harness.measuring.precision import Precision, precision_of
from harness.measuring.protocol import Protocol as WindowProtocol
from harness.measuring.protocol import protocol_of
from harness.measuring.results import SessionResult, Work
from harness.measuring.session import Session
from harness.measuring.windows import PausingClock, SteadyClock, WindowTaker
from harness.meters.host import cpu_busy_share, host_facts
from harness.meters.selection import MeterBank, meters_for
from harness.models.memory import translate_out_of_memory
from harness.records import Measurement, Part, Provenance, RankTimeRow, Status
from harness.requests import Request
from harness.tracing.ranges import marked
from harness.tracing.timeline import TracedKernel

_TIMED_STEPS = 3
_LISTENED_S = 0.5
_RESOLVED_STEPS = 3  # a window of fewer counter steps is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traced:
    """Kernels of the phases that could be traced, and why the others could not."""

    phases: tuple[PhaseKernels, ...] = ()
    notes: tuple[str, ...] = ()
    replayable: Mapping[Phase, frozenset[str]] = field(default_factory=dict)


class Crew(Protocol):
    """The process or processes that make one run."""

    def meters(self) -> MeterBank:
        """Open the meters of every device in use; whoever asks closes them."""
        ...

    def counted(self, bank: MeterBank) -> Counted:
        """What is recorded of those meters."""
        ...

    @property
    def clock(self) -> PausingClock:
        """The clock that the meters and the works go by."""
        ...

    def precision(self, bank: MeterBank) -> Precision:
        """How far those meters can be trusted."""
        ...

    def load(self) -> None:
        """Load the model; comes before all that follows."""
        ...

    def work(self, spec: WorkSpec) -> Work:
        """A work for every process to do."""
        ...

    def traced(self, phase: Phase) -> tuple[tuple[TracedKernel, ...], ...]:
        """The kernels of one pass of a phase on each rank."""
        ...

    def replayable(self, phase: Phase) -> Replayable:
        """Which kernels of a phase that was traced can be run alone; comes before works of kernels."""
        ...

    def how_replayed(self) -> str:
        """How kernels are launched in loops, as the dataset says it."""
        ...

    def found(self) -> Loaded:
        """What is recorded of the model, with the memory used so far."""
        ...

    def rank_times(self, session: SessionResult) -> tuple[RankTimeRow, ...]:
        """How long each rank worked in each window; none where there is one process."""
        ...


class Solo:
    """A crew of one process, with one device or several that take turns."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.clock: PausingClock = SteadyClock()

    def precision(self, bank: MeterBank) -> Precision:
        """What is known of the method, and what a calibration of this machine adds."""
        return precision_of(bank.method)

    def meters(self) -> MeterBank:
        """Open the meters of the devices in use."""
        deployment = self._task.job.deployment
        return meters_for(deployment.device, gpu_indices=range(deployment.n_gpus))

    def counted(self, bank: MeterBank) -> Counted:
        """All meters count for the one process."""
        return counted_by(bank, [0] * len(bank.meters))

    def load(self) -> None:
        """Load the model."""
        self._prepared = Prepared(self._task)

    def work(self, spec: WorkSpec) -> Work:
        """The work itself."""
        return self._prepared.work(spec)

    def traced(self, phase: Phase) -> tuple[tuple[TracedKernel, ...], ...]:
        """The kernels of one rank."""
        return (self._prepared.traced(phase),)

    def replayable(self, phase: Phase) -> Replayable:
        """Those that could be recorded."""
        return self._prepared.replayable(phase)

    def how_replayed(self) -> str:
        """As the prepared model launches them."""
        return self._prepared.how_replayed

    def found(self) -> Loaded:
        """What was found on loading."""
        return self._prepared.found()

    def rank_times(self, session: SessionResult) -> tuple[RankTimeRow, ...]:  # noqa: ARG002  as every crew
        """None: the window's own duration is that of its one rank."""
        return ()


def carry_out(task: Task, *, started_at_utc: str, crew: Crew | None = None) -> Measurement:
    """Measure one run, by default alone. What goes wrong with the run becomes its status and reason.

    Raises ``MissingExtra``, ``MeterUnavailable`` and ``MeterFailed``: the machine is at fault, not the run.
    """
    try:
        return measure(task, started_at_utc, crew or Solo(task))
    except (MissingExtra, MeterUnavailable, MeterFailed):
        raise
    except OutOfMemory as error:
        status, detail = Status.OOM, str(error)
    except HarnessError as error:
        status, detail = Status.FAILED, str(error)
    except Exception as error:  # noqa: BLE001  any model may fail in any way; the campaign goes on
        traceback.print_exc()
        status, detail = Status.FAILED, f"{type(error).__name__}: {error}"
    return without_numbers(task, status, detail, started_at_utc)


def measure(task: Task, started_at_utc: str, crew: Crew) -> Measurement:
    """Measure one run with a crew; raises whatever goes wrong with it."""
    if task.cpu_threads and task.job.deployment.ranks == 1:
        torch.set_num_threads(task.cpu_threads)
    with _bank(crew) as bank:
        with translate_out_of_memory(f"running {task.job.request.model}"), marked(f"run:{task.job.run_id}"):
            crew.load()
            kernels = _Traced()
            if task.kernel_energy:  # loops need to know the kernels
                kernels = _recorded(crew, _traced(task, crew))
            busy_before = _busy_with_others(task)
            with watching(bank) as watch:
                session = _session(task, bank, crew, kernels)
            busy_after = _busy_with_others(task)
        found = crew.found()
        if task.trace_kernels and not task.kernel_energy:
            with marked(f"run:{task.job.run_id}"):
                kernels = _traced(task, crew)
        graphs = run_graphs(task)
        environment = environment_row(
            bank=bank,
            host=host_facts(),
            gpu=task.gpu,
            ceilings=task.ceilings,
            calibration=task.calibration,
        )
        counted = crew.counted(bank)
    session = watch.checked(session)
    splits = phase_splits(task, session, counted, kernels.phases)
    findings = kernel_findings(task.job.run_id, session, counted, splits, how=crew.how_replayed())
    whole = session.part(Part.RUN)
    notes = (
        *flags(session, protocol_of(task.quality)),
        *watch.notes(session),
        *busy_notes(busy_before, busy_after),
        *kernels.notes,
        *findings.notes,
        *graphs.notes,
    )
    outcome = Outcome(
        status=Status.OK if whole is not None and whole.energy_j is not None else Status.FAILED,
        detail="; ".join(notes) or None,
        started_at_utc=started_at_utc,
        environment_id=environment.environment_id,
        gpu=task.gpu,
    )
    run = run_row(task, outcome, loaded=found, counted=counted, session=session, ledger=findings.ledger)
    return measurement_of(
        task,
        session,
        counted,
        splits,
        run=run,
        findings=findings,
        watch=watch,
        environment=environment,
        rank_times=crew.rank_times(session),
        graphs=graphs,
    )


@contextmanager
def _bank(crew: Crew) -> Iterator[MeterBank]:
    """The meters of this run, with the step of a hardware counter as it is on this machine."""
    bank = crew.meters()
    try:
        if bank.provenance is not Provenance.ESTIMATED:
            bank.measure_steps()
        yield bank
    finally:
        bank.close()


def _busy_with_others(task: Task) -> float | None:
    """Share of the CPU that others use while this run rests; None on a GPU, whose own processes are looked at."""
    return cpu_busy_share(_LISTENED_S) if task.job.deployment.device == "cpu" else None


def _session(task: Task, bank: MeterBank, crew: Crew, traced: _Traced) -> SessionResult:
    clock = crew.clock
    protocol, precision = calibrated(task.calibration, bank, protocol_of(task.quality), crew.precision(bank))
    window_s = protocol.shortest_window_s(bank.step_s)
    taker = WindowTaker(bank, clock, shortest_s=_RESOLVED_STEPS * bank.step_s, precision=precision)
    rng = random.Random(f"{task.seed} {task.job.run_id}")  # noqa: S311  an order of windows, no secret
    works = [*_works(task.job.request, crew, protocol, clock, window_s), *_loops(task, crew, traced, rng)]
    return Session(taker, clock, protocol, window_s=window_s, rng=rng, limit_s=task.limit_s).measure(works)


def _loops(task: Task, crew: Crew, traced: _Traced, rng: random.Random) -> list[Work]:
    """Kernels looped alone and in mixtures, as far as they were traced and can be run alone."""
    phases = {
        each.phase: [kernel for kernel in each.ranks[0] if kernel.kernel_id in traced.replayable[each.phase]]
        for each in traced.phases
    }
    return [crew.work(spec) for spec in kernel_works(phases, task.kernel_energy, ceilings_of_rank(task), rng)]


def _recorded(crew: Crew, traced: _Traced) -> _Traced:
    """What was traced, with the kernels that can be run alone. What fails here costs their loops only."""
    found, notes = {}, list(traced.notes)
    for phase in (each.phase for each in traced.phases):
        try:
            with translate_out_of_memory(f"recording kernels of {phase}"):
                recorded = crew.replayable(phase)
            found[phase] = recorded.kernel_ids
            notes += [recorded.note] if recorded.note else []
        except Exception as error:  # noqa: BLE001  any operator may refuse to be run again; the energies are still read
            traceback.print_exc()
            found[phase] = frozenset()
            notes.append(f"kernels of {phase} cannot be run alone: {_in_short(error)}")
    return replace(traced, replayable=found, notes=tuple(notes))


def _works(
    request: Request, crew: Crew, protocol: WindowProtocol, clock: PausingClock, window_s: float
) -> Sequence[Work]:
    """Prefill, decode in as many windows as its length asks for, and the whole request."""
    works = [crew.work(WorkSpec(part=Part.PREFILL)), crew.work(WorkSpec(part=Part.RUN))]
    if request.decode_steps == 0:
        return works
    segment_steps = _segment_steps(request, crew, protocol, clock, window_s)
    steps = segment_steps or request.decode_steps
    works += [
        crew.work(WorkSpec(part=Part.DECODE, context_tokens=context_tokens, steps=steps))
        for context_tokens in decode_contexts(request, segment_steps=segment_steps)
    ]
    return works


def _segment_steps(
    request: Request, crew: Crew, protocol: WindowProtocol, clock: PausingClock, window_s: float
) -> int | None:
    """Steps that fill a window, where the whole decode is many windows long; None: run it whole."""
    timed_steps = min(_TIMED_STEPS, request.decode_steps)
    work = crew.work(WorkSpec(part=Part.DECODE, context_tokens=request.prompt_tokens, steps=timed_steps))
    work.prepare(2)
    work.run(1)  # the very first steps pay for allocations and kernel loading
    begun_s = clock.now_s()
    work.run(1)
    step_s = (clock.now_s() - begun_s) / timed_steps
    work.release()
    if request.decode_steps * step_s <= protocol.whole_decode_windows * window_s:
        return None
    return max(1, min(round(1.1 * window_s / step_s), request.decode_steps // 3))


def _traced(task: Task, crew: Crew) -> _Traced:
    """Kernels of each phase, in passes of their own. What fails here costs the kernels, not the energies."""
    phases, notes = [], []
    for phase in Phase:
        if phase is Phase.DECODE and task.job.request.decode_steps == 0:
            continue
        try:
            with translate_out_of_memory(f"tracing {phase}"):
                phases.append(PhaseKernels(phase=phase, ranks=crew.traced(phase)))
        except Exception as error:  # noqa: BLE001  the profiler may fail in any way; the energies are read already
            traceback.print_exc()
            notes.append(f"kernels of {phase} not traced: {_in_short(error)}")
    return _Traced(phases=tuple(phases), notes=tuple(notes))


def _in_short(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
