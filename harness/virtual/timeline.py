"""What happened on the GPUs of one machine, as exact energy against time."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.virtual.physics import Cycle
from harness.virtual.program import FloatArray, IntArray

BLOCKS_KEPT = 20_000  # hours of campaign
_ROOM = 256
_T = TypeVar("_T", bound=np.generic)


class Timeline:
    """Blocks, one after another: a cycle repeated, plus a power that is constant within the block.

    Energy between any two times follows in closed form: energy at the start of the block + constant power × time +
    whole repetitions × energy of the cycle + the piecewise linear rest. The last block goes on for ever.
    """

    def __init__(self, gpus: int) -> None:
        self.blocks = 0
        self._gpus = gpus
        self._cycles: list[Cycle | None] = []
        self._starts_s: FloatArray = np.empty(_ROOM)
        self._energies_j: FloatArray = np.empty((_ROOM, gpus))
        self._constant_w: FloatArray = np.empty((_ROOM, gpus))
        self._state: FloatArray = np.empty((_ROOM, 2, gpus))  # temperature, clock
        self._throttle: IntArray = np.empty((_ROOM, gpus), dtype=np.int64)

    def append(
        self,
        start_s: float,
        cycle: Cycle | None,
        constant_w: FloatArray,
        *,
        temperatures_c: FloatArray,
        clocks_mhz: FloatArray,
        throttle: IntArray,
    ) -> None:
        """From ``start_s`` on: a cycle again and again, beside constant power; arrays are [G]."""
        new = self.blocks
        if new == len(self._starts_s):
            self._grow()
        energies_j = self.energies_at(start_s) if new else np.zeros(self._gpus)
        self._starts_s[new] = start_s
        self._energies_j[new] = energies_j
        self._constant_w[new] = constant_w
        self._state[new] = (temperatures_c, clocks_mhz)
        self._throttle[new] = throttle
        self._cycles.append(cycle)
        self.blocks += 1

    def energies_at(self, at_s: float) -> FloatArray:
        """Energy of every GPU, [G], at a time in the last block."""
        last = self.blocks - 1
        since_s = at_s - self._starts_s[last]
        energies_j = self._energies_j[last] + self._constant_w[last] * since_s
        cycle = self._cycles[last]
        if cycle is not None:  # blocks end with a whole number of repetitions
            energies_j += round(since_s / cycle.period_s) * cycle.energy_j
        return np.asarray(energies_j, dtype=np.float64)

    def energy_at(self, gpu: int, times_s: FloatArray) -> FloatArray:
        """Energy of one GPU at times that never fall. Before the first block the first power goes on."""
        first, last = self.block_at(times_s[0]), self.block_at(times_s[-1])
        if first == last:
            return self._among(gpu, first, first + 1, times_s)
        cuts = times_s.searchsorted(self._starts_s[first + 1 : last + 1]).tolist()
        energies_j = np.empty(len(times_s))
        at, block = 0, first
        while block <= last:  # neighbours of one cycle at once
            after = block + 1
            while after <= last and self._cycles[after] is self._cycles[block]:
                after += 1
            end = cuts[after - first - 1] if after <= last else len(times_s)
            if end > at:
                energies_j[at:end] = self._among(gpu, block, after, times_s[at:end])
            at, block = end, after
        return energies_j

    def _among(self, gpu: int, first: int, end: int, times_s: FloatArray) -> FloatArray:
        """Energy at times in some blocks that all have the same cycle."""
        block: int | IntArray = first
        if end > first + 1:
            block = self._starts_s[first + 1 : end].searchsorted(times_s, side="right") + first
        since_s = times_s - self._starts_s[block]
        energies_j = self._energies_j[block, gpu] + self._constant_w[block, gpu] * since_s
        cycle = self._cycles[first]
        return np.asarray(energies_j if cycle is None else energies_j + cycle.energy_at(gpu, since_s), dtype=np.float64)

    def block_at(self, at_s: float) -> int:
        """Number of the block at a time."""
        return max(0, int(self._starts_s[: self.blocks].searchsorted(at_s, side="right")) - 1)

    def temperature_c(self, gpu: int, block: int) -> float:
        """Temperature of a GPU in a block."""
        return float(self._state[block, 0, gpu])

    def clock_mhz(self, gpu: int, block: int) -> float:
        """SM clock of a GPU in a block."""
        return float(self._state[block, 1, gpu])

    def throttle(self, gpu: int, block: int) -> int:
        """NVML clocks-event bits of a GPU in a block."""
        return int(self._throttle[block, gpu])

    @property
    def start_s(self) -> float:
        """The earliest time that is kept."""
        return float(self._starts_s[0])

    def middle_s(self) -> float:
        """When the block in the middle of those kept began."""
        return float(self._starts_s[self.blocks // 2])

    def forget_before(self, before_s: float) -> None:
        """Drop the blocks that ended before a time."""
        drop = self.block_at(before_s)
        kept = slice(drop, self.blocks)
        self.blocks -= drop
        for array in (self._starts_s, self._energies_j, self._constant_w, self._state, self._throttle):
            array[: self.blocks] = array[kept].copy()
        del self._cycles[:drop]

    def _grow(self) -> None:
        """Twice the room."""
        self._starts_s, self._energies_j, self._constant_w = map(
            _doubled, (self._starts_s, self._energies_j, self._constant_w)
        )
        self._state, self._throttle = _doubled(self._state), _doubled(self._throttle)


def _doubled(array: NDArray[_T]) -> NDArray[_T]:
    return np.concatenate([array, np.empty_like(array)])
