"""What really happened on a virtual machine: for benches and tests, never for estimators."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.virtual.evolution import Stretch
from harness.virtual.physics import Cycle
from harness.virtual.program import FloatArray
from harness.virtual.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """All passes under one label. Gross energies include idle power and leakage, active ones do not.

    Per GPU: ``energy_j`` = Σ kernels ``kernel_energy_j`` + ``gap_energy_j`` + ``foreign_energy_j``, and also
    = ``idle_energy_j`` + Σ kernels ``kernel_active_energy_j`` + ``gap_active_energy_j`` + ``foreign_energy_j``.
    Time and energy of a collective include its waiting.
    """

    passes: int
    duration_s: float
    kernels: tuple[str, ...]  # [K]
    energy_j: FloatArray  # [G]
    idle_energy_j: FloatArray  # [G] idle power and leakage, at the temperatures there were
    foreign_energy_j: FloatArray  # [G] drawn by somebody else's process
    gap_s: FloatArray  # [G] in which no kernel ran
    gap_energy_j: FloatArray  # [G]
    gap_active_energy_j: FloatArray  # [G]
    kernel_duration_s: FloatArray  # [G, K]
    kernel_energy_j: FloatArray  # [G, K]
    kernel_active_energy_j: FloatArray  # [G, K]
    wait_s: FloatArray  # [G, K] for the last GPU
    wait_energy_j: FloatArray  # [G, K]
    wait_active_energy_j: FloatArray  # [G, K]


@dataclass(slots=True)
class _Repeated:
    """One cycle in one run: how often, and the power beside it summed over the repetitions, [G]."""

    cycle: Cycle
    count: int
    idle_w: FloatArray
    foreign_w: FloatArray


class Truth:
    """The record of one machine."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._passes: dict[str, Passes] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the runs so far."""
        return tuple(self._passes)

    def of(self, label: str) -> Passes:
        """What the passes under a label took, all runs together; raises ``KeyError`` for an unknown label."""
        return self._passes[label]

    def energy_between_j(self, gpu: int, start_s: float, end_s: float) -> float:
        """Exact integral of a GPU's power; ``ValueError`` where the past is no longer kept."""
        if end_s < start_s or start_s < self._timeline.start_s:
            raise ValueError(f"{start_s} to {end_s} s is no span since {self._timeline.start_s} s, the earliest kept")
        start_j, end_j = self._timeline.energy_at(gpu, np.array([start_s, end_s]))
        return float(end_j - start_j)

    def mean_power_w(self, gpu: int, edges_s: FloatArray) -> FloatArray:
        """Exact mean power of a GPU between neighbouring times, which rise: [N + 1] to [N]."""
        if np.any(np.diff(edges_s) <= 0) or edges_s[0] < self._timeline.start_s:
            raise ValueError(f"the times must rise, from {self._timeline.start_s} s, the earliest kept")
        return np.asarray(np.diff(self._timeline.energy_at(gpu, edges_s)) / np.diff(edges_s), dtype=np.float64)

    def claim(self, label: str, kernels: tuple[str, ...]) -> None:
        """Raise ``ValueError`` if a label stands for other kernels already."""
        before = self._passes.get(label)
        if before is not None and before.kernels != kernels:
            raise ValueError(f"the label {label!r} already stands for passes of other kernels; choose another")

    def record(self, label: str, kernels: tuple[str, ...], passes: int, stretches: Iterable[Stretch]) -> None:
        """Add the passes of one run under a label that is claimed for these kernels."""
        made = _summed(kernels, passes, _by_cycle(stretches))
        before = self._passes.get(label)
        self._passes[label] = made if before is None else _added(before, made)


def _by_cycle(stretches: Iterable[Stretch]) -> list[_Repeated]:
    """Stretches of one cycle become one: sums over kernels are made once for each cycle."""
    found: dict[int, _Repeated] = {}
    for stretch in stretches:
        idle_w, foreign_w = stretch.count * stretch.idle_w, stretch.count * stretch.foreign_w
        one = found.get(id(stretch.cycle))
        if one is None:
            found[id(stretch.cycle)] = _Repeated(stretch.cycle, stretch.count, idle_w, foreign_w)
        else:
            one.count += stretch.count
            one.idle_w = one.idle_w + idle_w
            one.foreign_w = one.foreign_w + foreign_w
    return list(found.values())


def _summed(kernels: tuple[str, ...], passes: int, repeated: list[_Repeated]) -> Passes:
    idle_j = _total(part.idle_w * part.cycle.period_s for part in repeated)
    foreign_j = _total(part.foreign_w * part.cycle.period_s for part in repeated)
    gap_active_j = _total(part.count * part.cycle.gap_j for part in repeated)
    kernel_active_j = _total(part.count * part.cycle.kernel_j for part in repeated)
    wait_active_j = _total(part.count * part.cycle.wait_j for part in repeated)
    return Passes(
        passes=passes,
        duration_s=sum(part.count * part.cycle.period_s for part in repeated),
        kernels=kernels,
        energy_j=idle_j + foreign_j + _total(part.count * part.cycle.energy_j for part in repeated),
        idle_energy_j=idle_j,
        foreign_energy_j=foreign_j,
        gap_s=_total(part.count * part.cycle.gap_s for part in repeated),
        gap_energy_j=gap_active_j + _total(part.idle_w * part.cycle.gap_s for part in repeated),
        gap_active_energy_j=gap_active_j,
        kernel_duration_s=_total(part.count * part.cycle.kernel_s for part in repeated),
        kernel_energy_j=kernel_active_j + _total(part.idle_w[:, None] * part.cycle.kernel_s for part in repeated),
        kernel_active_energy_j=kernel_active_j,
        wait_s=_total(part.count * part.cycle.wait_s for part in repeated),
        wait_energy_j=wait_active_j + _total(part.idle_w[:, None] * part.cycle.wait_s for part in repeated),
        wait_active_energy_j=wait_active_j,
    )


def _added(before: Passes, more: Passes) -> Passes:
    sums = {
        name: getattr(before, name) + getattr(more, name) for name in Passes.__dataclass_fields__ if name != "kernels"
    }
    return Passes(kernels=before.kernels, **sums)


def _total(arrays: Iterable[FloatArray]) -> FloatArray:
    """Sum of one or more arrays of one shape."""
    total, *others = arrays
    for array in others:
        total = total + array
    return total
