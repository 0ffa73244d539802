"""CO2-Meter: energy and time of prefill and decode of four small models on two edge devices, batch 1.

Source: Fu, Chen, Jiang, "CO2-Meter: A Comprehensive Carbon Footprint Estimator for LLMs on Edge Devices", AAAI 2026.
A row is one phase of one request. The source measured prefills and whole requests, and published decode as their
difference; the prefill that was subtracted is not named, so totals cannot be restored and stay null.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from harness.dataset.importers.importing import ImportedBatch, content_id
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
from harness.dataset.importers.repeats_files import (
    Fields,
    commit_of,
    csv_rows,
    nothing_to_read,
    read_bytes,
    zip_members,
)
from harness.kernels import Phase
from harness.records import EnvironmentRow, ReadingRow, RunRow, SourceRow
from harness.words import Part

NOT_POSITIVE: Final = "energy or time is zero or negative"
NO_PHASE: Final = "marked neither as a prefill nor as a decode"
NO_MODEL: Final = "a model this importer has no Hub id for, or whose sizes are other ones"
OTHER_LAYERS: Final = "the stated number of layers is not that of the model"
FRACTION: Final = "the stated number of output tokens is no whole number"
OTHER_POWER: Final = "median power of its repeats more than a factor of 3 from that of its device and phase"

_COLUMNS: Final = (
    *("code", "conv", "prefill", "decode"),  # 0 or 1; absent in files that were split by them
    *("gpu", "n_gpus", "llm", "bits", "activation", "hidden", "intermediate", "layers", "heads", "vocab"),
    *("batch", "prompt_tokens", "generated_tokens", "latency_s", "energy_j"),
)
_FLAGS: Final = 4
_KIND: Final = _COLUMNS[:15]  # what many rows have in common
_DTYPES: Final = {4: None, 8: None, 16: "float16", 32: "float32"}  # integers are no dtype of activations
_POWER_FACTOR: Final = 3.0
_METER: Final = "not stated"
_DECODE_METHOD: Final = "request-less-prefill"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A model of the source: its Hub id by the project's build_dataset.py, and sizes by its config.json."""

    hub_id: str
    hidden: int
    intermediate: int
    vocabulary: int
    layers: int


