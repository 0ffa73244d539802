"""One run, from loading the model to the rows of its measurement.

load → idle → windows of prefill, decode and the whole request, in random order → idle → kernel trace
       └────────── no profiler, no hooks: this is where energy is read ──────┘
"""

import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from harness.campaign.environment import environment_row
from harness.campaign.rows import Counted, Loaded, Outcome, PhaseKernels, measurement_of, run_row
from harness.campaign.task import Task
from harness.errors import HarnessError, MeterFailed, MeterUnavailable, MissingExtra, OutOfMemory
from harness.kernels import Phase
from harness.measuring.parts import DecodeWork, PrefillWork, PromptSource, RequestWork, decode_contexts
from harness.measuring.protocol import Protocol, protocol_of
from harness.measuring.results import SessionResult, Work
from harness.measuring.session import Session
from harness.measuring.windows import SteadyClock, WindowTaker
from harness.meters.host import cpu_busy_share, host_facts
from harness.meters.selection import MeterBank, meters_for
from harness.models.loading import load
from harness.models.memory import peak_memory_bytes, translate_out_of_memory
from harness.models.prompts import prompt_kind, prompt_token_ids
from harness.models.steps import Stepper
from harness.records import Measurement, Part, Provenance, Request, Status
from harness.tracing.ranges import marked
from harness.tracing.timeline import TracedKernel, trace

_TIMED_STEPS = 3
_TRACED_PASSES = 3
_LISTENED_S = 0.5
_BUSY_SHARE = 0.1  # of all cores; what an idle desktop needs stays well below
_RESOLVED_STEPS = 3  # a window of fewer counter steps is refused


def carry_out(task: Task, *, started_at_utc: str) -> Measurement:
    """Measure one run. What goes wrong with the run becomes its status and reason.

    Raises ``MissingExtra``, ``MeterUnavailable`` and ``MeterFailed``: the machine is at fault, not the run.
    """
    try:
        return _measure(task, started_at_utc)
    except (MissingExtra, MeterUnavailable, MeterFailed):
        raise
    except OutOfMemory as error:
        status, detail = Status.OOM, str(error)
    except HarnessError as error:
        status, detail = Status.FAILED, str(error)
    except Exception as error:  # noqa: BLE001  any model may fail in any way; the campaign goes on
        traceback.print_exc()
        status, detail = Status.FAILED, f"{type(error).__name__}: {error}"
    outcome = Outcome(status=status, detail=detail, started_at_utc=started_at_utc, environment_id=None, gpu=task.gpu)
    return Measurement(run=run_row(task, outcome))


