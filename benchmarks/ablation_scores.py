"""Errors of variants on splits, and whether one differs from another by more than chance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ablation_data import Lessons, Split
from benchmarks.ablation_models import Variant
from predictor.kernel_table import Floats, Integers
from predictor.pass_model import PassEstimate

_RESAMPLES = 2000
_LEVEL = (0.025, 0.975)
QUANTITIES = ("time", "energy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Relative errors of one variant with one seed on the labels of one split."""

    split: int  # which
    variant: Variant
    seed: int
    row: Integers  # [L] places of the labels among all measured parts
    time: Floats  # [L] predicted / measured − 1; NaN: no label
    energy: Floats


def outcome(
    lessons: Lessons, found: PassEstimate, split: Split, *, number: int, variant: Variant, seed: int
) -> Outcome:
    """Errors of the measured parts of the runs that a split is scored on; ``found`` has these only, in order."""
    batch = lessons.batch
    row = np.flatnonzero(np.isin(batch.example, split.scored)).astype(np.int64)
    return Outcome(
        split=number,
        variant=variant,
        seed=seed,
        row=row,
        time=found.duration_s.double().numpy() / batch.duration_s.double().numpy()[row] - 1,
        energy=found.energy_j.double().numpy() / batch.energy_j.double().numpy()[row] - 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Absolute relative errors of all variants for one quantity of one source in one task."""

    task: str
    source: str
    quantity: str
    cluster: Integers  # [L] model and GPU of each label: what is measured of one errs alike
    errors: Mapping[Variant, Floats]  # [seeds, L]

    def mean(self, variant: Variant) -> Floats:
        """[seeds] MAPE."""
        found: Floats = self.errors[variant].mean(axis=1)
        return found

    def median(self, variant: Variant) -> Floats:
        """[seeds] median error."""
        found: Floats = np.median(self.errors[variant], axis=1)
        return found

    def difference(self, variant: Variant, other: Variant) -> tuple[float, float]:
        """95 % interval of the MAPE of one less that of another, pairs and seeds drawn with replacement."""
        return paired_interval(self.errors[variant], self.errors[other], self.cluster)


def paired_interval(mine: Floats, other: Floats, cluster: Integers) -> tuple[float, float]:
    """Bootstrap interval of mean(mine) − mean(other), both [seeds, L].

    Whole clusters are drawn (Cameron, Gelbach and Miller, REStat 90(3), 2008, section II), the same for both, and seeds
    of each apart, as they have nothing in common.
    """
    rng = np.random.default_rng(0)
    place = np.unique(cluster, return_inverse=True)[1]
    clusters = int(place.max()) + 1
    sizes = np.bincount(place, minlength=clusters).astype(np.float64)
    sums = [np.stack([np.bincount(place, row, clusters) for row in values]) for values in (mine, other)]
    differences = np.empty(_RESAMPLES)
    for draw in range(_RESAMPLES):
        chosen = rng.integers(clusters, size=clusters)
        labels = sizes[chosen].sum()
        means = [value[rng.integers(len(value), size=len(value))][:, chosen].sum(1).mean() / labels for value in sums]
        differences[draw] = means[0] - means[1]
    low, high = np.quantile(differences, _LEVEL)
    return float(low), float(high)


def cells(lessons: Lessons, splits: Sequence[Split], outcomes: Sequence[Outcome]) -> Iterator[Cell]:
    """All tasks, source by source."""
    source = np.array([run.source for run in lessons.runs])[lessons.batch.example]
    owner = [f"{run.model} {run.request.hardware.name}" for run in lessons.runs]
    cluster = np.unique(owner, return_inverse=True)[1][lessons.batch.example]
    for task in dict.fromkeys(split.task for split in splits):
        mine = [each for each in outcomes if splits[each.split].task == task]
        for name in np.unique(source[np.concatenate([each.row for each in mine])]):
            for quantity in QUANTITIES:
                cell = _cell(mine, source == name, cluster, quantity)
                if cell is not None:
                    yield Cell(task=task, source=str(name), quantity=quantity, cluster=cell[0], errors=cell[1])


def _cell(
    outcomes: Sequence[Outcome], wanted: NDArray[np.bool_], cluster: NDArray[Any], quantity: str
) -> tuple[Integers, dict[Variant, Floats]] | None:
    """Clusters and errors of the labels there are; every label is scored in one split of a task."""
    variants = list(dict.fromkeys(each.variant for each in outcomes))
    errors: dict[Variant, Floats] = {}
    for variant in variants:
        seeds = sorted({each.seed for each in outcomes if each.variant == variant})
        table = np.full((len(seeds), len(wanted)), np.nan)
        for each in outcomes:
            if each.variant == variant:
                table[seeds.index(each.seed), each.row] = np.abs(getattr(each, quantity))
        errors[variant] = table
    known = wanted & np.isfinite(errors[variants[0]][0])
    if not known.any():
        return None
    return cluster[known].astype(np.int64), {variant: table[:, known] for variant, table in errors.items()}
