"""What a worker process is told: one job, with everything it needs to carry it out."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.campaign.jobs import Job
from harness.measuring.attribution import Ceilings
from harness.models.source import ModelSource, SourceKind
from harness.records import EnergyMethod, Provenance, Quality, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One job and its campaign. Travels to the worker as one line of JSON."""

    job: Job
    source: ModelSource
    gpu: str  # as in ``RunRow.gpu``
    ceilings: Ceilings
    gpu_uuids: tuple[str, ...]  # GPUs of this machine that the campaign may use, as CUDA addresses them
    provenance: Provenance  # what this machine's meters give
    campaign_id: str
    configuration: str
    quality: Quality
    limit_s: float | None  # after which no trials beyond the fewest are made; None: no time budget
    seed: int
    cpu_threads: int
    collective_timeout_s: float
    trace_kernels: bool
    kernel_energy: tuple[EnergyMethod, ...] = ()  # replay, regressed: beside apportioning
    calibration: str | None = None  # of the machine's meters, canonical JSON

    def to_json(self) -> str:
        """The task as one line of JSON."""
        return json.dumps(asdict(self) | {"job": self.job.to_json()}, default=str, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Read what ``to_json`` wrote."""
        values: dict[str, Any] = json.loads(text)
        source = values["source"]
        return cls(
            **values
            | {
                "job": Job.from_json(values["job"]),
                "source": ModelSource(
                    **source
                    | {
                        "kind": SourceKind(source["kind"]),
                        "location": Path(source["location"]),
                        "weights": Weights(source["weights"]),
                    }
                ),
                "kernel_energy": tuple(map(EnergyMethod, values["kernel_energy"])),
                "gpu_uuids": tuple(values["gpu_uuids"]),
                "ceilings": Ceilings(**values["ceilings"]),
                "provenance": Provenance(values["provenance"]),
                "quality": Quality(values["quality"]),
            }
        )
