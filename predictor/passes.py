"""Forward passes as tensors: what their kernels take, added up by group, beside what else matters of a pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from predictor import deployments
from predictor.assembly import Assembled, is_served, regrouped
from predictor.families import FAMILIES, Family
from predictor.features import described, sight
from predictor.kernel_table import Floats, KernelTable
from predictor.network import KernelNetwork
from predictor.physics import IDLE_SHARE, full_rate_w
from predictor.requests import Parallelism
from predictor.tensors import kernel_tensors, sixteen_bit_peak
from predictor.work import work

# Kernels measured alone include some that no runtime would choose (FP8 products of vLLM on a B200 that take twelve
# times their Roofline at small batches, and a third of that in measured servers): so much above physics they may be.
IN_PASS_BOUND = 0.5
GROUPS = ("dense", "attention", "experts", "collectives", "small")
_GROUP_OF = {
    Family.GEMM: 0,
    Family.NARROW_GEMM: 0,
    Family.BATCHED_GEMM: 0,
    Family.EXPERTS: 2,
    Family.NARROW_EXPERTS: 2,
    Family.SCAN: 2,
    Family.ALL_REDUCE: 3,
    Family.ALL_GATHER: 3,
    Family.REDUCE_SCATTER: 3,
    Family.ALL_TO_ALL: 3,
    Family.ELEMENTWISE: 4,
}
_GROUPS = torch.tensor([_GROUP_OF.get(family, 1) for family in FAMILIES])


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTensors:
    """P passes; every tensor has length P."""

    request: Tensor  # int64: which request
    times: Tensor  # how often the pass runs in its request
    decode: Tensor  # 1: a decode step
    served: Tensor  # 1: a serving runtime
    graphs: Tensor  # 1: replayed as CUDA graphs
    mixed: Tensor  # 1: a prefill that runs together with the steps of other sequences
    busy_s: Tensor  # [P, len(GROUPS)] of one rank's kernels
    active_j: Tensor  # [P, len(GROUPS)] above idle, of one rank, by the kernels' own power; NaN: not asked for
    compute_s: Tensor  # Roofline times of all kernels together
    memory_s: Tensor
    launches: Tensor
    batch: Tensor
    tokens: Tensor  # that go through the model, all sequences together
    context: Tensor
    gpus: Tensor  # in use
    at_work: Tensor  # of them at the same time
    idle_w: Tensor  # of one
    board_power_w: Tensor
    power_limit_w: Tensor
    compute_w: Tensor  # of 16-bit arithmetic at its peak, boost clock
    memory_w: Tensor  # of memory at its bandwidth
    clock_share: Tensor
    host_s: Tensor  # seconds of the host per launch, as stated; NaN: not stated
    offloaded_s: Tensor


@torch.no_grad()
def pass_tensors(
    assembled: Sequence[Assembled],
    network: KernelNetwork,
    *,
    hide: Sequence[bool] | None = None,
    physics: bool = False,
    power: bool = False,
) -> PassTensors:
    """The passes of some requests, those of one request together.

    ``hide``: requests whose hardware is unlike any the network has seen. ``physics``: without corrections.
    ``power``: with the kernels' own power, which the pass model does not read.
    """
    count = sum(len(entry.times) for entry in assembled)
    starts = np.cumsum([0, *(len(entry.times) for entry in assembled)])
    sums = torch.zeros(count, 2 * len(GROUPS) + 3, dtype=torch.float64)
    unique = deployments.columns([entry.deployment for entry in assembled])
    for places in regrouped(assembled).values():
        graphs = assembled[places[0]].graphs
        for decode in (False, True):
            parts = [np.flatnonzero(assembled[place].decode == decode) for place in places]
            target = np.concatenate([starts[place] + part for place, part in zip(places, parts, strict=True)])
            if len(target) == 0:
                continue
            owner = np.repeat(places, [len(part) for part in parts])
            batch = np.concatenate([assembled[place].batch[part] for place, part in zip(places, parts, strict=True)])
            context = np.concatenate(
                [assembled[place].context[part] for place, part in zip(places, parts, strict=True)]
            )
            table = graphs.decode(batch, context) if decode else graphs.prefill(batch, context)
            hidden = None if hide is None else np.asarray(hide)[owner]
            sums[torch.from_numpy(target)] = _summed(
                table, deployments.take(unique, owner), network, hidden, physics, power
            )
    return _tensors(assembled, starts, sums, unique)


def _summed(
    table: KernelTable,
    on: deployments.Deployments,
    network: KernelNetwork,
    hidden: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None",
    physics: bool,
    power: bool,
) -> Tensor:
    """[passes, 2 · groups + 3]: busy seconds, active joules, Roofline seconds of compute and memory, launches."""
    rows = deployments.take(on, table.pass_index)
    seen = described(sight(table, work(table), rows))
    kernels = kernel_tensors(seen, rows)
    mask = None if hidden is None else torch.from_numpy(hidden[table.pass_index].astype(np.float32))
    launches = torch.from_numpy(seen.launches)
    if physics or power:
        estimate = network.baseline(kernels) if physics else network(kernels, hidden=mask, bound=IN_PASS_BOUND)
        busy = launches * estimate.duration_s.double()
        active = busy * (estimate.power_w - IDLE_SHARE * kernels.board_power_w).double()
    else:
        busy = launches * network.duration_s(kernels, hidden=mask, bound=IN_PASS_BOUND).double()
        active = torch.full_like(busy, torch.nan)
    column = _GROUPS[kernels.family]
    index = torch.from_numpy(table.pass_index)
    groups = len(GROUPS)
    sums = torch.zeros(table.passes, 2 * groups + 3, dtype=torch.float64)
    flat = sums.view(-1)
    width = 2 * groups + 3
    flat.index_add_(0, index * width + column, busy)
    flat.index_add_(0, index * width + groups + column, active)
    flat.index_add_(0, index * width + 2 * groups, launches * torch.from_numpy(seen.compute_s))
    flat.index_add_(0, index * width + 2 * groups + 1, launches * torch.from_numpy(seen.memory_s))
    flat.index_add_(0, index * width + 2 * groups + 2, launches)
    return sums


def _tensors(
    assembled: Sequence[Assembled],
    starts: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    sums: Tensor,
    unique: deployments.Deployments,
) -> PassTensors:
    counts = np.diff(starts)
    owner = np.repeat(np.arange(len(assembled)), counts)

    def own(values: Sequence[float] | Floats) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float64)[owner]).float()

    def each(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(entry, name) for entry in assembled])).float()

    compute_w, memory_w = full_rate_w(
        peak_flop_per_s=torch.from_numpy(sixteen_bit_peak(unique)),
        bytes_per_s=torch.from_numpy(unique.peak_bytes_per_s),
        process_nm=torch.from_numpy(unique.process_nm),
        stacked=torch.from_numpy(unique.stacked_memory),
    )
    requests = [entry.request for entry in assembled]
    layers = [request.parallelism is Parallelism.LAYERS for request in requests]
    groups = len(GROUPS)
    values = sums.float()
    batch = each("batch")
    return PassTensors(
        request=torch.from_numpy(owner),
        times=each("times"),
        decode=each("decode"),
        served=own([float(is_served(request.runtime)) for request in requests]),
        graphs=own([float(_replayed(request.runtime, request.cuda_graphs)) for request in requests]),
        mixed=own([float(request.server) for request in requests]) * (1 - each("decode")),
        busy_s=values[:, :groups],
        active_j=values[:, groups : 2 * groups],
        compute_s=values[:, 2 * groups],
        memory_s=values[:, 2 * groups + 1],
        launches=values[:, 2 * groups + 2],
        batch=batch,
        tokens=batch * each("query"),
        context=each("context"),
        gpus=own([float(request.n_gpus) for request in requests]),
        at_work=own([1.0 if layer else float(request.n_gpus) for request, layer in zip(requests, layers, strict=True)]),
        idle_w=IDLE_SHARE * own(unique.board_power_w),
        board_power_w=own(unique.board_power_w),
        power_limit_w=own(unique.power_limit_w),
        compute_w=own(compute_w.tolist()),
        memory_w=own(memory_w.tolist()),
        clock_share=own(unique.clock_share),
        host_s=own([np.nan if r.host_us_per_launch is None else r.host_us_per_launch * 1e-6 for r in requests]),
        offloaded_s=own([entry.offloaded_s for entry in assembled]),
    )


def _replayed(runtime: str, stated: bool | None) -> bool:
    return is_served(runtime) if stated is None else stated
