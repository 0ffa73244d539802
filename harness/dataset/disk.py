"""What the dataset asks of the file system, in one place, so that tests can interrupt it at every step."""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import CannotWrite
from harness.units import gibibytes


class Disk:
    """The file system. Every method may raise ``OSError``."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and its parents, unless it is there."""
        path.mkdir(parents=True, exist_ok=True)

    def open_new(self, path: Path) -> BinaryIO:
        """Open a file for writing, emptied if it is there."""
        return path.open("wb")

    def sync(self, paths: Sequence[Path]) -> None:
        """Wait until files, or the names in folders, survive a power cut.

        All at once: a file system writes its journal once for all that wait, which is several times faster.
        """
        if paths:
            with ThreadPoolExecutor(len(paths)) as pool:
                for done in [pool.submit(_sync, path) for path in paths]:
                    done.result()

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its final name, atomically."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, unless it is gone already."""
        path.unlink(missing_ok=True)

    def free_bytes(self, path: Path) -> int:
        """Space left on the volume of a folder, which need not be there yet."""
        return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder, and keeps its names itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


class HashingFile(io.RawIOBase):
    """A file being written that counts and hashes what passes; ``abandon`` makes it swallow the rest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._abandoned = False
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Hash of everything written so far."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size_bytes

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Write all of it."""
        size_bytes = memoryview(data).nbytes
        if not self._abandoned:
            self._file.write(data)
            self._hash.update(data)
        self.size_bytes += size_bytes
        return size_bytes

    def abandon(self) -> None:
        """Swallow what is still written: a Parquet writer cannot be dropped without writing its footer."""
        self._abandoned = True


def temporary(path: Path) -> Path:
    """Name of a file until it is complete; readers look for ``*.parquet`` and never see it."""
    return path.with_name(path.name + ".tmp")


def write_text(disk: Disk, path: Path, text: str) -> None:
    """Replace a small file, atomically and durably."""
    with disk.open_new(temporary(path)) as file:
        file.write(text.encode())
    publish(disk, path)


def publish(disk: Disk, path: Path) -> None:
    """Give a complete file its name, durably: first its content, then the name that promises it."""
    disk.sync([temporary(path)])
    disk.replace(temporary(path), path)
    disk.sync([path.parent])


@contextmanager
def refusals(disk: Disk, folder: Path, needed_bytes: int) -> Iterator[None]:
    """The one place where errors of writing become ``CannotWrite``; ``needed_bytes`` is an upper estimate."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(_refusal(disk, folder, needed_bytes, error)) from error


def _refusal(disk: Disk, folder: Path, needed_bytes: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{folder}: the disk is full. This write needs up to {gibibytes(needed_bytes)}, "
            f"and {gibibytes(disk.free_bytes(folder))} are free.\n"
            f"Every run recorded before is safe. Free some space and run the same command again: it resumes."
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{folder} cannot become a dataset: {error.filename or folder} is no folder.\nChoose another folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{folder} cannot be written: {error.strerror}.\n"
            f"Choose another folder, or make this one writable (chmod u+w, chown) and run the same command again."
        )
    return (
        f"{folder} cannot be written: {error.strerror or error}.\n"
        f"Every run recorded before is safe. Check the disk and run the same command again: it resumes."
    )
