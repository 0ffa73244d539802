"""From a plan to its runs: models found, requests drawn, shortened to what this machine can do, and estimated."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.campaign.clipping import PlannedRun, WantedRun, clip
from harness.campaign.estimate import ModelSize, ProtocolCost
from harness.campaign.jobs import Job, run_id_of
from harness.campaign.plan import Plan
from harness.campaign.sampling import WantedRequest, sample_requests
from harness.campaign.site import Site
from harness.errors import UsageError
from harness.measuring.protocol import protocol_of
from harness.models.facts import ModelFacts, model_facts
from harness.models.loading import check_attention
from harness.models.source import ModelSource, default_model, resolve
from harness.records import Deployment, Request

_START_S = 8.0  # start Python, import torch and transformers
_LOAD_BYTES_PER_S = 1e9  # weights from disk
_LOOSE_REQUESTS = 3.0  # whole requests run outside windows: timing passes, caches to decode from, tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model under test, found and sized."""

    source: ModelSource
    facts: ModelFacts

    @property
    def version(self) -> str:
        """What tells models of one name apart."""
        return f"{self.source.revision} {self.source.weights} {self.facts.config_sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A job with what it is expected to take."""

    job: Job
    run: PlannedRun


def find_subjects(plan: Plan, site: Site, *, download: bool = True) -> tuple[Subject, ...]:
    """Find every model of the plan and read its facts; raises ``UnknownModel`` and its like.

    ``download=False`` fetches no weights: enough to plan with.
    """
    subjects = []
    for reference in plan.models or (default_model(site.device),):
        source = resolve(
            reference,
            revision=plan.revision,
            random_weights=plan.random_weights,
            trust_remote_code=plan.trust_remote_code,
            download=download,
        )
        facts = model_facts(source)
        if plan.attention != "auto":
            check_attention(plan.attention, facts, source.name, site.device)
        subjects.append(Subject(source=source, facts=facts))
    names = [subject.source.name for subject in subjects]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(
            f"Two models of this plan are called {min(twice)!r}, so their rows could not be told apart.\n"
            "Rename one of the folders, or measure them in two campaigns."
        )
    return tuple(subjects)


def planned_runs(plan: Plan, site: Site, subjects: Sequence[Subject]) -> tuple[Planned, ...]:
    """Every run of the plan, in the order it will be made; skipped ones with their reason."""
    requests = sample_requests(plan)
    if plan.sampling != "trace":
        _check_contexts(requests, subjects)
    wanted = [
        _wanted(plan, site, subject, n_gpus, request)
        for request in requests
        for subject in subjects
        for n_gpus in site.gpu_counts
    ]
    versions = {subject.source.name: subject.version for subject in subjects}
    return tuple(
        Planned(job=_job(plan, site, run, versions[run.request.model]), run=run)
        for run in clip(wanted, plan.time_budget_s)
    )


def _check_contexts(requests: Sequence[WantedRequest], subjects: Sequence[Subject]) -> None:
    """What was asked for by name is not shortened silently; a sample of a trace is, and says so."""
    for subject in subjects:
        limit = subject.facts.context_tokens
        for request in requests:
            context = request.prompt_tokens + max(0, request.output_tokens - 1)
            if limit is not None and context > limit:
                raise UsageError(
                    f"A prompt of {request.prompt_tokens} and an output of {request.output_tokens} tokens need a "
                    f"context of {context}, and that of {subject.source.name} ends at {limit}.\n"
                    "Ask for shorter lengths, or for a model with a longer context."
                )


def _wanted(plan: Plan, site: Site, subject: Subject, n_gpus: int, request: WantedRequest) -> WantedRun:
    facts = subject.facts
    attention = facts.attentions[0] if plan.attention == "auto" else plan.attention
    return WantedRun(
        request=Request(
            model=subject.source.name,
            batch_size=request.batch_size,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            dtype=site.dtype,
        ),
        deployment=Deployment(device=site.device, n_gpus=n_gpus, attention=attention, kv_cache=plan.kv_cache),
        sampling_weight=request.sampling_weight,
        size=model_size(facts, site.dtype, eager=attention == "eager"),
        machine=site.machine(facts.layers, n_gpus),
        protocol=_protocol_cost(plan, facts.weight_bytes(site.dtype)),
    )


def model_size(facts: ModelFacts, dtype: str, *, eager: bool) -> ModelSize:
    """What a model's cost depends on.

    Live activations of a token are taken as twelve hidden vectors (residual, normalised input, queries, keys, values
    and the two factors of a gated MLP of about four times the width), an upper estimate that sets memory bounds only.
    """
    item_bytes = max(1, facts.weight_bytes(dtype) // facts.parameters) if facts.quantized_bits is None else 2
    head_elements = facts.heads * facts.head_dim if facts.heads and facts.head_dim else facts.hidden_size
    return ModelSize(
        parameters=facts.parameters,
        active_parameters=facts.active_parameters or facts.parameters,
        weight_bytes=facts.weight_bytes(dtype),
        kv_bytes_per_token=facts.kv_bytes_per_token(dtype),
        attention_flop_per_pair=4 * facts.layers * head_elements,
        activation_bytes_per_token=12 * facts.hidden_size * item_bytes,
        score_bytes_per_pair=2 * (facts.heads or 1) * item_bytes if eager else 0,
        state_bytes_per_sequence=facts.state_bytes_per_sequence,
        context_tokens=facts.context_tokens,
    )


def _protocol_cost(plan: Plan, weight_bytes: int) -> ProtocolCost:
    protocol = protocol_of(plan.quality)
    return ProtocolCost(
        load_s=_START_S + weight_bytes / _LOAD_BYTES_PER_S,
        warmup_s=protocol.warm_up_s,
        idle_s=2 * protocol.idle_s,
        window_s=protocol.window_s,
        trials=protocol.trials_min,
        traced_requests=_LOOSE_REQUESTS,
    )


def _job(plan: Plan, site: Site, run: PlannedRun, version: str) -> Job:
    return Job(
        run_id=run_id_of(run.request, run.wanted.deployment, plan, site.gpu, version),
        request=run.request,
        deployment=run.wanted.deployment,
        sampling_weight=run.wanted.sampling_weight,
        clipped=run.clipped,
        skipped=run.skipped,
        estimate_s=run.cost_s,
    )
