"""The records that travel from a worker to the dataset: one frozen dataclass per table.

A row class *is* the schema of its table: field names are column names (unit included), the annotation gives the
type and whether null is allowed, and the text beside it is the column's documentation. ``harness.dataset.schema``
derives the Arrow schema from these classes, so the two cannot drift apart.

Energies are joules summed over the GPUs in use unless a column says otherwise. Null means "not known"; no column
uses 0 for that.
"""

from dataclasses import dataclass
from typing import Annotated

from harness.kernels import KernelKind, Phase
from harness.words import EnergyMethod, Part, Provenance, Quality, Status, Weights

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
    "Status",
    "Weights",
]

SCHEMA_VERSION = 1
# History of the schema. A reader of version N reads every version ≤ N.
#   1 (2026-11-23)  first version: runs, phases, kernels, kernel_energies, graphs, readings, power_traces, environments
#     (2026-11-24)  before any release: rank_times; runs.nodes; kernels.wait_s, .graph_kernel; sizes in graphs
#     (2026-11-24)  before any release: readings.lead_s, .kernels, .polled_energy_j; ledger_* and *_systematic95_j;
#                   kernel_energies.wait_energy_j, .disagreement, .how


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
    source: Annotated[str, "who made the numbers: `joulegraph <version>`, or the imported source"]
    model: Annotated[str, "Hub id, or the name of the local folder or config"]
    model_revision: Annotated[str | None, "commit of the model repository, or version of the package it came from"]
    weights: Annotated[Weights | None, "what the parameters were; null where unknown"]
    config_sha256: Annotated[str | None, "hash of the model's canonical config.json"]
    dtype: Annotated[str, "dtype of parameters and activations"]
    quantization: Annotated[str | None, "quantisation method of the checkpoint as loaded (gptq, awq, …); null if none"]
    runtime: Annotated[str, "what executed the model: hf, vllm, trtllm, …"]
    attention: Annotated[str, "attention implementation: sdpa, eager, flash_attention_2"]
    kv_cache: Annotated[bool, "false: the whole context was recomputed for every token"]
    cuda_graphs: Annotated[bool, "whether steps were replayed as CUDA graphs"]
    gpu: Annotated[str, "name in the hardware table; `cpu: <model name>` for a run on the CPU"]
    n_gpus: Annotated[int, "GPUs in use; 0 for a run on the CPU"]
    nodes: Annotated[int, "machines the ranks are spread over"] = 1
    parallelism: Annotated[str, "none, tensor, layers"]
    tensor_parallel: Annotated[int, "tensor-parallel degree, 1 = none"]
    batch_size: Annotated[int, "sequences computed together"]
    prompt_tokens: Annotated[int, "prompt tokens of each sequence"]
    output_tokens: Annotated[int, "output tokens of each sequence, the first one from the prefill included"]
    prompts: Annotated[
        str | None, "text: prose in the model's own tokens; random: token ids drawn evenly; null: unknown"
    ]
    sampling_weight: Annotated[
        float | None,
        "average samples of the trace that the request, before clipping, stands for; null: not sampled",
    ]
    clipped: Annotated[str | None, "what was shortened and why (context, memory, time budget); null: nothing"]
    status: Annotated[Status, "how the run ended"]
    status_detail: Annotated[str | None, "the reason for any status but ok; flags of a run that is ok"]
    energy_j: Annotated[float | None, "gross energy of one whole request, from a window of its own"]
    energy_ci95_j: Annotated[float | None, "half width of the 95 % interval of energy_j: repeats, counter and meter"]
    energy_systematic95_j: Annotated[
        float | None, "part of energy_ci95_j that every reading of these meters has alike (gain, offset)"
    ] = None
    duration_s: Annotated[float | None, "duration of one whole request"]
    duration_ci95_s: Annotated[float | None, "half width of the 95 % interval of duration_s"] = None
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
    quality: Annotated[Quality, "protocol of the windows; quick is never released"]
    peak_memory_bytes: Annotated[
        int | None, "peak memory of the device (GPU) or of the process (CPU); the largest of all ranks"
    ]
    started_at_utc: Annotated[str, "ISO 8601"]
    configuration: Annotated[str, "the full configuration of the campaign, canonical JSON"]
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
    steps: Annotated[int, "forward passes in one pass of the phase: 1 for prefill, output_tokens − 1 for decode"]
    context_start_tokens: Annotated[int, "tokens in the context at the first step"]
    context_end_tokens: Annotated[int, "tokens in the context after the last step"]
    measured_contexts: Annotated[
        str | None, "decode fitted over stated contexts: JSON list of first contexts; null: every step was run"
    ]
    trials: Annotated[int | None, "windows behind energy_j"]
    method: Annotated[str | None, "how energy_j was read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """One class of kernels in one phase on one rank; counts are totals over its launches."""

    run_id: Annotated[str, "row of `runs`"]
    phase: Annotated[Phase | None, "null for a kernel that was measured alone"]
    rank: Annotated[int, "0 … ranks − 1"]
    kernel_id: Annotated[str, "unique within run, phase and rank"]
    kind: Annotated[KernelKind, "what the kernel does"]
    op: Annotated[str, "operator that launched it, e.g. aten::mm"]
    module: Annotated[str | None, "module path with layer numbers as *, e.g. model.layers.*.mlp.up_proj"]
    dtype: Annotated[str, "dtype of its inputs"]
    shape: Annotated[str, 'named dimensions as a JSON object, e.g. {"m":512,"n":576,"k":1536}']
    launches: Annotated[int, "launches in one pass of the phase"]
    flop: Annotated[int | None, "floating-point operations over all launches; a multiply-add counts as 2"]
    read_bytes: Annotated[int | None, "bytes its inputs occupy, over all launches"]
    write_bytes: Annotated[int | None, "bytes its outputs occupy, over all launches"]
    link_bytes: Annotated[
        int | None, "bytes this rank sends to others, over all launches; a ring is assumed; 0: not a collective"
    ]
    duration_s: Annotated[
        float | None, "time of all launches in an untraced pass: traced time less the profiler's share"
    ]
    traced_duration_s: Annotated[float | None, "time of all launches as the profiler saw it"]
    wait_s: Annotated[
        float | None,
        "collectives: part of duration_s spent waiting for the last rank to arrive; null for other kernels",
    ] = None
    graph_kernel: Annotated[
        int | None, "which kernel of the phase's graph it is, from 0; null: it is in none, or there is no graph"
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEnergyRow:
    """The energy of one kernel row by one method."""

    run_id: Annotated[str, "row of `runs`"]
    phase: Annotated[Phase | None, "as in `kernels`"]
    rank: Annotated[int, "as in `kernels`"]
    kernel_id: Annotated[str, "as in `kernels`"]
    method: Annotated[EnergyMethod, "how the energy was inferred"]
    energy_j: Annotated[float | None, "gross: active_energy_j + idle power × duration_s"]
    active_energy_j: Annotated[float | None, "energy above idle"]
    energy_ci95_j: Annotated[
        float | None, "half width of the 95 % interval of energy_j; null where the method gives none"
    ]
    wait_energy_j: Annotated[
        float | None, "collectives: part of energy_j spent waiting for the last rank; null: no collective, or not known"
    ] = None
    disagreement: Annotated[
        float | None, "replay, regressed: active energy relative to that of the other of the two, less 1"
    ] = None
    how: Annotated[
        str | None, "replay: eager or cuda_graph, cold or hot caches; regressed: windows behind it; else null"
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRow:
    """One kernel graph, stored once by content."""

    graph_id: Annotated[str, "content hash"]
    model: Annotated[str, "as in `runs`"]
    phase: Annotated[Phase, "prefill or decode (one step at its stated context)"]
    batch_size: Annotated[int, "sequences computed together"]
    query_tokens: Annotated[int, "tokens of each sequence that go through the model in the pass"]
    context_tokens: Annotated[int, "tokens of each sequence in the KV cache after it"]
    dtype: Annotated[str, "dtype of parameters and activations"]
    attention: Annotated[str, "attention implementation"]
    tensor_parallel: Annotated[int, "tensor-parallel degree; the graph is that of one rank"]
    kernels: Annotated[str, "canonical JSON list of kernels"]
    edges: Annotated[str, "canonical JSON list of [from, to] kernel indices"]


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
    energy_j: Annotated[float, "energy in the window, on this device"]
    uncertainty_j: Annotated[float, "half width of the 95 % interval from the counter alone (step, alignment)"]
    duration_s: Annotated[float, "length of the window, lead and tail included"]
    lead_s: Annotated[float, "begin of the window in which the device idled, after its counter had moved"]
    tail_s: Annotated[float, "end of the window in which the device idled until its counter moved"]
    passes: Annotated[float, "passes of the part inside the window; 0 for idle"]
    kernels: Annotated[
        str | None, "replay, mixture, waiting: launches in one pass, JSON {phase: {kernel_id: launches}}; else null"
    ] = None
    polled_energy_j: Annotated[
        float | None, "cross-check: instant power, polled and integrated over the window; null: not polled"
    ] = None
    context_start_tokens: Annotated[int | None, "decode: tokens in the context at the window's first step"]
    started_s: Annotated[float, "monotonic time of the start, since the worker's first reading"]
    counter_start_j: Annotated[float, "the counter at the start, since an arbitrary origin"]
    counter_end_j: Annotated[float, "the counter at the end"]
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
class EnvironmentRow:
    """The machine and software a run was made on; equal set-ups share one row."""

    environment_id: Annotated[str, "content hash of the columns below"]
    gpu: Annotated[str, "as in `runs`"]
    device_name: Annotated[str, "what the driver or the operating system calls the device"]
    n_devices: Annotated[int, "GPUs in the machine; 0 if none"]
    cpu: Annotated[str, "CPU model name"]
    cpu_cores: Annotated[int, "logical cores this process may use"]
    memory_bytes: Annotated[int, "memory of the machine"]
    virtual_machine: Annotated[bool | None, "null where unknown"]
    driver: Annotated[str | None, "GPU driver version"]
    cuda: Annotated[str | None, "CUDA version torch was built for"]
    vbios: Annotated[str | None, "GPU VBIOS version"]
    power_limit_w: Annotated[float | None, "enforced power limit of one GPU"]
    ecc: Annotated[bool | None, "ECC enabled"]
    mig: Annotated[bool | None, "MIG enabled"]
    persistence_mode: Annotated[bool | None, "persistence mode enabled"]
    topology: Annotated[str | None, "links between the GPUs in use"]
    os: Annotated[str, "operating system and kernel release"]
    python: Annotated[str, "Python version"]
    torch: Annotated[str, "torch version"]
    transformers: Annotated[str, "transformers version"]
    harness: Annotated[str, "harness version"]
    threads: Annotated[int, "threads of torch on the CPU"]
    meter: Annotated[str, "meter and its provenance"]
    meter_step_s: Annotated[float | None, "how often the counter moves, as found on this machine"]
    peak_flop_per_s: Annotated[float | None, "peak for the run's dtype: hardware table (GPU) or probed (CPU)"]
    peak_bytes_per_s: Annotated[float | None, "memory bandwidth: hardware table (GPU) or probed (CPU)"]
    calibration: Annotated[str | None, "results of a calibration of this machine, canonical JSON; null: none was made"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Everything one run adds to the dataset."""

    run: RunRow
    environment: EnvironmentRow | None = None
    phases: tuple[PhaseRow, ...] = ()
    kernels: tuple[KernelRow, ...] = ()
    kernel_energies: tuple[KernelEnergyRow, ...] = ()
    graphs: tuple[GraphRow, ...] = ()
    readings: tuple[ReadingRow, ...] = ()
    rank_times: tuple[RankTimeRow, ...] = ()
    power_traces: tuple[PowerTraceRow, ...] = ()
