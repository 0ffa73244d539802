"""The sensor of one virtual GPU: an energy counter and power fields that see the true energy only at their own times.

Everything here is evaluated when it is asked for and does not depend on when that is: the times of a counter's moves
and the noise of each are drawn by number, from the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.virtual.gpu import Sensor
from harness.virtual.program import FloatArray
from harness.virtual.timeline import Timeline

_DRAWS = 1024


class Draws:
    """Random numbers by index: the same index always gives the same number. ``draw`` makes so many from a generator."""

    def __init__(self, key: tuple[int, ...], draw: Callable[[np.random.Generator, int], FloatArray]) -> None:
        self._key, self._draw = key, draw
        self._number, self._block = -1, np.zeros(0)

    def take(self, first: int, count: int) -> FloatArray:
        """Numbers ``first`` … ``first + count − 1``; ``first`` is not negative."""
        offset = first % _DRAWS
        if offset + count <= _DRAWS:
            return self._numbered(first // _DRAWS)[offset : offset + count]
        blocks = range(first // _DRAWS, (first + count - 1) // _DRAWS + 1)
        return np.concatenate([self._numbered(number) for number in blocks])[offset : offset + count]

    def _numbered(self, number: int) -> FloatArray:
        if number != self._number:
            self._block = self._draw(np.random.default_rng((*self._key, number)), _DRAWS)
            self._number = number
        return self._block


def normal(generator: np.random.Generator, count: int) -> FloatArray:
    """Standard normal numbers."""
    return generator.standard_normal(count)


def uniform(generator: np.random.Generator, count: int) -> FloatArray:
    """Numbers spread evenly over −1 … 1."""
    return generator.uniform(-1.0, 1.0, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one GPU's true energy reaches its sensor."""

    timeline: Timeline
    gpu: int
    sensor: Sensor

    def energy_j(self, times_s: FloatArray) -> FloatArray:
        """True energy at times that never fall."""
        return self.timeline.energy_at(self.gpu, times_s)

    def seen_power_w(self, ends_s: FloatArray, spans_s: FloatArray, looks: int) -> FloatArray:
        """Mean true power that the sensor sees in spans, [N], that end at these times and do not overlap.

        Each span is cut into so many looks, and the sensor is blind in all but the last ``duty_cycle`` of each.
        """
        if self.sensor.duty_cycle == 1:
            looks = 1
        look_s = spans_s[:, None] / looks
        last_s = ends_s[:, None] - look_s * np.arange(looks - 1, -1, -1)
        open_s = look_s * self.sensor.duty_cycle
        energies_j = self.energy_j(np.stack([last_s - open_s, last_s], axis=2).ravel()).reshape(-1, looks, 2)
        return np.asarray(((energies_j[..., 1] - energies_j[..., 0]) / open_s).mean(axis=1), dtype=np.float64)


