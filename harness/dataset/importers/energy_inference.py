"""energy-inference: energy of whole generations of Hugging Face models on A100s of two sites, in two sweeps.

Source: G. Wilkins, "Energy-Inference", thesis project, 2024. The merged tables ``plots/**/all-*.csv`` repeat one
another, name one machine twice, hold the start-up beside the generations, and state a batch of 32 that the times
contradict; the rules here undo that.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.dataset.importers.energy_inference_samples import VARIANTS, Sample, merged_files, sort_in
from harness.dataset.importers.importing import ImportedBatch, content_id
from harness.dataset.importers.names import size_of, variant_by_power, within_limit
from harness.dataset.importers.repeats import (
    RunRows,
    Tally,
    batch_of,
    environment_of,
    joined,
    middle,
    reading_of,
    run_from,
    with_energy,
)
from harness.dataset.importers.repeats_cache import CacheReading, Generation, reading_that_fits
from harness.dataset.importers.repeats_files import commit_of, read_csv
from harness.hardware import Hardware
from harness.records import RunRow, SourceRow
from harness.words import Part, Weights

NO_VARIANT: Final = "the variant of the GPU cannot be told: no window of 10 s, or power above every variant's limit"
WARM_UP: Final = "warm-up"
ENDED_EARLY: Final = "ended before the stated number of output tokens"
BATCH_REFUTED: Final = "the stated batch is not believed: the times fit single sequences without a KV cache only"
BATCH_OPEN: Final = "the stated batch is not confirmed: the times do not decide between batch and KV cache"
ALL_EARLY: Final = "every repeat ended before the stated number of output tokens"
OTHER_PROMPT: Final = "the column of input tokens is nominal: the prompt's tokens were counted"
TOO_MUCH_POWER: Final = "mean power above the limit of the GPU"

_METER: Final = "pyJoules: NVML energy counters of all GPUs, read before and after a generation"
_METHOD: Final = "nvml-counter"
_DTYPE: Final = "bfloat16"  # in the project's scripts
_LONG_WINDOW_S: Final = 10.0  # long enough for a level of power: NVML's counter moves every 0.1 s or so


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """What one sweep was run on."""

    system: str
    model: str
    n_gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was run; equal requests are repeats."""

    deployment: _Deployment
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class EnergyInference:
    """Reads ``plots/**/all-*.csv`` of a clone, or the same files in any folder."""

    name: str = "energy-inference"
    summary: str = "Energy-Inference (Wilkins, 2024): joules of generations of 7B to 40B models on A100s"
    licence: str | None = None

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch: rows repeat across files. Raises ``DatasetError``."""
        tally, samples, rows_in = Tally(), dict[Sample, None](), 0
        for file in merged_files(path):
            for row in read_csv(file):
                rows_in += 1
                sort_in(row, samples, tally)
        source = _source(commit_of(path))
        rows = list(_all_rows(source, list(samples), tally))
        yield batch_of(source, rows, tally.account(rows_in))


def _all_rows(source: SourceRow, samples: Sequence[Sample], tally: Tally) -> Iterator[RunRows]:
    prompts = _prompt_tokens(samples)
    gpus = {system: _variant(system, samples) for system in {sample.system for sample in samples}}
    requests: dict[_Request, list[Sample]] = {}
    for sample in samples:
        deployment = _Deployment(system=sample.system, model=sample.model, n_gpus=sample.n_gpus)
        tokens = prompts[sample.model, sample.prompt]
        request = _Request(deployment=deployment, prompt_tokens=tokens, output_tokens=sample.output_tokens)
        requests.setdefault(request, []).append(sample)
    readings = _cache_readings(requests, gpus)
    for request, repeats in requests.items():
        gpu = gpus[request.deployment.system]
        if gpu is None:
            for _ in repeats:
                tally.reject(NO_VARIANT, request.deployment.system)
            continue
        rows = _rows(source, request, repeats, gpu, readings[request.deployment])
        tally.keep(len(repeats), rows.flags)
        yield rows


def _prompt_tokens(samples: Iterable[Sample]) -> dict[tuple[str, str], int]:
    """Tokens of each model's prompts: the median of what is counted, which neither early ends nor recounting move.

    Where that is nothing, as with prompts that were not counted, the stated number.
    """
    counted: dict[tuple[str, str], list[int]] = {}
    for sample in samples:
        tokens = sample.counted_prompt_tokens if sample.counted_prompt_tokens > 0 else sample.stated_prompt_tokens
        counted.setdefault((sample.model, sample.prompt), []).append(tokens)
    return {key: statistics.median_low(tokens) for key, tokens in counted.items()}


def _variant(system: str, samples: Iterable[Sample]) -> Hardware | None:
    """The GPU of a machine, by the highest level of power it reaches for long; None where there is no such window."""
    long = [sample.power_w for sample in samples if sample.system == system and sample.duration_s >= _LONG_WINDOW_S]
    return variant_by_power(VARIANTS[system], max(long)) if long else None


def _cache_readings(
    requests: Mapping[_Request, Sequence[Sample]], gpus: Mapping[str, Hardware | None]
) -> dict[_Deployment, CacheReading | None]:
    """Batch and KV cache of each deployment, by the times of its longest prompt and its longest output."""
    found: dict[_Deployment, CacheReading | None] = {}
    for deployment in {request.deployment for request in requests}:
        size, gpu = size_of(deployment.model), gpus[deployment.system]
        own = [request for request in requests if request.deployment == deployment]
        prompt = max(own, key=lambda request: request.prompt_tokens)
        output = max(own, key=lambda request: request.output_tokens)
        if size is None or gpu is None or prompt == output:
            found[deployment] = None
            continue
        found[deployment] = reading_that_fits(
            size,
            _generation(prompt, requests[prompt]),
            _generation(output, requests[output]),
            stated_batch=requests[prompt][0].stated_batch,
            peak_flop_per_s=gpu.peak_flop_per_s_for(_DTYPE),  # of one: a layer split has one GPU at work
        )
    return found


def _generation(request: _Request, repeats: Sequence[Sample]) -> Generation:
    duration_s = statistics.median(sample.duration_s for sample in repeats)
    return Generation(prompt_tokens=request.prompt_tokens, output_tokens=request.output_tokens, duration_s=duration_s)


def _rows(
    source: SourceRow, request: _Request, repeats: Sequence[Sample], gpu: Hardware, reading: CacheReading | None
) -> RunRows:
    reasons = [_reason(sample, request) for sample in repeats]
    early = ENDED_EARLY in reasons and None not in reasons
    if early:  # rather than none at all
        reasons = [None if reason == ENDED_EARLY else reason for reason in reasons]
    used = [sample for sample, reason in zip(repeats, reasons, strict=True) if reason is None]
    flags = tuple(_flags(request, used or repeats, gpu, reading, early=early))
    environment = environment_of(
        gpu,
        device_name=request.deployment.system,
        meter=_METER,
        dtype=_DTYPE,
        power_limit_w=gpu.board_power_w,
    )
    run = replace(
        _run(source, request, gpu),
        environment_id=environment.environment_id,
        kv_cache=reading.kv_cache if reading else None,
        batch_size=reading.batch_size if reading else repeats[0].stated_batch,
        status_detail=joined(flags),
        host_energy_j=middle([sample.host_energy_j for sample in used if sample.host_energy_j is not None]).value,
    )
    return RunRows(
        run=with_energy(run, [sample.energy_j for sample in used], [sample.duration_s for sample in used]),
        readings=tuple(
            reading_of(
                run.run_id,
                Part.RUN,
                trial,
                "pyjoules:nvml",
                energy_j=sample.energy_j,
                duration_s=sample.duration_s,
                rejected=reason,
            )
            for trial, (sample, reason) in enumerate(zip(repeats, reasons, strict=True))
        ),
        environment=environment,
        flags=flags,
    )


def _run(source: SourceRow, request: _Request, gpu: Hardware) -> RunRow:
    """The run as far as the request says."""
    deployment = request.deployment
    return replace(
        run_from(source),
        run_id=content_id(
            source.source,
            gpu.name,
            deployment.model,
            deployment.n_gpus,
            request.prompt_tokens,
            request.output_tokens,
        ),
        model=deployment.model,
        weights=Weights.PRETRAINED,
        dtype=_DTYPE,
        runtime="hf",
        gpu=gpu.name,
        n_gpus=deployment.n_gpus,
        parallelism="none" if deployment.n_gpus == 1 else "layers",
        tensor_parallel=1,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        prompts="text",
        method=_METHOD,
    )


def _reason(sample: Sample, request: _Request) -> str | None:
    """Why a repeat is not used; a token more or less comes from counting a text anew."""
    if sample.iteration == 0:
        return WARM_UP
    missing = request.output_tokens - (sample.total_tokens - request.prompt_tokens)
    return ENDED_EARLY if missing > max(1.0, 0.01 * request.output_tokens) else None


def _flags(
    request: _Request, used: Sequence[Sample], gpu: Hardware, reading: CacheReading | None, *, early: bool
) -> Iterator[str]:
    if reading is None:
        yield BATCH_OPEN
    elif reading.batch_size != used[0].stated_batch:
        yield BATCH_REFUTED
    if early:
        yield ALL_EARLY
    if any(abs(sample.stated_prompt_tokens - request.prompt_tokens) > 0.05 * request.prompt_tokens for sample in used):
        yield OTHER_PROMPT
    if any(not within_limit(gpu, sample.power_w) for sample in used):
        yield TOO_MUCH_POWER


def _source(version: str | None) -> SourceRow:
    return SourceRow(
        source="energy-inference",
        title="Energy-Inference: A Project in Energy Usage of LLM Inference",
        url="https://github.com/grantwilkins/energy-inference",
        version=version,
        licence=None,
        citation="G. Wilkins, Energy-Inference, thesis project, 2024. No licence is stated: do not redistribute",
        measured=(
            "Energy of all GPUs (NVML counters, by pyJoules) and of the host's processors (RAPL or uProf) and time of "
            "one generation of one prompt: transformers pipeline, bfloat16, sampling, use_cache=False in the "
            "project's scripts. Two sweeps, not a grid: prompts of about 8 to 2048 tokens at 32 output tokens, 8 to "
            "4096 output tokens at one prompt of about 32. Several GPUs: device_map='auto', layers one after another."
        ),
        derived=(
            "Batch and KV cache: the one reading under which the longest prompt and the longest output imply the same "
            "FLOP/s (within a factor of 2) below the peak. GPU: the variant with the lowest power limit that the "
            "highest mean power over 10 s or more does not exceed (40 GB A100, by the raw files). argonne-swing is "
            "the machine Swing. Prompt tokens: median of counted tokens less output tokens. Warm-ups and repeats that "
            "ended before the stated output are readings, not part of the median. Left out: the host's energy of "
            "single repeats."
        ),
    )
