"""Launchers: how the worker of a run is started, watched and stopped.

The seam for runs that span several processes or machines: a campaign only knows ``Launcher``.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from harness.campaign.rendezvous import Meeting
from harness.campaign.task import Task
from harness.dataset.transport import measurement_from_json
from harness.errors import CannotMeasure, CannotWrite, DatasetError, HarnessError, OutOfMemory, RunError, WorkerDied
from harness.records import Measurement
from harness.units import duration, gibibytes

_MAX_RESULT_BYTES = 512 * 1024**2
_LOG_TAIL_BYTES = 4000
RANKS_SUFFIX = ".ranks"  # of the folder beside the result in which an agent keeps the logs of its ranks
_GONE_S = 10.0  # what is killed is gone in milliseconds, unless it hangs in the kernel
CANNOT_MEASURE = 69  # exit code of a worker whose meters or packages failed; EX_UNAVAILABLE of sysexits.h
SPOILED = 75  # exit code of a worker whose counter misbehaved in passing; EX_TEMPFAIL of sysexits.h
CANNOT_WRITE = 74  # exit code of a worker that measured and could not write it down; EX_IOERR of sysexits.h
_OOM_COUNTER = Path("/proc/vmstat")


class Launcher(Protocol):
    """Carries out one task somewhere else."""

    def launch(self, task: Task, *, limit_s: float) -> Measurement:
        """Run the task to its end; raises ``RunError``, of which ``WorkerDied`` may be tried again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLauncher:
    """One worker process on this machine, which dies with this one."""

    state: Path  # folder for results and logs
    module: str = "harness.campaign.worker"

    def launch(self, task: Task, *, limit_s: float, meeting: Meeting | None = None) -> Measurement:
        """Run the task to its end; raises ``WorkerDied``, ``OutOfMemory`` or, past the limit, ``RunError``.

        Raises ``CannotWrite`` where the disk, not the run, is at fault: that ends the campaign, not the run.
        """
        result = self.state / f"{task.job.run_id}.json"
        log = self.state / f"{task.job.run_id}.log"
        kills_before = kernel_oom_kills()
        try:
            result.unlink(missing_ok=True)
            with log.open("wb") as log_file:
                returncode = run_worker(task, result, log_file, limit_s, module=self.module, meeting=meeting)
            if result.exists():
                measurement = _read_result(result)
                log.unlink()
                return measurement
            kernel_killed = kernel_oom_kills() > kills_before
            raise _death(returncode, log, kernel_killed=kernel_killed)
        except FileNotFoundError as error:
            raise CannotWrite(f"{self.state} was removed or moved while the campaign was at work.") from error
        except OSError as error:
            raise CannotWrite(
                f"{self.state} cannot be used for results and logs: {error.strerror or error}.\n"
                "Make room or see to the permissions, then run the same command again: no finished run is lost."
            ) from error
        finally:
            shutil.rmtree(result.with_suffix(RANKS_SUFFIX), ignore_errors=True)  # an agent that was killed leaves it


def run_worker(
    task: Task,
    result: Path,
    log_file: IO[bytes],
    limit_s: float,
    *,
    module: str = "harness.campaign.worker",
    meeting: Meeting | None = None,
) -> int:
    """Start a worker here, wait for its end, and return its exit code; raises ``RunError`` past the limit."""
    environment = dict(os.environ)
    if task.gpu_uuids:  # by UUID, so that CUDA and NVML mean the same GPUs
        here = task.job.deployment.n_gpus // task.job.deployment.nodes
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(task.gpu_uuids[:here])
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(result), *([] if meeting is None else [meeting.to_json()])],
        stdin=subprocess.PIPE,
        stdout=log_file,
        stderr=log_file,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the campaign, which then stops its worker
    )
    try:
        _hand_over(process, task)
        return process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise RunError(
            f"The run took longer than {duration(limit_s)}, far more than estimated, and was stopped."
        ) from None
    finally:
        _stop(process)


def _hand_over(process: "subprocess.Popen[bytes]", task: Task) -> None:
    if process.stdin is None:
        raise RuntimeError("the worker was started with a pipe")
    try:
        process.stdin.write(task.to_json().encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return  # it died at once; how is found when it is waited for


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the worker and whatever it started: in its own session, and ranks, which have sessions of their own."""
    ranks = _descendants(process.pid)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.kill()
    psutil.wait_procs(ranks, timeout=_GONE_S)
    if process.stdin is not None:
        process.stdin.close()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return children
    except psutil.NoSuchProcess:
        return []


def _read_result(result: Path) -> Measurement:
    """The measurement in a result file, which is used up; raises ``WorkerDied`` for anything else."""
    try:
        if result.stat().st_size > _MAX_RESULT_BYTES:
            raise WorkerDied(f"The worker left more than {_MAX_RESULT_BYTES:,} bytes, which is no measurement.")
        return measurement_from_json(result.read_text(encoding="utf-8"))
    except (DatasetError, UnicodeDecodeError) as error:
        raise WorkerDied(f"The worker left a result that is no measurement: {error}") from error
    finally:
        result.unlink()


def _death(returncode: int, log: Path, *, kernel_killed: bool) -> HarnessError:
    if returncode == -signal.SIGKILL and kernel_killed:
        memory = gibibytes(psutil.virtual_memory().total)
        return OutOfMemory(f"The kernel's out-of-memory killer ended the worker; this machine has {memory}.")
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        tail = file.read().decode("utf-8", errors="replace").strip().splitlines()
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    last = tail[-1] if tail else "it printed nothing"
    if returncode == CANNOT_MEASURE:
        return CannotMeasure("\n".join(tail[-3:]) + "\nOnce that is mended, the same command goes on with this run.")
    if returncode == SPOILED:
        return WorkerDied("\n".join(tail[-3:]))
    if returncode == CANNOT_WRITE:
        return CannotWrite(
            f"A run was measured, and its result could not be written: {last}\n"
            "Make room or see to the permissions, then run the same command again: only this run is made anew."
        )
    return WorkerDied(f"The worker ended with {how} and no measurement: {last}\nIts whole output is in {log.name}.")


def kernel_oom_kills() -> int:
    """Processes the kernel has killed for lack of memory since it started; 0 where it does not say."""
    if not _OOM_COUNTER.exists():
        return 0
    counts = dict(line.split() for line in _OOM_COUNTER.read_text().splitlines())
    return int(counts.get("oom_kill", 0))
