"""SplitwiseSim: times of prompts and tokens under vLLM on DGX A100 and DGX H100, with power for some of them.

Source: Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024. The table is
the profile behind the paper's simulator: repeats share a configuration, one configuration stands in it three times
(once for each sweep through it), and one "GPU" is a computation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.dataset.importers.importing import ImportedBatch, content_id
from harness.dataset.importers.names import size_of
from harness.dataset.importers.repeats import (
    RunRows,
    Tally,
    batch_of,
    environment_of,
    joined,
    middle,
    phase_of,
    reading_of,
    run_from,
    with_energy,
)
from harness.dataset.importers.repeats_files import Fields, commit_of, nothing_to_read, read_csv
from harness.hardware import Hardware, find
from harness.kernels import Phase
from harness.records import PhaseRow, ReadingRow, RunRow, SourceRow
from harness.words import Part

SAME_ROW: Final = "the same row stands in the table already"
COMPUTED: Final = (
    "not measured: token and end-to-end times equal those of another GPU to the last digit, the prompt times are a "
    "multiple of it"
)
NO_GPU: Final = "a GPU this importer does not know"
NO_MODEL: Final = "a model this importer has no Hub id for"
NOT_POSITIVE: Final = "a time is zero or negative"
OTHER_TIME: Final = (
    "end-to-end time of a repeat and its phases differ by more than 10 %: it ended early, or a phase is wrong"
)
TOO_FAST: Final = "prefill faster than the peak FLOP/s of its GPUs"
TOO_LITTLE_POWER: Final = "mean power below what the prefill alone takes at its peak power"

_METER: Final = "times of vLLM; power as a share of TDP, meter not stated"
_METHOD: Final = "power-share-of-tdp"
_DIFFERENCE: Final = 0.10
_ROUNDING: Final = 1e-9
_MODELS: Final[Mapping[str, str]] = {"llama2-70b": "meta-llama/Llama-2-70b-hf", "bloom-176b": "bigscience/bloom"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    gpu: str
    power_limit_w: float


# The machines of the paper, DGX A100 and DGX H100; its design HHcap caps each GPU at half of its power.
_GPUS: Final[Mapping[str, _Card]] = {
    "a100-80gb": _Card(gpu="NVIDIA A100-SXM4-80GB", power_limit_w=400),
    "h100-80gb": _Card(gpu="NVIDIA H100 80GB HBM3", power_limit_w=700),
    "h100-80gb-pcap": _Card(gpu="NVIDIA H100 80GB HBM3", power_limit_w=350),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was run; equal requests are repeats."""

    model: str
    tensor_parallel: int
    prompt_tokens: int
    batch_size: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One repeat as the source gives it. Equal ones are one: times to the microsecond and below do not repeat."""

    hardware: str
    request: _Request
    prompt_s: float
    token_s: float
    whole_s: float
    mean_share: float | None  # of TDP
    peak_share: float | None

    @property
    def decode_s(self) -> float:
        return self.token_s * (self.request.output_tokens - 1)

    @property
    def disagrees(self) -> bool:
        """Whether the end-to-end time is not that of the phases."""
        phases_s = self.prompt_s + self.decode_s
        return abs(self.whole_s - phases_s) > _DIFFERENCE * phases_s


@dataclass(frozen=True, slots=True)
class Splitwise:
    """Reads ``data/perf_model.csv`` of a clone of splitwise-sim, or that file in any folder."""

    name: str = "splitwise"
    summary: str = "SplitwiseSim (ISCA 2024): prompt and token times of Llama-2-70B and BLOOM under vLLM"
    licence: str | None = "MIT"

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch; raises ``DatasetError``."""
        tally, samples, rows_in = Tally(), dict[_Sample, None](), 0
        for row in read_csv(_file(path)):
            rows_in += 1
            _sort_in(row, samples, tally)
        source = _source(commit_of(path))
        groups = _requests(_measured(list(samples), tally))
        rows = []
        for (_, request), repeats in groups.items():
            made = _rows(source, request, repeats)
            tally.keep(len(repeats), made.flags)
            rows.append(made)
        yield batch_of(source, rows, tally.account(rows_in))


def _file(path: Path) -> Path:
    for candidate in (path, path / "data" / "perf_model.csv", path / "perf_model.csv"):
        if candidate.is_file():
            return candidate
    raise nothing_to_read(path, "data/perf_model.csv")


