"""Scores of whole requests: the predictor that answers users, trained without a model, a GPU or a source."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.rivals_requests import (
    PartRows,
    RequestAnswer,
    part_rows,
    rivals,
    row_targets,
    untrained,
)
from benchmarks.scores_kernels import Found
from benchmarks.scores_networks import Kernels, Shelf, start_of
from benchmarks.scores_records import OURS, Floats, Fold, Score, scored
from benchmarks.scores_splits import RunSplit, families, gpu_out, models_out, run_fold, siblings, source_out
from benchmarks.scores_tasks import SERVER_GPU_OUT, task_named
from predictor.assembly import Assembled, is_served
from predictor.checkpoint import Checkpoint
from predictor.kernel_table import Integers
from predictor.pass_model import PassModel
from predictor.pass_training import PassSettings, RunBatch, fit_passes, run_batch, taken
from predictor.passes import pass_tensors
from predictor.reference import ReferencePredictor
from predictor.requests import PhasePrediction, Prediction, PredictionRequest
from predictor.run_examples import Part, RunExample, Target
from predictor.training import Lessons, TrainSettings, importance, train

_PREDICTED = frozenset({"energy-inference", "energaizer", "ml-energy", "splitwise"})
_ALL_PARTS, _PHASES = tuple(Part), (Part.PREFILL, Part.DECODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """What is scored of requests, and how it is trained."""

    passes: PassSettings
    folds: int  # groups of model families left out by turns; 0: each family alone
    intervals: bool  # learning their width costs five more trainings each time
    rivals: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All runs, with what they are made of."""

    runs: tuple[RunExample, ...]
    assembled: tuple[Assembled, ...]
    families: tuple[str, ...]

    def take(self, rows: Integers) -> "Pool":
        """Some of them."""
        return Pool(
            runs=tuple(self.runs[row] for row in rows),
            assembled=tuple(self.assembled[row] for row in rows),
            families=tuple(self.families[row] for row in rows),
        )


def pool_of(lessons: Lessons, *, most: int) -> Pool:
    """All runs of sources that are predicted, and at most ``most`` of each other, by a hash of their identities."""

    def by_hash(place: int) -> int:
        return zlib.crc32(lessons.runs[place].run_id.encode())

    by_source: dict[str, list[int]] = {}
    for place, run in enumerate(lessons.runs):
        by_source.setdefault(run.source, []).append(place)
    kept = sorted(
        place
        for source, places in by_source.items()
        for place in (places if source in _PREDICTED else sorted(places, key=by_hash)[:most])
    )
    runs = tuple(lessons.runs[place] for place in kept)
    assembled = tuple(lessons.assembled[place] for place in kept)
    return Pool(runs=runs, assembled=assembled, families=tuple(families(runs, assembled)))


def score_requests(pool: Pool, shelf: Shelf, plan: RequestPlan) -> Iterator[Found]:
    """All request tasks with one seed, task by task."""
    sources = {run.source for run in pool.runs}
    for source, key in (("energy-inference", "energy-inference-model-out"), ("ml-energy", "ml-energy-model-out")):
        if source in sources:
            splits = models_out(pool.runs, pool.families, source=source, folds=plan.folds)
            yield _scored(key, pool, shelf.shapes(), splits, shelf, plan, _ALL_PARTS)
    for source, parts in (("energy-inference", _ALL_PARTS), ("energaizer", (Part.PREFILL,)), ("splitwise", _PHASES)):
        if source in sources:
            splits = [source_out(pool.runs, source)]
            yield _scored(f"{source}-source-out", pool, shelf.shapes(), splits, shelf, plan, parts)
    if "ml-energy" in sources:
        for gpu in SERVER_GPU_OUT:
            splits = [gpu_out(pool.runs, gpu, source="ml-energy")]
            alike = siblings(gpu, [run.request.hardware for run in pool.runs])
            for key, kernels in (("", shelf.without(alike)), ("-kernels-known", shelf.shapes())):
                yield _scored(f"ml-energy-gpu-out{key}/{gpu}", pool, kernels, splits, shelf, plan, _ALL_PARTS)


# ---- one task ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Answers of one predictor for the test rows of one split, with what was measured."""

    task: str
    answer: RequestAnswer
    duration_s: Floats
    energy_j: Floats


