"""The width of a predictor's intervals, by what it gets wrong of models that were left out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from predictor.assembly import is_served
from predictor.checkpoint import Spread
from predictor.pass_model import CLASSES, PassModel
from predictor.pass_training import PassSettings, RunBatch, fit_passes, taken
from predictor.run_examples import Part, RunExample

COVERAGE = 0.9
_FOLDS = 5
_LEAST_RESIDUALS = 20  # fewer say nothing about a 90 % interval
# What models left out of one source cannot show is how another machine differs. On data of a source that is never
# learned from (energy-inference) these two gave 90 % and the smaller error; they are chosen, not fitted.
_ONE_SOURCE_TRUST = 0.5
_ONE_SOURCE_SPREAD = 1.4
_UNKNOWN_HALF_WIDTH = 0.7  # a factor of two
# Words in the names of checkpoints that do not tell their shapes apart.
_TUNINGS = frozenset(
    (
        *("instruct", "chat", "it", "hf", "base", "thinking", "vl", "meta"),
        *("bf16", "fp8", "nvfp4", "awq", "gptq", "2507", "0528", "v0.1", "v0.2", "v0.3"),
    )
)


def hedge(model: PassModel, runs: Sequence[RunExample]) -> None:
    """Half the correction of time of a class that one source alone shows: host and libraries are that machine's."""
    for place in range(CLASSES):
        own = {run.source for run in runs if class_of(run) == place}
        model.trust[place, 0] = 1.0 if len(own) > 1 else _ONE_SOURCE_TRUST


def class_of(run: RunExample) -> int:
    """Which figures of ``PassModel`` a run is made with."""
    if not is_served(run.request.runtime):
        return 0
    return 2 if run.request.cuda_graphs is False else 1


def model_family(model: str) -> str:
    """What checkpoints of one shape have in common in their names, so that twins are left out together.

    >>> model_family("Qwen/Qwen3-VL-235B-A22B-Instruct-FP8") == model_family("Qwen/Qwen3-235B-A22B-Thinking-2507")
    True
    """
    words = model.rpartition("/")[2].lower().split("-")
    return "-".join(word for word in words if word not in _TUNINGS)


def spreads_of(runs: Sequence[RunExample], batch: RunBatch, settings: PassSettings) -> tuple[Spread, ...]:
    """Split-conformal half widths (Vovk et al.; Lei et al. 2018): errors for models that were left out."""
    models = sorted({model_family(run.model) for run in runs})
    fold_of = {model: place % _FOLDS for place, model in enumerate(models)}
    folds = np.array([fold_of[model_family(run.model)] for run in runs])
    served = np.array([is_served(run.request.runtime) for run in runs])
    part = np.array(batch.part)
    errors = {"time": np.full(len(part), np.nan), "energy": np.full(len(part), np.nan)}
    for fold in range(min(_FOLDS, len(models))):
        torch.manual_seed(settings.seed)
        model = PassModel()
        out = np.flatnonzero(folds == fold)
        if len(out) == len(runs):
            break
        fit_passes(model, taken(batch, np.flatnonzero(folds != fold)), replace(settings, steps=settings.steps // 2))
        hedge(model, [run for run, place in zip(runs, folds, strict=True) if place != fold])
        with torch.no_grad():
            sums = batch.sums(model(batch.passes))
        mine = np.isin(batch.example, out)
        errors["time"][mine] = np.log(sums.duration_s.numpy() / batch.duration_s.numpy())[mine]
        errors["energy"][mine] = np.log(sums.energy_j.numpy() / batch.energy_j.numpy())[mine]
    sources = np.array([run.source for run in runs])
    return tuple(_spreads(errors, part, served[batch.example], sources[batch.example]))


def _spreads(
    errors: "dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]", part: Any, served: Any, sources: Any
) -> list[Spread]:
    found = []
    for kind, flag in (("eager", False), ("served", True)):
        for name in Part:
            for quantity, values in errors.items():
                chosen = (served == flag) & np.isfinite(values)
                own = chosen & (part == name)
                use = values[own] if own.sum() >= _LEAST_RESIDUALS else values[chosen]
                half = quantile(np.abs(use)) if len(use) >= _LEAST_RESIDUALS else _UNKNOWN_HALF_WIDTH
                if len(set(sources[chosen])) == 1:
                    half *= _ONE_SOURCE_SPREAD
                found.append(
                    Spread(runtime_class=kind, part=name, quantity=quantity, half_width=float(half), residuals=len(use))
                )
    return found


def quantile(errors: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """The conformal quantile: that of n + 1 with the largest for the one to come."""
    rank = min(len(errors), int(np.ceil((len(errors) + 1) * COVERAGE)))
    return float(np.sort(errors)[rank - 1])
