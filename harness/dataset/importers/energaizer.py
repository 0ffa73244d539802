"""EnergAIzer: energy and time of one forward pass of a model, that is of a prefill alone, at a locked SM clock.

Source: Lee et al., "EnergAIzer: Fast and Accurate GPU Power Estimation Framework for AI Workloads", ISPASS 2026. All
that a row is about stands in its name::

    qwen2model_qwen2-1p5b_pbf16_b8_s1024_modeprefill_attneager_freq900_iter101.csv
    class      config     dtype b  s     phase       attention clock   passes
"""

import re
from collections.abc import Iterator, Mapping
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
    phase_of,
    reading_of,
    run_from,
    with_energy,
)
from harness.dataset.importers.repeats_files import Fields, commit_of, nothing_to_read, read_csv
from harness.errors import DatasetError, UsageError
from harness.hardware import find
from harness.kernels import Phase
from harness.records import ReadingRow, SourceRow
from harness.words import Part, Weights

CLOCK_FELL: Final = "the mean SM clock is below its lock"
TOO_FAST: Final = "faster than the peak FLOP/s at the locked clock: the pass cannot have been complete"
NO_LANGUAGE_MODEL: Final = "no language model: a vision model has no tokens"
NOT_PREFILL: Final = "not a prefill: another mode of the benchmark"
NO_MODEL: Final = "part of a model, or one this importer does not know"
NOT_POSITIVE: Final = "energy or time is zero or negative"
NO_NAME: Final = "the name of the workload is not of the published form"

