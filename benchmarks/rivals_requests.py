"""Rivals at whole requests: learners on sums over a request's passes, and rules of thumb."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from benchmarks.rivals_learners import LEARNERS, Fit, Floats, Learned, Matrix, Sample, grouped_watch
from predictor.kernel_table import Integers
from predictor.pass_model import PassModel
from predictor.pass_training import RunBatch
from predictor.passes import PassTensors
from predictor.run_examples import Part, RunExample, Target

_ON_PHYSICS = ", on our physics"
_TINY = 1e-9
_Sum = Callable[[Tensor], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswer:
    """What one predictor says of the parts of runs; every column has one entry per test row."""

    predictor: str
    duration_s: Floats
    energy_j: Floats
    half_time: Floats | None = None  # half widths of 90 % intervals, natural logarithms
    half_energy: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRows:
    """T measured parts with what is known of them before anything runs."""

    inputs: Matrix  # [T, F] sums over passes, sizes, attributes of the hardware
    base_s: Floats  # [T] the Roofline's seconds, no figure fitted
    board_w: Floats  # [T] of all GPUs in use
    gpus: Floats
    work: Floats  # [T] seconds of FLOP at the peak, by all GPUs at work, times that peak: FLOP of 16 bits
    duration_s: Floats  # measured
    energy_j: Floats
    importance: Floats
    part: "np.ndarray[tuple[int], np.dtype[np.object_]]"
    family: "np.ndarray[tuple[int], np.dtype[np.object_]]"  # of the model, to choose settings by

    def take(self, rows: Integers) -> "PartRows":
        """Some of them."""
        return PartRows(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def part_rows(runs: Sequence[RunExample], batch: RunBatch, families: Sequence[str]) -> PartRows:
    """The rows of a batch of runs, in its order."""
    passes, count = batch.passes, len(batch.duration_s)

    def total(values: Tensor) -> Floats:
        sums = torch.zeros(count, dtype=torch.float64)
        return np.asarray(sums.index_add(0, batch.target, (batch.weight * values[batch.of_pass]).double()).numpy())

    times = total(torch.ones_like(passes.batch))

    def mean(values: Tensor) -> Floats:
        return total(values) / times

    parts = np.array([target.part for target in row_targets(runs, batch)], dtype=object)
    gpus = mean(passes.gpus)
    base_s = np.maximum(total(torch.maximum(passes.compute_s, passes.memory_s)), _TINY)
    peak = mean(passes.compute_w)
    work = total(passes.compute_s) * mean(passes.at_work) * peak
    return PartRows(
        inputs=np.concatenate((_columns(passes, total, mean), _one_hot(parts)), axis=1).astype(np.float32),
        base_s=base_s,
        board_w=mean(passes.board_power_w) * gpus,
        gpus=gpus,
        work=np.maximum(work, _TINY),
        duration_s=batch.duration_s.numpy().astype(np.float64),
        energy_j=batch.energy_j.numpy().astype(np.float64),
        importance=batch.importance.numpy().astype(np.float64),
        part=parts,
        family=np.array([families[place] for place in batch.example], dtype=object),
    )


def row_targets(runs: Sequence[RunExample], batch: RunBatch) -> list[Target]:
    """The measured part behind each row of a batch: those of a run are in its order, and some have no passes."""
    found: list[Target] = []
    pairs = np.stack((batch.duration_s.numpy(), batch.energy_j.numpy()), axis=1)
    place = -1
    following: Iterator[Target] = iter(())
    for row, example in enumerate(batch.example.tolist()):
        if example != place:
            place, following = example, iter(runs[example].targets)
        found.append(next(target for target in following if np.array_equal(_pair(target), pairs[row], equal_nan=True)))
    return found


def _pair(target: Target) -> Matrix:
    return np.array([target.duration_s, target.energy_j], dtype=np.float32)


def _columns(passes: PassTensors, total: _Sum, mean: _Sum) -> Floats:
    def log(values: Floats) -> Floats:
        return np.asarray(np.log(np.maximum(values, _TINY)), dtype=np.float64)

    columns = [
        log(total(passes.compute_s)),
        log(total(passes.memory_s)),
        log(total(torch.maximum(passes.compute_s, passes.memory_s))),
        log(total(passes.launches)),
        log(total(torch.ones_like(passes.batch))),
        log(mean(passes.compute_s) / np.maximum(mean(passes.memory_s), _TINY)),
        log(mean(passes.batch)),
        log(mean(passes.tokens)),
        log(mean(passes.context)),
        log(mean(passes.gpus)),
        *(
            mean(getattr(passes, name))
            for name in ("at_work", "decode", "mixed", "served", "graphs", "clock_share", "offloaded_s")
        ),
        *(log(mean(getattr(passes, name))) for name in ("board_power_w", "power_limit_w", "compute_w", "memory_w")),
    ]
    return np.stack(columns, axis=1)


def _one_hot(parts: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> Floats:
    return np.stack([(parts == part).astype(np.float64) for part in Part], axis=1)


# ---- answers ----

REQUEST_RIVALS = (
    "fitted Roofline",
    *LEARNERS,
    *(f"{name}{_ON_PHYSICS}" for name in LEARNERS if name != "nearest neighbours"),
    "joules per FLOP",
    "board power × Roofline",
)


def rivals(
    rows: PartRows, train: Integers, test: Integers, physics: RequestAnswer, *, seed: int, names: Sequence[str]
) -> Iterator[RequestAnswer]:
    """Answers for the test rows. ``physics``: what the fitted Roofline says of all rows."""
    if "fitted Roofline" in names:
        yield RequestAnswer(
            predictor="fitted Roofline", duration_s=physics.duration_s[test], energy_j=physics.energy_j[test]
        )
    plain = RequestAnswer(predictor="", duration_s=rows.base_s, energy_j=rows.base_s * rows.board_w)
    for name, fit in LEARNERS.items():
        if name in names:
            yield learned(rows, train, test, plain, name=name, fit=fit, seed=seed)
        if f"{name}{_ON_PHYSICS}" in names:
            yield learned(rows, train, test, physics, name=f"{name}{_ON_PHYSICS}", fit=fit, seed=seed)
    if "joules per FLOP" in names:
        yield _joules_per_flop(rows, train, test)
    if "board power × Roofline" in names:
        yield RequestAnswer(
            predictor="board power × Roofline", duration_s=rows.base_s[test], energy_j=plain.energy_j[test]
        )


def learned(
    rows: PartRows, train: Integers, test: Integers, base: RequestAnswer, *, name: str, fit: Fit, seed: int
) -> RequestAnswer:
    """A learner of log(time / base) and log(power / base's power), with the base's answer among its inputs."""
    base_w = base.energy_j / base.duration_s
    told = np.log(np.stack((base.duration_s, base.energy_j, base_w / rows.board_w), axis=1))
    inputs = np.concatenate((rows.inputs, told), axis=1).astype(np.float32)
    watched = grouped_watch(rows.family[train].tolist())
    targets = {
        "time": np.log(rows.duration_s / base.duration_s),
        "power": np.log(rows.energy_j / rows.duration_s / base_w),
    }
    found = {
        quantity: _fitted(Sample(inputs=inputs, target=values, weight=rows.importance), train, watched, fit, seed)(
            inputs[test]
        )
        for quantity, values in targets.items()
    }
    duration_s = np.exp(found["time"]) * base.duration_s[test]
    return RequestAnswer(
        predictor=name, duration_s=duration_s, energy_j=np.exp(found["power"]) * base_w[test] * duration_s
    )


def _fitted(
    sample: Sample, train: Integers, watched: "np.ndarray[tuple[int], np.dtype[np.bool_]]", fit: Fit, seed: int
) -> Learned:
    """Chosen on whole families of models that it does not learn from."""
    known = np.isfinite(sample.target[train])
    learn, check = train[known & ~watched], train[known & watched]
    if len(check) == 0:
        learn = check = train[known]
    return fit(sample.take(learn), sample.take(check), seed)


def _joules_per_flop(rows: PartRows, train: Integers, test: Integers) -> RequestAnswer:
    """In proportion to FLOP, with the median of the training rows of the same part, or of all."""
    duration_s, energy_j = np.zeros(len(test)), np.zeros(len(test))
    for part in set(rows.part[test]):
        own = train[rows.part[train] == part]
        chosen = test[rows.part[test] == part]
        mask = rows.part[test] == part
        duration_s[mask] = rows.work[chosen] * _median(rows.duration_s, rows.work, own, train)
        energy_j[mask] = rows.work[chosen] * _median(rows.energy_j, rows.work, own, train)
    return RequestAnswer(predictor="joules per FLOP", duration_s=duration_s, energy_j=energy_j)


def _median(label: Floats, work: Floats, own: Integers, every: Integers) -> float:
    rows = own if np.isfinite(label[own]).any() else every
    return float(np.nanmedian(label[rows] / work[rows]))


def untrained(physics: PassModel, batch: RunBatch) -> RequestAnswer:
    """What a model without corrections says of all rows of a batch."""
    with torch.no_grad():
        sums = batch.sums(physics(batch.passes, corrected=False))
    return RequestAnswer(
        predictor="fitted Roofline",
        duration_s=sums.duration_s.numpy().astype(np.float64),
        energy_j=sums.energy_j.numpy().astype(np.float64),
    )