def _scored(
    key: str,
    pool: Pool,
    kernels: Kernels,
    splits: Sequence[RunSplit],
    shelf: Shelf,
    plan: RequestPlan,
    parts: Sequence[Part],
) -> Found:
    pieces: list[_Piece] = []
    folds: list[Fold] = []
    plain = run_batch(pool.runs, pass_tensors(pool.assembled, kernels.physics, physics=True))
    rows = part_rows(pool.runs, plain, pool.families)
    for split in splits:
        shelf.told(f"{key}, seed {shelf.settings.seed}: {len(split.train):,} runs; held out: {split.held_out}")
        folds.append(run_fold(key, pool.runs, split))
        pieces += _pieces(key, pool, kernels, split, shelf, plan, parts, plain, rows)
    return Found(scores=tuple(_joined(pieces, shelf.settings.seed)), folds=tuple(folds))


def _pieces(
    key: str,
    pool: Pool,
    kernels: Kernels,
    split: RunSplit,
    shelf: Shelf,
    plan: RequestPlan,
    parts: Sequence[Part],
    plain: RunBatch,
    rows: PartRows,
) -> Iterator[_Piece]:
    checkpoint = fitted(pool.take(split.train), kernels, shelf, plan)
    test = np.flatnonzero(np.isin(plain.example, split.test) & np.isin(rows.part, list(parts)))
    targets = row_targets(pool.runs, plain)
    asked = [Asked(request=pool.runs[plain.example[row]].request, target=targets[row]) for row in test]
    ours = answered(checkpoint, asked)
    seed = shelf.settings.seed
    yield from _with_parts(key, ours, rows, test, pool, plain)
    if key == "splitwise-source-out":
        yield from _host_stated(checkpoint, asked, plain, rows, test)
    train_rows = np.flatnonzero(np.isin(plain.example, split.train))
    physics = fitted_physics(plain, split.train, pool, plan, seed)
    for answer in rivals(rows, train_rows, test, physics, seed=seed, names=plan.rivals):
        yield from _with_parts(key, answer, rows, test, pool, plain)


def _with_parts(
    key: str, answer: RequestAnswer, rows: PartRows, test: Integers, pool: Pool, plain: RunBatch
) -> Iterator[_Piece]:
    """The answers, and for servers once more those that are not bound by their hosts."""
    yield _Piece(task=key, answer=answer, duration_s=rows.duration_s[test], energy_j=rows.energy_j[test])
    if key == "ml-energy-model-out":
        free = np.array([not pool.runs[plain.example[row]].host_bound for row in test])
        yield _Piece(
            task=f"{key}-device-bound",
            answer=_some(answer, free),
            duration_s=rows.duration_s[test][free],
            energy_j=rows.energy_j[test][free],
        )


