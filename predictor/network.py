"""The network: bounded corrections on physics, for the time and for the power of every kernel.

Two multilayer perceptrons read the features of a kernel; their last layers start at zero, so that an untrained network
is the physics. What hides the group ``hardware`` from them is in ``hidden``: part of the rows while training, and GPUs
unlike any of the training data when predicting.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from predictor.families import FAMILIES, Family, index_of
from predictor.features import FEATURES, Group, columns_of
from predictor.physics import KernelEstimate, KernelTensors, Physics

TIME_BOUND = 2.0  # natural logarithm: a small kernel's launch can cost several times its Roofline
POWER_BOUND = 1.5


class Corrector(nn.Module):
    """Features [R, F] → a bounded logarithm [R]; 0 until trained."""

    def __init__(self, *, width: int, layers: int, bound: float) -> None:
        super().__init__()
        sizes = [len(FEATURES), *[width] * layers]
        self.body = nn.Sequential(
            *(module for inputs, outputs in pairwise(sizes) for module in (nn.Linear(inputs, outputs), nn.SiLU()))
        )
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.bound = bound

    def forward(self, features: Tensor) -> Tensor:
        """[R] logarithm of the factor."""
        raw = self.head(self.body(features))[:, 0]
        return self.bound * torch.tanh(raw / self.bound)


class KernelNetwork(nn.Module):
    """Time and power of one launch of each kernel."""

    def __init__(self, *, width: int = 192, layers: int = 4) -> None:
        super().__init__()
        self.physics = Physics()
        self.time = Corrector(width=width, layers=layers, bound=TIME_BOUND)
        self.power = Corrector(width=width, layers=layers, bound=POWER_BOUND)
        # Range of every feature in the training data: outside it the correction of its edge holds.
        self.register_buffer("lowest", torch.full((len(FEATURES),), -torch.inf))
        self.register_buffer("highest", torch.full((len(FEATURES),), torch.inf))
        self.register_buffer("hardware", torch.from_numpy(columns_of(Group.HARDWARE)), persistent=False)
        self.register_buffer("implementation", torch.from_numpy(columns_of(Group.IMPLEMENTATION)), persistent=False)
        # Pointwise kernels and scans measured alone are not those of graphs: nothing is learned from them for a pass.
        transfers = torch.ones(len(FAMILIES))
        transfers[[index_of(Family.ELEMENTWISE), index_of(Family.SCAN)]] = 0.0
        self.register_buffer("transfers", transfers, persistent=False)
        self.transfers: Tensor
        self.lowest: Tensor
        self.highest: Tensor
        self.hardware: Tensor
        self.implementation: Tensor

    def learn_ranges(self, features: Tensor) -> None:
        """Note the range of every feature [R, F] of the training data."""
        self.lowest.copy_(features.amin(0))
        self.highest.copy_(features.amax(0))

    def seen(self, features: Tensor, hidden: Tensor | None, anonymous: Tensor | None = None) -> Tensor:
        """[R, F] features as the network may see them.

        ``hidden`` [R]: 1 hides the hardware; ``anonymous`` [R]: 1 hides what is only known of kernels measured alone,
        as it is of a graph's.
        """
        inside = torch.minimum(torch.maximum(features, self.lowest), self.highest)
        if hidden is None and anonymous is None:
            return inside
        mask = torch.ones_like(inside)
        if hidden is not None:
            mask[:, self.hardware] = 1 - hidden[:, None]
        if anonymous is not None:
            mask[:, self.implementation] = 1 - anonymous[:, None]
        return inside * mask

    def forward(
        self,
        kernels: KernelTensors,
        *,
        hidden: Tensor | None = None,
        anonymous: Tensor | None = None,
        bound: float = TIME_BOUND,
    ) -> KernelEstimate:
        """Estimates with corrections; see ``seen`` for what can be hidden.

        ``bound``: of kernels in a pass, on how much longer than physics they may take.
        """
        features = self.seen(kernels.features, hidden, anonymous)
        duration_s = self._duration_s(kernels, features, bound)
        power_w = self.physics.power_w(kernels, duration_s, self.power(features).exp())
        return KernelEstimate(duration_s=duration_s, power_w=power_w)

    def duration_s(self, kernels: KernelTensors, *, hidden: Tensor | None = None, bound: float = TIME_BOUND) -> Tensor:
        """[R] as ``forward``, without power."""
        return self._duration_s(kernels, self.seen(kernels.features, hidden), bound)

    def _duration_s(self, kernels: KernelTensors, features: Tensor, bound: float) -> Tensor:
        correction = self.time(features)
        if bound < TIME_BOUND:
            correction = torch.where(correction > 0, bound * torch.tanh(correction / bound), correction)
            correction = correction * self.transfers[kernels.family]
        duration_s: Tensor = self.physics.duration_s(kernels) * correction.exp()
        return duration_s

    def baseline(self, kernels: KernelTensors) -> KernelEstimate:
        """The physics alone."""
        duration_s = self.physics.duration_s(kernels)
        return KernelEstimate(duration_s=duration_s, power_w=self.physics.power_w(kernels, duration_s))