def _measure(task: Task, started_at_utc: str) -> Measurement:
    if task.cpu_threads:
        torch.set_num_threads(task.cpu_threads)
    with _bank(task) as bank:
        with translate_out_of_memory(f"running {task.job.request.model}"), marked(f"run:{task.job.run_id}"):
            prepared = _Prepared(task)
            busy_before = _busy_with_others(task)
            session = _session(task, bank, prepared)
            busy_after = _busy_with_others(task)
        found = prepared.found()
        with marked(f"run:{task.job.run_id}"):
            kernels = _traced(prepared) if task.trace_kernels else _Traced()
        environment = environment_row(bank=bank, host=host_facts(), gpu=task.gpu, ceilings=task.ceilings)
        counted = _counted(bank)
    whole = session.part(Part.RUN)
    notes = (*flags(session, protocol_of(task.quality)), *busy_notes(busy_before, busy_after), *kernels.notes)
    outcome = Outcome(
        status=Status.OK if whole is not None and whole.energy_j is not None else Status.FAILED,
        detail="; ".join(notes) or None,
        started_at_utc=started_at_utc,
        environment_id=environment.environment_id,
        gpu=task.gpu,
    )
    run = run_row(task, outcome, loaded=found, counted=counted, session=session)
    return measurement_of(task, session, counted, kernels.phases, run=run, environment=environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traced:
    """Kernels of the phases that could be traced, and why the others could not."""

    phases: tuple[PhaseKernels, ...] = ()
    notes: tuple[str, ...] = ()


class _Prepared:
    """A loaded model with the prompts of one request."""

    def __init__(self, task: Task) -> None:
        self.request, deployment = task.job.request, task.job.deployment
        self._loaded = load(
            task.source,
            dtype=self.request.dtype,
            attention=deployment.attention,
            device=deployment.device,
            seed=task.seed,
        )
        self.model = self._loaded.model
        self.device = deployment.device
        self.stepper = Stepper(self._loaded, kv_cache=deployment.kv_cache)
        self._seed = task.seed

    def found(self) -> Loaded:
        """What is recorded of the model, with the memory used so far."""
        facts = self._loaded.facts
        return Loaded(
            config_sha256=facts.config_sha256,
            quantization=facts.quantization,
            prompts=prompt_kind(self._loaded).value,
            peak_memory_bytes=peak_memory_bytes(self._loaded.device),
        )

    def prompt(self, tokens: int) -> torch.Tensor:  # [batch, tokens] int64
        """Prompts of exactly this many tokens."""
        return prompt_token_ids(self._loaded, self.request.batch_size, tokens, self._seed)

    def decode(self, context_tokens: int, steps: int) -> DecodeWork:
        """Work of ``steps`` decode steps from one context."""
        return DecodeWork(self.stepper, self.prompt, self.request, context_tokens=context_tokens, steps=steps)


@contextmanager
def _bank(task: Task) -> Iterator[MeterBank]:
    """The meters of this run, with the step of a hardware counter as it is on this machine."""
    deployment = task.job.deployment
    bank = meters_for(deployment.device, gpu_indices=range(deployment.n_gpus))
    try:
        if bank.provenance is Provenance.MEASURED:
            bank.measure_steps()
        yield bank
    finally:
        bank.close()


def _busy_with_others(task: Task) -> float | None:
    """Share of the CPU that others use while this run rests; None on a GPU, whose own processes are looked at."""
    return cpu_busy_share(_LISTENED_S) if task.job.deployment.device == "cpu" else None


def busy_notes(before: float | None, after: float | None) -> tuple[str, ...]:
    """What to say about other work on the CPU that was measured."""
    shares = [share for share in (before, after) if share is not None and share > _BUSY_SHARE]
    if not shares:
        return ()
    return (f"others used {max(shares):.0%} of the CPU while the run rested: its energy and time include them",)


def _counted(bank: MeterBank) -> Counted:
    return Counted(
        names=tuple(meter.name for meter in bank.meters),
        device_sha256=tuple(facts.uuid_sha256 for facts in bank.facts()),
        method=bank.method,
        provenance=bank.provenance,
    )


def _session(task: Task, bank: MeterBank, prepared: _Prepared) -> SessionResult:
    protocol, clock = protocol_of(task.quality), SteadyClock()
    window_s = protocol.shortest_window_s(bank.step_s)
    taker = WindowTaker(bank, clock, shortest_s=_RESOLVED_STEPS * bank.step_s)
    rng = random.Random(f"{task.seed} {task.job.run_id}")  # noqa: S311  an order of windows, no secret
    works = _works(prepared, protocol, clock, window_s)
    return Session(taker, clock, protocol, window_s=window_s, rng=rng, limit_s=task.limit_s).measure(works)


def _works(prepared: _Prepared, protocol: Protocol, clock: SteadyClock, window_s: float) -> Sequence[Work]:
    """Prefill, decode in as many windows as its length asks for, and the whole request."""
    request, stepper = prepared.request, prepared.stepper
    prompt: PromptSource = prepared.prompt
    works: list[Work] = [PrefillWork(stepper, prompt, request), RequestWork(stepper, prompt, request)]
    if request.decode_steps == 0:
        return works
    segment_steps = _segment_steps(prepared, protocol, clock, window_s)
    works += [
        prepared.decode(context_tokens, segment_steps or request.decode_steps)
        for context_tokens in decode_contexts(request, segment_steps=segment_steps)
    ]
    return works


def _segment_steps(prepared: _Prepared, protocol: Protocol, clock: SteadyClock, window_s: float) -> int | None:
    """Steps that fill a window, where the whole decode is many windows long; None: run it whole."""
    request: Request = prepared.request
    timed_steps = min(_TIMED_STEPS, request.decode_steps)
    work = prepared.decode(request.prompt_tokens, timed_steps)
    work.prepare(2)
    work.run(1)  # the very first steps pay for allocations and kernel loading
    begun_s = clock.now_s()
    work.run(1)
    step_s = (clock.now_s() - begun_s) / timed_steps
    work.release()
    if request.decode_steps * step_s <= protocol.whole_decode_windows * window_s:
        return None
    return max(1, min(round(1.1 * window_s / step_s), request.decode_steps // 3))


def _traced(prepared: _Prepared) -> _Traced:
    """Kernels of each phase, in passes of their own. What fails here costs the kernels, not the energies.

    Of a decode the step in the middle is traced (or both of them), a few times: what a step costs is linear in its
    context, so the middle step times the steps is the whole.
    """
    phases, notes = [], []
    for phase, trace_phase in ((Phase.PREFILL, _traced_prefill), (Phase.DECODE, _traced_decode)):
        if phase is Phase.DECODE and prepared.request.decode_steps == 0:
            continue
        try:
            with translate_out_of_memory(f"tracing {phase}"):
                phases.append(PhaseKernels(phase=phase, kernels=trace_phase(prepared)))
        except Exception as error:  # noqa: BLE001  the profiler may fail in any way; the energies are read already
            traceback.print_exc()
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            notes.append(f"kernels of {phase} not traced: {reason}")
    return _Traced(phases=tuple(phases), notes=tuple(notes))


def _traced_prefill(prepared: _Prepared) -> tuple[TracedKernel, ...]:
    work = PrefillWork(prepared.stepper, prepared.prompt, prepared.request)
    return trace(
        prepared.model, Phase.PREFILL, lambda: work.run(1), dtype=prepared.request.dtype, device=prepared.device
    )


def _traced_decode(prepared: _Prepared) -> tuple[TracedKernel, ...]:
    request = prepared.request
    steps = 2 - request.decode_steps % 2  # an even number of steps has two in its middle
    work = prepared.decode(request.prompt_tokens + (request.decode_steps - steps) // 2, steps)
    work.prepare(1 + _TRACED_PASSES)
    work.run(1)  # the first step after a fill is slower
    kernels = trace(
        prepared.model, Phase.DECODE, lambda: work.run(_TRACED_PASSES), dtype=request.dtype, device=prepared.device
    )
    work.release()
    return tuple(kernel.scaled(request.decode_steps / (steps * _TRACED_PASSES)) for kernel in kernels)


def flags(session: SessionResult, protocol: Protocol) -> tuple[str, ...]:
    """What a reader of the run should know beside its numbers."""
    rejected = [taken for taken in session.windows if taken.rejected is not None]
    notes = [f"{len(rejected)} of {len(session.windows)} windows rejected: {rejected[0].rejected}"] if rejected else []
    for part in (Part.PREFILL, Part.DECODE, Part.RUN):
        result = session.part(part)
        if result is None:
            continue
        if result.energy_j is None:
            notes.append(f"no usable window of {part}")
        elif result.energy_j.relative > protocol.half_width_target:
            notes.append(
                f"{part}: 95 % half width {result.energy_j.relative:.1%}, wanted {protocol.half_width_target:.0%}"
            )
    return tuple(notes)