def _sort_in(row: Fields, samples: dict[_Sample, None], tally: Tally) -> None:
    """Take a row among the samples, or leave it out by a rule."""
    model = _MODELS.get(row.text("model"))
    if model is None:
        tally.reject(NO_MODEL, row.text("model"))
        return
    sample = _sample(row, model)
    if min(sample.prompt_s, sample.token_s, sample.whole_s) <= 0:
        tally.reject(NOT_POSITIVE, row.place)
    elif sample in samples:
        tally.reject(SAME_ROW, row.place)
    else:
        samples[sample] = None


def _sample(row: Fields, model: str) -> _Sample:
    mean_share, peak_share = row.number("average_power"), row.number("peak_power")
    return _Sample(
        hardware=row.text("hardware"),
        request=_Request(
            model=model,
            tensor_parallel=row.count("tensor_parallel"),
            prompt_tokens=row.count("prompt_size"),
            batch_size=row.count("batch_size"),
            output_tokens=row.count("token_size"),
        ),
        prompt_s=row.number("prompt_time") / 1e3,
        token_s=row.number("token_time") / 1e3,
        whole_s=row.number("e2e_time") / 1e3,
        mean_share=mean_share if mean_share > 0 else None,
        peak_share=peak_share if peak_share > 0 else None,
    )


def _measured(samples: Sequence[_Sample], tally: Tally) -> list[_Sample]:
    """Samples on GPUs that are known and whose times are no computation from another GPU's."""
    twins: dict[tuple[_Request, float, float], _Sample] = {}
    for sample in samples:
        twins.setdefault((sample.request, sample.token_s, sample.whole_s), sample)
    factors = _factors(samples, twins)
    kept = []
    for sample in samples:
        if sample.hardware in factors:
            tally.reject(COMPUTED, f"{sample.hardware}: prompt time × {factors[sample.hardware]:.4g}")
        elif sample.hardware not in _GPUS:
            tally.reject(NO_GPU, sample.hardware)
        else:
            kept.append(sample)
    return kept


def _factors(samples: Sequence[_Sample], twins: Mapping[tuple[_Request, float, float], _Sample]) -> dict[str, float]:
    """GPUs all of whose samples are those of an earlier one with the prompt time multiplied by one number."""
    ratios: dict[str, list[float]] = {}
    for sample in samples:
        twin = twins[sample.request, sample.token_s, sample.whole_s]
        own = ratios.setdefault(sample.hardware, [])
        own.append(sample.prompt_s / twin.prompt_s if twin.hardware != sample.hardware else 0.0)
    return {
        hardware: found[0] for hardware, found in ratios.items() if found[0] and max(found) - min(found) < _ROUNDING
    }


def _requests(samples: Sequence[_Sample]) -> dict[tuple[str, _Request], list[_Sample]]:
    """Repeats by GPU and request."""
    groups: dict[tuple[str, _Request], list[_Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.hardware, sample.request), []).append(sample)
    return groups


def _rows(source: SourceRow, request: _Request, repeats: Sequence[_Sample]) -> RunRows:
    card = _GPUS[repeats[0].hardware]
    gpu = find(card.gpu)
    gpus_w = (gpu.board_power_w or 0.0) * request.tensor_parallel  # TDP of all of them
    environment = environment_of(
        gpu, device_name=repeats[0].hardware, meter=_METER, dtype="float16", power_limit_w=card.power_limit_w
    )
    whole = [sample for sample in repeats if not sample.disagrees]
    powers_w = [sample.mean_share * gpus_w for sample in repeats if sample.mean_share is not None]
    flags = _flags(repeats, gpu)
    run = replace(
        run_from(source),
        run_id=content_id(
            source.source,
            repeats[0].hardware,
            request.model,
            request.tensor_parallel,
            request.batch_size,
            request.prompt_tokens,
            request.output_tokens,
        ),
        environment_id=environment.environment_id,
        model=request.model,
        dtype="float16",
        runtime="vllm",
        kv_cache=True,
        cuda_graphs=False,  # the runs are of 2023; vLLM has had CUDA graphs since 0.2.6 of December of that year
        gpu=gpu.name,
        n_gpus=request.tensor_parallel,
        parallelism="tensor" if request.tensor_parallel > 1 else "none",
        tensor_parallel=request.tensor_parallel,
        batch_size=request.batch_size,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        status_detail=joined(flags),
        mean_power_w=middle(powers_w).value,
        method=_METHOD if powers_w else None,
    )
    energies_j = [energy for sample in whole if (energy := _energy_j(sample, gpus_w)) is not None]
    return RunRows(
        run=with_energy(run, energies_j, [sample.whole_s for sample in whole]),
        phases=_phases(run, repeats, flags),
        readings=tuple(_readings(run, repeats, gpus_w)),
        environment=environment,
        flags=flags,
    )


