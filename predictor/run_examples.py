"""Examples to learn from: measured batches and servers, as requests with the time and energy of their parts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.dataset.lessons import run_lessons
from harness.errors import UnknownHardware
from harness.hardware import find
from predictor.requests import Parallelism, PredictionRequest

# Mean prompt lengths of sets of prompts whose sources publish none; see DESIGN.md for how they were found.
PROMPT_TOKENS = {
    "lm-arena-chat": 200,
    "gpqa": 250,
    "sourcegraph-fim": 1500,
    "image-chat": 1300,
    "video-chat": 6000,
}
_WRONG = ("faster than the peak", "ended early", "below what the prefill", "was an interruption", "its end-to-end")
_VIRTUAL = "virtual: "  # a simulated GPU stands for the one it simulates; its provenance says what it is
_SEPARATE = "prefill and decode on separate GPUs"
_QUEUED = "requests waited in a queue"
_PAIRS = {"fp8": "float8", "nvfp4": "float4", "mxfp4": "mxfp4"}


class Part(StrEnum):
    """What of a request was measured."""

    PREFILL = "prefill"
    DECODE = "decode"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A measured part. NaN: not known."""

    part: Part
    duration_s: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExample:
    """One measured run. What it came from is for splits only."""

    request: PredictionRequest
    targets: tuple[Target, ...]
    source: str
    licence: str | None
    provenance: str
    model: str
    run_id: str
    host_bound: bool  # a server that the source's rule calls bound by its host: another regime, not learned from


def run_examples(folder: Path) -> tuple[RunExample, ...]:
    """The runs of a dataset that can be asked of a predictor; those on unknown devices or without lengths are not."""
    return tuple(_examples(run_lessons(folder).to_pylist()))


def _examples(rows: Sequence[dict[str, Any]]) -> Iterator[RunExample]:
    for row in rows:
        request = _request(row)
        targets = () if request is None else _targets(row, request)
        if request is not None and targets:
            yield RunExample(
                request=request,
                targets=targets,
                source=row["source"],
                licence=row["licence"],
                provenance=row["provenance"],
                model=row["model"],
                run_id=row["run_id"],
                host_bound="bound by the host" in (row["status_detail"] or ""),
            )


def _request(row: dict[str, Any]) -> PredictionRequest | None:
    server = row["workload"] == "server"
    prompt = row["prompt_tokens"] or PROMPT_TOKENS.get(row["prompts"] or "")
    batch = row["mean_batch_size"] if server and row["mean_batch_size"] else row["batch_size"]
    output = row["mean_output_tokens"] if server and row["mean_output_tokens"] else row["output_tokens"]
    if prompt is None or None in (row["model"], batch, output) or (row["pipeline_parallel"] or 1) > 1:
        return None
    try:
        hardware = find(row["gpu"].removeprefix(_VIRTUAL))
    except UnknownHardware:
        return None
    return PredictionRequest(
        model=row["model"],
        hardware=hardware,
        n_gpus=max(1, row["n_gpus"]),
        batch_size=max(1, round(batch)),
        prompt_tokens=prompt,
        output_tokens=round(output),
        dtype=_dtype(row),
        runtime=row["runtime"] or "hf",
        parallelism=Parallelism.LAYERS if row["parallelism"] == "layers" else Parallelism.TENSOR,
        expert_parallel=row["expert_parallel"] if (row["expert_parallel"] or 1) > 1 else None,
        data_parallel=row["data_parallel"] if (row["data_parallel"] or 1) > 1 else None,
        attention=_attention(row),
        kv_cache=row["kv_cache"] is not False,
        cuda_graphs=row["cuda_graphs"],
        sm_clock_mhz=row["sm_clock_mhz"],
        power_limit_w=row["power_limit_w"],
        server=server,
    )


def _attention(row: dict[str, Any]) -> str | None:
    return row["attention"] if (row["runtime"] or "hf") == "hf" else None


def _dtype(row: dict[str, Any]) -> str:
    quantised: str | None = _PAIRS.get(row["quantization"] or "")
    return quantised or row["dtype"] or "bfloat16"


def _targets(row: dict[str, Any], request: PredictionRequest) -> tuple[Target, ...]:
    if row["workload"] == "server":
        return _server_targets(row, request)
    found = []
    for part in (Part.PREFILL, Part.DECODE):
        flags = row[f"{part}_flags"] or ""
        if not any(text in flags for text in _WRONG):
            found.append(_target(part, row[f"{part}_duration_s"], row[f"{part}_energy_j"]))
    detail = row["status_detail"] or ""
    if not any(text in detail for text in (*_WRONG, "its phases differ")):
        found.append(_target(Part.WHOLE, row["duration_s"], row["energy_j"]))
    return tuple(target for target in found if _says_something(target))


def _server_targets(row: dict[str, Any], request: PredictionRequest) -> tuple[Target, ...]:
    detail = row["status_detail"] or ""
    if _SEPARATE in detail or _QUEUED in detail:
        return ()
    produced = request.batch_size * request.output_tokens
    rate, energy = row["output_tokens_per_s"], row["energy_j"]
    tokens = row["mean_output_tokens"] or request.output_tokens
    if rate is None:  # a time per token is that of a step: prefills of others are not in its median
        steps = max(0, request.output_tokens - 1)
        step = _target(Part.DECODE, row["tpot_s"] * steps if row["tpot_s"] else None, None)
        return (step,) if _says_something(step) else ()
    whole = _target(Part.WHOLE, produced / rate, None if energy is None else energy / tokens * produced)
    return (whole,) if _says_something(whole) else ()


def _target(part: Part, duration_s: float | None, energy_j: float | None) -> Target:
    return Target(
        part=part,
        duration_s=math.nan if duration_s is None else duration_s,
        energy_j=math.nan if energy_j is None else energy_j,
    )


def _says_something(target: Target) -> bool:
    return target.duration_s > 0 or target.energy_j > 0
