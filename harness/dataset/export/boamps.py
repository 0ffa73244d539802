"""BoAmps reports: the standardised description of the energy of an AI task by Boavizta, one JSON file a run.

https://github.com/Boavizta/BoAmps (report, algorithm, dataset, measure and hardware schemas of 2025). Energies there
are kilowatt-hours in a field named ``powerConsumption``. What is not known is left out, since a report has no null.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.dataset.export.leaving import LeavingRun
from harness.dataset.export.writing import write_text
from harness.records import Provenance, Workload
from harness.units import BYTES_PER_GIB, J_PER_KWH

_FORMAT = "0.1"
_FORMAT_URI = "https://github.com/Boavizta/BoAmps/tree/main/model"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "joulegraph run_id")
_TIME = "%Y-%m-%d %H:%M:%S"
# What the format calls the quality of a report: its relative error at most.
_QUALITIES = ((0.10, "high"), (0.25, "medium"), (0.50, "low"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """What a report says that no row knows."""

    made_at: datetime
    publisher: str
    country: str | None = None  # where the runs were made


def export_boamps(runs: tuple[LeavingRun, ...], reporting: Reporting, out: Path) -> tuple[Path, ...]:
    """Write ``out/report_inference_<report id>.json`` for each run; raises ``CannotWrite``."""
    paths = []
    for run in runs:
        path = out / f"report_inference_{_report_id(run)}.json"
        write_text(path, json.dumps(boamps_report(run, reporting), indent=1, ensure_ascii=False) + "\n")
        paths.append(path)
    return tuple(paths)


def boamps_report(run: LeavingRun, reporting: Reporting) -> dict[str, Any]:
    """The report of one run, as JSON."""
    report: dict[str, Any] = {
        "header": {
            **_known(licensing=run.licence),
            "formatVersion": _FORMAT,
            "formatVersionSpecificationUri": _FORMAT_URI,
            "reportId": _report_id(run),
            "reportDatetime": reporting.made_at.strftime(_TIME),
            "reportStatus": "final",
            "publisher": {"name": reporting.publisher, "confidentialityLevel": "public"},
        },
        "task": _task(run),
        "measures": [_measure(run)],
        **_known(system=_system(run), software=_software(run)),
        "infrastructure": {"infraType": "other", "components": list(_components(run))},
        **_known(environment={"country": reporting.country} if reporting.country else None, quality=_quality(run)),
    }
    return report


def _report_id(run: LeavingRun) -> str:
    """The same run, the same id; it has no letter that a file name cannot have."""
    return str(uuid.uuid5(_NAMESPACE, run.row.run_id))


def _task(run: LeavingRun) -> dict[str, Any]:
    row = run.row
    tokens = run.output_tokens
    algorithm = _known(
        algorithmType="llm",
        foundationModelName=row.model,
        foundationModelUri=run.model_url,
        framework=row.runtime,
        frameworkVersion=row.runtime_version,
        quantization=row.quantization or row.dtype,
    )
    return {
        "taskStage": "inference",
        "taskFamily": "text generation",
        "nbRequest": run.requests,
        "algorithms": [algorithm],
        "dataset": [
            {"dataUsage": "input", "dataType": "token", **_known(dataQuantity=row.prompt_tokens)},
            {
                "dataUsage": "output",
                "dataType": "token",
                **_known(dataQuantity=None if tokens is None else _counted(tokens / run.requests)),
            },
        ],
        "taskDescription": _description(run),
    }


def _description(run: LeavingRun) -> str:
    """Everything without which the number would be misread."""
    row = run.row
    source = f"{run.source.title} ({run.source.url})" if run.source and run.source.url else row.source
    return (
        f"Energy {run.how}, that of {run.requests} sequences on {max(1, row.n_gpus)} x {row.gpu}, GPUs (or "
        f"processor) only, idle power included. Workload {row.workload}. Source: {source}. Run {row.run_id} of the "
        "Joulegraph dataset."
    )


def _measure(run: LeavingRun) -> dict[str, Any]:
    row = run.row
    method = row.method or "not stated"
    measured = row.provenance in {Provenance.MEASURED, Provenance.IMPORTED}
    return _known(
        measurementMethod=f"{method} ({run.how})",
        gpuTrackingMode=_tracking(method) if row.n_gpus and measured else None,
        cpuTrackingMode=_tracking(method) if not row.n_gpus and measured else None,
        powerConsumption=run.energy_j / J_PER_KWH,
        measurementDuration=row.duration_s,
        measurementDateTime=_time(row.started_at_utc),
    )


def _counted(quantity: float) -> float | int:
    """A count is whole, a mean need not be."""
    return int(quantity) if quantity.is_integer() else quantity


def _tracking(method: str) -> str | None:
    return next((mode for mode in ("nvml", "rapl") if mode in method.lower()), None)


def _time(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).strftime(_TIME)
    except ValueError:
        return None


def _system(run: LeavingRun) -> dict[str, Any] | None:
    return {"os": run.environment.os} if run.environment and run.environment.os else None


def _software(run: LeavingRun) -> dict[str, Any] | None:
    environment = run.environment
    return {"language": "python", "version": environment.python} if environment and environment.python else None


def _components(run: LeavingRun) -> Iterator[dict[str, Any]]:
    row, environment = run.row, run.environment
    if row.n_gpus:
        maker = "NVIDIA" if row.gpu.startswith("NVIDIA") else None
        gpu = {"componentName": row.gpu, "componentType": "gpu", "nbComponent": row.n_gpus}
        # A sequence on a server has the GPUs together with others; how they share them is not known.
        yield {**gpu, **_known(manufacturer=maker, share=None if row.workload is Workload.SERVER else 1)}
    cpu = environment.cpu if environment else None
    if cpu or not row.n_gpus:
        yield {"componentName": cpu or row.gpu, "componentType": "cpu", "nbComponent": 1}
    if environment and environment.memory_bytes:
        size = round(environment.memory_bytes / BYTES_PER_GIB)
        yield {"componentType": "ram", "nbComponent": 1, "memorySize": size}


def _quality(run: LeavingRun) -> str | None:
    """By the interval, where a counter was read; an estimate has an error that nobody knows."""
    ci95_j = run.row.energy_ci95_j
    if ci95_j is None or run.row.provenance is not Provenance.MEASURED or run.energy_j <= 0:
        return None
    return next((name for most, name in _QUALITIES if ci95_j / run.energy_j <= most), None)


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
