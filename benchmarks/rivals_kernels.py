"""Rivals of the network at kernels: what they say of the time and the power of kernels they were not trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rivals_learners import LEARNERS, Fit, Floats, Sample
from benchmarks.scores_splits import KernelSplit
from predictor.features import NAMES
from predictor.kernel_examples import KernelExamples
from predictor.kernel_table import Integers
from predictor.kernel_training import RELIABLE_S, KernelBatches, KernelSettings, estimated
from predictor.network import KernelNetwork

_SHORTEST_S = 1e-6  # the Roofline of a kernel that nothing is counted of
_MOST_NEIGHBOURS_ASKED = 10_000
_FLOP, _FLOP_SCALE = NAMES.index("flop"), 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelAnswer:
    """What one predictor says of the test rows of a split. NaN: nothing."""

    predictor: str
    duration_s: Floats
    power_w: Floats
    half_time: Floats | None = None  # half widths of 90 % intervals, natural logarithms
    half_power: Floats | None = None
    half_energy: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCase:
    """A split with its data."""

    examples: KernelExamples
    data: KernelBatches
    split: KernelSplit

    def roofline_s(self, rows: Integers) -> Floats:
        """Seconds by the datasheet alone."""
        seen = self.examples.described
        slowest = np.maximum(np.maximum(seen.compute_s[rows], seen.memory_s[rows]), seen.link_s[rows])
        return np.maximum(slowest, _SHORTEST_S)

    def board_w(self, rows: Integers) -> Floats:
        """Watts that the board may draw."""
        return np.asarray(self.examples.on.board_power_w[rows], dtype=np.float64)

    def flop(self, rows: Integers) -> Floats:
        """FLOP of one launch, from the feature that is their logarithm."""
        return np.asarray(np.exp(_FLOP_SCALE * self.examples.described.features[rows, _FLOP]), dtype=np.float64)


def rivals(case: KernelCase, physics: KernelNetwork, *, seed: int, names: Sequence[str]) -> Iterator[KernelAnswer]:
    """Answers of the rivals for the test rows. ``physics``: the fitted Roofline."""
    if "fitted Roofline" in names:
        yield fitted_roofline(case, physics)
    for name, fit in LEARNERS.items():
        if name in names:
            yield learned(case, name, fit, seed)
    if "joules per FLOP" in names:
        yield joules_per_flop(case)
    if "board power × Roofline" in names:
        rows = case.split.test
        yield KernelAnswer(
            predictor="board power × Roofline", duration_s=case.roofline_s(rows), power_w=case.board_w(rows)
        )


RIVALS = ("fitted Roofline", *LEARNERS, "joules per FLOP", "board power × Roofline")


def fitted_roofline(case: KernelCase, physics: KernelNetwork) -> KernelAnswer:
    """The physics that the network starts from, fitted alone."""
    found = estimated(physics, case.data, case.split.test, baseline=True)
    return KernelAnswer(
        predictor="fitted Roofline",
        duration_s=found.duration_s.numpy().astype(np.float64),
        power_w=found.power_w.numpy().astype(np.float64),
    )


def learned(case: KernelCase, name: str, fit: Fit, seed: int) -> KernelAnswer:
    """A learner of log(time / Roofline) and log(power / board power), each on the rows that have a label."""
    split, rows = case.split, case.split.test
    if name == "nearest neighbours":  # each answer costs a pass over all rows
        rows = rows[:: max(1, len(rows) // _MOST_NEIGHBOURS_ASKED)]
    asked = case.data.kernels.features.numpy()[rows]
    time = fit(_sample(case, split.train, power=False), _sample(case, split.watched, power=False), seed)
    power = fit(_sample(case, split.train, power=True), _sample(case, split.watched, power=True), seed)
    duration_s, power_w = np.full(len(split.test), np.nan), np.full(len(split.test), np.nan)
    places = np.searchsorted(split.test, rows)
    duration_s[places] = np.exp(time(asked)) * case.roofline_s(rows)
    power_w[places] = np.exp(power(asked)) * case.board_w(rows)
    return KernelAnswer(predictor=name, duration_s=duration_s, power_w=power_w)


def _sample(case: KernelCase, rows: Integers, *, power: bool) -> Sample:
    examples = case.examples
    if power:
        rows = rows[np.isfinite(examples.power_w[rows])]
        target = np.log(examples.power_w[rows] / case.board_w(rows))
        weight = np.clip(examples.duration_s[rows] / RELIABLE_S, KernelSettings().short_weight, 1.0)
    else:
        target, weight = np.log(examples.duration_s[rows] / case.roofline_s(rows)), np.ones(len(rows))
    return Sample(inputs=case.data.kernels.features.numpy()[rows], target=target, weight=weight)


def joules_per_flop(case: KernelCase) -> KernelAnswer:
    """Time and energy in proportion to FLOP, with the median of the training rows."""
    train, rows, examples = case.split.train, case.split.test, case.examples
    counted = train[case.flop(train) > 1]
    seconds = float(np.median(examples.duration_s[counted] / case.flop(counted)))
    joules = float(np.nanmedian(examples.duration_s[counted] * examples.power_w[counted] / case.flop(counted)))
    work = np.maximum(case.flop(rows), 1.0)
    return KernelAnswer(
        predictor="joules per FLOP", duration_s=seconds * work, power_w=np.full(len(rows), joules / seconds)
    )
