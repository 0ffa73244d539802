"""From a plan to its runs: models found, requests drawn, shortened to what this machine can do, and estimated."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.campaign.clipping import PlannedRun, WantedRun, clip
from harness.campaign.estimate import Machine, ModelSize, Passes, ProtocolCost
from harness.campaign.jobs import Job, run_id_of
from harness.campaign.passes import FormulaPasses, GraphPasses
from harness.campaign.plan import Plan
from harness.campaign.sampling import WantedRequest, sample_requests
from harness.campaign.site import Site
from harness.errors import CannotCapture, UnknownModel, UsageError
from harness.measuring.protocol import protocol_of
from harness.models.facts import ModelFacts, model_facts, unquantised_config
from harness.models.loading import check_attention
from harness.models.source import ModelSource, default_model, resolve
from harness.records import EnergyMethod, Provenance
from harness.requests import Deployment, Request
from harness.tracing.capture import GraphCapture

_START_S = 8.0  # start Python, import torch and transformers
_LOAD_BYTES_PER_S = 1e9  # weights from disk
_LOOPS = 30  # kernels of both phases that are worth a loop of their own, with the empty and the late ones
_MIXTURES = 80
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
            random_weights=plan.random_weights or site.provenance is Provenance.SIMULATED,  # none are loaded
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
    if plan.sampling in {"grid", "list"}:
        _check_contexts(requests, subjects)
    return Planner(plan, site, subjects).planned(requests)


class Planner:
    """Turns requests into runs, one for each model and deployment of a plan."""

    def __init__(self, plan: Plan, site: Site, subjects: Sequence[Subject]) -> None:
        self._plan, self._site = plan, site
        self.stages = tuple(
            _stage(plan, site, subject, deployment)
            for subject in subjects
            for deployment in site.deployments(plan, _attention(plan, subject))
        )
        self._versions = {subject.source.name: subject.version for subject in subjects}

    def planned(self, requests: Sequence[WantedRequest]) -> tuple[Planned, ...]:
        """The runs of the first request, then those of the second, and so on, each in the order of the stages."""
        wanted = [stage.wanted(request) for request in requests for stage in self.stages]
        return tuple(
            Planned(job=_job(self._plan, self._site, run, self._versions[run.request.model]), run=run)
            for run in clip(wanted, self._plan.time_budget_s)
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


def _attention(plan: Plan, subject: Subject) -> str:
    return subject.facts.attentions[0] if plan.attention == "auto" else plan.attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One model on one deployment, with what its requests cost there."""

    name: str
    dtype: str
    deployment: Deployment
    size: ModelSize
    passes: Passes
    machine: Machine
    protocol: ProtocolCost

    def wanted(self, request: WantedRequest) -> WantedRun:
        """A request of it."""
        return WantedRun(
            request=Request(
                model=self.name,
                batch_size=request.batch_size,
                prompt_tokens=request.prompt_tokens,
                output_tokens=request.output_tokens,
                dtype=self.dtype,
            ),
            deployment=self.deployment,
            sampling_weight=request.sampling_weight,
            size=self.size,
            passes=self.passes,
            machine=self.machine,
            protocol=self.protocol,
        )


def _stage(plan: Plan, site: Site, subject: Subject, deployment: Deployment) -> Stage:
    machine = site.machine(deployment)
    return Stage(
        name=subject.source.name,
        dtype=site.dtype,
        deployment=deployment,
        size=model_size(subject.facts, site.dtype),
        passes=passes_of(subject, deployment, site.dtype, machine),
        machine=machine,
        protocol=_protocol_cost(plan, site, subject.facts.weight_bytes(site.dtype)),
    )


def model_size(facts: ModelFacts, dtype: str) -> ModelSize:
    """What a model's memory depends on."""
    return ModelSize(
        weight_bytes=facts.weight_bytes(dtype),
        kv_bytes_per_token=facts.kv_bytes_per_token(dtype),
        state_bytes_per_sequence=facts.state_bytes_per_sequence,
        context_tokens=facts.context_tokens,
    )


def passes_of(subject: Subject, deployment: Deployment, dtype: str, machine: Machine) -> Passes:
    """What forward passes cost: by the model's kernel graph, or by a formula where that cannot be captured."""
    try:
        capture = GraphCapture(
            unquantised_config(subject.source),
            model=subject.source.name,
            dtype=dtype,
            attention=deployment.attention,
            tensor_parallel=machine.ranks,
            trust_remote_code=subject.source.trust_remote_code,
        )
        passes = GraphPasses(capture, machine)
        passes.prefill(1, 1)
        if deployment.kv_cache:
            passes.step(1, 4)  # a model may be captured in its prefill alone
        return passes
    except (CannotCapture, UnknownModel):
        return formula_passes(subject.facts, dtype, machine)


def formula_passes(facts: ModelFacts, dtype: str, machine: Machine) -> FormulaPasses:
    """The formula's sizes.

    Live activations of a token are taken as twelve hidden vectors (residual, normalised input, queries, keys, values
    and the two factors of a gated MLP of about four times the width), an upper estimate that sets memory bounds only;
    launches as forty kernels a layer.
    """
    item_bytes = max(1, facts.weight_bytes(dtype) // facts.parameters) if facts.quantized_bits is None else 2
    head_elements = facts.heads * facts.head_dim if facts.heads and facts.head_dim else facts.hidden_size
    return FormulaPasses(
        parameters=facts.parameters,
        active_parameters=facts.active_parameters or facts.parameters,
        weight_bytes=facts.weight_bytes(dtype),
        kv_bytes_per_token=facts.kv_bytes_per_token(dtype),
        attention_flop_per_pair=4 * facts.layers * head_elements,
        activation_bytes_per_token=12 * facts.hidden_size * item_bytes,
        launches=40 * facts.layers,
        machine=machine,
    )


def kernel_methods(plan: Plan, site: Site) -> tuple[EnergyMethod, ...]:
    """How kernels are measured beside being apportioned; on a virtual GPU, where time costs little, by replay too."""
    every = (EnergyMethod.REPLAY, EnergyMethod.REGRESSED)
    if plan.kernel_energy == "auto":
        return every[:1] if site.provenance is Provenance.SIMULATED and plan.trace_kernels else ()
    return tuple(method for method in every if plan.kernel_energy in {"all", method.value})


def _protocol_cost(plan: Plan, site: Site, weight_bytes: int) -> ProtocolCost:
    protocol = protocol_of(plan.quality)
    methods = kernel_methods(plan, site)
    windows = _LOOPS * protocol.trials_min * (EnergyMethod.REPLAY in methods)
    windows += _MIXTURES * (EnergyMethod.REGRESSED in methods)
    return ProtocolCost(
        load_s=_START_S + weight_bytes / _LOAD_BYTES_PER_S,
        warmup_s=protocol.warm_up_s,
        idle_s=2 * protocol.idle_s,
        window_s=protocol.window_s,
        trials=protocol.trials_min,
        traced_requests=_LOOSE_REQUESTS,
        loops_s=windows * protocol.window_s * protocol.kernel_window_share,
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
