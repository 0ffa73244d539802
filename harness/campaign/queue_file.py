"""The SQLite file behind the queue: opening it, and its errors in the words of the harness."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from harness.errors import CannotWrite, CorruptFile, FolderBusy, NewerSchema

QUEUE_VERSION = 1
# History of the queue file. A later version reads every earlier one.
#   1 (2026-11-23)  first version: tables campaign and runs

_TABLES = (
    "CREATE TABLE campaign (campaign_id TEXT NOT NULL, configuration TEXT NOT NULL)",
    "CREATE TABLE runs (position INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, job TEXT NOT NULL, "
    "state TEXT NOT NULL, status TEXT, reason TEXT, crashes INTEGER NOT NULL DEFAULT 0)",
    f"PRAGMA user_version = {QUEUE_VERSION}",
)
_CORRUPT_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # ERROR: tables are not there
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REFUSED_CODES = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)


class CorruptQueue(CorruptFile):
    """The queue file does not hold a queue. Nothing but the order of work is in it, so it can be built again."""

    def __init__(self, path: Path, reason: object) -> None:
        self.reason = str(reason)
        super().__init__(
            f"{path} is no queue of runs: {self.reason}.\nMove it away and run the same command again: "
            "the queue is built anew from the plan and the dataset."
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open or create a queue file; raises ``CorruptQueue``, ``NewerSchema``, ``FolderBusy`` or ``CannotWrite``."""
    with translated(path):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            _prepare(path, connection)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def transaction(path: Path, connection: sqlite3.Connection) -> Iterator[None]:
    """All of a change or nothing of it, and on the disk when it returns."""
    with translated(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as errors of the harness."""
    try:
        yield
    except sqlite3.Error as problem:
        code = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the primary code
        if code in _CORRUPT_CODES:
            raise CorruptQueue(path, problem) from problem
        if code in _BUSY_CODES:
            raise FolderBusy(f"Another process is using {path}.\nStop it, or choose another folder.") from problem
        if code in _REFUSED_CODES:
            raise CannotWrite(
                f"{path} cannot be written: {problem}.\nCheck the free space and the permissions of its folder, then "
                "run the same command again: no finished run is lost."
            ) from problem
        raise


def set_aside(path: Path) -> Path:
    """Move a corrupt queue file and its journal out of the way; returns where it is kept."""
    kept = next(other for n in count(1) if not (other := path.with_name(f"{path.name}.corrupt-{n}")).exists())
    journal = path.with_name(f"{path.name}-journal")
    try:
        if journal.exists():  # it would be played back into the new file
            journal.rename(kept.with_name(f"{kept.name}-journal"))
        path.rename(kept)
        folder_fd = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder_fd)
        os.close(folder_fd)
    except OSError as problem:
        raise CannotWrite(f"{path} is corrupt and cannot be moved: {problem.strerror}.\nMove it away.") from problem
    return kept


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > QUEUE_VERSION:
        raise NewerSchema(
            f"{path} has version {version}; this harness knows versions up to {QUEUE_VERSION}.\n"
            "Install the version of joulegraph that wrote it, or choose another folder."
        )
    health = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if health != "ok":
        raise CorruptQueue(path, health)
    # A rollback journal, synced with its folder at every commit: a commit that returned survives a power cut.
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = EXTRA")
    if version == 0:
        with transaction(path, connection):
            for statement in _TABLES:
                connection.execute(statement)
