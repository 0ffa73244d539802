"""Where an export goes: a new folder, its files complete or not there."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from harness.dataset.disk import temporary
from harness.errors import CannotWrite, UsageError


def check_out(out: Path) -> None:
    """Raise ``UsageError`` unless a folder is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already and is not an empty folder.\nName a new one with --out.")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file, and its folder; it gets its name once it is complete. Raises ``CannotWrite``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path).open("wb") as file:
            yield file
        temporary(path).replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary(path).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotWrite(
                f"{path} cannot be written: {error.strerror or error}.\n"
                "Free some space, or name another folder with --out."
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small file; raises ``CannotWrite``."""
    with new_file(path) as file:
        file.write(text.encode())
