"""The merged tables of energy-inference: which files, and which of their rows are generations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.dataset.importers.repeats import Tally
from harness.dataset.importers.repeats_files import Fields, header_of, nothing_to_read

RAW_FILE: Final = "a raw file: no merged table with energies in joules"
START_UP: Final = "start-up of tokenizer or model, no generation"
SAME_RUN: Final = "the same generation stands in another file"
NO_MODEL: Final = "a model this importer has no Hub id for"
NO_GPU: Final = "a machine whose GPU this importer does not know"
NOT_POSITIVE: Final = "energy or time is zero or negative"

_PHASE, _ENERGY, _HOST = "Phase", "GPU Energy (J)", "CPU Energy (J)"
_SYSTEMS: Final[Mapping[str, str]] = {"argonne-swing": "Swing AMD+A100"}  # two names of one machine
# Total memory in the raw files: 40,960 MiB (A100), 16,384 MiB (V100).
VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Swing AMD+A100": ("NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-40GB"),
    "Palmetto Intel+A100": ("NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-40GB"),
    "Palmetto Intel+V100": ("Tesla V100-PCIE-16GB", "Tesla V100-SXM2-16GB"),
}
_MODELS: Final[Mapping[str, str]] = {
    "Falcon (7B)": "tiiuae/falcon-7b",
    "Falcon (40B)": "tiiuae/falcon-40b",
    "Llama-2 (7B)": "meta-llama/Llama-2-7b-chat-hf",
    "Llama-2 (13B)": "meta-llama/Llama-2-13b-chat-hf",
    "Llama-2 (70B)": "meta-llama/Llama-2-70b-chat-hf",
    "Mistral (7B)": "mistralai/Mistral-7B-v0.1",
    "Mixtral (8x7B)": "mistralai/Mixtral-8x7B-v0.1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One generation as the source gives it. One of equal time and energy on equal terms is the same one."""

    system: str
    model: str
    n_gpus: int
    prompt: str = field(compare=False)
    stated_prompt_tokens: int = field(compare=False)
    output_tokens: int = field(compare=False)  # limit; the source lets nine tenths do
    total_tokens: int = field(compare=False)  # prompt and output, as counted afterwards
    stated_batch: int = field(compare=False)
    iteration: int = field(compare=False)
    duration_s: float
    energy_j: float
    host_energy_j: float | None = field(compare=False)  # null: not read

    @property
    def counted_prompt_tokens(self) -> int:
        return self.total_tokens - self.output_tokens

    @property
    def power_w(self) -> float:
        """Mean power of one GPU."""
        return self.energy_j / self.duration_s / self.n_gpus


def merged_files(path: Path) -> list[Path]:
    """The files to read; raises ``DatasetError`` where there is no merged table among them."""
    files = [path] if path.is_file() else sorted((path / "plots").rglob("all-*.csv")) or sorted(path.rglob("all-*.csv"))
    if not any(_merged(file) for file in files):
        raise nothing_to_read(path, "merged tables plots/**/all-*.csv with the columns Phase and CPU Energy (J)")
    return files


def _merged(file: Path) -> bool:
    return {_PHASE, _HOST} <= set(header_of(file))


def sort_in(row: Fields, samples: dict[Sample, None], tally: Tally) -> None:
    """Take a row among the samples, or leave it out by a rule."""
    if _HOST not in row.values:
        tally.reject(RAW_FILE, row.place)
    elif not row.text(_PHASE).startswith("start-inference"):
        tally.reject(START_UP, row.text(_PHASE))
    elif row.text("Model") not in _MODELS:
        tally.reject(NO_MODEL, row.text("Model"))
    elif _system(row) not in VARIANTS:
        tally.reject(NO_GPU, _system(row))
    elif min(row.number("Runtime (s)"), row.number(_ENERGY)) <= 0:
        tally.reject(NOT_POSITIVE, f"{row.text('Model')}, {row.text(_PHASE)}")
    elif (sample := _sample(row)) in samples:
        tally.reject(SAME_RUN, f"{row.text('Model')}, {row.text(_PHASE)}, {row.text('Runtime (s)')} s")
    else:
        samples[sample] = None


def _system(row: Fields) -> str:
    return _SYSTEMS.get(row.text("System"), row.text("System"))


def _sample(row: Fields) -> Sample:
    output = "Number of Output Tokens" if "Number of Output Tokens" in row.values else "Output Token Limit"
    host_j = row.number(_HOST)
    return Sample(
        system=_system(row),
        model=_MODELS[row.text("Model")],
        n_gpus=row.count("Number of GPUs"),
        prompt=row.text("Prompt"),
        stated_prompt_tokens=row.count("Number of Input Tokens"),
        output_tokens=row.count(output),
        total_tokens=row.whole("Total Number of Tokens"),
        stated_batch=row.count("Batch Size"),
        iteration=row.whole("Iteration"),
        duration_s=row.number("Runtime (s)"),
        energy_j=row.number(_ENERGY),
        host_energy_j=host_j if host_j > 0 else None,
    )
