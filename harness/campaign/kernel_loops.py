"""Loops of a loaded model's own kernels: what the works of kernels run on a real device."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.campaign.works import WorkSpec
from harness.kernels import NULL_KERNEL, KernelCount, Phase
from harness.measuring.kernel_energy import NULL_IN_GRAPH
from harness.records import Part
from harness.tracing.relaunch import LaunchCount, Relaunch
from harness.tracing.timeline import TracedKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayable:
    """Which kernels of a phase can be run alone, and why others cannot."""

    kernel_ids: frozenset[str]
    note: str | None = None


class KernelWork:
    """A loop of kernels that looks like any other work to a session."""

    share = 1.0
    context_start_tokens = None
    mean_context_tokens = None

    def __init__(
        self, spec: WorkSpec, phases: Mapping[Phase, Relaunch], synchronize: Callable[[], None], *, late: bool
    ) -> None:
        """``late``: this rank is the one that the others wait for, where the work is to show waiting."""
        self.part = spec.part
        self.kernels: tuple[KernelCount, ...] = spec.kernels
        self._relaunch = phases[spec.kernels[0].phase]
        self._launches = [LaunchCount(kernel_id=each.kernel_id, launches=each.launches) for each in spec.kernels]
        self._synchronize = synchronize
        self._late_s = spec.late_s if late else 0.0
        self._one = len(self._launches) == 1 and spec.part is Part.REPLAY
        self._null = spec.kernels[0].kernel_id in {NULL_KERNEL, NULL_IN_GRAPH}
        self._graph = spec.kernels[0].kernel_id != NULL_KERNEL

    def prepare(self, passes: int) -> None:  # noqa: ARG002  as every work
        """Copy inputs and capture graphs, where the device can."""
        ids = () if self._null else [each.kernel_id for each in self._launches]
        self._relaunch.ready(ids, cold=True, graph=self._graph)
        self._synchronize()

    def run(self, passes: int) -> None:
        """Launch the kernels of so many passes, and wait for the device."""
        if self._null:
            self._relaunch.null(passes)
        elif self._one:
            (each,) = self._launches
            self._relaunch.run([LaunchCount(kernel_id=each.kernel_id, launches=each.launches * passes)])
        else:
            for _ in range(passes):
                if self._late_s:
                    time.sleep(self._late_s)
                self._relaunch.run(self._launches)
                if self.part is Part.WAITING:
                    self._synchronize()
        self._synchronize()

    def release(self) -> None:
        """Let go of copies and graphs."""
        self._relaunch.ready((), cold=False, graph=False)

    def how(self) -> Collection[str]:
        """How the kernels are launched, as the dataset says it."""
        if self._null:
            return ()
        hows = [self._relaunch.how(each.kernel_id) for each in self._launches]
        return {f"{how.launching.value}, {how.cache.value}" for how in hows}


def replayable(relaunch: Relaunch, rows: Sequence[TracedKernel]) -> Replayable:
    """What of a phase was recorded."""
    lost = [each for each in relaunch.skipped if each.kernel_id in {row.kernel_id for row in rows}]
    note = None
    if lost:
        note = f"{len(lost)} kernel(s) of {relaunch.phase} cannot be run alone: {lost[0].kernel_id}, {lost[0].reason}"
    with_others = {kernel_id for kernel_id in relaunch.kernel_ids if relaunch.companions(kernel_id)}
    return Replayable(kernel_ids=frozenset(relaunch.kernel_ids) - with_others, note=note)
