"""Rows about kernels: what ran, what it took, and the graph it belongs to. See ``harness.records``."""

from dataclasses import dataclass
from typing import Annotated

from harness.kernels import KernelKind, Phase
from harness.words import EnergyMethod


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
    dtype: Annotated[str | None, "dtype of its inputs; null: imported, not known"]
    shape: Annotated[str, 'named dimensions as a JSON object, e.g. {"m":512,"n":576,"k":1536}']
    variant: Annotated[
        str | None,
        "imported: what else tells kernels apart (library, dtype of the KV cache, load of experts), JSON object",
    ] = None
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
    flags: Annotated[str | None, "rules by which the row is suspicious, parted by '; '; null: none"] = None


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
        str | None,
        "replay: eager or cuda_graph, cold or hot caches; regressed: windows behind it; "
        "imported: what was multiplied or read",
    ] = None
    flags: Annotated[str | None, "rules by which the row is suspicious, parted by '; '; null: none"] = None


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
