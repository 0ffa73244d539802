"""Rows of the dataset from what a worker measured, or from why it could not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness import __version__
from harness.campaign.graph_rows import RunGraphs, graph_row
from harness.campaign.kernel_findings import KernelFindings
from harness.campaign.kernel_rows import Counted, PhaseSplit, kernel_energy_rows, kernel_rows
from harness.campaign.task import Task
from harness.campaign.watch import Watch
from harness.campaign.works import kernels_text
from harness.kernels import Phase
from harness.measuring.ledger import Ledger
from harness.measuring.results import PartResult, SessionResult, TakenWindow, reading95_of_device
from harness.measuring.windows import Window
from harness.meters.base import Conditions
from harness.records import (
    SCHEMA_VERSION,
    EnvironmentRow,
    Measurement,
    Part,
    PhaseRow,
    RankTimeRow,
    ReadingRow,
    RunRow,
    SourceRow,
    Status,
    Weights,
)
from harness.tracing.graph import KernelGraph

_LONGEST_DETAIL = 2000  # characters
OWN_SOURCE = SourceRow(
    source=f"joulegraph {__version__}",
    title="Joulegraph: energy of LLM inference, per phase and per kernel",
    url=None,
    version=__version__,
    licence="CC-BY-4.0",
    citation="The Joulegraph developers and the labs named in `runs.lab`: Joulegraph.",
    measured="energy and time in windows, kernels in a trace; `runs.provenance` and `runs.method` say by what",
    derived="kernel energies by replay, regression or apportioning (`kernel_energies.method`); the ledger of each run",
)
_PHASES = {Part.PREFILL: Phase.PREFILL, Part.DECODE: Phase.DECODE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a worker found out about the model it loaded."""

    config_sha256: str | None
    quantization: str | None
    prompts: str  # text or random
    peak_memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, beside its numbers."""

    status: Status
    detail: str | None
    started_at_utc: str
    environment_id: str | None
    gpu: str


def run_row(
    task: Task,
    outcome: Outcome,
    *,
    loaded: Loaded | None = None,
    counted: Counted | None = None,
    session: SessionResult | None = None,
    ledger: Ledger | None = None,
) -> RunRow:
    """The row of a run; energies are null without a session, that is, unless the run is ok."""
    request, deployment = task.job.request, task.job.deployment
    whole = None if session is None else session.part(Part.RUN)
    return RunRow(
        run_id=task.job.run_id,
        schema_version=SCHEMA_VERSION,
        campaign_id=task.campaign_id,
        environment_id=outcome.environment_id,
        provenance=task.provenance if counted is None else counted.provenance,
        source=OWN_SOURCE.source,
        model=request.model,
        model_revision=task.source.revision,
        weights=Weights(task.source.weights),
        config_sha256=None if loaded is None else loaded.config_sha256,
        dtype=request.dtype,
        quantization=None if loaded is None else loaded.quantization,
        runtime=deployment.runtime,
        attention=deployment.attention,
        kv_cache=deployment.kv_cache,
        cuda_graphs=deployment.cuda_graphs,
        gpu=outcome.gpu,
        n_gpus=deployment.n_gpus,
        nodes=deployment.nodes,
        parallelism=deployment.parallelism,
        tensor_parallel=deployment.ranks if deployment.parallelism == "tensor" else 1,
        batch_size=request.batch_size,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        prompts=None if loaded is None else loaded.prompts,
        sampling_weight=task.job.sampling_weight,
        clipped=task.job.clipped,
        status=outcome.status,
        status_detail=None if outcome.detail is None else _storable(outcome.detail),
        energy_j=_energy(whole),
        energy_ci95_j=None if whole is None or whole.energy_j is None else whole.energy_j.ci95,
        energy_systematic95_j=_systematic(session, whole),
        duration_s=_duration(whole),
        duration_ci95_s=None if whole is None or whole.duration_s is None else whole.duration_s.ci95,
        idle_power_w=None if session is None else session.idle.mean_power_w,
        residual_j=None if ledger is None else ledger.residual_j.value,
        residual_ci95_j=None if ledger is None else ledger.residual_j.ci95,
        ledger_idle_j=None if ledger is None else ledger.idle_j,
        ledger_kernels_j=None if ledger is None else ledger.kernels_j.value,
        ledger_gaps_j=None if ledger is None else ledger.gaps_j.value,
        ledger_method=None if ledger is None else ledger.method,
        trials=_trials(whole),
        method=None if counted is None else counted.method,
        quality=task.quality,
        peak_memory_bytes=None if loaded is None else loaded.peak_memory_bytes,
        started_at_utc=outcome.started_at_utc,
        configuration=task.configuration,
        superseded_by=None,
    )


def without_numbers(task: Task, status: Status, detail: str, started_at_utc: str) -> Measurement:
    """The record of a run that was not measured."""
    outcome = Outcome(status=status, detail=detail, started_at_utc=started_at_utc, environment_id=None, gpu=task.gpu)
    return Measurement(run=run_row(task, outcome), source=OWN_SOURCE)


def _storable(text: str) -> str:
    """Text of any origin as UTF-8 of bounded length: an error may quote a path that is no text, or a whole file."""
    return text[:_LONGEST_DETAIL].encode("utf-8", "replace").decode()


def _systematic(session: SessionResult | None, result: PartResult | None) -> float | None:
    """Null where nobody states how exact the meter is."""
    if session is None or session.precision.gain95 is None or result is None or result.energy_j is None:
        return None
    return result.energy_j.systematic95


def _energy(result: PartResult | None) -> float | None:
    return None if result is None or result.energy_j is None else result.energy_j.value


def _duration(result: PartResult | None) -> float | None:
    return None if result is None or result.duration_s is None else result.duration_s.value


def _trials(result: PartResult | None) -> int | None:
    return None if result is None or result.energy_j is None else result.energy_j.samples


def measurement_of(
    task: Task,
    session: SessionResult,
    counted: Counted,
    splits: Mapping[Phase, PhaseSplit],
    *,
    run: RunRow,
    findings: KernelFindings = KernelFindings(),  # noqa: B008  frozen
    watch: Watch | None = None,
    environment: EnvironmentRow,
    rank_times: tuple[RankTimeRow, ...] = (),
    graphs: RunGraphs = RunGraphs(),  # noqa: B008  frozen
) -> Measurement:
    """All rows of a run that was measured."""
    return Measurement(
        run=run,
        environment=environment,
        source=OWN_SOURCE,
        phases=tuple(
            _phase_row(task, session, counted, part, splits.get(phase), graphs.of(phase))
            for part, phase in _PHASES.items()
            if session.part(part) is not None
        ),
        kernels=tuple(
            row for split in splits.values() for row in kernel_rows(task.job.run_id, split, graphs.of(split.phase))
        ),
        kernel_energies=(
            *(row for split in splits.values() for row in kernel_energy_rows(task.job.run_id, split)),
            *findings.rows,
        ),
        graphs=tuple(map(graph_row, graphs.graphs)),
        readings=reading_rows(task.job.run_id, session, counted, watch),
        power_traces=() if watch is None else watch.rows(task.job.run_id, counted.ranks, _origin_s(session)),
        rank_times=rank_times,
    )


def _phase_row(
    task: Task,
    session: SessionResult,
    counted: Counted,
    part: Part,
    split: PhaseSplit | None,
    graph: KernelGraph | None,
) -> PhaseRow:
    request = task.job.request
    result = session.part(part)
    duration_s = _duration(result)
    taken_from = {taken.context_start_tokens for taken in session.windows if taken.part is part}
    contexts = sorted(context for context in taken_from if context is not None)
    decode = part is Part.DECODE
    return PhaseRow(
        run_id=task.job.run_id,
        phase=_PHASES[part],
        graph_id=None if graph is None else graph.graph_id,
        energy_j=_energy(result),
        energy_ci95_j=None if result is None or result.energy_j is None else result.energy_j.ci95,
        energy_systematic95_j=_systematic(session, result),
        idle_energy_j=None if duration_s is None else session.idle.mean_power_w * duration_s,
        host_gap_energy_j=None if split is None else split.host_gap_energy_j,
        duration_s=duration_s,
        steps=request.decode_steps if decode else 1,
        context_start_tokens=request.prompt_tokens if decode else 0,
        context_end_tokens=request.context_tokens if decode else request.prompt_tokens,
        measured_contexts=json.dumps(contexts) if len(contexts) > 1 else None,
        trials=_trials(result),
        method=counted.method,
    )


def reading_rows(
    run_id: str, session: SessionResult, counted: Counted, watch: Watch | None = None
) -> tuple[ReadingRow, ...]:
    """Every window as it was read, one row per device, rejected ones included."""
    idle = [_idle_window(trial, window) for trial, window in enumerate(session.idle.windows)]
    return tuple(
        _reading_row(run_id, taken, session, counted, device, watch or Watch())
        for taken in sorted((*idle, *session.windows), key=lambda each: each.window.started_s)
        for device in range(len(counted.names))
    )


def _origin_s(session: SessionResult) -> float:
    """Where the times of a run's readings and power traces begin."""
    return session.idle.windows[0].spans[0].started_s


