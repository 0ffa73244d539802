"""The agent of a run that spans several ranks: starts them with torchrun's elastic launcher and says why they ended.

One agent per machine. It is the process that the campaign started and watches; its ranks watch it in turn.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from harness.campaign.launchers import CANNOT_MEASURE, CANNOT_WRITE, RANKS_SUFFIX, kernel_oom_kills
from harness.campaign.ranks_board import Board, Ending, Report, verdict
from harness.campaign.rendezvous import Meeting, split_address
from harness.campaign.rows import without_numbers
from harness.campaign.task import Task
from harness.campaign.worker import write_result
from harness.records import Status

AGENT_VARIABLE = "JOULEGRAPH_AGENT_PID"
BOARD_VARIABLE = "JOULEGRAPH_BOARD"
RANK_MODULE = "harness.campaign.ranks_main"
_TAIL_LINES = 12
_SHUTDOWN_S = 5
_MEET_S = 300  # for the agents of all machines to start
_DIED = 1
_WATCHDOG = "collective operation timeout"  # NCCL's watchdog ends the process after saying this


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What one agent starts."""

    node: int
    local_ranks: int

    def rank(self, local_rank: int) -> int:
        return self.node * self.local_ranks + local_rank


def conduct(task: Task, result: Path, meeting: Meeting | None, *, module: str = RANK_MODULE) -> int:
    """Run the ranks of this machine to their end; returns the exit code of the worker.

    Rank 0 leaves its measurement in ``result``. Where the run failed, the agent of machine 0 leaves a record of that
    instead, unless a rank just died or the machine is at fault: then the exit code and the last line say so.
    """
    started_at_utc = datetime.now(UTC).isoformat(timespec="seconds")
    place = _Place(
        node=0 if meeting is None else meeting.node, local_ranks=task.job.deployment.ranks // task.job.deployment.nodes
    )
    board = _board(meeting)
    kills_before = kernel_oom_kills()
    with _scratch(result) as scratch:
        try:
            _launch(task, result, meeting, place, board, scratch, module)
        except ChildFailedError as failed:
            _report_deaths(failed.failures, place, board, scratch, killed=kernel_oom_kills() > kills_before)
            _quote_logs(scratch)
            if place.node == 0 and not result.exists():
                return _account(task, result, board, started_at_utc)
            return 0 if place.node == 0 else _DIED
    return 0


def _board(meeting: Meeting | None) -> Board:
    if meeting is None:
        return Board.opened()
    host, port = split_address(meeting.board)
    return Board.opened(host, port) if meeting.node == 0 else Board.at(meeting.board)


def _launch(
    task: Task, result: Path, meeting: Meeting | None, place: _Place, board: Board, scratch: Path, module: str
) -> None:
    task_file = scratch / "task.json"
    task_file.write_text(task.to_json(), encoding="utf-8")
    threads = (task.cpu_threads or torch.get_num_threads()) // place.local_ranks
    os.environ |= {
        AGENT_VARIABLE: str(os.getpid()),
        BOARD_VARIABLE: board.address,
        "OMP_NUM_THREADS": str(max(1, threads)),
    }
    config = LaunchConfig(
        min_nodes=task.job.deployment.nodes,
        max_nodes=task.job.deployment.nodes,
        nproc_per_node=place.local_ranks,
        run_id=task.job.run_id,
        max_restarts=0,
        rdzv_backend="c10d" if meeting is None else "static",  # static: the ranks of machine 0 are the first
        rdzv_endpoint="localhost:0" if meeting is None else meeting.endpoint,
        rdzv_configs={} if meeting is None else {"rank": meeting.node, "timeout": int(_MEET_S)},
        local_addr="localhost" if meeting is None else None,
        logs_specs=DefaultLogsSpecs(log_dir=str(scratch), redirects=Std.ALL),
        shutdown_timeout=_SHUTDOWN_S,
    )
    elastic_launch(config, sys.executable)("-m", module, str(result), str(task_file))


@contextlib.contextmanager
def _scratch(result: Path) -> Iterator[Path]:
    """A folder beside the result for the task and the logs of the ranks; gone in the end."""
    scratch = result.with_suffix(RANKS_SUFFIX)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _report_deaths(
    failures: Mapping[int, ProcessFailure], place: _Place, board: Board, scratch: Path, *, killed: bool
) -> None:
    """Report for ranks that could not do so themselves; those that the agent ended are no reason."""
    reported = {report.rank for report in board.reports()}
    for local_rank, failure in sorted(failures.items(), key=lambda each: each[1].timestamp):
        rank = place.rank(local_rank)
        if rank in reported or (failure.exitcode == -signal.SIGTERM and len(failures) > 1):
            continue
        tail = _log_tail(scratch, local_rank)
        last = tail[-1] if tail else "it printed nothing"
        if failure.exitcode == -signal.SIGKILL and killed:
            ending, reason = Ending.OUT_OF_MEMORY, "the kernel's out-of-memory killer ended it"
        elif any(_WATCHDOG in line for line in tail):
            ending, reason = Ending.LATE, next(line for line in tail if _WATCHDOG in line)
        elif failure.exitcode < 0:
            ending, reason = Ending.DIED, f"signal {-failure.exitcode} ended it; its last words: {last}"
        else:
            ending, reason = Ending.DIED, f"it ended with exit code {failure.exitcode}: {last}"
        board.report(Report(rank=rank, ending=ending, reason=reason))


def _account(task: Task, result: Path, board: Board, started_at_utc: str) -> int:
    """Say why the run failed: as its record, or as the worker's last words and exit code."""
    ranks = task.job.deployment.ranks
    found = verdict(board.reports(), ranks, task.collective_timeout_s)
    if found is None:
        print("the ranks ended without a reason", file=sys.stderr)  # noqa: T201  the campaign reads the end of this log
        return _DIED
    text = f"rank {found.rank} of {ranks}: {found.reason}"
    if found.ending in {Ending.DIED, Ending.MACHINE, Ending.DISK}:
        print(text, file=sys.stderr)  # noqa: T201  the campaign reads the end of this log
        return {Ending.DIED: _DIED, Ending.MACHINE: CANNOT_MEASURE, Ending.DISK: CANNOT_WRITE}[found.ending]
    status = Status.OOM if found.ending is Ending.OUT_OF_MEMORY else Status.FAILED
    return write_result(without_numbers(task, status, text, started_at_utc), result)


def _log_tail(scratch: Path, local_rank: int) -> list[str]:
    lines: list[str] = []
    for log in sorted(scratch.glob(f"*/attempt_*/{local_rank}/std*.log")):
        lines += log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-_TAIL_LINES:]


def _quote_logs(scratch: Path) -> None:
    """Copy the ends of the ranks' logs into the worker's own, which is kept."""
    for folder in sorted(scratch.glob("*/attempt_*/*")):
        for line in _log_tail(scratch, int(folder.name)) if folder.name.isdigit() else ():
            print(f"[rank {folder.name} of this machine] {line}", file=sys.stderr)  # noqa: T201
