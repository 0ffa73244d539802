"""Time and power of a kernel by physics, with a handful of fitted figures for each family of kernels.

    time  = start + ‖ compute, memory, link ‖₄          each the Roofline's, over a fitted efficiency
    power = softmin( limit, idle + busy + compute share × draw + memory share × draw )

The Roofline is Williams' (CACM 52(4), 2009); arithmetic, memory and links overlap all but perfectly, so that the fourth
norm stands for their maximum. A draw is that of an H100 per unit of board power, moved to other boards half by energy
per FLOP and byte (scaled by process node) and half by board power: the first travels within a process generation,
the second across. Without corrections this is the baseline that the network starts from.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from predictor.families import FAMILIES, Family, index_of

IDLE_SHARE = 0.17  # of board power, with a context on the device; fitted over all GPUs it made unseen ones worse
_NORM = 4.0
_SHARPNESS = 12.0  # of the bend at the power limit
_H100_FLOP_PER_J = 989e12 / 700
_H100_BYTES_PER_J = 3.35e12 / 700
_PLAIN_MEMORY = 1.8  # GDDR and LPDDR against HBM, energy per byte
_STRETCH = 0.35  # at a lowered limit time grows with (demand / limit) to this power
_SMALLEST_S = 1e-12  # a kernel that nothing is counted of takes its start
_MOST_START_S = 10e-6
# Several kernels timed as one.
_LONG_STARTS_S = {
    Family.EXPERTS: 40e-6,
    Family.NARROW_EXPERTS: 40e-6,
    Family.NARROW_GEMM: 20e-6,
    Family.LATENT_CONTEXT_ATTENTION: 40e-6,
    Family.LATENT_GENERATION_ATTENTION: 40e-6,
    Family.LATENT_CONTEXT_MODULE: 200e-6,
    Family.LATENT_GENERATION_MODULE: 200e-6,
    Family.SPARSE_CONTEXT_MODULE: 400e-6,
    Family.SPARSE_GENERATION_MODULE: 400e-6,
    Family.ALL_TO_ALL: 100e-6,
    Family.SCAN: 100e-6,
}
# Of pointwise kernels only quantisation scales were measured alone; these are figures of ordinary ones.
_POINTWISE_START_S = 1.9e-6
_POINTWISE_MEMORY = 1.25
_COLLECTIVES = (Family.ALL_REDUCE, Family.ALL_GATHER, Family.REDUCE_SCATTER, Family.ALL_TO_ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTensors:
    """R kernels for physics and network; every tensor has length R."""

    features: Tensor  # [R, F]
    family: Tensor  # [R] int64
    compute_s: Tensor
    memory_s: Tensor
    link_s: Tensor
    ranks: Tensor
    board_power_w: Tensor
    power_limit_w: Tensor
    compute_draw: Tensor  # of an H100's per board power
    memory_draw: Tensor
    clock_share: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEstimate:
    """Of one launch of R kernels."""

    duration_s: Tensor
    power_w: Tensor  # gross: idle included


class Physics(nn.Module):
    """The fitted Roofline. Its figures are positive, and kept as logarithms."""

    def __init__(self) -> None:
        super().__init__()
        families = len(FAMILIES)
        self.start = nn.Parameter(torch.zeros(families))  # a logit: between nothing and the most a start can take
        self.log_hop_s = nn.Parameter(torch.full((families,), math.log(1e-6)))  # per rank of a collective
        self.log_compute = nn.Parameter(torch.full((families,), 0.4))  # 1 / efficiency
        self.log_memory = nn.Parameter(torch.full((families,), 0.3))
        self.log_link = nn.Parameter(torch.full((families,), 0.3))
        self.log_busy = nn.Parameter(torch.tensor(math.log(0.12)))  # of board power, whatever a kernel does
        self.log_compute_draw = nn.Parameter(torch.full((families,), math.log(0.6)))
        self.log_memory_draw = nn.Parameter(torch.full((families,), math.log(0.35)))
        collective = torch.zeros(families)
        collective[[index_of(family) for family in _COLLECTIVES]] = 1.0
        pointwise, most = torch.zeros(families), torch.full((families,), _MOST_START_S)
        pointwise[index_of(Family.ELEMENTWISE)] = 1.0
        for family, seconds in _LONG_STARTS_S.items():
            most[index_of(family)] = seconds
        self.register_buffer("collective", collective, persistent=False)
        self.register_buffer("pointwise", pointwise, persistent=False)
        self.register_buffer("most_start_s", most, persistent=False)
        self.collective: Tensor
        self.pointwise: Tensor
        self.most_start_s: Tensor

    def duration_s(self, kernels: KernelTensors) -> Tensor:
        """[R] seconds of one launch."""
        family = kernels.family
        parts = torch.stack(
            (
                kernels.compute_s * self.log_compute[family].exp(),
                kernels.memory_s * self._memory_factor()[family],
                kernels.link_s * self.log_link[family].exp(),
            )
        ).clamp_min(_SMALLEST_S)  # [3, R]
        largest = parts.amax(0)
        work = largest * ((parts / largest) ** _NORM).sum(0) ** (1 / _NORM)
        hops = self.collective[family] * (kernels.ranks - 1) * self.log_hop_s[family].exp()
        return work + self.start_s()[family] + hops

    def start_s(self) -> Tensor:
        """[families] seconds before a kernel of no work is done."""
        return torch.where(self.pointwise > 0, _POINTWISE_START_S, self.most_start_s * torch.sigmoid(self.start))

    def _memory_factor(self) -> Tensor:
        return torch.where(self.pointwise > 0, _POINTWISE_MEMORY, self.log_memory.exp())

    def power_w(self, kernels: KernelTensors, duration_s: Tensor, correction: Tensor | None = None) -> Tensor:
        """[R] watts while a kernel runs that takes ``duration_s``; ``correction`` multiplies what is above idle."""
        family = kernels.family
        compute = self.log_compute_draw[family].exp() * kernels.compute_draw * kernels.compute_s / duration_s
        memory = self.log_memory_draw[family].exp() * kernels.memory_draw * kernels.memory_s / duration_s
        active = (self.log_busy.exp() + compute) * kernels.clock_share + memory
        if correction is not None:
            active = active * correction
        return self.limited_w(kernels.board_power_w * (IDLE_SHARE + active), kernels.power_limit_w)

    @staticmethod
    def limited_w(demand_w: Tensor, limit_w: Tensor) -> Tensor:
        """A smooth minimum of demand and limit."""
        pair = torch.stack((-demand_w / limit_w, -torch.ones_like(demand_w)))
        return -limit_w * torch.logsumexp(pair * _SHARPNESS, 0) / _SHARPNESS

    @staticmethod
    def stretched_s(duration_s: Tensor, power_w: Tensor, kernels: KernelTensors) -> Tensor:
        """Time under a limit below the board's: the clock gives way. ``power_w`` is without that limit."""
        excess = torch.clamp(power_w / kernels.power_limit_w, min=1.0)
        lowered = kernels.power_limit_w < kernels.board_power_w * 0.999
        return duration_s * torch.where(lowered, excess**_STRETCH, torch.ones_like(excess))