def _energy_j(sample: _Sample, gpus_w: float) -> float | None:
    return None if sample.mean_share is None else sample.mean_share * gpus_w * sample.whole_s


def _flags(repeats: Sequence[_Sample], gpu: Hardware) -> tuple[str, ...]:
    checks = {
        OTHER_TIME: any(sample.disagrees for sample in repeats),
        TOO_FAST: any(_too_fast(sample, gpu) for sample in repeats),
        TOO_LITTLE_POWER: any(_too_little_power(sample) for sample in repeats),
    }
    return tuple(rule for rule, found in checks.items() if found)


def _too_fast(sample: _Sample, gpu: Hardware) -> bool:
    request, size = sample.request, size_of(sample.request.model)
    peak_flop_per_s = gpu.peak_flop_per_s_for("float16") * request.tensor_parallel
    return size is not None and (
        size.forward_flop(request.batch_size, request.prompt_tokens) > peak_flop_per_s * sample.prompt_s
    )


def _too_little_power(sample: _Sample) -> bool:
    """A prefill keeps the GPUs at the peak power that the row states; the rest of the time takes more than nothing."""
    if sample.mean_share is None or sample.peak_share is None:
        return False
    return sample.mean_share < sample.peak_share * sample.prompt_s / sample.whole_s


def _phases(run: RunRow, repeats: Sequence[_Sample], flags: Sequence[str]) -> tuple[PhaseRow, ...]:
    """Times only: power is that of the whole run. Early ends had shorter contexts."""
    too_fast = [rule for rule in flags if rule == TOO_FAST]
    prefill = phase_of(run, Phase.PREFILL, [], [sample.prompt_s for sample in repeats], flags=too_fast)
    if run.output_tokens is None or run.output_tokens < 2:
        return (prefill,)
    whole = [sample.decode_s for sample in repeats if not sample.disagrees]
    decodes_s = whole or [sample.decode_s for sample in repeats]
    decode = phase_of(run, Phase.DECODE, [], decodes_s, flags=[] if whole else [OTHER_TIME])
    return (prefill, decode)


def _readings(run: RunRow, repeats: Sequence[_Sample], gpus_w: float) -> Iterator[ReadingRow]:
    some = not all(sample.disagrees for sample in repeats)
    for trial, sample in enumerate(repeats):
        reason = OTHER_TIME if sample.disagrees else None
        yield reading_of(run.run_id, Part.PREFILL, trial, "vllm", energy_j=None, duration_s=sample.prompt_s)
        if run.output_tokens != 1:
            yield reading_of(
                run.run_id,
                Part.DECODE,
                trial,
                "vllm",
                energy_j=None,
                duration_s=sample.decode_s,
                context_start_tokens=run.prompt_tokens,
                rejected=reason if some else None,
            )
        yield reading_of(
            run.run_id,
            Part.RUN,
            trial,
            "vllm",
            energy_j=_energy_j(sample, gpus_w),
            duration_s=sample.whole_s,
            rejected=reason,
        )


def _source(version: str | None) -> SourceRow:
    return SourceRow(
        source="splitwise",
        title="SplitwiseSim: LLM Serving Cluster Simulator, its performance profile",
        url="https://github.com/Mutinifni/splitwise-sim",
        version=version,
        licence="MIT",
        citation="P. Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024",
        measured=(
            "Time of the prompt, mean time per further token and end-to-end time of one batch under vLLM on DGX A100 "
            "and DGX H100, tensor parallel, float16; for 44 configurations on the A100 mean and peak power as shares "
            "of TDP."
        ),
        derived=(
            "Decode: token time × (output tokens − 1). Energy of a run: mean power share × TDP (board power of the "
            "hardware table) × GPUs × end-to-end time, which assumes that the share is that of every GPU over the "
            "whole run; null where no power is given (the source writes 0). Repeats whose end-to-end time differs "
            "from the phases by more than 10 % are readings, not part of a run's median. Rows of h100-80gb-pcap are "
            "those of h100-80gb with the prompt time × 1.3: they are left out. Left out: peak power."
        ),
    )
