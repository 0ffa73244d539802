"""A task that runs in a moment: a tiny model with random weights on the CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.campaign.jobs import Job
from harness.campaign.task import Task
from harness.measuring.attribution import Ceilings
from harness.models.source import resolve
from harness.records import Provenance, Quality
from harness.requests import Deployment, Request


def quick_task(config: Path, request: Request, *, run_id: str = "run-1", **changes: Any) -> Task:
    """One request of the model that a config describes, estimated; ``changes`` are fields of the task."""
    task = Task(
        job=Job(
            run_id=run_id,
            request=request,
            deployment=Deployment(device="cpu", n_gpus=0),
            sampling_weight=None,
            clipped=None,
            estimate_s=1.0,
        ),
        source=resolve(str(config), random_weights=True),
        gpu="cpu: Example",
        ceilings=Ceilings(flop_per_s=1e11, bytes_per_s=1e10),
        gpu_uuids=(),
        provenance=Provenance.ESTIMATED,
        campaign_id="c",
        configuration="{}",
        quality=Quality.QUICK,
        limit_s=None,
        seed=0,
        cpu_threads=0,
        collective_timeout_s=60.0,
        trace_kernels=True,
    )
    return replace(task, **changes)
