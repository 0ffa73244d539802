"""Dataset folders into one release folder: selected, merged, sorted, and documented; all of it or nothing."""

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harness import __version__
from harness.dataset.disk import Disk, write_text
from harness.dataset.manifest import MANIFEST, ListedFile, Manifest, manifest_text
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.release.database import opened
from harness.dataset.release.documents import write_documents
from harness.dataset.release.previous import Addition, step_from
from harness.dataset.release.private import refuse_private
from harness.dataset.release.record import RECORD, Change, LeftOut, ReleaseRecord, checked_url, record_text
from harness.dataset.release.selection import choose, refuse_conflicts
from harness.dataset.release.tables import write_tables
from harness.dataset.release.terms import Inclusion, in_order
from harness.dataset.release.version import Version, check_step
from harness.dataset.validation.check import validate
from harness.dataset.validation.findings import Finding, groups
from harness.errors import CannotWrite, DatasetError, UsageError
from harness.records import SCHEMA_VERSION
from harness.units import gibibytes

_KINDS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be released, and as what."""

    folders: tuple[Path, ...]
    out: Path
    version: Version
    date: date  # of the release
    included: frozenset[Inclusion] = frozenset()
    since: Path | None = None  # the release that this one continues
    changes: tuple[str, ...] = ()  # lines for the change log
    url: str | None = None  # where it will be published


def release(wanted: Wanted, disk: Disk | None = None) -> ReleaseRecord:
    """Make a release folder; nothing is left of it where that fails.

    The same folders, options and versions of packages give the same bytes. Raises ``UsageError`` for what cannot be
    asked, ``DatasetError`` where the folders are faulty, contradict each other or hold nothing to release, and
    ``CannotWrite``.
    """
    disk = disk or Disk()
    _check(wanted)
    datasets = [open_dataset(folder) for folder in wanted.folders]
    for folder in wanted.folders:
        _refuse_faulty(folder)
    with _all_or_nothing(disk, wanted.out, datasets):
        disk.make_folder(wanted.out)
        with opened(datasets, spill=wanted.out) as connection:
            refuse_conflicts(connection, wanted.folders)
            left_out = choose(connection, wanted.included)
            refuse_private(connection)
            files = write_tables(connection, disk, wanted.out)
        write_text(disk, wanted.out / MANIFEST, manifest_text(_manifest(wanted, files)))
        record = _record(wanted, left_out)
        write_text(disk, wanted.out / RECORD, record_text(record))
        write_documents(wanted.out, disk)
    return record


def _check(wanted: Wanted) -> None:
    if not wanted.folders:
        raise UsageError("No dataset folder is named.\nName one or more: python -m harness.release DIR …")
    if len({folder.resolve() for folder in wanted.folders}) < len(wanted.folders):
        raise UsageError("A dataset folder is named twice.\nName each once.")
    if wanted.out.exists() and (not wanted.out.is_dir() or any(wanted.out.iterdir())):
        raise UsageError(f"{wanted.out} is there already and is not an empty folder.\nName a new one with --out.")
    if wanted.url is not None:
        checked_url(wanted.url)


def _refuse_faulty(folder: Path) -> None:
    """Nothing is released that the validation finds an error in."""
    errors = validate(folder).errors
    if errors:
        kinds = groups(errors)
        shown = [_told(kind) for kind in kinds[:_KINDS_SHOWN]]
        shown += [f"  and {len(kinds) - _KINDS_SHOWN} more kinds"] if len(kinds) > _KINDS_SHOWN else []
        lines = "\n".join(shown)
        raise DatasetError(
            f"{folder} has errors and is not released:\n{lines}\n"
            f"`python -m harness.validate {folder}` lists them all, with what to do."
        )


def _told(kind: Sequence[Finding]) -> str:
    """One kind of error by its first example."""
    first = kind[0]
    place = ", ".join(part for part in (first.file, first.column) if part)
    return f"  {first.rule} ({first.count} places): {place}: {first.reason}"


def _manifest(wanted: Wanted, files: tuple[ListedFile, ...]) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        campaign_id=None,
        harness=__version__,
        created_utc=f"{wanted.date.isoformat()}T00:00:00+00:00",
        files=files,
    )


def _record(wanted: Wanted, left_out: tuple[LeftOut, ...]) -> ReleaseRecord:
    """The record, with the change log of the release before, if there is one; raises ``UsageError``."""
    step = None if wanted.since is None else step_from(wanted.since, wanted.out)
    if step is not None:
        check_step(Version.read(step.old.version), wanted.version, rows_added=bool(step.additions))
    lines = wanted.changes + (("First release.",) if step is None else _added_lines(step.additions))
    day = wanted.date.isoformat()
    change = Change(version=str(wanted.version), date=day, lines=lines)
    return ReleaseRecord(
        version=str(wanted.version),
        date=day,
        harness=__version__,
        url=wanted.url or (step.old.url if step else None),
        previous=step.old.version if step else None,
        included=in_order(wanted.included),
        left_out=left_out,
        changes=(change, *(step.old.changes if step else ())),
    )


def _added_lines(additions: Sequence[Addition]) -> tuple[str, ...]:
    lines = [f"Added on {at.gpu}: {at.model or 'kernels alone'}, {at.runs} runs." for at in additions]
    return tuple(lines) or ("No rows were added.",)


@contextmanager
def _all_or_nothing(disk: Disk, out: Path, datasets: Sequence[Dataset]) -> Iterator[None]:
    """Remove what was written where anything fails, and say in words what the file system refused."""
    made = not out.exists()
    try:
        yield
    except BaseException as error:
        _remove(out, itself=made)
        if isinstance(error, OSError):
            raise _refused(disk, out, datasets, error) from error
        raise


def _remove(out: Path, *, itself: bool) -> None:
    if itself:
        shutil.rmtree(out, ignore_errors=True)
        return
    for path in out.iterdir():  # it was empty before
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _refused(disk: Disk, out: Path, datasets: Sequence[Dataset], error: OSError) -> CannotWrite:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = sum(file.path.stat().st_size for dataset in datasets for file in dataset.files)
        return CannotWrite(
            f"{out}: the disk is full. A release of these folders needs about {gibibytes(needed)}, and its sorting "
            f"several times as much for a while; {gibibytes(disk.free_bytes(out))} are free.\n"
            "Nothing was left behind. Free some space, or name a folder on another disk with --out."
        )
    return CannotWrite(
        f"{out} cannot be written: {error.strerror or error}.\n"
        "Nothing was left behind. Make the folder writable, or name another one with --out."
    )
