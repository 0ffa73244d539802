"""A small model of the energy of requests that is refitted in a moment: what focused sampling learns between runs.

A Gaussian process on logarithms (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, eqs. 2.25,
2.26, 5.8 and 5.12). The logarithm of an energy, less what was expected of it, is

    a line in logarithms of what is counted  +  a smooth remainder  +  noise of the measurement

where counted are the sizes of a request, its tokens, its passes, and its pairs of tokens that attend to each other:
energy is near a power law of each where one of them dominates. Scale and reach of the remainder and the noise come from
a grid, by the marginal likelihood times a weak prior for the middle of the grid, so that three runs do not pass for
noiseless. Runs far from what all others say of them count less, as under Student's t with four degrees of freedom:
labels of real sources have outliers by a factor of three. No gradient and no random start: the same runs give the same
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_REACHES = (0.15, 0.6, 2.4)  # of the remainder, in natural logarithms: 0.6 is a factor of 1.8
_SCALES = (0.05, 0.15, 0.45)  # of the remainder, standard deviation of log energy
_NOISES = (0.01, 0.03, 0.1, 0.3)  # of one measured run, standard deviation of log energy
_PRIOR_STEPS = 1.5  # standard deviation of the prior over the grid, in steps of it
_SLOPE_SD = 0.5  # a power law between 0 and 2 shared by several terms
_LEVEL_SD = 5.0  # of the intercept: nothing is known of it
_FREEDOM = 4.0  # degrees of freedom of the noise
_REWEIGHTED = 2  # times


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of N requests."""

    batch_size: Floats  # [N]
    prompt_tokens: Floats  # [N]
    output_tokens: Floats  # [N]

    def __len__(self) -> int:
        return len(self.batch_size)

    def logs(self) -> Floats:
        """[N, 3] what the remainder is smooth in."""
        sizes = np.stack([self.batch_size, self.prompt_tokens, np.maximum(self.output_tokens, 1.0)], axis=1)
        return np.asarray(np.log(sizes), dtype=np.float64)

    def counted(self) -> Floats:
        """[N, 6] what the line is in."""
        batch, prompt, output = self.batch_size, self.prompt_tokens, np.maximum(self.output_tokens, 1.0)
        tokens = batch * (prompt + output)
        pairs = batch * (prompt**2 / 2 + prompt * output + output**2 / 2)
        return np.concatenate([self.logs(), np.log(np.stack([tokens, 1 + output, pairs], axis=1))], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnergies:
    """Predicted logarithms of energies in joules."""

    mean: Floats  # [N]
    sd: Floats  # [N] without the noise of a measurement: for small values a relative error

    @property
    def energy_j(self) -> Floats:
        """[N] medians."""
        return np.exp(self.mean)


def sizes_of(requests: Sequence[tuple[int, int, int]]) -> Sizes:
    """From batch, prompt and output of each request."""
    batch, prompt, output = np.array(requests, dtype=np.float64).reshape(-1, 3).T
    return Sizes(batch_size=batch, prompt_tokens=prompt, output_tokens=output)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """A point of the grid."""

    reach: float
    scale: float
    noise: float
    log_prior: float


def _grid() -> tuple[_Shape, ...]:
    axes = (_REACHES, _SCALES, _NOISES)
    shapes = []
    for steps in product(*(range(len(axis)) for axis in axes)):
        off = [(step - (len(axis) - 1) / 2) / _PRIOR_STEPS for step, axis in zip(steps, axes, strict=True)]
        reach, scale, noise = (axis[step] for step, axis in zip(steps, axes, strict=True))
        shapes.append(_Shape(reach=reach, scale=scale, noise=noise, log_prior=-sum(each**2 for each in off) / 2))
    return tuple(shapes)


_GRID = _grid()
_MIDDLE = max(_GRID, key=lambda shape: (shape.log_prior, shape.noise))  # what holds before anything is measured


class FocusModel:
    """Energies of the requests of one model on one deployment."""

    def __init__(self, sizes: Sizes, log_energies: Floats) -> None:
        """Fit to N measured requests with ``log_energies`` [N], joules or a ratio to what was expected. N may be 0."""
        if len(sizes) != len(log_energies) or not np.all(np.isfinite(log_energies)):
            raise ValueError("each measured request needs one finite logarithm of its energy")
        self._sizes = sizes
        self._centre: Floats = np.asarray(sizes.counted().mean(axis=0)) if len(sizes) else np.zeros(0)
        self._level = float(np.median(log_energies)) if len(sizes) else 0.0
        self._shape = _MIDDLE
        self._weights = np.ones(len(sizes))
        self._fit(log_energies - self._level)

    @property
    def noise(self) -> float:
        """Relative standard deviation of one measured run, as fitted."""
        return self._shape.noise

    def predict(self, sizes: Sizes) -> LogEnergies:
        """Energies of requests; before anything is measured all are equally uncertain."""
        scale = self._shape.scale
        if not len(self._sizes):
            return LogEnergies(mean=np.zeros(len(sizes)), sd=np.full(len(sizes), scale))
        cross = self._line(sizes, self._sizes) + _remainder(self._shape, _distances(sizes, self._sizes))  # [M, N]
        known = np.linalg.solve(self._root, cross.T)  # [N, M]
        line = sizes.counted() - self._centre
        prior = _LEVEL_SD**2 + _SLOPE_SD**2 * np.sum(line**2, axis=1) + scale**2
        variance = prior - np.sum(known**2, axis=0)
        return LogEnergies(mean=self._level + cross @ self._pull, sd=np.sqrt(np.maximum(variance, 1e-12)))

    def _fit(self, values: Floats) -> None:
        """Choose the shape, then let outliers count less, and so on."""
        if not len(self._sizes):
            return
        line, distances = self._line(self._sizes, self._sizes), _distances(self._sizes, self._sizes)
        for _ in range(1 + _REWEIGHTED):
            self._shape = self._likeliest(line, distances, values)
            noise = np.diag(self._shape.noise**2 / self._weights)
            inverse = np.linalg.inv(line + _remainder(self._shape, distances) + noise)
            left_out = (inverse @ values) ** 2 / np.diag(inverse)  # squared error of each by all others, in variances
            self._weights = (_FREEDOM + 1) / (_FREEDOM + left_out)
        covariance = line + _remainder(self._shape, distances) + np.diag(self._shape.noise**2 / self._weights)
        self._root = np.linalg.cholesky(covariance)
        self._pull = np.linalg.solve(covariance, values)

    def _likeliest(self, line: Floats, distances: Floats, values: Floats) -> _Shape:
        """The shape with the highest posterior probability, all of the grid at once."""
        covariances = np.stack(
            [line + _remainder(shape, distances) + np.diag(shape.noise**2 / self._weights) for shape in _GRID]
        )
        roots = np.linalg.cholesky(covariances)
        spread = np.broadcast_to(values[None, :, None], (len(_GRID), len(values), 1))
        white = np.linalg.solve(roots, spread)[..., 0]
        log_roots = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
        posterior = [shape.log_prior for shape in _GRID] - np.sum(white**2, axis=1) / 2 - log_roots
        return _GRID[int(np.argmax(posterior))]

    def _line(self, one: Sizes, other: Sizes) -> Floats:
        """[M, N] covariance of the lines."""
        lines = (one.counted() - self._centre) @ (other.counted() - self._centre).T
        return np.asarray(_LEVEL_SD**2 + _SLOPE_SD**2 * lines, dtype=np.float64)


def _distances(one: Sizes, other: Sizes) -> Floats:
    """[M, N] squared distances of logarithms of sizes."""
    return np.asarray(np.sum((one.logs()[:, None] - other.logs()[None]) ** 2, axis=2), dtype=np.float64)


def _remainder(shape: _Shape, distances: Floats) -> Floats:
    return shape.scale**2 * np.exp(-distances / (2 * shape.reach**2))
