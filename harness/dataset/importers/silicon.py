"""End-to-end latencies beside aiconfigurator's kernels: one served model a row, as continuous benchmarks published it.

Each row is a server under a fixed number of concurrent requests: time to the first token and time per output token,
queueing included; no energy. Rows from several dumps of one benchmark repeat each other under new ids, to the last
digit of both times: one of them is kept. What the source says of its own files and people is not taken over.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from harness.dataset.importers.aiconfigurator_layout import Layout, file_hash, gpu_of, gpus_per_node, is_pointer
from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN, identified
from harness.dataset.importers.importing import ImportedBatch, bulk, content_id
from harness.dataset.importers.names import gpu_named
from harness.dataset.importers.repeats import Tally, joined
from harness.errors import CorruptFile
from harness.hardware import Hardware
from harness.records import EnvironmentRow, RunRow, SourceRow
from harness.words import Workload

POINTER = "a pointer of git-lfs instead of the file (git lfs pull)"
NO_GPU = "the GPU is not in the hardware table"
NO_TIMES = "neither time is a positive number"
NO_REQUEST = "tokens or concurrency are not given"
NO_WORKERS = "prefill and decode on separate GPUs, the number of workers is not given"
NO_DEGREE = "the degree of tensor parallelism is not given"
SAME_TIMES = "the same times to the last digit under another id"
DISAGGREGATED = "prefill and decode on separate GPUs"
OTHER_EXPERTS = "experts are spread over another number of GPUs than attention"
QUEUED = "time to the first token over 60 s: requests waited in a queue"

_METER = "timestamps of a load generator"
_LONGEST_TTFT_S = 60.0
_MODELS = {"zhipuai/GLM-5": "zai-org/GLM-5"}  # the Hub's name
_COLUMNS = {"id", "backend", "model_path", "system", "mode", "isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms"}
_SAME = ("model_path", "system", "backend", "mode", "isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms")
Cells = Mapping[str, str]


class _Reject(Exception):
    """A row that a rule leaves out."""


def read_silicon(layout: Layout, source: SourceRow) -> Iterator[ImportedBatch]:
    """One batch of all files; raises ``CorruptFile`` for one that is no such table."""
    tally, rows_in = Tally(), 0
    runs: list[RunRow] = []
    environments: list[EnvironmentRow] = []
    seen: set[tuple[str, ...]] = set()
    for path in layout.samples:
        for cells in _rows(path):
            rows_in += 1
            try:
                run, environment = _run(cells, layout, source, seen)
            except _Reject as rejected:
                tally.reject(str(rejected), f"{path.name}, {cells.get('id', '')}")
                continue
            runs.append(run)
            environments.append(environment)
            tally.keep(flags=(run.status_detail or "").split("; ") if run.status_detail else ())
    if rows_in:
        tables = bulk(runs=runs, environments=environments, sources=[source]) if runs else None
        yield ImportedBatch(tables=tables, account=tally.account(rows_in))


def _rows(path: Path) -> Iterator[Cells]:
    if is_pointer(path):
        yield {"id": POINTER}
        return
    file_hash(path)  # not too large, and readable
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if not set(reader.fieldnames or ()) >= _COLUMNS:
                missing = ", ".join(sorted(_COLUMNS - set(reader.fieldnames or ())))
                raise CorruptFile(f"{path} lacks the columns {missing}.\nFetch it again from where it came.")
            for row in reader:
                yield {key: value or "" for key, value in row.items() if isinstance(key, str)}
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} is no intact CSV file: {error}.\nFetch it again from where it came.") from error


def _run(cells: Cells, layout: Layout, source: SourceRow, seen: set[tuple[str, ...]]) -> tuple[RunRow, EnvironmentRow]:
    if cells["id"] == POINTER:
        raise _Reject(POINTER)
    gpu = gpu_named(gpu_of(cells["system"]))
    if gpu is None:
        raise _Reject(NO_GPU)
    ttft_s, tpot_s = (_seconds(cells[f"silicon_{name}_ms"]) for name in ("ttft", "tpot"))
    if ttft_s is None and tpot_s is None:
        raise _Reject(NO_TIMES)
    run = _placed(cells, layout, gpu)
    same = tuple(cells[name] for name in _SAME)
    if same in seen:
        raise _Reject(SAME_TIMES)
    seen.add(same)
    environment = identified(
        replace(
            BLANK_ENVIRONMENT,
            gpu=gpu.name,
            device_name=cells["system"],
            meter=_METER,
            peak_bytes_per_s=gpu.peak_bytes_per_s,
        )
    )
    flags = [run.status_detail] if run.status_detail else []
    if ttft_s is not None and ttft_s > _LONGEST_TTFT_S:
        flags.append(QUEUED)
    return replace(
        run,
        run_id=content_id(source.source, *(f"{key}={value}" for key, value in sorted(cells.items()))),
        campaign_id=content_id(source.source, source.version),
        environment_id=environment.environment_id,
        source=source.source,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        status_detail=joined(flags),
    ), environment


def _placed(cells: Cells, layout: Layout, gpu: Hardware) -> RunRow:
    """Request and deployment; times come later."""
    prompt, output, concurrency = _count(cells["isl"]), _count(cells["osl"]), _concurrency(cells)
    if prompt is None or output is None or concurrency is None:
        raise _Reject(NO_REQUEST)
    precision = cells.get("precision", "").lower()
    run = replace(
        BLANK_RUN,
        workload=Workload.SERVER,
        model=_MODELS.get(cells["model_path"], cells["model_path"]),
        dtype="bfloat16" if precision == "bf16" else None,
        quantization=None if precision in {"", "bf16"} else _quantization(cells),
        runtime=cells["backend"],
        runtime_version=cells.get("backend_version") or None,
        gpu=gpu.name,
        batch_size=concurrency,
        prompt_tokens=prompt,
        output_tokens=output,
        started_at_utc=_measured_at(cells),
    )
    run = _disaggregated(run, cells) if cells["mode"] == "disagg" else _together(run, cells)
    per_node = gpus_per_node(layout.systems, cells["system"])
    return replace(run, nodes=math.ceil(run.n_gpus / per_node) if per_node else 1)


def _together(run: RunRow, cells: Cells) -> RunRow:
    tensor, pipeline, data = (_count(cells.get(name, "")) for name in ("tp_size", "pp_size", "attention_dp_size"))
    if tensor is None:
        raise _Reject(NO_DEGREE)
    experts = _count(cells.get("moe_ep_size", ""))
    gpus = tensor * (pipeline or 1) * (data or 1)
    over = (experts or 1) * (_count(cells.get("moe_tp_size", "")) or 1)
    alone = gpus == tensor and (experts or 1) == 1
    return replace(
        run,
        n_gpus=gpus,
        parallelism="none" if gpus == 1 else "tensor" if alone else "mixed",
        tensor_parallel=tensor,
        pipeline_parallel=_more_than_one(pipeline),
        data_parallel=_more_than_one(data),
        expert_parallel=_more_than_one(experts),
        status_detail=OTHER_EXPERTS if over not in {1, gpus} else None,
    )


def _disaggregated(run: RunRow, cells: Cells) -> RunRow:
    """Prefill and decode have workers of their own, whose degrees may differ: only their GPUs add up."""
    gpus = 0
    for part in ("prefill", "decode"):
        names = ("num_workers", "tp_size", "pp_size", "attention_dp_size")
        workers, tensor, pipeline, data = (_count(cells.get(f"{part}_{name}", "")) for name in names)
        if workers is None or tensor is None:
            raise _Reject(NO_WORKERS)
        gpus += workers * tensor * (pipeline or 1) * (data or 1)
    return replace(run, n_gpus=gpus, parallelism="mixed", status_detail=DISAGGREGATED)


def _quantization(cells: Cells) -> str:
    """The word for the matrices of the layers, which is more exact than that for the precision."""
    return (cells.get("gemm_quant_mode") or cells["precision"]).lower()


def _concurrency(cells: Cells) -> int | None:
    """Requests at work at once: as stated, or those of each replica of the attention times the replicas."""
    found = re.search(r"silicon_concurrency=(\d{1,9})\b", cells.get("silicon_data_source", ""))
    if found:
        return int(found[1]) or None
    batch = _count(cells.get("batch_size", ""))
    return None if batch is None else batch * (_count(cells.get("attention_dp_size", "")) or 1)


def _measured_at(cells: Cells) -> str | None:
    found = re.search(r"measured=(\d{4}-\d\d-\d\dT[\d:.]{8,15}Z)", cells.get("silicon_data_source", ""))
    return found[1] if found else None


def _seconds(milliseconds: str) -> float | None:
    try:
        value = float(milliseconds)
    except ValueError:
        return None
    return value / 1e3 if math.isfinite(value) and value > 0 else None


def _count(cell: str) -> int | None:
    """A whole number from 1; the source writes 0 for what it does not know."""
    number = cell.removesuffix(".0")
    return int(number) or None if number.isascii() and number.isdigit() and len(number) < 10 else None


def _more_than_one(degree: int | None) -> int | None:
    return degree if degree is not None and degree > 1 else None
