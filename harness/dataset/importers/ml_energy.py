"""The ML.ENERGY leaderboard, version 3: language models under vLLM at steady state, one configuration a row.

Source: Chung et al., "The ML.ENERGY Benchmark", NeurIPS 2025 (Datasets and Benchmarks). ``models/`` holds one file a
model and task, ``tasks/`` the same rows by task; models that make images or video are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.dataset.importers.importing import ImportedBatch
from harness.dataset.importers.ml_energy_rows import (
    NO_GPU,
    NOT_POSITIVE,
    Deployment,
    ServerSample,
    served_gpu,
    server_rows,
)
from harness.dataset.importers.repeats import Tally, batch_of
from harness.dataset.importers.repeats_files import Fields, commit_of, nothing_to_read, read_json
from harness.records import SourceRow

NO_LANGUAGE_MODEL: Final = "no language model: it makes images or video"
SAME_ROW: Final = "the same row stands in another file"

_VLLM: Final = "0.11.1"  # of the leaderboard's version 3, by its authors' post on the Llama 3.1 family over the years
_BILLION: Final = 1e9


@dataclass(frozen=True, slots=True)
class MlEnergy:
    """Reads ``public/data/{models,tasks}/*.json`` of a clone, packed with gzip or not, or a folder with those two."""

    name: str = "ml-energy"
    summary: str = "ML.ENERGY leaderboard v3: joules per request and token of vLLM servers on H100 and B200"
    licence: str | None = "Apache-2.0"

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch: files repeat each other. Raises ``DatasetError``."""
        tally, samples, rows_in = Tally(), dict[ServerSample, None](), 0
        for file in _files(path):
            content = read_json(file)
            for row in content.listed("configurations"):
                rows_in += 1
                _sort_in(content, row, samples, tally)
        yield server_batch(_source(commit_of(path)), list(samples), tally, rows_in, _VLLM)


def server_batch(
    source: SourceRow, samples: Sequence[ServerSample], tally: Tally, rows_in: int, version: str | None
) -> ImportedBatch:
    """All deployments of a source of servers in one batch, and the account of its rows."""
    deployments: dict[Deployment, list[ServerSample]] = {}
    for sample in samples:
        if min(sample.figures) <= 0:
            tally.reject(NOT_POSITIVE, sample.deployment.model)
        else:
            deployments.setdefault(sample.deployment, []).append(sample)
    rows = []
    for deployment, repeats in deployments.items():
        gpu = served_gpu(deployment.gpu)
        if gpu is None:
            for _ in repeats:
                tally.reject(NO_GPU, deployment.gpu)
            continue
        made = server_rows(source, deployment, repeats, gpu, version)
        tally.keep(len(repeats), made.flags)
        rows.append(made)
    return batch_of(source, rows, tally.account(rows_in))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for root in (path / "public" / "data", path / "data", path):
        found = [file for kind in ("models", "tasks") for file in sorted((root / kind).glob("*.json*"))]
        if found:
            return [file for file in found if file.name.endswith((".json", ".json.gz"))]
    raise nothing_to_read(path, "public/data/models/*.json or public/data/tasks/*.json")


def _sort_in(content: Fields, row: Fields, samples: dict[ServerSample, None], tally: Tally) -> None:
    """Take a row among the samples, or leave it out by a rule."""
    if content.text("task").startswith("text-to-"):
        tally.reject(NO_LANGUAGE_MODEL, content.text("task"))
        return
    sample = _sample(content, row)
    if sample in samples:
        tally.reject(SAME_ROW, f"{sample.deployment.model}, {sample.deployment.prompts}")
    else:
        samples[sample] = None


def _sample(content: Fields, row: Fields) -> ServerSample:
    """One configuration; files of a model state the model once, those of a task in every row."""
    model = row if "model_id" in row.values else content
    degrees = row.inside("parallelization") if "parallelization" in row.values else row
    deployment = Deployment(
        model=model.text("model_id"),
        prompts=content.text("task"),
        gpu=row.text("gpu_model"),
        n_gpus=row.count("num_gpus"),
        tensor_parallel=degrees.count("tensor_parallel"),
        expert_parallel=degrees.count("expert_parallel"),
        data_parallel=degrees.count("data_parallel"),
        batch_size=row.count("max_num_seqs"),
        precision=model.text("weight_precision"),
        parameters=model.positive("total_params_billions") * _BILLION,
        active_parameters=model.positive("activated_params_billions") * _BILLION,
    )
    return ServerSample(
        deployment=deployment,
        energy_per_request_j=row.number("energy_per_request_joules"),
        energy_per_token_j=row.number("energy_per_token_joules"),
        mean_power_w=row.number("avg_power_watts"),
        tokens_per_s=row.number("output_throughput_tokens_per_sec"),
        median_step_s=row.number("median_itl_ms") / 1e3,
        mean_batch_size=row.number("avg_batch_size"),
        mean_output_tokens=row.number("avg_output_len"),
    )


def _source(version: str | None) -> SourceRow:
    return SourceRow(
        source="ml-energy",
        title="The ML.ENERGY Leaderboard, version 3",
        url="https://github.com/ml-energy/leaderboard",
        version=version,
        licence="Apache-2.0",
        citation="J.-W. Chung et al., The ML.ENERGY Benchmark, NeurIPS 2025, arXiv 2505.06371",
        measured=(
            "A vLLM server at steady state, prefills and decodes mixed by continuous batching: energy of all GPUs "
            "(NVML counters, by Zeus) per output token, mean power, output tokens per second, inter-token latency, "
            "mean sequences at once, mean output length. Unstable configurations are not published."
        ),
        derived=(
            "Energy of a request, by the source: energy per token × mean output length, prompts included. GPU: H100 is "
            "the 80 GB HBM3 (SXM), B200 the SXM module. Type of weights other than bfloat16: checkpoint as quantised, "
            "activations bfloat16. Degrees of parallelism as published: 1 for tensors beside one for experts does not "
            "say how attention was split. Lengths of prompts are not published. Left out: 90th, 95th and 99th "
            "percentile of the inter-token latency, distributions of output lengths, models for images and video."
        ),
    )