def draws(
    *, peak_flop_per_s: Tensor, bytes_per_s: Tensor, board_power_w: Tensor, process_nm: Tensor, stacked: Tensor
) -> tuple[Tensor, Tensor]:
    """What compute and memory at full rate draw per board power, relative to an H100. All tensors [R]."""
    compute = peak_flop_per_s * (process_nm / 4) / board_power_w / _H100_FLOP_PER_J
    memory = bytes_per_s * torch.where(stacked > 0, 1.0, _PLAIN_MEMORY) / board_power_w / _H100_BYTES_PER_J
    return compute.sqrt(), memory.sqrt()


# Energy of arithmetic and of traffic at 4 nm, and how it shrinks with the process: what travels between boards of one
# generation, whatever they are allowed to draw. An order of magnitude; figures are fitted to measured passes.
_J_PER_FLOP = 0.30e-12
_J_PER_BYTE = 40e-12


def full_rate_w(
    *, peak_flop_per_s: Tensor, bytes_per_s: Tensor, process_nm: Tensor, stacked: Tensor
) -> tuple[Tensor, Tensor]:
    """[R] watts of 16-bit arithmetic at its peak, and of memory at its bandwidth."""
    scale = process_nm / 4
    memory = torch.where(stacked > 0, 1.0, _PLAIN_MEMORY) * scale.sqrt()
    return peak_flop_per_s * _J_PER_FLOP * scale, bytes_per_s * _J_PER_BYTE * memory
