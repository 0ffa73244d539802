"""The queue of a campaign: which runs are waiting, running and done, in one SQLite file.

Every change is one transaction, on the disk before the call returns, so the file is whole after ``kill -9`` or a power
cut. The order of work is: ``next`` claims a run; a worker makes it; its rows are appended to the dataset; ``done``
marks it. A campaign that is killed anywhere in between goes on from what the *dataset* holds:

    queue says           dataset has the run   after reopening
    waiting or running   yes                   done, as the dataset says
    running              no                    waiting
    done, ok             no                    waiting: the measurement was lost
    done, not ok         no                    done, and in ``unrecorded`` so that its row is written

A corrupt queue file is set aside, never deleted, and built again from the plan and the dataset.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.campaign.fields import shown
from harness.campaign.jobs import Job
from harness.campaign.queue_file import CorruptQueue, connect, set_aside, transaction, translated
from harness.errors import OtherCampaign
from harness.records import Status

QUEUE_FILE = "queue.sqlite"
MAX_CRASHES = 2  # a run whose worker died this often has failed


class State(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRun:
    """A run and how far it is."""

    job: Job
    state: State
    status: Status | None  # how it ended; None: not done
    reason: str | None
    crashes: int  # how often its worker died


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many runs are how far."""

    waiting: int
    running: int
    ok: int
    oom: int
    failed: int
    skipped: int


