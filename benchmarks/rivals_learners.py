"""Learners that know no physics: gradient-boosted trees, a random forest, nearest neighbours.

Each learns one number per row from the same features as the network, and minimises the same absolute error of
logarithms where it can. Grids are small and chosen on rows that are kept from training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.neighbors import KNeighborsRegressor

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Learned = Callable[[Matrix], Floats]
_FOREST_ROWS = 60_000  # of each tree; more take hours and gain nothing that is seen
_NEIGHBOUR_ROWS = 200_000
_TUNING_ROWS = 60_000
_LEAVES = (31, 255)
_MOST_TREES = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """N rows to learn from, without NaN."""

    inputs: Matrix  # [N, F]
    target: Floats  # [N]
    weight: Floats  # [N]

    def take(self, rows: "NDArray[np.int64] | NDArray[np.bool_]") -> "Sample":
        """Some of them."""
        return Sample(inputs=self.inputs[rows], target=self.target[rows], weight=self.weight[rows])

    def some(self, count: int, seed: int) -> "Sample":
        """At most ``count`` of them."""
        if len(self.target) <= count:
            return self
        return self.take(np.random.default_rng(seed).permutation(len(self.target))[:count])


Fit = Callable[[Sample, Sample, int], Learned]


def boosted_trees(train: Sample, watched: Sample, seed: int) -> Learned:
    """LightGBM with absolute error; leaves chosen on ``watched``, trees until it no longer improves."""
    few = train.some(_TUNING_ROWS, 0)
    tried = {leaves: _boosted(few, watched, seed, leaves=leaves, rate=0.15) for leaves in _LEAVES}
    leaves = min(tried, key=lambda each: tried[each].best_score["watched"]["l1"])
    return _predicting(tried[leaves] if few is train else _boosted(train, watched, seed, leaves=leaves, rate=0.1))


def _boosted(train: Sample, watched: Sample, seed: int, *, leaves: int, rate: float) -> lightgbm.Booster:
    settings = {
        "objective": "l1",
        "metric": "l1",
        "learning_rate": rate,
        "num_leaves": leaves,
        "min_data_in_leaf": 20,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": seed,
        "num_threads": 1,
        "verbose": -1,
    }
    data = lightgbm.Dataset(train.inputs, train.target, weight=train.weight)
    return lightgbm.train(
        settings,
        data,
        num_boost_round=_MOST_TREES,
        valid_sets=[lightgbm.Dataset(watched.inputs, watched.target, weight=watched.weight, reference=data)],
        valid_names=["watched"],
        callbacks=[lightgbm.early_stopping(40, verbose=False)],
    )


def _predicting(booster: lightgbm.Booster) -> Learned:
    return lambda inputs: np.asarray(booster.predict(inputs), dtype=np.float64)


def random_forest(train: Sample, _watched: Sample, seed: int) -> Learned:
    """60 trees on a third of the features each."""
    few = train.some(4 * _FOREST_ROWS, seed)
    forest = RandomForestRegressor(
        60, max_features=0.33, min_samples_leaf=2, max_samples=min(_FOREST_ROWS, len(few.target)), random_state=seed
    )
    forest.fit(few.inputs, few.target, few.weight)
    return lambda inputs: np.asarray(forest.predict(inputs), dtype=np.float64)


def nearest_neighbours(train: Sample, watched: Sample, seed: int) -> Learned:
    """Mean of the nearest rows by distance, features scaled to one standard deviation; how many is chosen."""
    few = train.some(_NEIGHBOUR_ROWS, seed)
    centre, width = few.inputs.mean(0), few.inputs.std(0) + 1e-6

    def scaled(inputs: Matrix) -> Matrix:
        return np.asarray(np.clip((inputs - centre) / width, -5, 5), dtype=np.float32)

    check = watched.some(1000, 0)
    tried = {}
    for count in (1, 5):
        model = KNeighborsRegressor(count, weights="distance", algorithm="brute").fit(scaled(few.inputs), few.target)
        tried[count] = (float(np.abs(model.predict(scaled(check.inputs)) - check.target).mean()), model)
    best = min(tried.values(), key=lambda entry: entry[0])[1]
    return lambda inputs: np.asarray(best.predict(scaled(inputs)), dtype=np.float64)


LEARNERS: dict[str, Fit] = {
    "gradient-boosted trees": boosted_trees,
    "random forest": random_forest,
    "nearest neighbours": nearest_neighbours,
}


def grouped_watch(groups: Sequence[object], every: int = 5) -> NDArray[np.bool_]:
    """[N] true for what is watched: all rows of one group in five."""
    names = sorted(set(map(str, groups)))
    kept = set(names[::every]) if len(names) > 1 else set()
    return np.array([str(group) in kept for group in groups], dtype=np.bool_)