def _some(answer: RequestAnswer, mask: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> RequestAnswer:
    return RequestAnswer(
        predictor=answer.predictor,
        duration_s=answer.duration_s[mask],
        energy_j=answer.energy_j[mask],
        half_time=None if answer.half_time is None else answer.half_time[mask],
        half_energy=None if answer.half_energy is None else answer.half_energy[mask],
    )


def fitted(pool: Pool, kernels: Kernels, shelf: Shelf, plan: RequestPlan) -> Checkpoint:
    """A predictor trained on some runs, its kernels given; intervals only where they are asked for."""
    start = start_of(kernels, shelf.settings)
    seed = shelf.settings.seed
    if plan.intervals:
        lessons = Lessons(kernels=None, runs=pool.runs, assembled=pool.assembled, learned_from=())
        settings = TrainSettings(kernels=shelf.settings, passes=replace(plan.passes, seed=seed), seed=seed)
        return train(lessons, settings, start=start)
    torch.manual_seed(seed)
    model = PassModel()
    batch = run_batch(pool.runs, pass_tensors(pool.assembled, kernels.network), importance(pool.runs))
    fit_passes(model, batch, replace(plan.passes, seed=seed))
    runtimes = tuple(sorted({"served" if is_served(run.request.runtime) else "eager" for run in pool.runs}))
    return Checkpoint(kernels=kernels.network, passes=model.eval(), card=replace(start.card, seen_runtimes=runtimes))


def fitted_physics(plain: RunBatch, train_runs: Integers, pool: Pool, plan: RequestPlan, seed: int) -> RequestAnswer:
    """What the Roofline says of all rows once its figures are fitted to the training runs."""
    torch.manual_seed(seed)
    model = PassModel()
    weights = np.zeros(len(pool.runs))
    weights[train_runs] = importance([pool.runs[place] for place in train_runs])
    batch = run_batch(pool.runs, plain.passes, weights)
    fit_passes(model, taken(batch, train_runs), replace(plan.passes, corrected=False, seed=seed))
    return untrained(model, plain)


# ---- our answers, by the door that users come through ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request and which part of it was measured."""

    request: PredictionRequest
    target: Target


def answered(checkpoint: Checkpoint, asked: Sequence[Asked]) -> RequestAnswer:
    """The predictor's time and energy of each part with its intervals; raises ``ValueError`` for a refusal."""
    found = ReferencePredictor(checkpoint).predict([entry.request for entry in asked])
    phases: list[PhasePrediction] = []
    for entry, answer in zip(asked, found, strict=True):
        if not isinstance(answer, Prediction):
            raise ValueError(f"{entry.request.model}: {answer.reason}")
        phases.append(getattr(answer, entry.target.part))
    known = bool(checkpoint.card.spreads)
    return RequestAnswer(
        predictor=OURS,
        duration_s=np.array([phase.duration_s for phase in phases]),
        energy_j=np.array([phase.energy_j for phase in phases]),
        half_time=np.array([_half(phase.duration_interval_s.high, phase.duration_s) for phase in phases])
        if known
        else None,
        half_energy=np.array([_half(phase.energy_interval_j.high, phase.energy_j) for phase in phases])
        if known
        else None,
    )


def _half(high: float, value: float) -> float:
    return float(np.log(high / value)) if value > 0 else np.nan


def _host_stated(
    checkpoint: Checkpoint, asked: Sequence[Asked], plain: RunBatch, rows: PartRows, test: Integers
) -> Iterator[_Piece]:
    """Once more with the host's time per launch stated, as read from the shortest step on each machine.

    A step of one sequence over all GPUs of a machine waits for its host: its time over its launches is the host's time
    per launch. The rows that it is read from are not scored.
    """
    stated: dict[str, float] = {}
    read = np.zeros(len(asked), dtype=np.bool_)
    launches = _launches(plain)[test]
    for name in sorted({entry.request.hardware.name for entry in asked}):
        own = [
            place
            for place, entry in enumerate(asked)
            if entry.request.hardware.name == name and entry.target.part is Part.DECODE
        ]
        if own:
            per_launch = [asked[place].target.duration_s / launches[place] for place in own]
            shortest = own[int(np.argmin(per_launch))]
            same = asked[shortest].request
            stated[name] = 1e6 * min(per_launch)
            read |= np.array([entry.request == same for entry in asked])
    again = [
        replace(entry, request=replace(entry.request, host_us_per_launch=stated.get(entry.request.hardware.name)))
        for entry in asked
    ]
    answer = _some(answered(checkpoint, again), ~read)
    yield _Piece(
        task="splitwise-source-out-host-stated",
        answer=answer,
        duration_s=rows.duration_s[test][~read],
        energy_j=rows.energy_j[test][~read],
    )


def _launches(batch: RunBatch) -> Floats:
    """[T] launches of each part."""
    sums = torch.zeros(len(batch.duration_s), dtype=torch.float64)
    sums.index_add_(0, batch.target, (batch.weight * batch.passes.launches[batch.of_pass]).double())
    return np.asarray(sums.numpy(), dtype=np.float64)


# ---- scores ----


def _joined(pieces: Sequence[_Piece], seed: int) -> Iterator[Score]:
    """One score per task, predictor and quantity, over all splits of the task together."""
    groups: dict[tuple[str, str], list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.task, piece.answer.predictor), []).append(piece)
    for (task, predictor), own in groups.items():
        time, energy = _column(own, "duration_s"), _column(own, "energy_j")
        measured_s = np.concatenate([piece.duration_s for piece in own])
        measured_j = np.concatenate([piece.energy_j for piece in own])
        columns = {
            "time": (time, measured_s, _halves(own, "half_time")),
            "energy": (energy, measured_j, _halves(own, "half_energy")),
            "power": (energy / time, measured_j / measured_s, None),
        }
        for quantity in task_named(task).quantities:
            predicted, measured, half = columns[quantity]
            found = scored(predicted, measured, task=task, quantity=quantity, predictor=predictor, seed=seed, half=half)
            if found is not None:
                yield found


def _column(pieces: Sequence[_Piece], name: str) -> Floats:
    return np.concatenate([getattr(piece.answer, name) for piece in pieces])


def _halves(pieces: Sequence[_Piece], name: str) -> Floats | None:
    if any(getattr(piece.answer, name) is None for piece in pieces):
        return None
    return _column(pieces, name)