class RunQueue:
    """The runs of one campaign. A context manager, used by one process at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.notes: tuple[str, ...] = ()  # what happened while opening, for people
        self.unrecorded: tuple[QueuedRun, ...] = ()  # done before opening, and the dataset has no row of it
        self._connection = connection

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        campaign_id: str,
        configuration: str,
        jobs: Callable[[], Sequence[Job]],
        finished: Mapping[str, Status],
    ) -> Self:
        """Create the queue in ``folder``, or go on with the one there.

        ``configuration`` is the plan as canonical JSON, to say what differs from another campaign. ``jobs`` makes the
        campaign's runs; it is called only where there is no queue, so a campaign keeps its runs. ``finished`` gives
        the status of each run whose rows the dataset holds, by run_id.

        Raises ``OtherCampaign`` if the queue belongs to another plan, ``NewerSchema`` if a later version of the
        harness wrote it, ``FolderBusy`` or ``CannotWrite`` if the file cannot be used.
        """
        path = folder / QUEUE_FILE
        try:
            return cls._open(path, campaign_id, configuration, jobs, finished)
        except CorruptQueue as problem:
            kept = set_aside(path)
            queue = cls._open(path, campaign_id, configuration, jobs, finished)
            queue.notes = (
                f"The queue file was corrupt ({problem.reason}). It is kept as {kept}; a new one was built from the "
                f"plan and the {len(finished)} runs in the dataset.",
            )
            return queue

    @classmethod
    def _open(
        cls,
        path: Path,
        campaign_id: str,
        configuration: str,
        jobs: Callable[[], Sequence[Job]],
        finished: Mapping[str, Status],
    ) -> Self:
        queue = cls(path, connect(path))
        try:
            with queue._transaction():
                queue._fill(campaign_id, configuration, jobs)
                queue._follow(finished)
            done = (run for run in queue.runs() if run.state is State.DONE)
            queue.unrecorded = tuple(run for run in done if run.job.run_id not in finished)
        except BaseException:
            queue.close()
            raise
        return queue

    def runs(self) -> tuple[QueuedRun, ...]:
        """All runs, in the order of the plan."""
        with translated(self.path):
            rows = self._execute("SELECT job, state, status, reason, crashes FROM runs ORDER BY position")
            return tuple(self._queued_run(row) for row in rows)

    def counts(self) -> Counts:
        """How many runs are how far."""
        with translated(self.path):
            rows = self._execute("SELECT COALESCE(status, state), COUNT(*) FROM runs GROUP BY 1")
            number: dict[str, int] = dict(rows.fetchall())
        return Counts(**{name: number.get(name, 0) for name in Counts.__dataclass_fields__})

    def next(self) -> Job | None:
        """Claim the next waiting run; ``None`` when nothing waits."""
        with self._transaction():
            row = self._execute("SELECT job FROM runs WHERE state = 'waiting' ORDER BY position LIMIT 1").fetchone()
            if row is None:
                return None
            job = Job.from_json(row[0])
            self._execute("UPDATE runs SET state = 'running' WHERE run_id = ?", job.run_id)
            return job

    def add(self, jobs: Sequence[Job]) -> None:
        """Append runs that were not known when the queue was made; all of them or none."""
        with self._transaction():
            self._insert(jobs)

    def done(self, run_id: str, status: Status, reason: str | None = None) -> None:
        """Mark a run as done, once its rows are in the dataset."""
        with self._transaction():
            self._finish(run_id, status, reason)

    def crashed(self, run_id: str, reason: str) -> bool:
        """Note that the worker of a run died. True: it waits for another try; False: it is done and has failed."""
        with self._transaction():
            update = "UPDATE runs SET state = 'waiting', crashes = crashes + 1 WHERE run_id = ?"
            self._execute(update, run_id)
            crashes: int = self._execute("SELECT crashes FROM runs WHERE run_id = ?", run_id).fetchone()[0]
            if crashes >= MAX_CRASHES:
                self._finish(run_id, Status.FAILED, f"its worker died {crashes} times: {reason}")
            return crashes < MAX_CRASHES

    def skip_larger_after_oom(self, job: Job) -> tuple[QueuedRun, ...]:
        """Skip the waiting runs that need at least the memory of ``job``, which ran out; returns them."""
        with self._transaction():
            self._skip_larger(job)
        reason = _oom_reason(job)
        return tuple(run for run in self.runs() if run.status is Status.SKIPPED and run.reason == reason)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, campaign_id: str, configuration: str, jobs: Callable[[], Sequence[Job]]) -> None:
        there = self._execute("SELECT campaign_id, configuration FROM campaign").fetchone()
        if there is not None and there[0] != campaign_id:
            raise _other_campaign(self.path, there[1], configuration)
        if there is None:
            self._insert(jobs())
            self._execute("INSERT INTO campaign VALUES (?, ?)", campaign_id, configuration)

    def _insert(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._execute("INSERT INTO runs (run_id, job, state) VALUES (?, ?, 'waiting')", job.run_id, job.to_json())
            if job.skipped is not None:
                self._finish(job.run_id, Status.SKIPPED, job.skipped)

    def _follow(self, finished: Mapping[str, Status]) -> None:
        """Bring the queue in line with what the dataset holds: the table at the top of this file."""
        for run in self.runs():
            run_id = run.job.run_id
            if run_id in finished:
                if run.status is not finished[run_id]:
                    self._finish(run_id, finished[run_id], None)
            elif run.state is State.RUNNING or run.status is Status.OK:
                self._execute(
                    "UPDATE runs SET state = 'waiting', status = NULL, reason = NULL WHERE run_id = ?", run_id
                )
        for run in self.runs():
            if run.status is Status.OOM:
                self._skip_larger(run.job)

    def _skip_larger(self, job: Job) -> None:
        for run in self.runs():
            if run.state is State.WAITING and run.job.needs_at_least(job):
                self._finish(run.job.run_id, Status.SKIPPED, _oom_reason(job))

    def _finish(self, run_id: str, status: Status, reason: str | None) -> None:
        update = "UPDATE runs SET state = 'done', status = ?, reason = ? WHERE run_id = ?"
        if self._execute(update, status.value, reason, run_id).rowcount != 1:
            raise KeyError(run_id)

    def _queued_run(self, row: Sequence[Any]) -> QueuedRun:
        text, state, status, reason, crashes = row
        try:
            status = None if status is None else Status(status)
            return QueuedRun(job=Job.from_json(text), state=State(state), status=status, reason=reason, crashes=crashes)
        except ValueError as problem:
            raise CorruptQueue(self.path, problem) from problem

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self.path, self._connection)

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)


def _oom_reason(job: Job) -> str:
    request = job.request
    return (
        f"run {job.run_id} ran out of memory with no more to hold (batch {request.batch_size}, "
        f"{request.prompt_tokens} prompt and {request.output_tokens} output tokens)"
    )


def _other_campaign(path: Path, there: str, here: str) -> OtherCampaign:
    old, new = _fields(there), _fields(here)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    lines = [f"    {key}: {_brief(old.get(key))} there, {_brief(new.get(key))} here" for key in differing]
    return OtherCampaign(
        f"{path.parent} belongs to a campaign with another plan:\n"
        + "\n".join(lines)
        + "\nTo go on with it, ask for the same plan; for a new campaign, choose another folder with --out."
    )


def _fields(configuration: str) -> dict[str, object]:
    try:
        return dict(json.loads(configuration))
    except (ValueError, TypeError):
        return {"configuration": "unreadable"}  # the ids differ all the same


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else shown(value)
