"""What a predictor is uncertain of, request by request: the scores that focused sampling follows.

``harness.campaign.focused`` asks for scores and knows nothing of predictors; ``harness.run`` brings the two together.

A predictor states 90 % intervals. On a logarithmic scale their half width is 1.645 standard deviations, so

    s = (ln high − ln low) / (2 · 1.645)

is the relative uncertainty of a prediction; it grows where the predictor has seen nothing alike. A checkpoint does not
change during a campaign. What the campaign has measured is learned by a correction of the predictor: ``FocusModel`` of
ln(measured / predicted), for each model and deployment. The two know different things, so their precisions add:

    1 / s² = 1 / s_predictor² + 1 / s_correction²

Before anything is measured that is the predictor's own interval. An ensemble's disagreement would do as well and costs
the training of each member; intervals are there, and calibrated.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Protocol

import numpy as np

from harness.errors import UsageError
from harness.hardware import Hardware, find
from harness.requests import Deployment, Request
from predictor.focus_model import Floats, FocusModel, sizes_of
from predictor.requests import Interval, Parallelism, Prediction, PredictionRequest, Predictor, Refusal

_SDS = 2 * NormalDist().inv_cdf(0.95)  # of a normal distribution across its 90 % interval
_VIRTUAL = "virtual: "  # before the hardware that a virtual GPU simulates


class Candidate(Protocol):
    """A request on what it would run on, as ``harness.campaign.focused`` has it."""

    @property
    def request(self) -> Request: ...
    @property
    def deployment(self) -> Deployment: ...
    @property
    def gpu(self) -> str:
        """As in ``RunRow.gpu``."""
        ...


class Measured(Protocol):
    """A candidate that has been measured."""

    @property
    def candidate(self) -> Candidate: ...
    @property
    def energy_j(self) -> float: ...


Scorer = Callable[[Sequence[Candidate]], Sequence[float]]
Learner = Callable[[Sequence[Measured]], Scorer]


def load_learner(checkpoint: Path | None, *, table: Sequence[Hardware] | None = None) -> Learner:
    """A learner from a checkpoint, None for the one that ships; raises ``UsageError`` where there is none."""
    try:
        from predictor.reference import load
    except ImportError as problem:
        raise UsageError(
            f"--sampling focused asks a predictor what it is least certain of, and none can be loaded: {problem}.\n"
            "Install joulegraph with its predictor, or sample the trace with --sampling trace."
        ) from problem
    return learner(load(checkpoint), table=table)


def scorer(predictor: Predictor, *, table: Sequence[Hardware] | None = None) -> Scorer:
    """Scores from the intervals of a predictor alone; NaN for what it refuses. ``table``: devices, by default the own.

    The scorer raises ``UsageError`` where the predictor refuses everything, with its reason.
    """
    return lambda candidates: _Asking(predictor, table).intervals(candidates).sd.tolist()


def learner(predictor: Predictor, *, table: Sequence[Hardware] | None = None) -> Learner:
    """Scores from the intervals of a predictor and from what was measured since; raises as ``scorer`` does."""
    asking = _Asking(predictor, table)
    return lambda measured: _corrected(asking, measured)


def model_learner() -> Learner:
    """Scores from what was measured alone, as if no predictor were there: every request is as uncertain at first."""
    return lambda measured: _corrected(None, measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """What is expected of N candidates; NaN where there is no prediction."""

    log_energy: Floats  # [N] joules
    sd: Floats  # [N]


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks a predictor about candidates."""

    predictor: Predictor
    table: Sequence[Hardware] | None

    def intervals(self, candidates: Sequence[Candidate]) -> _Expected:
        """What it says; raises ``UsageError`` if it refuses everything."""
        answers = self.predictor.predict([self._asked(candidate) for candidate in candidates]) if candidates else ()
        said = [_said(answer) for answer in answers]
        refusals = [answer.reason for answer in answers if isinstance(answer, Refusal)]
        if refusals and len(refusals) == len(answers):
            raise UsageError(
                f"The predictor {self.predictor.name} cannot say what it is least certain of, because it answers none "
                f"of these requests: {refusals[0]}\nSample the trace with --sampling trace."
            )
        columns = np.array(said, dtype=np.float64).reshape(-1, 2).T
        return _Expected(log_energy=columns[0], sd=columns[1])

    def _asked(self, candidate: Candidate) -> PredictionRequest:
        request, deployment = candidate.request, candidate.deployment
        name = candidate.gpu.removeprefix(_VIRTUAL)
        layers = deployment.parallelism == Parallelism.LAYERS.value
        return PredictionRequest(
            model=request.model,
            hardware=find(name) if self.table is None else find(name, self.table),
            n_gpus=max(1, deployment.n_gpus),
            batch_size=request.batch_size,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            dtype=request.dtype,
            runtime=deployment.runtime,
            parallelism=Parallelism.LAYERS if layers else Parallelism.TENSOR,
            attention=deployment.attention,
            kv_cache=deployment.kv_cache,
            cuda_graphs=deployment.cuda_graphs,
        )


