"""The maintainer's side: a bundle from a stranger into a release, or the reasons why not."""

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from harness import __version__
from harness.dataset.contributions.bundle import Bundle
from harness.dataset.contributions.comparing import Comparison
from harness.dataset.contributions.decoding import Decode, decode_apart
from harness.dataset.contributions.inspecting import Inspection, Validate, inspect
from harness.dataset.contributions.merging import Merged, merge, tidy, words_of
from harness.dataset.contributions.objections import Objection
from harness.dataset.contributions.opening import OpenedBundle, open_bundle
from harness.dataset.disk import Disk, refusals, write_text
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.release.record import RECORD, Change, ReleaseRecord, read_record, record_text
from harness.dataset.release.terms import Inclusion, in_order
from harness.dataset.release.version import Version, check_step
from harness.dataset.validation.findings import Finding
from harness.errors import FolderBusy
from harness.records import RunRow

_SMALL_BYTES = 1024**2
_NAMED_DIGITS = 12  # of a bundle's hash, by which the change log names it
_ALREADY = frozenset({"repeated run"})  # what a bundle that is in already breaks, and only that
WriteDocuments = Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a bundle is taken."""

    include: frozenset[str] = frozenset()  # simulated, quick: for rehearsals
    override: str | None = None  # why a maintainer takes what is far from comparable runs
    version: str | None = None  # of the release with the new rows; None: the next minor one
    today: date
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What became of a bundle."""

    bundle: Bundle
    sha256: str
    refused: tuple[Objection, ...]  # empty: it is taken
    overridden: tuple[Objection, ...]
    warnings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    already: bool  # its runs were in the release before
    merged: Merged | None  # None: nothing was written
    version: str | None  # of the release now


def accept(
    path: Path,
    release: Path,
    terms: Terms,
    *,
    decode: Decode = decode_apart,
    validate: Validate | None = None,
    write_documents: WriteDocuments | None = None,
    disk: Disk | None = None,
) -> Acceptance:
    """Take a bundle into a release, or say why not.

    Raises ``CorruptFile`` for a file that is no bundle, ``NewerSchema``, ``DatasetError`` for a folder that is no
    release, ``UsageError`` for a version that cannot follow, ``FolderBusy`` and ``CannotWrite``. The release holds all
    rows of the bundle or none.
    """
    disk = disk or Disk()
    with _alone(release), tempfile.TemporaryDirectory(prefix="joulegraph-") as folder:
        record = read_record(release)
        if not terms.dry_run:
            tidy(release, disk)
        there = open_dataset(release)
        given = open_bundle(path, Path(folder), decode)
        found = inspect(given, there, include=terms.include, validate=validate)
        acceptance = _judged(given, found, record, terms, already=_is_in(found, there))
        if acceptance.refused or terms.dry_run:
            return acceptance
        told = acceptance.already and _is_told(record, acceptance, there)
        return _taken(given, release, acceptance, record, terms, disk, write_documents or _write_documents, told=told)


def _taken(
    given: OpenedBundle,
    release: Path,
    acceptance: Acceptance,
    record: ReleaseRecord,
    terms: Terms,
    disk: Disk,
    write_documents: WriteDocuments,
    *,
    told: bool,
) -> Acceptance:
    """Rows, then the record, then the documents; what an earlier try has done of it is not done again."""
    version = record.version if told else _version(record, terms)
    merged = None if acceptance.already else merge(given.dataset, release, given.sha256[:32], disk)
    with refusals(disk, release, _SMALL_BYTES):
        if not told:
            write_text(disk, release / RECORD, record_text(_continued(record, acceptance, version, terms)))
        write_documents(release)  # also where nothing is new: an earlier try may have ended before
    return replace(acceptance, merged=merged, version=version)


def _judged(
    given: OpenedBundle, found: Inspection, record: ReleaseRecord, terms: Terms, *, already: bool
) -> Acceptance:
    objections = [*found.objections, *_words_missing(found.runs, record)]
    if already:
        objections = [each for each in objections if each.rule not in _ALREADY]
    overridden = [each for each in objections if each.overridable and terms.override is not None]
    return Acceptance(
        bundle=given.bundle,
        sha256=given.sha256,
        refused=tuple(each for each in objections if each not in overridden),
        overridden=tuple(overridden),
        warnings=found.warnings,
        comparisons=found.comparisons,
        already=already,
        merged=None,
        version=None,
    )


def _words_missing(runs: tuple[RunRow, ...], record: ReleaseRecord) -> Iterator[Objection]:
    """A release says in its title what it holds beside measurements; nothing else slips in."""
    needed: set[Inclusion] = set().union(*(words_of(run) for run in runs)) - set(record.included)
    if needed:
        words = ",".join(in_order(needed))
        yield Objection(
            rule="kind of release",
            reason=f"release {record.version} holds no {words} runs",
            remedy=f"Take it into one that was made with --include {words} and says so in its title.",
        )


def _is_in(found: Inspection, there: Dataset) -> bool:
    """Whether the release holds all of these runs, as they are here: a merge was interrupted, or asked for again."""
    ids = {run.run_id for run in found.runs}
    held = {run.run_id: run for run in there.rows(RunRow) if run.run_id in ids}
    return all(held.get(run.run_id) == run for run in found.runs)


def _is_told(record: ReleaseRecord, acceptance: Acceptance, there: Dataset) -> bool:
    """Whether the change log tells of these runs.

    It does where it names the bundle, and where it tells of all runs that the lab has in the release: then this is
    another file with runs that came in before, and nothing is added.
    """
    lab = acceptance.bundle.lab
    lines = [line for change in record.changes for line in change.lines]
    if any(acceptance.sha256[:_NAMED_DIGITS] in line for line in lines):
        return True
    form = re.compile(rf".*: (\d+) runs of {re.escape(lab)} \(bundle [0-9a-f]{{{_NAMED_DIGITS}}}\)\.")
    told = sum(int(match[1]) for line in lines if (match := form.fullmatch(line)) is not None)
    return told >= sum(run.lab == lab for run in there.rows(RunRow))


def _version(record: ReleaseRecord, terms: Terms) -> str:
    old = Version.read(record.version)
    new = Version(old.major, old.minor + 1, 0) if terms.version is None else Version.read(terms.version)
    check_step(old, new, rows_added=True)
    return str(new)


def _continued(record: ReleaseRecord, acceptance: Acceptance, version: str, terms: Terms) -> ReleaseRecord:
    bundle, day = acceptance.bundle, terms.today.isoformat()
    runs = next(file.rows for file in bundle.files if file.table.title == "runs")
    line = f"Added on {bundle.gpu}: {runs} runs of {bundle.lab} (bundle {acceptance.sha256[:_NAMED_DIGITS]})."
    lines = [line, *(f"Taken although {each.reason}. Why: {terms.override}" for each in acceptance.overridden)]
    return replace(
        record,
        version=version,
        date=day,
        harness=__version__,
        previous=record.version,
        changes=(Change(version=version, date=day, lines=tuple(lines)), *record.changes),
    )


def _write_documents(release: Path) -> None:
    from harness.dataset.release.documents import write_documents

    write_documents(release)


@contextmanager
def _alone(release: Path) -> Iterator[None]:
    """One process at a time; the lock is on the folder itself and ends with the process."""
    read_record(release)  # says what is wrong with a folder that is no release
    descriptor = os.open(release, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise FolderBusy(f"Another bundle is being taken into {release}.\nWait until that is done.") from error
    finally:
        os.close(descriptor)
