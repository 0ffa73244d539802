"""The records that travel from a worker to the dataset: one frozen dataclass per table.

A row class *is* the schema of its table: field names are column names (unit included), the annotation gives the
type and whether null is allowed, and the text beside it is the column's documentation. ``harness.dataset.schema``
derives the Arrow schema from these classes, so the two cannot drift apart.

Energies are joules summed over the GPUs in use unless a column says otherwise. Null means "not known"; no column
uses 0 for that.
"""

from dataclasses import dataclass
from typing import Annotated

from harness.kernel_records import GraphRow, KernelEnergyRow, KernelRow
from harness.kernels import Phase
from harness.setup_records import EnvironmentRow, SourceRow
from harness.words import EnergyMethod, Part, Provenance, Quality, Status, Weights, Workload

__all__ = [
    "SCHEMA_VERSION",
    "EnergyMethod",
    "EnvironmentRow",
    "GraphRow",
    "KernelEnergyRow",
    "KernelRow",
    "Measurement",
    "Part",
    "PhaseRow",
    "PowerTraceRow",
    "Provenance",
    "Quality",
    "RankTimeRow",
    "ReadingRow",
    "RunRow",
    "SourceRow",
    "Status",
    "Weights",
    "Workload",
]

SCHEMA_VERSION = 1
# History of the schema. A reader of version N reads every version ≤ N.
#   1 (2026-11-23)  first version: runs, phases, kernels, kernel_energies, graphs, readings, power_traces, environments
#     (2026-11-24)  before any release: rank_times; runs.nodes; kernels.wait_s, .graph_kernel; sizes in graphs
#     (2026-11-24)  before any release: readings.lead_s, .kernels, .polled_energy_j; ledger_* and *_systematic95_j;
#                   kernel_energies.wait_energy_j, .disagreement, .how
#     (2026-11-30)  before any release: sources; columns that only imported rows have (workload, mean_*, ttft_s, …), and
#                   null where an imported source does not say; variant and flags of kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One request on one deployment, in whatever way it ended."""

    run_id: Annotated[
        str,
        "content hash of request, deployment, device, model version and protocol: the same run, the same id",
    ]
    schema_version: Annotated[int, "version of this schema"]
    campaign_id: Annotated[str, "content hash of the plan this run belongs to"]
    environment_id: Annotated[str | None, "row of `environments`; null where no worker started"]
    provenance: Annotated[Provenance, "how the energies came about"]
    source: Annotated[str, "row of `sources`: who made the numbers"]
    lab: Annotated[
        str | None, "who contributed them, by the name they chose; null: not contributed yet, or imported"
    ] = None
    workload: Annotated[Workload, "what was run: one batch, a server at steady state, or kernels alone"] = (
        Workload.BATCH
    )
    model: Annotated[str | None, "Hub id, or the name of the local folder or config; null: kernels alone"]
    model_revision: Annotated[str | None, "commit of the model repository, or version of the package it came from"]
    weights: Annotated[Weights | None, "what the parameters were; null where unknown"]
    config_sha256: Annotated[str | None, "hash of the model's canonical config.json"]
    dtype: Annotated[str | None, "dtype of parameters and activations; null: kernels alone, or not known"]
    quantization: Annotated[str | None, "quantisation method of the checkpoint as loaded (gptq, awq, …); null if none"]
    runtime: Annotated[str | None, "what executed the model: hf, vllm, trtllm, sglang, …; null: not known"]
    runtime_version: Annotated[str | None, "version of the runtime; null: not known, or in `environments`"] = None
    attention: Annotated[str | None, "attention implementation: sdpa, eager, flash_attention_2; null: not known"]
    kv_cache: Annotated[bool | None, "false: the whole context was recomputed for every token; null: not known"]
    cuda_graphs: Annotated[bool | None, "whether steps were replayed as CUDA graphs; null: not known"]
    gpu: Annotated[str, "name in the hardware table; `cpu: <model name>` for a run on the CPU"]
    n_gpus: Annotated[int, "GPUs in use; 0 for a run on the CPU"]
    nodes: Annotated[int, "machines the ranks are spread over"] = 1
    parallelism: Annotated[str | None, "none, tensor, layers, mixed (see the degrees); null: not known"]
    tensor_parallel: Annotated[int | None, "tensor-parallel degree, 1 = none; null: not known"]
    pipeline_parallel: Annotated[int | None, "pipeline stages at work at once; null: 1, or not known"] = None
    expert_parallel: Annotated[int | None, "expert-parallel degree; null: 1, or not known"] = None
    data_parallel: Annotated[int | None, "replicas, or of the attention alone; null: 1, or not known"] = None
    batch_size: Annotated[
        int | None, "sequences computed together; server: the most it runs together; null: kernels alone"
    ]
    prompt_tokens: Annotated[int | None, "prompt tokens of each sequence; null: they vary, or kernels alone"]
    output_tokens: Annotated[
        int | None,
        "output tokens of each sequence, the first one from the prefill included; null: they vary, or kernels alone",
    ]
    mean_batch_size: Annotated[float | None, "server: mean number of sequences running together"] = None
    mean_output_tokens: Annotated[float | None, "server: mean output tokens of a sequence"] = None
    prompts: Annotated[
        str | None,
        "text: prose in the model's own tokens; random: token ids drawn evenly; the name of a set of prompts; "
        "null: unknown",
    ]
    sampling_weight: Annotated[
        float | None,
        "average samples of the trace that the request, before clipping, stands for; null: not sampled",
    ]
    clipped: Annotated[str | None, "what was shortened and why (context, memory, time budget); null: nothing"]
    status: Annotated[Status, "how the run ended"]
    status_detail: Annotated[str | None, "the reason for any status but ok; flags of a run that is ok"]
    energy_j: Annotated[
        float | None,
        "gross energy of one whole request (batch_size sequences), from a window of its own; server: of one sequence",
    ]
    energy_ci95_j: Annotated[float | None, "half width of the 95 % interval of energy_j: repeats, counter and meter"]
    energy_systematic95_j: Annotated[
        float | None, "part of energy_ci95_j that every reading of these meters has alike (gain, offset)"
    ] = None
    duration_s: Annotated[float | None, "duration of one whole request; server: null where only rates were published"]
    duration_ci95_s: Annotated[float | None, "half width of the 95 % interval of duration_s"] = None
    ttft_s: Annotated[float | None, "server: time to the first token, queueing included"] = None
    tpot_s: Annotated[float | None, "server: time per output token after the first, or median inter-token latency"] = (
        None
    )
    output_tokens_per_s: Annotated[float | None, "server: output tokens per second, all sequences together"] = None
    mean_power_w: Annotated[float | None, "imported: mean power of all GPUs in use"] = None
    host_energy_j: Annotated[
        float | None, "imported: energy of the host's processors, read beside the GPUs'; never part of energy_j"
    ] = None
    idle_power_w: Annotated[float | None, "power with the model resident and nothing running"]
    residual_j: Annotated[
        float | None, "ledger: what idle, host gaps and independently measured kernels do not explain"
    ]
    residual_ci95_j: Annotated[float | None, "half width of the 95 % interval of residual_j"]
    ledger_idle_j: Annotated[float | None, "ledger: idle power × duration_s"] = None
    ledger_kernels_j: Annotated[
        float | None, "ledger: active energy of all kernels, by ledger_method, never apportioned"
    ] = None
    ledger_gaps_j: Annotated[float | None, "ledger: active energy of the time in which no kernel ran"] = None
    ledger_method: Annotated[
        EnergyMethod | None, "how the ledger's kernels were measured: replay or regressed; null: there is no ledger"
    ] = None
    trials: Annotated[int | None, "windows behind energy_j"]
    method: Annotated[str | None, "how energy_j was read, e.g. nvml-counter, rapl, codecarbon-cpu-load"]
    quality: Annotated[Quality | None, "protocol of the windows; quick is released only under its name; null: imported"]
    peak_memory_bytes: Annotated[
        int | None, "peak memory of the device (GPU) or of the process (CPU); the largest of all ranks"
    ]
    started_at_utc: Annotated[str | None, "ISO 8601; null: not published"]
    configuration: Annotated[str | None, "the full configuration of the campaign, canonical JSON; null: imported"]
    superseded_by: Annotated[str | None, "run_id of the row that corrects this one"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow:
    """One phase of one run, scaled to one pass."""

    run_id: Annotated[str, "row of `runs`"]
    phase: Annotated[Phase, "prefill or decode"]
    graph_id: Annotated[str | None, "row of `graphs`"]
    energy_j: Annotated[float | None, "gross energy of one pass, from this phase's own windows"]
    energy_ci95_j: Annotated[float | None, "half width of the 95 % interval of energy_j: repeats, counter and meter"]
    energy_systematic95_j: Annotated[
        float | None, "part of energy_ci95_j that every reading of these meters has alike (gain, offset)"
    ] = None
    idle_energy_j: Annotated[float | None, "idle power × duration_s"]
    host_gap_energy_j: Annotated[
        float | None, "energy of the time in which no kernel ran; null where kernels were not traced"
    ]
    duration_s: Annotated[float | None, "duration of one pass"]
    steps: Annotated[int | None, "forward passes in one pass of the phase: 1 for prefill, output_tokens − 1 for decode"]
    context_start_tokens: Annotated[int | None, "tokens in the context at the first step; null: not known"]
    context_end_tokens: Annotated[int | None, "tokens in the context after the last step; null: not known"]
    measured_contexts: Annotated[
        str | None, "decode fitted over stated contexts: JSON list of first contexts; null: every step was run"
    ]
    trials: Annotated[int | None, "windows behind energy_j"]
    method: Annotated[str | None, "how energy_j was read"]
    flags: Annotated[str | None, "rules by which the row is suspicious, parted by '; '; null: none"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingRow:
    """One raw window as the meter gave it."""

    run_id: Annotated[str, "row of `runs`"]
    part: Annotated[Part, "prefill, decode, run (the whole request), idle; replay, mixture, waiting: kernels alone"]
    trial: Annotated[int, "0, 1, 2 … in the order taken, per part"]
    rank: Annotated[int, "rank whose device this is; on a CPU the first rank of the machine that the meter covers"]
    device_sha256: Annotated[str | None, "hash of the GPU's UUID; null for a CPU"]
    meter: Annotated[str, "which counter, e.g. nvml:0"]
    provenance: Annotated[Provenance, "how this reading came about"]
    energy_j: Annotated[float | None, "energy in the window, on this device; null: imported, only its time is known"]
    uncertainty_j: Annotated[
        float | None, "half width of the 95 % interval from the counter alone (step, alignment); null: imported"
    ]
    duration_s: Annotated[float | None, "length of the window, lead and tail included; null: imported, not known"]
    lead_s: Annotated[
        float | None, "begin of the window in which the device idled, after its counter had moved; null: imported"
    ]
    tail_s: Annotated[
        float | None, "end of the window in which the device idled until its counter moved; null: imported"
    ]
    passes: Annotated[float, "passes of the part inside the window; 0 for idle"]
    kernels: Annotated[
        str | None, "replay, mixture, waiting: launches in one pass, JSON {phase: {kernel_id: launches}}; else null"
    ] = None
    polled_energy_j: Annotated[
        float | None, "cross-check: instant power, polled and integrated over the window; null: not polled"
    ] = None
    context_start_tokens: Annotated[int | None, "decode: tokens in the context at the window's first step"]
    started_s: Annotated[float | None, "monotonic time of the start, since the worker's first reading; null: imported"]
    counter_start_j: Annotated[float | None, "the counter at the start, since an arbitrary origin; null: imported"]
    counter_end_j: Annotated[float | None, "the counter at the end; null: imported"]
    sm_clock_mhz: Annotated[float | None, "SM clock at the end of the window"]
    memory_clock_mhz: Annotated[float | None, "memory clock at the end of the window"]
    temperature_c: Annotated[float | None, "device temperature at the end of the window"]
    throttle_reasons: Annotated[int | None, "NVML clocks-event bits seen at either end"]
    rejected: Annotated[str | None, "why this window was not used; null: it was used"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTimeRow:
    """How long one rank worked in one window of a run that spans several."""

    run_id: Annotated[str, "row of `runs`"]
    part: Annotated[Part, "as in `readings`; there are none for idle"]
    trial: Annotated[int, "as in `readings`"]
    rank: Annotated[int, "0 … ranks − 1"]
    node: Annotated[int, "machine of the rank: 0 … nodes − 1"]
    device: Annotated[str, "what the rank computed on: cpu, or cuda:N on its machine"]
    passes: Annotated[float, "passes of the part inside the window"]
    duration_s: Annotated[float, "from the common start to the end of this rank's own work"]
    wait_s: Annotated[float, "from the end of its own work until the last rank was done: the skew at the end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTraceRow:
    """One sample of a power trace."""

    run_id: Annotated[str, "row of `runs`"]
    rank: Annotated[int, "rank whose device this is"]
    t_s: Annotated[float, "monotonic time since the worker's first reading"]
    power_w: Annotated[float | None, "power of the device"]
    clock_mhz: Annotated[float | None, "SM clock"]
    temperature_c: Annotated[float | None, "device temperature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Everything one run adds to the dataset."""

    run: RunRow
    environment: EnvironmentRow | None = None
    source: SourceRow | None = None
    phases: tuple[PhaseRow, ...] = ()
    kernels: tuple[KernelRow, ...] = ()
    kernel_energies: tuple[KernelEnergyRow, ...] = ()
    graphs: tuple[GraphRow, ...] = ()
    readings: tuple[ReadingRow, ...] = ()
    rank_times: tuple[RankTimeRow, ...] = ()
    power_traces: tuple[PowerTraceRow, ...] = ()
