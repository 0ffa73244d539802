"""Energy and time of a forward pass from what its kernels take: host, overheads, and a bounded correction.

    busy   = Σ groups  kernels' seconds × a figure of the group
    time   = ‖ busy, launches × host ‖ₚ + step + sequences × a little
    power  = idle + busy share × base + compute share × compute + memory share × memory
    energy = GPUs × idle × time + GPUs at work × the rest, limited to the enforced power

Compute and memory are energies per FLOP and byte (``predictor.physics.full_rate_w``), which travel between boards of
one process; the base is a share of board power. Figures are apart for transformers' eager code, for servers that
replay CUDA graphs and for servers that do not.

The correction reads the pass as a whole (what it spends its time on, how large it
is, what bounds it) and is limited to about a third either way.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from predictor.passes import GROUPS, PassTensors

BOUND = 0.3  # natural logarithm, of time and of energy above idle
_FIGURE_BOUND = 0.7
_NORM = 3.0
CLASSES = 3  # eager, served as CUDA graphs, served launch by launch
_EXCESS = 0.35  # see predictor/physics.py
_POWER_SHARPNESS = 20.0  # of the bend at the power limit
_VOLTAGE_FLOOR = 0.5  # of the energy at the boost clock: voltage does not fall further
_CLOCK_ENERGY = 0.9  # joules per FLOP fall by so much of what a locked clock falls by: voltage goes with it (f · V²)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassEstimate:
    """Of P passes, each run once."""

    duration_s: Tensor
    energy_j: Tensor  # all GPUs


class PassModel(nn.Module):
    """A pass from its kernels. Untrained, it adds up."""

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.time_figure = nn.Parameter(torch.zeros(CLASSES, len(GROUPS)))
        self.log_host_s = nn.Parameter(torch.log(torch.tensor([14e-6, 1e-6, 20e-6])))
        self.log_step_s = nn.Parameter(torch.log(torch.tensor([2e-4, 1.5e-3, 1.5e-3])))
        self.log_sequence_s = nn.Parameter(torch.log(torch.tensor([2e-6, 2e-5, 2e-5])))
        self.log_mixed = nn.Parameter(torch.tensor(0.0))  # what is left of a prefill that shares the weights' reading
        # What a GPU draws is the GPU's, whoever launches: one figure for all, and small deviations of the classes.
        self.log_base = nn.Parameter(torch.tensor(math.log(0.20)))  # of board power, while kernels run
        self.log_gap = nn.Parameter(torch.tensor(math.log(0.10)))  # of board power, between kernels
        self.log_compute = nn.Parameter(torch.tensor(0.0))
        self.log_memory = nn.Parameter(torch.tensor(0.0))
        self.deviation = nn.Parameter(torch.zeros(CLASSES, 4))  # of base, gap, compute, memory
        self.body = nn.Sequential(nn.Linear(PASS_FEATURES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # Range of every feature in the training data of each class: beyond it the correction of its edge holds.
        self.register_buffer("lowest", torch.full((CLASSES, PASS_FEATURES), -torch.inf))
        self.register_buffer("highest", torch.full((CLASSES, PASS_FEATURES), torch.inf))
        self.register_buffer("learned", torch.ones(CLASSES, dtype=torch.bool))
        self.lowest: Tensor
        self.highest: Tensor
        # How much of the corrections of time and of energy holds, by class; see predictor.intervals.
        self.register_buffer("trust", torch.ones(CLASSES, 2))
        self.learned: Tensor
        self.trust: Tensor

    @torch.no_grad()
    def learn_ranges(self, passes: PassTensors) -> None:
        """Note what passes the correction is learned on; a class without any is left uncorrected."""
        kind = pass_class(passes)
        seen = self._features(passes)
        for place in range(CLASSES):
            own = seen[kind == place]
            if len(own):
                self.lowest[place], self.highest[place] = own.amin(0), own.amax(0)
        self.learned.copy_(torch.bincount(kind, minlength=CLASSES) > 0)

    def forward(self, passes: PassTensors, *, corrected: bool = True) -> PassEstimate:
        """Time and energy of each pass, run once."""
        kind = pass_class(passes)
        busy, host, duration, active = self._plain(passes, kind)
        if corrected:
            factor = self._factors(pass_features(passes, busy, host, active), kind)
            duration, active = duration * factor[:, 0], active * factor[:, 1]
        return limited(passes, duration, active)

    def _plain(self, passes: PassTensors, kind: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[P] each: seconds of the kernels, of the host, of the pass; joules of one GPU above idle."""
        # A prefill between the steps of others adds no step of its own, and shares the reading of the weights.
        share = torch.where(passes.mixed > 0, self.log_mixed.exp(), torch.ones_like(passes.batch))
        busy = (passes.busy_s * bounded(self.time_figure, _FIGURE_BOUND)[kind].exp()).sum(1) * share
        host = self._host_s(passes, kind)
        longer = torch.maximum(busy, host)
        core = longer * ((busy / longer) ** _NORM + (host / longer) ** _NORM) ** (1 / _NORM)
        rest = (self.log_step_s[kind].exp() + passes.batch * self.log_sequence_s[kind].exp()) * (1 - passes.mixed)
        duration = core + rest + passes.offloaded_s
        return busy, host, duration, self._active_j(passes, kind, busy, duration, share)

    def _features(self, passes: PassTensors) -> Tensor:
        busy, host, _, active = self._plain(passes, pass_class(passes))
        return pass_features(passes, busy, host, active)

    def _factors(self, features: Tensor, kind: Tensor) -> Tensor:
        """[P, 2] of time and of energy above idle."""
        inside = torch.minimum(torch.maximum(features, self.lowest[kind]), self.highest[kind])
        raw = self.head(self.body(inside)) * self.learned[kind].float()[:, None]
        return (bounded(raw, BOUND) * self.trust[kind]).exp()

    def _host_s(self, passes: PassTensors, kind: Tensor) -> Tensor:
        own = self.log_host_s[kind].exp()
        each = torch.where(torch.isnan(passes.host_s), own, torch.nan_to_num(passes.host_s))
        return passes.launches * each + 1e-9

    def _active_j(self, passes: PassTensors, kind: Tensor, busy: Tensor, duration: Tensor, share: Tensor) -> Tensor:
        """[P] joules above idle of one GPU."""
        clocked = torch.clamp(1 - _CLOCK_ENERGY * (1 - passes.clock_share), min=_VOLTAGE_FLOOR)
        shared = torch.stack((self.log_base, self.log_gap, self.log_compute, self.log_memory))
        figures = (shared + self.deviation[kind]).exp()  # [P, 4]
        compute = passes.compute_s * passes.clock_share * passes.compute_w * figures[:, 2] * clocked
        memory = passes.memory_s * passes.memory_w * figures[:, 3]
        base = busy * figures[:, 0] * passes.board_power_w * passes.clock_share * clocked
        gaps = torch.clamp(duration - busy, min=0.0) * figures[:, 1] * passes.board_power_w
        return (compute + memory) * share + base + gaps