_METER: Final = "NVML instant power, polled every 10 ms and summed over the passes"
_METHOD: Final = "nvml-instant-power"
_CLOCK_STEP_MHZ: Final = 0.1  # means of a clock that held lie within a millionth of it
_NAME: Final = re.compile(
    r"(?P<family>[a-z0-9]+?)_(?P<config>[a-z0-9.-]*(?:_[a-z0-9.-]+)*)_p(?P<dtype>bf16|fp16|fp32)_b(?P<batch>[1-9]\d{0,5})"
    r"(?:_s(?P<tokens>[1-9]\d{0,6})_mode(?P<mode>[a-z]+)(?:_attn(?P<attention>[a-z0-9]+))?)?"
    r"(?:_freq(?P<clock>\d{1,5}))?_iter(?P<passes>[1-9]\d{0,6})\.csv"
)
_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_ATTENTIONS: Final = {None: "eager", "eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
_MODELS: Final[Mapping[tuple[str, str], str]] = {
    ("bertmodel", "base"): "google-bert/bert-base-uncased",
    ("bertmodel", "large"): "google-bert/bert-large-uncased",
    ("llama3model", ""): "meta-llama/Meta-Llama-3-8B",
}
_SIZED: Final = re.compile(r"opt-\d+(?:\.\d+)?[bm]|gpt2(?:-medium|-large|-xl)?|qwen2-\d+(?:\.\d+)?b")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """The card behind a folder of measurements, as the artifact's own configuration describes it."""

    gpu: str
    clock_mhz: float  # locked to, where a name does not say
    power_limit_w: float


# Keys are the upstream folders. config/gpu/yz8.yaml: 40 GB, 1555 GB/s, 250 W.
_CARDS: Final[Mapping[str, _Card]] = {
    "a10": _Card(gpu="NVIDIA A10", clock_mhz=900, power_limit_w=150),
    "a100": _Card(gpu="NVIDIA A100-PCIE-40GB", clock_mhz=900, power_limit_w=250),
    "dvfs": _Card(gpu="NVIDIA A100-PCIE-40GB", clock_mhz=900, power_limit_w=250),
    "h100": _Card(gpu="NVIDIA H100 80GB HBM3", clock_mhz=1830, power_limit_w=700),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was run; equal requests are repeats."""

    card: str
    model: str
    dtype: str
    batch_size: int
    tokens: int
    attention: str
    clock_mhz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workload:
    """What the name of a row says."""

    request: _Request
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """One measured loop over a request."""

    passes: int
    energy_j: float  # of one pass
    duration_s: float  # of one pass
    clock_mhz: float
    temperature_c: float
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Energaizer:
    """Reads ``test/data/measurements/<gpu>/nvml/nvml_parsed.csv`` of a clone, or files named ``<gpu>.csv``."""

    name: str = "energaizer"
    summary: str = "EnergAIzer (ISPASS 2026): joules and milliseconds of forward passes at a locked clock"
    licence: str | None = "MIT"

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch a GPU; raises ``DatasetError``."""
        source = _source(commit_of(path if path.is_dir() else path.parent))
        for card, file in _files(path):
            yield _batch(source, card, file)


def _files(path: Path) -> list[tuple[str, Path]]:
    upstream = sorted(path.glob("test/data/measurements/*/nvml/nvml_parsed.csv"))
    found = [(file.parts[-3], file) for file in upstream] or [(file.stem, file) for file in sorted(path.glob("*.csv"))]
    found = [(path.stem, path)] if path.is_file() else found
    if not found:
        raise nothing_to_read(path, "test/data/measurements/<gpu>/nvml/nvml_parsed.csv, nor a file like a100.csv")
    unknown = [card for card, _ in found if card not in _CARDS]
    if unknown:
        raise DatasetError(
            f"{path}: no GPU is known for {', '.join(unknown)}; the artifact has {', '.join(_CARDS)}.\n"
            f"Name a file after the folder of the artifact that it comes from, e.g. a100.csv."
        )
    return found


def _batch(source: SourceRow, card: str, file: Path) -> ImportedBatch:
    tally, requests, rows_in = Tally(), dict[_Request, list[_Window]](), 0
    for row in read_csv(file):
        rows_in += 1
        workload = _workload(card, row.text("workload"))
        if isinstance(workload, str):
            tally.reject(workload, row.text("workload"))
            continue
        if min(row.number("energy"), row.number("time")) <= 0:
            tally.reject(NOT_POSITIVE, row.text("workload"))
            continue
        window = _window(workload, row)
        tally.keep(flags=window.flags)
        requests.setdefault(workload.request, []).append(window)
    rows = [_rows(source, request, windows) for request, windows in requests.items()]
    return batch_of(source, rows, tally.account(rows_in))


def _workload(card: str, text: str) -> _Workload | str:
    """What a row is about, or the rule by which it is left out."""
    name = _NAME.fullmatch(text)
    if name is None or name["attention"] not in _ATTENTIONS:
        return NO_NAME
    if name["tokens"] is None:
        return NO_LANGUAGE_MODEL
    if name["mode"] != "prefill":
        return NOT_PREFILL
    model = _model(name["family"], name["config"])
    if model is None:
        return NO_MODEL
    request = _Request(
        card=card,
        model=model,
        dtype=_DTYPES[name["dtype"]],
        batch_size=int(name["batch"]),
        tokens=int(name["tokens"]),
        attention=_ATTENTIONS[name["attention"]],
        clock_mhz=float(name["clock"] or _CARDS[card].clock_mhz),
    )
    return _Workload(request=request, passes=int(name["passes"]))


def _model(family: str, config: str) -> str | None:
    size = re.sub(r"(?<=\d)p(?=\d)", ".", config)
    if _SIZED.fullmatch(size) is None:
        return _MODELS.get((family, config))
    owned = {
        "optmodel": f"facebook/{size}",
        "gpt2model": f"openai-community/{size}",
        "qwen2model": f"Qwen/Qwen2-{size.removeprefix('qwen2-').upper()}",
    }
    return owned.get(family)


def _window(workload: _Workload, row: Fields) -> _Window:
    request = workload.request
    duration_s, clock_mhz = row.number("time") / 1e3, row.number("avg_freq")
    flags = []
    if clock_mhz < request.clock_mhz - _CLOCK_STEP_MHZ:
        flags.append(CLOCK_FELL)
    if _too_fast(request, duration_s):
        flags.append(TOO_FAST)
    return _Window(
        passes=workload.passes,
        energy_j=row.number("energy"),
        duration_s=duration_s,
        clock_mhz=clock_mhz,
        temperature_c=row.number("temp"),
        flags=tuple(flags),
    )


def _too_fast(request: _Request, duration_s: float) -> bool:
    """Whether a pass beats the peak, scaled by the locked clock; never where model or peak are not known."""
    size, gpu = size_of(request.model), find(_CARDS[request.card].gpu)
    if size is None or gpu.boost_clock_mhz is None:
        return False
    try:
        peak = gpu.peak_flop_per_s_for(request.dtype) * request.clock_mhz / gpu.boost_clock_mhz
    except UsageError:
        return False
    return size.forward_flop(request.batch_size, request.tokens) > peak * duration_s


def _rows(source: SourceRow, request: _Request, windows: list[_Window]) -> RunRows:
    gpu = find(_CARDS[request.card].gpu)
    environment = environment_of(
        gpu,
        device_name=gpu.name,
        meter=_METER,
        dtype=request.dtype,
        power_limit_w=_CARDS[request.card].power_limit_w,
        sm_clock_mhz=request.clock_mhz,
    )
    flags = [flag for window in windows for flag in window.flags]
    run = replace(
        run_from(source),
        run_id=content_id(
            source.source,
            gpu.name,
            request.model,
            request.dtype,
            request.batch_size,
            request.tokens,
            request.attention,
            request.clock_mhz,
        ),
        environment_id=environment.environment_id,
        model=request.model,
        weights=Weights.RANDOM,
        dtype=request.dtype,
        runtime="hf",
        attention=request.attention,
        kv_cache=False,
        gpu=gpu.name,
        parallelism="none",
        tensor_parallel=1,
        batch_size=request.batch_size,
        prompt_tokens=request.tokens,
        output_tokens=0,
        prompts="random",
        status_detail=joined(flags),
        method=_METHOD,
    )
    energies_j, durations_s = [window.energy_j for window in windows], [window.duration_s for window in windows]
    return RunRows(
        run=with_energy(run, energies_j, durations_s),
        phases=(phase_of(run, Phase.PREFILL, energies_j, durations_s, method=_METHOD, flags=flags),),
        readings=tuple(_reading(run.run_id, trial, window) for trial, window in enumerate(windows)),
        environment=environment,
    )


def _reading(run_id: str, trial: int, window: _Window) -> ReadingRow:
    return reading_of(
        run_id,
        Part.PREFILL,
        trial,
        "nvml:instant-power",
        energy_j=window.energy_j * window.passes,
        duration_s=window.duration_s * window.passes,
        passes=float(window.passes),
        sm_clock_mhz=window.clock_mhz,
        temperature_c=window.temperature_c,
    )


def _source(version: str | None) -> SourceRow:
    return SourceRow(
        source="energaizer",
        title="EnergAIzer: Fast and Accurate GPU Power Estimation Framework for AI Workloads (ISPASS 2026 artifact)",
        url="https://github.com/yifueve/energaizer-ispass26-artifact",
        version=version,
        licence="MIT",
        citation="K. Lee, Z. Song, E. K. Lee, X. Zhang, T. Eilam, A. P. Chandrakasan, ISPASS 2026, arXiv 2604.20105",
        measured=(
            "Energy and time of one forward pass without a KV cache: NVML's instant power, polled every 10 ms and "
            "summed over a loop of equal passes, divided by their number. Base models without a language-model head, "
            "random weights, random token ids. Mean SM clock and temperature of the loop. SM clock locked."
        ),
        derived=(
            "Windows: energy and time of a pass × passes. GPU: the folder a100 is an A100-PCIE-40GB, by the artifact's "
            "config/gpu/yz8.yaml (40 GB, 1555 GB/s, 250 W) and by the data (power levels off at 243 W). Clock where a "
            "name states none: 900 MHz (A10, A100), 1830 MHz (H100). Attention where a name states none: eager, for "
            "such rows take the time of eager ones. BERT: the uncased checkpoint's config; the source names the size."
        ),
    )
