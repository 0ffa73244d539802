"""The folder of a campaign: at most one campaign at a time works in it.

The lock is an ``flock``, which the kernel releases when the process ends in whatever way, ``kill -9`` included. Worker
processes do not inherit it, so a worker that outlives its campaign cannot hold the folder.
"""

import fcntl
import json
import os
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import CannotWrite, FolderBusy

STATE_FOLDER = ".campaign"


@dataclass(slots=True, kw_only=True, weakref_slot=True, eq=False)
class CampaignFolder:
    """A campaign's folder, locked until ``close`` or the end of the process.

    >>> import tempfile
    >>> with CampaignFolder.open(Path(tempfile.mkdtemp()) / "campaign") as folder:
    ...     folder.state.name
    '.campaign'
    """

    path: Path
    _lock_fd: int | None = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create the folder where needed and lock it; raises ``CannotWrite`` or ``FolderBusy``."""
        state = path / STATE_FOLDER
        try:
            state.mkdir(parents=True, exist_ok=True)
            lock_fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o644)  # not inherited: Python sets O_CLOEXEC
        except (OSError, ValueError) as problem:  # ValueError: a null byte in the path
            raise _cannot_write(path, problem) from problem
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(lock_fd)
        except OSError as problem:
            error = _busy(path, lock_fd) if isinstance(problem, BlockingIOError) else _cannot_write(path, problem)
            os.close(lock_fd)
            raise error from problem
        folder = cls(path=path, _lock_fd=lock_fd)
        _open_folders.add(folder)
        return folder

    @property
    def state(self) -> Path:
        """Where the campaign keeps what is not data: queue, lock, logs."""
        return self.path / STATE_FOLDER

    def close(self) -> None:
        """Let other campaigns in."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open_folders: weakref.WeakSet[CampaignFolder] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child shares the lock until it closes its copy; closing it leaves the parent's lock in place."""
    for folder in list(_open_folders):
        folder.close()


os.register_at_fork(after_in_child=_close_in_child)


def _sign(lock_fd: int) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, json.dumps({"pid": os.getpid(), "started_at_utc": now}).encode(), 0)


def _busy(path: Path, lock_fd: int) -> FolderBusy:
    try:
        holder = json.loads(os.pread(lock_fd, 1000, 0))
        who = f"process {int(holder['pid'])}, since {str(holder['started_at_utc'])[:40]}"
    except (OSError, ValueError, TypeError, KeyError):
        who = "a process that has not signed yet"
    return FolderBusy(
        f"Another campaign is at work in {path} ({who}).\n"
        "Wait until it ends, stop it, or choose another folder with --out."
    )


def _cannot_write(path: Path, problem: OSError | ValueError) -> CannotWrite:
    reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    if isinstance(problem, FileExistsError | NotADirectoryError):
        reason = "there is a file where a folder is needed"
    return CannotWrite(
        f"The folder {str(path)[:300]!r} cannot be used for a campaign: {reason}.\n"
        "Choose a folder on a local disk that you may write to, with --out."
    )
