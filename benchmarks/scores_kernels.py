"""Scores of kernels: the network on shapes and on GPUs that it was not trained on, beside its rivals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rivals_kernels import KernelAnswer, KernelCase, rivals
from benchmarks.scores_networks import Kernels, Shelf, unfamiliar
from benchmarks.scores_records import OURS, Floats, Fold, Score, scored
from benchmarks.scores_splits import KernelSplit, kernel_fold
from benchmarks.scores_tasks import GPU_OUT, PER_GPU, task_named
from predictor.families import Family, index_of
from predictor.intervals import quantile
from predictor.kernel_examples import KernelExamples
from predictor.kernel_table import Integers
from predictor.kernel_training import RELIABLE_S, estimated
from predictor.network import KernelNetwork
from predictor.physics import KernelEstimate

UNFAMILIAR = 2.0  # intervals of GPUs unlike any learned from are so much wider, as the predictor's are
_LEAST_RESIDUALS = 100
_GEMM = [index_of(family) for family in (Family.GEMM, Family.NARROW_GEMM, Family.BATCHED_GEMM)]
_LEAST_ROWS = 50  # of a part of the test rows to be scored alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Scores and what was split how."""

    scores: tuple[Score, ...]
    folds: tuple[Fold, ...]


def score_kernels(shelf: Shelf, names: Sequence[str]) -> Found:
    """All kernel tasks with one seed; ``names``: of the rivals."""
    seed, examples = shelf.settings.seed, shelf.examples
    case = shelf.shapes_case()
    folds = [kernel_fold(task, examples, case.split) for task in ("kernel-all",)]
    scores: list[Score] = []
    for answer in _answers(case, shelf.shapes(), shelf, names, hidden=False):
        scores += _shape_scores(case, answer, seed)
    for gpu in GPU_OUT:
        if gpu not in set(examples.gpu):
            continue
        case, task, kernels = shelf.without_case([gpu]), f"kernel-gpu-out/{gpu}", shelf.without([gpu])
        folds.append(kernel_fold(task, examples, case.split))
        everything = np.ones(len(case.split.test), dtype=np.bool_)
        for answer in _answers(case, kernels, shelf, names, hidden=unfamiliar(gpu, kernels.gpus)):
            scores += _scores(case, answer, task, everything, seed)
    return Found(scores=tuple(scores), folds=tuple(folds))


def _answers(
    case: KernelCase, kernels: Kernels, shelf: Shelf, names: Sequence[str], *, hidden: bool
) -> Iterator[KernelAnswer]:
    yield our_answer(case, kernels.network, hidden=hidden)
    for answer in rivals(case, kernels.physics, seed=shelf.settings.seed, names=names):
        shelf.told(f"{answer.predictor}; held out: {case.split.held_out}")
        yield answer


def our_answer(case: KernelCase, network: KernelNetwork, *, hidden: bool) -> KernelAnswer:
    """The network's, with intervals from the errors of shapes that it was not trained on."""
    split, examples = case.split, case.examples
    kept = estimated(network, case.data, split.calibration, hidden=hidden)
    found = estimated(network, case.data, split.test, hidden=hidden)
    widen = UNFAMILIAR if hidden else 1.0
    halves = {
        name: widen * half_widths(np.abs(errors), examples.described.family, split)
        for name, errors in _errors(examples, split.calibration, kept).items()
    }
    return KernelAnswer(
        predictor=OURS,
        duration_s=found.duration_s.numpy().astype(np.float64),
        power_w=found.power_w.numpy().astype(np.float64),
        half_time=halves["time"],
        half_power=halves["power"],
        half_energy=halves["energy"],
    )


def _errors(examples: KernelExamples, rows: Integers, found: KernelEstimate) -> dict[str, Floats]:
    time = np.log(found.duration_s.numpy() / examples.duration_s[rows])
    power = np.log(found.power_w.numpy() / examples.power_w[rows])
    return {"time": time, "power": power, "energy": time + power}


def half_widths(errors: Floats, family: Integers, split: KernelSplit) -> Floats:
    """[test rows] conformal half widths: of a family where the calibration rows have enough of it, else of all."""
    known = np.isfinite(errors)
    own, asked = family[split.calibration], family[split.test]
    halves = np.full(len(split.test), quantile(errors[known]) if known.any() else np.nan)
    for each in np.unique(asked):
        chosen = known & (own == each)
        if chosen.sum() >= _LEAST_RESIDUALS:
            halves[asked == each] = quantile(errors[chosen])
    return halves


def _shape_scores(case: KernelCase, answer: KernelAnswer, seed: int) -> list[Score]:
    examples, rows = case.examples, case.split.test
    gemm = np.isin(examples.described.family[rows], _GEMM)
    power = np.isfinite(examples.power_w[rows])
    long = power & (examples.duration_s[rows] > RELIABLE_S)
    everything = np.ones(len(rows), dtype=np.bool_)
    masks = {"kernel-gemm": gemm, "kernel-all": everything, "kernel-energy": power, "kernel-energy-long": long}
    for gpu in PER_GPU:
        own = examples.gpu[rows] == gpu
        masks |= {f"kernel-gemm/{gpu}": gemm & own, f"kernel-all/{gpu}": own}
        if gpu in GPU_OUT:
            masks |= {f"kernel-energy/{gpu}": power & own, f"kernel-energy-long/{gpu}": long & own}
    return [score for task, mask in masks.items() for score in _scores(case, answer, task, mask, seed)]


def _scores(
    case: KernelCase, answer: KernelAnswer, task: str, mask: "np.ndarray[tuple[int], np.dtype[np.bool_]]", seed: int
) -> list[Score]:
    """Of the test rows under a mask that the predictor answered."""
    use = mask & np.isfinite(answer.duration_s)
    rows = case.split.test[use]
    if len(rows) < _LEAST_ROWS:
        return []
    time, power = case.examples.duration_s[rows], case.examples.power_w[rows]
    columns = {
        "time": (answer.duration_s, time, answer.half_time),
        "power": (answer.power_w, power, answer.half_power),
        "energy": (answer.duration_s * answer.power_w, time * power, answer.half_energy),
    }
    found = [
        scored(
            predicted[use],
            measured,
            task=task,
            quantity=quantity,
            predictor=answer.predictor,
            seed=seed,
            half=None if half is None else half[use],
        )
        for quantity, (predicted, measured, half) in columns.items()
        if quantity in task_named(task).quantities
    ]
    return [score for score in found if score is not None]
