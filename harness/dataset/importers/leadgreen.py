"""The package leadgreen-mcp: 328 configurations of chat servers, from ML.ENERGY's leaderboard, installable by anybody.

Only its JSON files are read; no code of the package runs. The figures are those of the source ``ml-energy`` for the
task lm-arena-chat, rounded: whoever imports both has the same measurements twice, under two sources.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.dataset.importers.importing import ImportedBatch
from harness.dataset.importers.ml_energy import server_batch
from harness.dataset.importers.ml_energy_rows import Deployment, ServerSample
from harness.dataset.importers.repeats import Tally
from harness.dataset.importers.repeats_files import Fields, nothing_to_read, read_json
from harness.records import SourceRow

NO_REPEAT: Final = "the same row stands in the package already"

_PACKAGE: Final = "leadgreen_mcp"
_MOST_BYTES: Final = 16 * 1024**2  # of one file; the largest has 65 kB
_TASK: Final = "lm-arena-chat"
_PRECISIONS: Final = {"BF16": "bfloat16", "FP8": "fp8", "MXFP4": "mxfp4"}
_BILLION: Final = 1e9


@dataclass(frozen=True, slots=True)
class LeadGreen:
    """Reads ``data/models/*.json`` of the package: its own folder, or the one it is installed or unpacked in."""

    name: str = "leadgreen-mcp"
    summary: str = "leadgreen-mcp (PyPI): joules per output token of 328 chat servers on H100 and B200"
    licence: str | None = "CC-BY-4.0"

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch; raises ``DatasetError``."""
        data = _data(path)
        tally, samples, rows_in = Tally(), dict[str, ServerSample](), 0
        for file in sorted((data / "models").glob("*.json")):
            content = read_json(file, _MOST_BYTES)
            for row in content.listed("configurations"):
                rows_in += 1
                key = f"{row.text('row_id')}, repeat {row.whole('repeat')}"
                if key in samples:
                    tally.reject(NO_REPEAT, key)
                else:
                    samples[key] = _sample(content, row)
        manifest = read_json(data / "manifest.json", _MOST_BYTES)
        source = _source(_version(data, manifest))
        yield server_batch(source, list(samples.values()), tally, rows_in, _vllm(manifest))


def _data(path: Path) -> Path:
    for candidate in (path / _PACKAGE / "data", path / "data", path):
        if (candidate / "manifest.json").is_file() and any((candidate / "models").glob("*.json")):
            return candidate
    raise nothing_to_read(path, f"{_PACKAGE}/data with manifest.json and models/*.json")


def _version(data: Path, manifest: Fields) -> str:
    """Version of the package, where it is installed or unpacked with its metadata, and the date of its data."""
    found = [folder.name for folder in sorted(data.parent.parent.glob(f"{_PACKAGE}-*.dist-info"))]
    package = found[-1].removeprefix(f"{_PACKAGE}-").removesuffix(".dist-info") if found else None
    dated = f"data of {manifest.text('data_version')}"
    return f"{package}, {dated}" if package else dated


def _vllm(manifest: Fields) -> str | None:
    """The version of vLLM that the method of the first source names; None where none does."""
    methods = [str(source.values.get("method", "")) for source in manifest.listed("sources")]
    found = re.search(r"\bvLLM (\d+(?:\.\d+)+)", "\n".join(methods))
    return found[1] if found else None


def _sample(content: Fields, row: Fields) -> ServerSample:
    precision = row.text("precision")
    energy_per_token_j, output_tokens = row.number("joules_per_output_token"), row.number("avg_output_tokens")
    return ServerSample(
        deployment=Deployment(
            model=content.text("model_id"),
            prompts=_TASK,
            gpu=row.text("gpu"),
            n_gpus=row.count("num_gpus"),
            tensor_parallel=row.count("tensor_parallel"),
            expert_parallel=row.count("expert_parallel"),
            data_parallel=row.count("data_parallel"),
            batch_size=row.count("max_num_seqs"),
            precision=_PRECISIONS.get(precision, precision.lower()),
            parameters=content.positive("params_b") * _BILLION,
            active_parameters=content.positive("active_params_b") * _BILLION,
        ),
        energy_per_request_j=energy_per_token_j * output_tokens,
        energy_per_token_j=energy_per_token_j,
        mean_power_w=row.number("gpu_power_watts_total"),
        tokens_per_s=row.number("tokens_per_second"),
        median_step_s=row.number("median_itl_ms") / 1e3,
        mean_batch_size=row.number("avg_running_batch"),
        mean_output_tokens=output_tokens,
    )


def _source(version: str) -> SourceRow:
    return SourceRow(
        source="leadgreen-mcp",
        title="Lead Green: GPU energy per million output tokens, the data of the package leadgreen-mcp",
        url="https://pypi.org/project/leadgreen-mcp/",
        version=version,
        licence="CC-BY-4.0",
        citation=(
            "Lead Green (compilation, CC BY 4.0); figures: J.-W. Chung et al., The ML.ENERGY Benchmark, NeurIPS 2025, "
            "arXiv 2505.06371, leaderboard version 3 (Apache-2.0)"
        ),
        measured=(
            "A vLLM server at steady state on text conversations (lm-arena-chat): energy of all GPUs per output token "
            "(NVML counters, by Zeus, for ML.ENERGY), mean power, output tokens per second, median inter-token "
            "latency, mean sequences at once, mean output length; rounded by the compiler."
        ),
        derived=(
            "Energy of a request: joules per output token × mean output tokens (a whole number in the package), which "
            "is within 0.1 % or so of ML.ENERGY's own. GPU: H100 is the 80 GB HBM3 (SXM), B200 the SXM module. The "
            "same measurements as source ml-energy, task lm-arena-chat: do not count both. Left out: 90th, 95th and "
            "99th percentile of the inter-token latency, carbon, hardware and per-query tables."
        ),
    )
