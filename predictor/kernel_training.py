"""Training on kernels that were measured alone: first the physics, then the corrections with it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from predictor.kernel_examples import KernelExamples
from predictor.kernel_table import Integers
from predictor.network import KernelNetwork
from predictor.physics import KernelEstimate, KernelTensors
from predictor.tensors import kernel_tensors

_COURSE, _BEST = "course.json", "best.safetensors"
RELIABLE_S = 1e-4  # power of shorter kernels is the sensor's average over more than the loop


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSettings:
    """How to train on kernels."""

    epochs: int = 16
    batch: int = 1024  # of 512 and 4,096 the first was far better in the same time: steps matter
    rate: float = 2e-3
    width: int = 192
    layers: int = 4
    physics_steps: int = 300
    hidden_share: float = 0.15  # of rows whose hardware the network does not see
    anonymous_share: float = 0.35  # of rows of which it sees no implementation, as of a graph's kernels
    short_weight: float = 0.3  # of the power of a kernel too short for the sensor
    decay: float = 1e-5
    patience: int = 4  # epochs without a better held-out loss
    held_out: float = 0.02  # of the shapes, to stop early on
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBatches:
    """All examples as tensors, from which batches are taken."""

    kernels: KernelTensors
    duration_s: Tensor
    power_w: Tensor

    def take(self, rows: Integers) -> "KernelBatches":
        """Some rows."""
        index = torch.from_numpy(rows)
        parts = {field.name: getattr(self.kernels, field.name)[index] for field in fields(self.kernels)}
        return KernelBatches(
            kernels=KernelTensors(**parts), duration_s=self.duration_s[index], power_w=self.power_w[index]
        )


def kernel_batches(examples: KernelExamples) -> KernelBatches:
    """Examples as tensors."""
    return KernelBatches(
        kernels=kernel_tensors(examples.described, examples.on),
        duration_s=torch.from_numpy(examples.duration_s.astype(np.float32)),
        power_w=torch.from_numpy(examples.power_w.astype(np.float32)),
    )


def loss_of(estimate: KernelEstimate, batch: KernelBatches, short_weight: float) -> Tensor:
    """Mean absolute error of the logarithms, of time and of power where it is known."""
    time = (estimate.duration_s.log() - batch.duration_s.log()).abs().mean()
    known = torch.isfinite(batch.power_w)
    if not bool(known.any()):
        return time
    weight = torch.clamp(batch.duration_s[known] / RELIABLE_S, short_weight, 1.0)
    power = (estimate.power_w[known].log() - batch.power_w[known].log()).abs()
    return time + (weight * power).sum() / weight.sum()


def fit_physics(network: KernelNetwork, data: KernelBatches, rows: Integers, settings: KernelSettings) -> None:
    """Fit the figures of the physics, without corrections."""
    rng = np.random.default_rng(settings.seed)
    optimiser = torch.optim.Adam(network.physics.parameters(), lr=0.03)
    for _ in range(settings.physics_steps):
        batch = data.take(rng.choice(rows, min(8192, len(rows))))
        loss = _physics_loss(network.baseline(batch.kernels), batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _physics_loss(estimate: KernelEstimate, batch: KernelBatches) -> Tensor:
    """As ``loss_of``, but long kernels count: short ones say what a start takes and nothing about efficiency."""
    weight = torch.clamp(batch.duration_s / RELIABLE_S, 0.05, 1.0)
    time = (weight * (estimate.duration_s.log() - batch.duration_s.log()).abs()).sum() / weight.sum()
    known = torch.isfinite(batch.power_w) & (batch.duration_s >= RELIABLE_S)
    if not bool(known.any()):
        return time
    return time + (estimate.power_w[known].log() - batch.power_w[known].log()).abs().mean()


def fit_kernels(
    network: KernelNetwork,
    data: KernelBatches,
    *,
    rows: Integers,
    watched: Integers,
    settings: KernelSettings,
    told: Callable[[int, float, float], None] = lambda _epoch, _loss, _watched: None,
    state: Path | None = None,
) -> None:
    """Train physics and corrections on ``rows``; keeps the weights that were best on ``watched``.

    With ``state``, a folder, every epoch is kept there, and training goes on where it stopped.
    """
    network.learn_ranges(data.kernels.features[torch.from_numpy(rows)])
    steps = settings.epochs * max(1, len(rows) // settings.batch)
    # The physics stays as it was fitted: trained along, its starts and efficiencies lose their meaning.
    corrections = [*network.time.parameters(), *network.power.parameters()]
    optimiser = torch.optim.AdamW(corrections, lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=steps + 1, pct_start=0.1)
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(network, optimiser, schedule)
    course = _Course.resumed(accelerator, state, network)
    for epoch in range(course.epoch, settings.epochs):
        loss = _epoch(prepared, data, np.random.default_rng([settings.seed, epoch]).permutation(rows), settings, epoch)
        seen = watched_loss(network, data, watched, settings)
        told(epoch, loss, seen)
        course = course.after(epoch, seen, network)
        course.keep(accelerator, state)
        if course.since >= settings.patience:
            break
    network.load_state_dict(course.best_weights)


def _epoch(prepared: Any, data: KernelBatches, order: Integers, settings: KernelSettings, epoch: int) -> float:
    """One pass over the examples; the mean loss."""
    network, optimiser, schedule = prepared
    generator = torch.Generator().manual_seed(1000 * settings.seed + epoch)
    total, batches = 0.0, 0
    for start in range(0, max(1, len(order) - settings.batch + 1), settings.batch):
        batch = data.take(order[start : start + settings.batch])
        count = len(batch.duration_s)
        hidden = (torch.rand(count, generator=generator) < settings.hidden_share).float()
        anonymous = (torch.rand(count, generator=generator) < settings.anonymous_share).float()
        loss = loss_of(network(batch.kernels, hidden=hidden, anonymous=anonymous), batch, settings.short_weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        total, batches = total + float(loss.detach()), batches + 1
    return total / batches


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """How far training has come."""

    epoch: int
    best: float
    since: int  # epochs since the best
    best_weights: dict[str, Tensor]

    @classmethod
    def resumed(cls, accelerator: Accelerator, state: Path | None, network: KernelNetwork) -> "_Course":
        """Where it stopped; from the start where nothing is kept."""
        if state is None or not (state / _COURSE).is_file():
            return cls(epoch=0, best=float("inf"), since=0, best_weights=_copy(network))
        accelerator.load_state(str(state))
        values = json.loads((state / _COURSE).read_text(encoding="utf-8"))
        return cls(best_weights=load_file(state / _BEST), **values)

    def after(self, epoch: int, seen: float, network: KernelNetwork) -> "_Course":
        """After one more epoch, with its held-out loss."""
        if seen < self.best:
            return _Course(epoch=epoch + 1, best=seen, since=0, best_weights=_copy(network))
        return replace(self, epoch=epoch + 1, since=self.since + 1)

    def keep(self, accelerator: Accelerator, state: Path | None) -> None:
        """Write it; the file that says how far it is comes last."""
        if state is None:
            return
        accelerator.save_state(str(state))
        save_file(self.best_weights, state / _BEST)
        values = {"epoch": self.epoch, "best": self.best, "since": self.since}
        (state / _COURSE).write_text(json.dumps(values), encoding="utf-8")


@torch.no_grad()
def watched_loss(network: KernelNetwork, data: KernelBatches, rows: Integers, settings: KernelSettings) -> float:
    """Loss on rows that are not trained on; 0 for none."""
    if len(rows) == 0:
        return 0.0
    batch = data.take(rows[:100_000])
    return float(loss_of(network(batch.kernels), batch, settings.short_weight))


@torch.no_grad()
def estimated(
    network: KernelNetwork, data: KernelBatches, rows: Integers, *, hidden: bool = False, baseline: bool = False
) -> KernelEstimate:
    """Estimates for some rows, piece by piece."""
    pieces = []
    for start in range(0, len(rows), 65_536):
        kernels = data.take(rows[start : start + 65_536]).kernels
        mask = torch.ones(len(kernels.family)) if hidden else None
        pieces.append(network.baseline(kernels) if baseline else network(kernels, hidden=mask))
    return KernelEstimate(
        duration_s=torch.cat([piece.duration_s for piece in pieces]),
        power_w=torch.cat([piece.power_w for piece in pieces]),
    )


def _copy(network: KernelNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