_MODELS: Final[Mapping[str, _Model]] = {
    "internlm": _Model(
        hub_id="internlm/internlm2-chat-1_8b", hidden=2048, intermediate=8192, vocabulary=92544, layers=24
    ),
    "qwen1.5-0.5b": _Model(hub_id="Qwen/Qwen1.5-0.5B", hidden=1024, intermediate=2816, vocabulary=151936, layers=24),
    "qwen2-1.5b": _Model(hub_id="Qwen/Qwen2-1.5B", hidden=1536, intermediate=8960, vocabulary=151936, layers=28),
    "tinyllama": _Model(
        hub_id="TinyLlama/TinyLlama-1.1B-Chat-v1.0", hidden=2048, intermediate=5632, vocabulary=32000, layers=22
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What many rows have in common."""

    phase: Phase
    device: str
    n_gpus: int
    model: str
    bits: int
    batch_size: int
    lengths: str  # where the lengths come from: name of the file, and of the trace
    layers_differ: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was run; equal requests are repeats."""

    kind: _Kind
    prompt_tokens: int
    output_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One repeat."""

    energy_j: float
    duration_s: float

    @property
    def power_w(self) -> float:
        return self.energy_j / self.duration_s


@dataclass(frozen=True, slots=True)
class Co2Meter:
    """Reads ``raw data/raw_data.zip`` of a clone, or CSV files without a header, packed with gzip or not."""

    name: str = "co2-meter"
    summary: str = "CO2-Meter (AAAI 2026): joules of prefill and decode of small models on Jetson Orin and RK3588"
    licence: str | None = None

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch a file; raises ``DatasetError``."""
        source = _source(commit_of(path))
        for name, content in _contents(path):
            yield _batch(source, name, content)


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the data files."""
    upstream = path / "raw data" / "raw_data.zip"
    files = [path] if path.is_file() else [*sorted(path.glob("*.csv")), *sorted(path.glob("*.csv.gz"))]
    archives = [file for file in (*files, upstream) if file.suffix == ".zip" and file.is_file()]
    if not archives and not files:
        raise nothing_to_read(path, "raw data/raw_data.zip, nor CSV files")
    for archive in archives:
        yield from zip_members(archive, ".csv")
    for file in files:
        if file not in archives:
            yield file.name, read_bytes(file)


def _batch(source: SourceRow, name: str, content: bytes) -> ImportedBatch:
    tally, rows_in = Tally(), 0
    kinds: dict[tuple[object, ...], _Kind | str] = {}
    requests: dict[_Request, list[_Sample]] = {}
    lengths = name.rpartition("/")[2].removesuffix(".gz").removesuffix(".csv")
    for row in csv_rows(content, name, _columns(content)):
        rows_in += 1
        cells = tuple(row.values[column] for column in _KIND if column in row.values)
        if cells not in kinds:
            kinds[cells] = _kind(row, lengths)
        _sort_in(row, kinds[cells], requests, tally)
    medians_w = _median_powers(requests)
    rows = []
    for request, samples in requests.items():
        flags = _flags(request, samples, medians_w[request.kind.device, request.kind.phase])
        tally.keep(len(samples), flags)
        rows.append(_rows(source, request, samples, flags))
    return batch_of(source, rows, tally.account(rows_in))


def _sort_in(row: Fields, kind: _Kind | str, requests: dict[_Request, list[_Sample]], tally: Tally) -> None:
    """Take a row among the repeats of its request, or leave it out by a rule."""
    sample = _Sample(energy_j=row.number("energy_j"), duration_s=row.number("latency_s"))
    prompt_tokens, output_tokens = row.count("prompt_tokens"), row.positive("generated_tokens")
    if isinstance(kind, str):
        tally.reject(kind, row.place)
    elif min(sample.energy_j, sample.duration_s) <= 0:
        tally.reject(NOT_POSITIVE, f"{row.place}: {sample.energy_j:g} J in {sample.duration_s:g} s")
    else:
        phase = kind.phase if "prefill" in row.values else Phase.DECODE if output_tokens > 1 else Phase.PREFILL
        kind = kind if phase is kind.phase else replace(kind, phase=phase)
        request = _Request(kind=kind, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        requests.setdefault(request, []).append(sample)


def _columns(content: bytes) -> tuple[str, ...]:
    """Names of the columns, which the files do not give: with the four flags, or without them."""
    cells = content.split(b"\n", 1)[0].count(b",") + 1
    return _COLUMNS[_FLAGS:] if cells == len(_COLUMNS) - _FLAGS else _COLUMNS


def _kind(row: Fields, lengths: str) -> _Kind | str:
    """What a row is about, or the rule by which it is left out."""
    model = _MODELS.get(row.text("llm"))
    if model is None or model.hidden != row.whole("hidden") or model.intermediate != row.whole("intermediate"):
        return NO_MODEL
    phase = _phase(row)
    if phase is None or row.whole("bits") not in _DTYPES:
        return NO_PHASE if phase is None else NO_MODEL
    return _Kind(
        phase=phase,
        device=row.text("gpu"),
        n_gpus=row.count("n_gpus"),
        model=model.hub_id,
        bits=row.whole("bits"),
        batch_size=row.count("batch"),
        lengths=" ".join([lengths, *(trace for trace in ("code", "conv") if row.values.get(trace) == "1")]),
        layers_differ=model.layers != row.whole("layers"),
    )


def _phase(row: Fields) -> Phase | None:
    """The phase by the marks of a row; without marks its length tells, and this is the commoner of the two."""
    if "prefill" not in row.values:
        return Phase.PREFILL
    marks = (row.whole("prefill"), row.whole("decode"))
    return {(1, 0): Phase.PREFILL, (0, 1): Phase.DECODE}.get(marks)


def _median_powers(requests: Mapping[_Request, Sequence[_Sample]]) -> dict[tuple[str, Phase], float]:
    powers_w: dict[tuple[str, Phase], list[float]] = {}
    for request, samples in requests.items():
        powers_w.setdefault((request.kind.device, request.kind.phase), []).extend(sample.power_w for sample in samples)
    return {key: statistics.median(values) for key, values in powers_w.items()}


def _flags(request: _Request, samples: Sequence[_Sample], median_w: float) -> tuple[str, ...]:
    own_w = statistics.median(sample.power_w for sample in samples)
    checks = {
        OTHER_LAYERS: request.kind.layers_differ,
        FRACTION: not request.output_tokens.is_integer(),
        OTHER_POWER: not 1 / _POWER_FACTOR <= own_w / median_w <= _POWER_FACTOR,
    }
    return tuple(rule for rule, found in checks.items() if found)


def _rows(source: SourceRow, request: _Request, samples: Sequence[_Sample], flags: tuple[str, ...]) -> RunRows:
    kind, whole = request.kind, request.output_tokens.is_integer()
    prefill = kind.phase is Phase.PREFILL
    energies_j, durations_s = [sample.energy_j for sample in samples], [sample.duration_s for sample in samples]
    template = _template(source, kind)
    run = replace(
        template,
        run_id=content_id(template.run_id, request.prompt_tokens, request.output_tokens),
        prompt_tokens=request.prompt_tokens,
        output_tokens=int(request.output_tokens) if whole else None,
        mean_output_tokens=None if whole else request.output_tokens,
        status_detail=joined(flags),
    )
    method = None if prefill else _DECODE_METHOD
    return RunRows(
        run=with_energy(run, energies_j, durations_s) if prefill else run,
        phases=(phase_of(run, kind.phase, energies_j, durations_s, method=method, flags=flags),),
        readings=tuple(_reading(run, kind.phase, trial, sample) for trial, sample in enumerate(samples)),
        environment=_environment(kind),
        flags=flags,
    )


def _environment(kind: _Kind) -> EnvironmentRow:
    return environment_of(kind.device, device_name=kind.device, meter=_METER, dtype=None)


@cache
def _template(source: SourceRow, kind: _Kind) -> RunRow:
    """The run as far as its kind says; its id stands for the kind."""
    single = kind.n_gpus == 1
    return replace(
        run_from(source),
        run_id=content_id(
            source.source,
            kind.device,
            kind.n_gpus,
            kind.model,
            kind.bits,
            kind.batch_size,
            kind.lengths,
            kind.phase,
        ),
        environment_id=_environment(kind).environment_id,
        model=kind.model,
        dtype=_DTYPES[kind.bits],
        gpu=kind.device,
        n_gpus=kind.n_gpus,
        parallelism="none" if single else None,
        tensor_parallel=1 if single else None,
        batch_size=kind.batch_size,
        prompts=f"lengths of {kind.lengths}",
    )


def _reading(run: RunRow, phase: Phase, trial: int, sample: _Sample) -> ReadingRow:
    decode = phase is Phase.DECODE
    return reading_of(
        run.run_id,
        Part.DECODE if decode else Part.PREFILL,
        trial,
        _METER,
        energy_j=sample.energy_j,
        duration_s=sample.duration_s,
        context_start_tokens=run.prompt_tokens if decode else None,
    )


def _source(version: str | None) -> SourceRow:
    return SourceRow(
        source="co2-meter",
        title="CO2-Meter: A Comprehensive Carbon Footprint Estimator for LLMs on Edge Devices, raw data",
        url="https://github.com/fuzhenxiao/CO2-Meter",
        version=version,
        licence=None,
        citation="Z. Fu, F. Chen, L. Jiang, AAAI 2026, arXiv 2511.08575. No licence is stated: do not redistribute",
        measured=(
            "Energy and time of the prefill and of the whole of one request of batch 1, 16 bit, on a Jetson Orin and "
            "on the NPU of an RK3588; meter and boundary are not stated in the repository. Lengths drawn from the "
            "Azure traces (trace) or evenly (uniform)."
        ),
        derived=(
            "Decode, by the source: whole request less prefill; its error is that of both. Energy and time of requests "
            "with a decode stay null: the prefill that was subtracted is not named. Devices under the source's names: "
            "which module a Jetson Orin is, is not stated. The source gives TinyLlama 32 layers; the model has 22."
        ),
    )