def _said(answer: Prediction | Refusal) -> tuple[float, float]:
    if isinstance(answer, Refusal) or not 0 < answer.whole.energy_j < math.inf:
        return math.nan, math.nan
    return math.log(answer.whole.energy_j), _relative_sd(answer.whole.energy_interval_j, answer.whole.energy_j)


def _relative_sd(interval: Interval, energy_j: float) -> float:
    """An interval that reaches down to 0 is counted by its upper half."""
    if interval.low > 0:
        return math.log(interval.high / interval.low) / _SDS
    return 2 * math.log(max(interval.high / energy_j, 1.0)) / _SDS


@dataclass(frozen=True, slots=True)
class _Group:
    """What has a correction of its own."""

    model: str
    dtype: str
    gpu: str
    deployment: Deployment

    @classmethod
    def of(cls, candidate: Candidate) -> "_Group":
        request = candidate.request
        return cls(request.model, request.dtype, candidate.gpu, candidate.deployment)


def _corrected(asking: _Asking | None, measured: Sequence[Measured]) -> Scorer:
    """A scorer by the corrections fitted to what was measured; with no predictor the correction is all there is."""
    models = _fitted(asking, measured)

    def score(candidates: Sequence[Candidate]) -> Sequence[float]:
        own = None if asking is None else asking.intervals(candidates).sd
        correction = np.full(len(candidates), math.inf)
        for group, places in _places(candidates).items():
            model = models.get(group)
            if model is None and own is not None:
                continue  # nothing is measured of it: the predictor's interval holds
            sizes = sizes_of([_sizes(candidates[place].request) for place in places])
            correction[places] = (model or FocusModel(sizes_of([]), np.zeros(0))).predict(sizes).sd
        if own is None:
            return [float(sd) for sd in correction]
        return [float(sd) for sd in 1 / np.hypot(1 / np.maximum(own, 1e-9), 1 / correction)]

    return score


def _fitted(asking: _Asking | None, measured: Sequence[Measured]) -> Mapping[_Group, FocusModel]:
    candidates = [each.candidate for each in measured]
    expected = np.zeros(len(measured)) if asking is None else asking.intervals(candidates).log_energy
    off = np.log([each.energy_j for each in measured]) - expected if measured else np.zeros(0)
    models = {}
    for group, places in _places(candidates).items():
        known = [place for place in places if np.isfinite(off[place])]
        if known:
            models[group] = FocusModel(sizes_of([_sizes(candidates[place].request) for place in known]), off[known])
    return models


def _places(candidates: Sequence[Candidate]) -> Mapping[_Group, list[int]]:
    places: dict[_Group, list[int]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        places[_Group.of(candidate)].append(place)
    return places


def _sizes(request: Request) -> tuple[int, int, int]:
    return request.batch_size, request.prompt_tokens, request.output_tokens