class EnergyCounter:
    """An odometer that moves every ``counter_period_s``, more or less.

    At each move it takes up the energy since the last one, E: exactly, or as mean power in the sampled share × time.
    It shows gain · E + (offset + noise) · time, added up, rounded down to the quantum.
    """

    def __init__(self, view: View, *, phase_s: float, origin_j: float, noise: Draws, jitter: Draws) -> None:
        sensor = view.sensor
        self._view, self._noise, self._jitter = view, noise, jitter
        self._phase_s, self._period_s, self._jitter_s = phase_s, sensor.counter_period_s, sensor.counter_jitter_s
        self._looks = max(1, round(sensor.counter_period_s / sensor.duty_period_s))
        self._sampled = sensor.counter_sampled and sensor.duty_cycle < 1
        self._move = 0  # number of the next move
        self._moved_s = phase_s - self._period_s
        self._energy_j = float(view.energy_j(np.array([self._moved_s]))[0])
        self._sum_j = origin_j
        self._shown_j = self._quantised_j()
        self._next_s = self._moves_s(0, 1).item()

    def at(self, now_s: float) -> float:
        """What it shows now. Time may not go back."""
        if now_s >= self._next_s:
            self._move_on(now_s)
        return self._shown_j

    def _moves_s(self, first: int, count: int) -> FloatArray:
        moves_s: FloatArray = self._phase_s + self._period_s * np.arange(first, first + count, dtype=np.float64)
        return moves_s + self._jitter_s * self._jitter.take(first, count) if self._jitter_s else moves_s

    def _move_on(self, now_s: float) -> None:
        last = int((now_s - self._phase_s + self._jitter_s) / self._period_s) + 1  # surely later than now
        moves_s = self._moves_s(self._move, last - self._move + 1)
        count = int(moves_s.searchsorted(now_s, side="right"))
        self._next_s = float(moves_s[count])
        moves_s = moves_s[:count]
        spans_s = _steps(self._moved_s, moves_s)
        self._sum_j += float(np.maximum(self._taken_up_j(moves_s, spans_s), 0.0).sum())
        self._move += count
        self._moved_s = float(moves_s[-1])
        self._shown_j = self._quantised_j()

    def _quantised_j(self) -> float:
        quantum_j = self._view.sensor.counter_quantum_j
        return self._sum_j // quantum_j * quantum_j

    def _taken_up_j(self, moves_s: FloatArray, spans_s: FloatArray) -> FloatArray:
        sensor = self._view.sensor
        if self._sampled:
            true_j = self._view.seen_power_w(moves_s, spans_s, self._looks) * spans_s
        else:
            energies_j = self._view.energy_j(moves_s)
            true_j = _steps(self._energy_j, energies_j)
            self._energy_j = float(energies_j[-1])
        error_w: FloatArray | float = sensor.offset_w
        if sensor.noise_w:
            noise_w = sensor.noise_w / self._looks**0.5
            error_w = error_w + noise_w * self._noise.take(self._move, len(moves_s))
        return np.asarray(sensor.gain * true_j + error_w * spans_s, dtype=np.float64)


def _steps(first: float, following: FloatArray) -> FloatArray:
    """Differences between neighbours, ``first`` leading; many times faster than ``numpy.diff`` on short arrays."""
    levels = np.empty(len(following) + 1)
    levels[0], levels[1:] = first, following
    return levels[1:] - levels[:-1]


class PowerField:
    """A power that is renewed every ``period_s``: the mean of what the sensor saw in the ``window_s`` before."""

    def __init__(self, view: View, *, phase_s: float, period_s: float, window_s: float, noise: Draws) -> None:
        self._view, self._noise = view, noise
        self._phase_s, self._period_s, self._window_s = phase_s, period_s, window_s
        self._looks = max(1, round(window_s / view.sensor.duty_period_s))
        self._shown: tuple[int, float] = (-1, 0.0)

    def renewed_s(self, now_s: float) -> float:
        """When it was last renewed."""
        return self._phase_s + self._renewal(now_s) * self._period_s

    def at(self, now_s: float) -> float:
        """What it shows now."""
        renewal = self._renewal(now_s)
        if renewal != self._shown[0]:
            self._shown = (renewal, self._look(renewal))
        return self._shown[1]

    def _renewal(self, now_s: float) -> int:
        return int((now_s - self._phase_s) // self._period_s)

    def _look(self, renewal: int) -> float:
        sensor = self._view.sensor
        end_s = self._phase_s + renewal * self._period_s
        true_w = self._view.seen_power_w(np.array([end_s]), np.array([self._window_s]), self._looks).item()
        noise_w = sensor.noise_w / self._looks**0.5 * self._noise.take(renewal, 1).item() if sensor.noise_w else 0.0
        power_w = max(0.0, sensor.gain * true_w + sensor.offset_w + noise_w)
        return round(power_w / sensor.power_quantum_w) * sensor.power_quantum_w
