"""A job: one run as the queue keeps it, with an id that is the same wherever the same run is asked for."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.campaign.plan import Plan
from harness.requests import Deployment, Request

_RUN_SETTINGS = ("revision", "random_weights", "cpu_threads", "quality", "trace_kernels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run that is wanted, shortened as it will be made."""

    run_id: str
    request: Request
    deployment: Deployment
    sampling_weight: float | None
    clipped: str | None  # what was shortened and why
    skipped: str | None = None  # why the plan itself rules the run out; None: it is to be made
    estimate_s: float

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Read what ``to_json`` wrote; raises ``ValueError`` for anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            job = cls(**values)
            return replace(job, request=Request(**values["request"]), deployment=Deployment(**values["deployment"]))
        except (TypeError, KeyError, RecursionError) as problem:
            raise ValueError(f"not a job: {problem}") from problem

    def needs_at_least(self, other: "Job") -> bool:
        """Whether this job needs at least as much memory as ``other``, for certain.

        Same model, dtype and deployment; no smaller in batch, prompt and whole context. (Weights are the same, the
        KV cache grows with batch × context, activations with batch × prompt.)
        """
        mine, its = self.request, other.request
        return (
            (mine.model, mine.dtype, self.deployment) == (its.model, its.dtype, other.deployment)
            and mine.batch_size >= its.batch_size
            and mine.prompt_tokens >= its.prompt_tokens
            and mine.context_tokens >= its.context_tokens
        )


def run_id_of(request: Request, deployment: Deployment, plan: Plan, gpu: str, version: str) -> str:
    """Content hash of a run, 20 hexadecimal digits: request, deployment, device and what the plan says of the protocol.

    ``gpu`` is the device as in ``RunRow.gpu``, ``version`` tells models of one name apart. How the request was chosen
    does not matter. The same run made twice, in two folders or on two machines of one kind, has one id.
    """
    settings = {name: getattr(plan, name) for name in _RUN_SETTINGS}
    if plan.random_weights:
        settings["seed"] = plan.seed
    if plan.kernel_energy != "auto":
        settings["kernel_energy"] = plan.kernel_energy
    content = {
        "request": asdict(request),
        "deployment": _identity(deployment),
        "gpu": gpu,
        "version": version,
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:20]


def _identity(deployment: Deployment) -> dict[str, Any]:
    """What of a deployment makes a run another one; one machine goes without saying, as it did before ``nodes``."""
    values = asdict(deployment)
    if deployment.nodes == 1:
        del values["nodes"]
    return values