def pass_class(passes: PassTensors) -> Tensor:
    """[P] int64: 0 eager, 1 served as CUDA graphs, 2 served launch by launch."""
    return torch.where(passes.served > 0, torch.where(passes.graphs > 0, 1, 2), 0)


def limited(passes: PassTensors, duration: Tensor, active: Tensor) -> PassEstimate:
    """Under the enforced limit: what a pass would draw beyond it makes it longer instead."""
    demand = passes.idle_w + active / duration
    excess = torch.clamp(demand / passes.power_limit_w, min=1.0)
    longer = duration * excess**_EXCESS
    pair = torch.stack((demand / passes.power_limit_w, torch.ones_like(demand))) * -_POWER_SHARPNESS
    power = -passes.power_limit_w * torch.logsumexp(pair, 0) / _POWER_SHARPNESS
    energy = longer * (power * passes.at_work + passes.idle_w * (passes.gpus - passes.at_work))
    return PassEstimate(duration_s=longer, energy_j=energy)


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Anything, brought between −bound and bound."""
    return bound * torch.tanh(raw / bound)


def pass_features(passes: PassTensors, busy: Tensor, host: Tensor, active: Tensor) -> Tensor:
    """[P, PASS_FEATURES]: shares, sizes and what bounds the pass; no attribute that names a GPU."""
    shares = passes.busy_s / passes.busy_s.sum(1, keepdim=True)
    total = busy + 1e-12
    columns = (
        passes.decode,
        passes.mixed,
        passes.served,
        passes.graphs,
        torch.log10(host / total + 1e-6) / 3,
        torch.log10(total * 1e3) / 3,
        torch.log2(passes.batch) / 8,
        torch.log2(passes.tokens) / 12,
        torch.log2(passes.context + 1) / 12,
        torch.log2(passes.gpus) / 3,
        passes.compute_s / total,
        passes.memory_s / total,
        torch.log10((passes.compute_s + 1e-9) / (passes.memory_s + 1e-9)) / 3,
        active / total / passes.board_power_w,
        torch.log2(passes.launches + 1) / 10,
        passes.clock_share,
        passes.power_limit_w / passes.board_power_w,
    )
    return torch.cat((torch.stack(columns, 1), shares), 1)


PASS_FEATURES = 17 + len(GROUPS)
