"""The variants of the pass model that are compared, and how each is fitted: the same data, steps and rates for all."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.ablation_data import Lessons
from predictor.gnn import GeometricEncoder
from predictor.graph_batches import GraphBatch
from predictor.graph_model import GraphPassModel
from predictor.pass_model import BOUND, PASS_FEATURES, PassEstimate, PassModel, pass_features
from predictor.pass_training import PassSettings, fit_passes, run_loss
from predictor.passes import PassTensors

_WIDTH = 32
_RUNS = 128  # per step
_PIECES = 40  # of so many runs, drawn for each seed, the same for all variants
_ADDED = 7  # inputs of a direct regression beside the features of the correction


class Variant(StrEnum):
    """What is compared."""

    PHYSICS = "physics figures only"
    CORRECTION = "correction, no kernel graph"
    POOLED = "correction with kernels, edges unused"
    MESSAGES_1 = "correction with message passing, 1 round"
    MESSAGES = "correction with message passing, 2 rounds"
    DIRECT = "direct regression, no physics residual"
    SEPARATE = "correction, separate nets for prefill and decode"
    UNBOUNDED = "correction, unbounded"


class Plain(PassModel):
    """The pass model, called as the others are."""

    def estimate(self, passes: PassTensors, graph: GraphBatch) -> PassEstimate:
        """Corrected."""
        del graph
        return self(passes)  # type: ignore[no-any-return]


class Separate(Plain):
    """A net of its own for decode steps."""

    def __init__(self) -> None:
        super().__init__(width=_WIDTH)
        self.decode_body = _layers([PASS_FEATURES, _WIDTH, _WIDTH])
        self.decode_head = copy.deepcopy(self.head)

    def _factors(self, features: Tensor, kind: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(features, self.lowest[kind]), self.highest[kind])
        decode, prefill = self.decode_head(self.decode_body(inside)), self.head(self.body(inside))
        raw = torch.where(features[:, :1] > 0, decode, prefill) * self.learned[kind].float()[:, None]
        return (BOUND * torch.tanh(raw / BOUND)).exp()


class Unbounded(Plain):
    """Whatever factor the net says."""

    def _factors(self, features: Tensor, kind: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(features, self.lowest[kind]), self.highest[kind])
        factor: Tensor = (self.head(self.body(inside)) * self.learned[kind].float()[:, None]).exp()
        return factor


class Messages(GraphPassModel):
    """Message passing over the kernel graph."""

    def __init__(self, rounds: int) -> None:
        super().__init__(width=_WIDTH, encoder=GeometricEncoder(rounds=rounds))

    def estimate(self, passes: PassTensors, graph: GraphBatch) -> PassEstimate:
        """Corrected."""
        return self(passes, graph)  # type: ignore[no-any-return]


class Direct(PassModel):
    """Logarithms of time and energy of a pass from the same sums of its kernels, a linear layer beside the net."""

    def __init__(self) -> None:
        super().__init__(width=_WIDTH)
        inputs = PASS_FEATURES + _ADDED
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.body = _layers([inputs, _WIDTH, _WIDTH])
        self.linear_out = nn.Sequential(nn.Linear(inputs, 2))

    def _inputs(self, passes: PassTensors) -> Tensor:
        busy = passes.busy_s.sum(1)
        host = passes.launches * torch.nan_to_num(passes.host_s, nan=1e-5)
        active = passes.active_j.sum(1)
        added = (
            busy,
            host,
            active,
            passes.compute_s + 1e-9,
            passes.memory_s + 1e-9,
            passes.board_power_w * passes.gpus,
            passes.at_work,
        )
        return torch.cat((pass_features(passes, busy, host, active), torch.stack(added, 1).log()), 1)

    @torch.no_grad()
    def learn_ranges(self, passes: PassTensors) -> None:
        """Centre and scale of the inputs."""
        inputs = self._inputs(passes)
        self.centre.copy_(inputs.mean(0))
        self.scale.copy_(inputs.std(0).clamp_min(1e-3))

    def estimate(self, passes: PassTensors, graph: GraphBatch) -> PassEstimate:
        """Of each pass, run once."""
        del graph
        inputs = ((self._inputs(passes) - self.centre) / self.scale).clamp(-4, 4)
        raw = self.head(self.body(inputs)) + self.linear_out(inputs)
        return PassEstimate(duration_s=(raw[:, 0] - 4).exp(), energy_j=(raw[:, 1] + 2).exp())


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(module for a, b in pairwise(sizes) for module in (nn.Linear(a, b), nn.SiLU())))


Estimator = Plain | Messages | Direct
_MAKE: dict[Variant, Callable[[], Estimator]] = {
    Variant.CORRECTION: lambda: Plain(width=_WIDTH),
    Variant.POOLED: lambda: Messages(0),
    Variant.MESSAGES_1: lambda: Messages(1),
    Variant.MESSAGES: lambda: Messages(2),
    Variant.DIRECT: Direct,
    Variant.SEPARATE: Separate,
    Variant.UNBOUNDED: Unbounded,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A variant, ready to predict."""

    model: PassModel
    corrected: bool

    @torch.no_grad()
    def sums(self, lessons: Lessons) -> PassEstimate:
        """[T] time and energy of all measured parts."""
        passes = lessons.batch.passes
        if not self.corrected:
            return lessons.batch.sums(self.model(passes, corrected=False))
        assert isinstance(self.model, Plain | Messages | Direct)
        return lessons.batch.sums(self.model.estimate(passes, lessons.graph))


def fitted_figures(lessons: Lessons) -> PassModel:
    """The figures of the physics, which all variants but one start from."""
    model = PassModel(width=_WIDTH)
    fit_passes(model, lessons.batch, PassSettings(corrected=False))
    return model


def fitted(
    variant: Variant, lessons: Lessons, pieces: Sequence[Lessons], figures: PassModel, *, seed: int, steps: int
) -> Fitted:
    """A variant, fitted to lessons; ``pieces`` of them as ``drawn`` gives."""
    if variant is Variant.PHYSICS:
        return Fitted(model=figures, corrected=False)
    torch.manual_seed(seed)
    model = _MAKE[variant]()
    plain = {name: value.detach() for name, value in figures.named_parameters() if "." not in name}
    model.load_state_dict(plain, strict=False)
    model.learn_ranges(lessons.batch.passes)
    if isinstance(model, Messages):
        model.encoder.learn_ranges(lessons.graph)
    _fit(model, pieces, PassSettings(steps=steps, seed=seed))
    return Fitted(model=model, corrected=True)


def drawn(lessons: Lessons, seed: int) -> tuple[Lessons, ...]:
    """What the steps of a fit read, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(lessons.drawn(_RUNS, generator) for _ in range(_PIECES))


def _fit(model: Estimator, pieces: Sequence[Lessons], settings: PassSettings) -> None:
    start = PassModel()
    figures = [value for name, value in model.named_parameters() if "." not in name]
    starts = [value.detach().clone() for name, value in start.named_parameters() if "." not in name]
    body = [value for name, value in model.named_parameters() if "." in name]
    optimiser = torch.optim.AdamW(
        [
            {"params": figures, "lr": settings.rate / 3, "weight_decay": 0.0},
            {"params": body, "weight_decay": settings.decay},
        ],
        lr=settings.rate,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for step in range(settings.steps):
        piece = pieces[step % len(pieces)]
        prior = sum(
            (((value - first) ** 2).sum() for value, first in zip(figures, starts, strict=True)), torch.zeros(())
        )
        loss = run_loss(model.estimate(piece.batch.passes, piece.graph), piece.batch) + settings.prior * prior
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
