"""One run, from loading the model to the rows of its measurement.

load → idle → windows of prefill, decode and the whole request, in random order → idle → kernel trace
       └────────── no profiler, no hooks: this is where energy is read ──────┘
"""

import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from harness.campaign.environment import environment_row
from harness.campaign.rows import Counted, Loaded, Outcome, PhaseKernels, measurement_of, run_row
from harness.campaign.task import Task
from harness.errors import HarnessError, OutOfMemory
from harness.kernels import Phase
from harness.measuring.parts import DecodeWork, PrefillWork, PromptSource, RequestWork, decode_contexts
from harness.measuring.protocol import Protocol, protocol_of
from harness.measuring.session import Session, SessionResult, Work
from harness.measuring.windows import SteadyClock, WindowTaker
from harness.meters.host import host_facts
from harness.meters.selection import MeterBank, meters_for
from harness.models.loading import LoadedModel, load
from harness.models.memory import peak_memory_bytes, translate_out_of_memory
from harness.models.prompts import prompt_token_ids
from harness.models.steps import Stepper
from harness.records import Measurement, Part, Provenance, Request, Status
from harness.tracing.ranges import marked
from harness.tracing.timeline import trace

_TIMED_STEPS = 3
_TRACED_STEPS = 3
_RESOLVED_STEPS = 3  # a window of fewer counter steps is refused


def carry_out(task: Task, *, started_at_utc: str) -> Measurement:
    """Measure one run. What goes wrong becomes the run's status and reason, never an exception."""
    try:
        return _measure(task, started_at_utc)
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
    request, deployment = task.job.request, task.job.deployment
    with _bank(task) as bank, translate_out_of_memory(f"running {request.model}"):
        loaded = load(
            task.source, dtype=request.dtype, attention=deployment.attention, device=deployment.device, seed=task.seed
        )
        prepared = _Prepared(task, loaded)
        with marked(f"run:{task.job.run_id}"):
            session = _session(task, bank, prepared)
        peak_bytes = peak_memory_bytes(loaded.device)
        traced = _traced(prepared) if task.trace_kernels else ()
        environment = environment_row(bank=bank, host=host_facts(), gpu=task.gpu, ceilings=task.ceilings)
        counted = _counted(bank)
    outcome = Outcome(
        status=Status.OK,
        detail=flags(session, protocol_of(task.quality)),
        started_at_utc=started_at_utc,
        environment_id=environment.environment_id,
        gpu=task.gpu,
    )
    found = Loaded(
        config_sha256=loaded.facts.config_sha256,
        quantization=loaded.facts.quantization,
        peak_memory_bytes=peak_bytes,
    )
    run = run_row(task, outcome, loaded=found, counted=counted, session=session)
    return measurement_of(task, session, counted, traced, run=run, environment=environment)


class _Prepared:
    """A loaded model with the prompts of one request."""

    def __init__(self, task: Task, loaded: LoadedModel) -> None:
        self.request = task.job.request
        self.model = loaded.model
        self.stepper = Stepper(loaded, kv_cache=task.job.deployment.kv_cache)
        self._loaded = loaded
        self._seed = task.seed

    def prompt(self, tokens: int) -> torch.Tensor:  # [batch, tokens] int64
        """Prompts of exactly this many tokens."""
        return prompt_token_ids(self._loaded, self.request.batch_size, tokens, self._seed)

    def decode(self, context_tokens: int, steps: int) -> DecodeWork:
        """Work of ``steps`` decode steps from one context."""
        return DecodeWork(
            self.stepper,
            self.prompt,
            context_tokens=context_tokens,
            steps=steps,
            all_steps=self.request.decode_steps,
        )


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
    return Session(taker, clock, protocol, window_s=window_s, rng=rng).measure(works)


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
    work.prepare(1)
    begun_s = clock.now_s()
    work.run(1)
    step_s = (clock.now_s() - begun_s) / timed_steps
    work.release()
    if request.decode_steps * step_s <= protocol.whole_decode_windows * window_s:
        return None
    return max(1, min(round(1.1 * window_s / step_s), request.decode_steps // 3))


def _traced(prepared: _Prepared) -> tuple[PhaseKernels, ...]:
    """Kernels of each phase, in a pass of its own.

    Of a decode only a few steps around the middle context are traced: what a step costs is linear in its context, so
    the middle step times the steps is the whole.
    """
    request = prepared.request
    prefill = PrefillWork(prepared.stepper, prepared.prompt, request)
    kernels = trace(prepared.model, Phase.PREFILL, lambda: prefill.run(1), dtype=request.dtype)
    phases = [PhaseKernels(phase=Phase.PREFILL, kernels=kernels)]
    if request.decode_steps:
        steps = min(_TRACED_STEPS, request.decode_steps)
        decode = prepared.decode(request.prompt_tokens + (request.decode_steps - steps) // 2, steps)
        decode.prepare(1)
        kernels = trace(prepared.model, Phase.DECODE, lambda: decode.run(1), dtype=request.dtype)
        decode.release()
        scaled = tuple(kernel.scaled(request.decode_steps / steps) for kernel in kernels)
        phases.append(PhaseKernels(phase=Phase.DECODE, kernels=scaled))
    return tuple(phases)


def flags(session: SessionResult, protocol: Protocol) -> str | None:
    """What a reader of an ok run should know; None: nothing."""
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
    return "; ".join(notes) or None