def _idle_window(trial: int, window: Window) -> TakenWindow:
    return TakenWindow(
        part=Part.IDLE, trial=trial, passes=0.0, context_start_tokens=None, mean_context_tokens=None, window=window
    )


def _reading_row(
    run_id: str, taken: TakenWindow, session: SessionResult, counted: Counted, device: int, watch: Watch
) -> ReadingRow:
    window, span = taken.window, taken.window.spans[device]
    before, after = window.before[device], window.after[device]
    half = reading95_of_device(window, session.idle, session.precision, device, step_s=session.step_s)
    return ReadingRow(
        run_id=run_id,
        part=taken.part,
        trial=taken.trial,
        rank=counted.ranks[device],
        device_sha256=counted.device_sha256[device],
        meter=counted.names[device],
        provenance=counted.provenance,
        energy_j=span.energy_j,
        uncertainty_j=half.all_j,
        duration_s=span.duration_s,
        lead_s=span.lead_s,
        tail_s=span.tail_s,
        passes=taken.passes,
        kernels=kernels_text(taken.kernels),
        polled_energy_j=watch.polled_j(taken, device),
        context_start_tokens=taken.context_start_tokens,
        started_s=span.started_s - _origin_s(session),
        counter_start_j=span.counter_start_j,
        counter_end_j=span.counter_end_j,
        sm_clock_mhz=after.sm_clock_mhz,
        memory_clock_mhz=after.memory_clock_mhz,
        temperature_c=after.temperature_c,
        throttle_reasons=_either(before, after),
        rejected=taken.rejected,
    )


def _either(before: Conditions, after: Conditions) -> int | None:
    known = [each.throttle_reasons for each in (before, after) if each.throttle_reasons is not None]
    return known[0] | known[-1] if known else None
