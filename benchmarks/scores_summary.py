"""From scores of single seeds to lines of a table: means, spreads, bars, and the best rival of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.scores_records import OURS, Score, Scores
from benchmarks.scores_tasks import COVERAGE_HIGH, COVERAGE_LOW, TASKS, Bar, Task
from predictor.score_table import COVERAGE, Line

_READ = {
    "mape": "MAPE",
    "median_ape": "median APE",
    "eba5": "within 5 %",
    "eba10": "within 10 %",
    "eba30": "within 30 %",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric over seeds."""

    mean: float
    spread: float
    seeds: int
    n: int


def figure(scores: Sequence[Score], metric: str) -> Figure | None:
    """Mean and standard deviation of a metric; None where no score has it."""
    values = [value for score in scores if (value := getattr(score, metric)) is not None]
    if not values:
        return None
    return Figure(
        mean=fmean(values), spread=stdev(values) if len(values) > 1 else 0.0, seeds=len(values), n=scores[0].n
    )


def of(found: Scores, task: str, quantity: str, predictor: str) -> list[Score]:
    """The scores of all seeds."""
    return [
        score for score in found.scores if (score.task, score.quantity, score.predictor) == (task, quantity, predictor)
    ]


def lines(found: Scores) -> tuple[Line, ...]:
    """Every bar and every leading figure of every task that was scored, coverage last."""
    return tuple(line for task in TASKS for line in _lines(found, task))


def _lines(found: Scores, task: Task) -> Iterator[Line]:
    for bar in task.bars:
        line = _line(found, task, bar.quantity, bar.metric, bar)
        if line is not None:
            yield line
    for quantity, metric in task.leads:
        line = _line(found, task, quantity, metric, None)
        if line is not None:
            yield line
    for quantity in task.quantities:
        line = _coverage(found, task, quantity)
        if line is not None:
            yield line


def _line(found: Scores, task: Task, quantity: str, metric: str, bar: Bar | None) -> Line | None:
    own = figure(of(found, task.key, quantity, OURS), metric)
    if own is None:
        return None
    at_least = metric.startswith("eba")
    best = best_rival(found, task.key, quantity, metric)
    return Line(
        task=task.title,
        split=task.split,
        metric=f"{quantity}, {_READ[metric]}",
        mean=own.mean,
        spread=own.spread,
        seeds=own.seeds,
        n=own.n,
        limit=None if bar is None else bar.limit,
        at_least=at_least,
        met=None if bar is None else bar.met(own.mean),
        rival=None if best is None else best.predictor,
        rival_mean=None if best is None else best.mean,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """What the best rival reaches."""

    predictor: str
    mean: float


def best_rival(found: Scores, task: str, quantity: str, metric: str) -> Rival | None:
    """The rival with the best mean of a metric."""
    names = {score.predictor for score in found.scores if score.task == task} - {OURS}
    figures = {name: figure(of(found, task, quantity, name), metric) for name in sorted(names)}
    means = [Rival(predictor=name, mean=each.mean) for name, each in figures.items() if each is not None]
    if not means:
        return None
    choose = max if metric.startswith("eba") else min
    return choose(means, key=lambda rival: rival.mean)


def _coverage(found: Scores, task: Task, quantity: str) -> Line | None:
    own = figure(of(found, task.key, quantity, OURS), "coverage")
    if own is None:
        return None
    return Line(
        task=task.title,
        split=task.split,
        metric=f"{quantity}, {COVERAGE}",
        mean=own.mean,
        spread=own.spread,
        seeds=own.seeds,
        n=own.n,
        limit=COVERAGE_LOW,
        at_least=True,
        met=COVERAGE_LOW <= own.mean <= COVERAGE_HIGH,
        rival=None,
        rival_mean=None,
    )
