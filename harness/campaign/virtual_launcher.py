"""The launcher of runs on virtual GPUs: nothing is loaded and no device can crash, so runs may share a process.

Runs are simulated ahead, as many at once as there are cores: each has a machine of its own, with its own seed, so the
order in which they are made changes nothing.
"""

import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from harness.campaign.execution import carry_out
from harness.campaign.task import Task
from harness.campaign.virtual_crew import VirtualCrew
from harness.errors import CannotMeasure, MeterFailed, MeterUnavailable, WorkerDied
from harness.records import Measurement

_MOST_PROCESSES = 8
_AHEAD = 2  # runs in hand per process


class VirtualLauncher:
    """Carries out tasks on virtual machines. ``upcoming`` are those that will be asked for after the first, in order.

    The first is made in this process, so that a single run starts no other.
    """

    def __init__(self, upcoming: Iterator[Task], *, processes: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._upcoming = upcoming
        self._processes = min(cores, _MOST_PROCESSES) if processes is None else processes
        self._pool: ProcessPoolExecutor | None = None
        self._made: dict[str, Future[Measurement]] = {}

    def launch(self, task: Task, *, limit_s: float) -> Measurement:  # noqa: ARG002  as every launcher
        """Run the task to its end; raises ``CannotMeasure`` where a fault of the virtual GPU ends a campaign."""
        self._look_ahead()
        made = self._made.pop(task.job.run_id, None)
        if made is None:
            return simulate(task)
        try:
            return made.result()
        except BrokenExecutor as error:
            self._close()
            raise WorkerDied("A process that simulated runs ended, for lack of memory perhaps.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        """Runs that were made ahead are forgotten."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # waits for the runs in hand: seconds
        self._pool, self._made = None, {}

    def _look_ahead(self) -> None:
        """Keep every process busy."""
        for task in self._upcoming:
            if self._processes < 2:
                return
            if self._pool is None:
                self._pool = ProcessPoolExecutor(self._processes, mp_context=get_context("spawn"))
            self._made[task.job.run_id] = self._pool.submit(simulate, task)
            if len(self._made) >= _AHEAD * self._processes:
                return


def simulate(task: Task) -> Measurement:
    """One run on a machine of its own; raises ``CannotMeasure``, or ``WorkerDied`` where only this run is spoiled."""
    started_at_utc = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return carry_out(task, started_at_utc=started_at_utc, crew=VirtualCrew(task))
    except (MeterFailed, MeterUnavailable) as error:
        passing = isinstance(error, MeterFailed) and error.passing
        raise (WorkerDied if passing else CannotMeasure)(str(error)) from error
