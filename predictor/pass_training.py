"""Training on measured requests: phases and whole runs, each label where it is, through the sums they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from predictor.kernel_table import Floats, Integers
from predictor.pass_model import PassEstimate, PassModel
from predictor.passes import PassTensors
from predictor.run_examples import Part, RunExample


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSettings:
    """How to train on passes."""

    plain_steps: int = 400  # of the figures alone
    steps: int = 1200
    rate: float = 3e-3
    plain_rate: float = 2e-2
    prior: float = 0.02  # pull of the figures towards what the kernels say
    deviation_prior: float = 5.0  # times as strong for what classes draw apart
    decay: float = 3e-3
    corrected: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """T measured parts of requests made of P passes."""

    passes: PassTensors
    target: Tensor  # [C] int64: which part
    of_pass: Tensor  # [C] int64: a pass that belongs to it
    weight: Tensor  # [C] how often
    duration_s: Tensor  # [T] NaN: not known
    energy_j: Tensor  # [T]
    importance: Tensor  # [T]
    example: Integers  # [T] which example
    part: tuple[Part, ...]  # [T] which part of it

    def sums(self, estimate: PassEstimate) -> PassEstimate:
        """[T] of every part."""
        count = len(self.duration_s)
        durations = torch.zeros(count).index_add(0, self.target, self.weight * estimate.duration_s[self.of_pass])
        energies = torch.zeros(count).index_add(0, self.target, self.weight * estimate.energy_j[self.of_pass])
        return PassEstimate(duration_s=durations, energy_j=energies)


def run_batch(examples: Sequence[RunExample], passes: PassTensors, importance: Floats | None = None) -> RunBatch:
    """Tie the parts of examples to their passes. ``importance`` has one entry per example."""
    request, decode = passes.request.numpy(), passes.decode.numpy() > 0
    times = passes.times.numpy()
    bounds = np.searchsorted(request, np.arange(len(examples) + 1))
    target, of_pass, weight = [], [], []
    durations: list[float] = []
    energies: list[float] = []
    owner: list[int] = []
    parts: list[Part] = []
    for place, example in enumerate(examples):
        own = np.arange(bounds[place], bounds[place + 1])
        for part in example.targets:
            chosen = own
            if part.part is not Part.WHOLE:
                chosen = own[decode[own] == (part.part is Part.DECODE)]
            if len(chosen) == 0:
                continue
            target.append(np.full(len(chosen), len(durations)))
            of_pass.append(chosen)
            weight.append(times[chosen])
            durations.append(part.duration_s)
            energies.append(part.energy_j)
            owner.append(place)
            parts.append(part.part)
    weights = np.ones(len(examples)) if importance is None else importance
    return RunBatch(
        passes=passes,
        target=torch.from_numpy(np.concatenate(target)),
        of_pass=torch.from_numpy(np.concatenate(of_pass)),
        weight=torch.from_numpy(np.concatenate(weight)).float(),
        duration_s=torch.tensor(durations),
        energy_j=torch.tensor(energies),
        importance=torch.from_numpy(weights[np.array(owner)]).float(),
        example=np.array(owner, dtype=np.int64),
        part=tuple(parts),
    )


def taken(batch: RunBatch, examples: Integers) -> RunBatch:
    """Only the parts of some examples; passes stay."""
    keep = torch.from_numpy(np.isin(batch.example, examples))
    numbers = torch.cumsum(keep.long(), 0) - 1
    rows = keep[batch.target]
    return RunBatch(
        passes=batch.passes,
        target=numbers[batch.target[rows]],
        of_pass=batch.of_pass[rows],
        weight=batch.weight[rows],
        duration_s=batch.duration_s[keep],
        energy_j=batch.energy_j[keep],
        importance=batch.importance[keep],
        example=batch.example[keep.numpy()],
        part=tuple(part for part, kept in zip(batch.part, keep.tolist(), strict=True) if kept),
    )


def run_loss(estimate: PassEstimate, batch: RunBatch) -> Tensor:
    """Mean absolute error of the logarithms of time, energy and power, where each is known."""
    sums = batch.sums(estimate)
    pairs = (
        (sums.duration_s, batch.duration_s),
        (sums.energy_j, batch.energy_j),
        (sums.energy_j / sums.duration_s, batch.energy_j / batch.duration_s),
    )
    total = torch.zeros(())
    for value, label in pairs:
        known = torch.isfinite(label)
        if bool(known.any()):
            weight = batch.importance[known]
            total = total + (weight * (value[known].log() - label[known].log()).abs()).sum() / weight.sum()
    return total


def fit_passes(model: PassModel, batch: RunBatch, settings: PassSettings) -> None:
    """First the figures, then the correction with them."""
    torch.manual_seed(settings.seed)
    figures = [value for name, value in model.named_parameters() if "." not in name]
    starts = [value.detach().clone() for value in figures]

    def prior() -> Tensor:
        pull = sum(
            (((value - start) ** 2).sum() for value, start in zip(figures, starts, strict=True)), torch.zeros(())
        )
        return settings.prior * (pull + settings.deviation_prior * (model.deviation**2).sum())

    optimiser = torch.optim.Adam(figures, lr=settings.plain_rate)
    for _ in range(settings.plain_steps):
        _step(optimiser, run_loss(model(batch.passes, corrected=False), batch) + prior())
    if not settings.corrected:
        return
    model.learn_ranges(chosen_passes(batch.passes, torch.unique(batch.of_pass)))
    body = [value for name, value in model.named_parameters() if "." in name]
    optimiser = torch.optim.AdamW(
        [
            {"params": figures, "lr": settings.rate / 3, "weight_decay": 0.0},
            {"params": body, "weight_decay": settings.decay},
        ],
        lr=settings.rate,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for _ in range(settings.steps):
        _step(optimiser, run_loss(model(batch.passes), batch) + prior())
        schedule.step()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def chosen_passes(passes: PassTensors, rows: Tensor) -> PassTensors:
    """Some passes."""
    return PassTensors(**{field.name: getattr(passes, field.name)[rows] for field in fields(PassTensors)})
