"""The files of a folder before anything in them is read: which there are, what they claim, what the manifest says."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from harness.dataset.files import check_file, file_sha256
from harness.dataset.layout import BULK, COMPACTED, PART
from harness.dataset.manifest import MANIFEST, ListedFile, Manifest, read_manifest
from harness.dataset.schema import Table
from harness.dataset.validation.findings import Finding, Severity
from harness.dataset.validation.limits import Limits
from harness.dataset.validation.rules import Rule
from harness.errors import CorruptFile, DatasetError, NewerSchema

_OWN_NAME = re.compile(rf"({PART}|{BULK}|{COMPACTED})[A-Za-z0-9_.-]+\.parquet")
_TEMPORARY = ".parquet.tmp"
_GONE = "it is listed and not there"
_TAIL_BYTES = 8  # of a Parquet file: length of the footer, PAR1

DAMAGED = Rule(
    name="file-damaged",
    severity=Severity.ERROR,
    checks="A data file is intact Parquet with the columns of its table.",
    remedy="Restore it from a copy of the dataset.",
)
NEWER = Rule(
    name="newer-schema",
    severity=Severity.ERROR,
    checks="Files are of a schema version that this harness knows.",
    remedy="Update the harness.",
)
TOO_LARGE = Rule(
    name="file-too-large",
    severity=Severity.ERROR,
    checks="Files, row groups and tables are of a size that can be read here: nothing of them is read before that is "
    "known.",
    tolerance="the limits of harness.dataset.validation.limits, or those of who accepts a bundle",
    remedy="Write smaller files and row groups, or fewer rows.",
)
IRREGULAR = Rule(
    name="file-irregular",
    severity=Severity.ERROR,
    checks="Data files are ordinary files.",
    remedy="Put the file itself where the device, pipe or folder is.",
)
LINKED = Rule(
    name="file-linked",
    severity=Severity.WARNING,
    checks="Data files are in the folder, not links out of it.",
    remedy="Copy the file to where the link is.",
)
UNKNOWN = Rule(
    name="file-unknown",
    severity=Severity.NOTE,
    checks="Everything under data/ belongs to the dataset.",
    remedy="Remove what does not belong there; it is not read.",
)
MANIFEST_DAMAGED = Rule(
    name="manifest-damaged",
    severity=Severity.ERROR,
    checks="manifest.json can be read, and explains the files that are there.",
    remedy="Restore it from a copy of the dataset.",
)
MANIFEST_CONTRADICTED = Rule(
    name="manifest-contradicted",
    severity=Severity.ERROR,
    checks="A file that the manifest lists is there, with the size, the rows and the sha256 that it states.",
    remedy="Restore the file from a copy; if it was changed on purpose, write the dataset anew.",
)
NOT_CLOSED = Rule(
    name="dataset-not-closed",
    severity=Severity.NOTE,
    checks="The manifest covers every file that counts.",
    remedy="Let the campaign finish (run the same command again): it writes the manifest last.",
)
NOT_ASKED = Rule(
    name="rules-not-asked",
    severity=Severity.NOTE,
    checks="All files that count can be read, so that all rules can be asked.",
    remedy="Mend what is said of the files, then validate again.",
)
NOT_COMPUTED = Rule(
    name="number-out-of-range",
    severity=Severity.ERROR,
    checks="Numbers are small enough to compute with.",
    remedy="Look for the number that no count or time can be, among those that other rules name.",
)
FILE_RULES = (
    DAMAGED,
    NEWER,
    TOO_LARGE,
    IRREGULAR,
    LINKED,
    MANIFEST_DAMAGED,
    MANIFEST_CONTRADICTED,
    UNKNOWN,
    NOT_CLOSED,
    NOT_ASKED,
    NOT_COMPUTED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A file that can be read as far as its footer tells."""

    table: Table
    name: str  # inside the folder, with forward slashes
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedThrough:
    """What a folder holds."""

    files: tuple[DataFile, ...]  # that can be read, as far as footers tell
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether every file that may count is among them."""
        lacking = {DAMAGED.name, NEWER.name, TOO_LARGE.name, IRREGULAR.name, MANIFEST_DAMAGED.name}
        return not any(finding.rule in lacking or finding.reason == _GONE for finding in self.findings)


def look_through(folder: Path, limits: Limits) -> LookedThrough:
    """Look at the names, sizes and footers of all data files, and at what the manifest says of them.

    Raises ``DatasetError`` where the folder cannot be read, or holds no data file and no manifest.
    """
    findings: list[Finding] = []
    files: list[DataFile] = []
    for table, path in _candidates(folder, limits, findings):
        file = _data_file(folder, table, path, limits, findings)
        if file is not None:
            files.append(file)
    oversized = _too_many_rows(files, limits)
    findings += oversized
    files = [file for file in files if file.table not in {finding.table for finding in oversized}]
    manifest, told = _manifest(folder)
    findings += told
    if not files and not findings and manifest is None:
        raise DatasetError(
            f"{folder} holds no dataset: it has no manifest.json and no data file.\n"
            f"Check the path; `python -m harness.run --out {folder}` makes one."
        )
    if manifest is not None:
        findings += _contradicted(folder, manifest, files)
    return LookedThrough(files=tuple(files), findings=tuple(findings))


def file_finding(
    rule: Rule, name: str | None, reason: str, *, table: Table | None = None, column: str | None = None
) -> Finding:
    """A finding about a file as a whole."""
    return Finding(
        severity=rule.severity,
        rule=rule.name,
        table=table,
        file=name,
        row=None,
        column=column,
        value=None,
        reason=reason,
        remedy=rule.remedy,
        count=1,
    )


def _candidates(folder: Path, limits: Limits, findings: list[Finding]) -> Iterator[tuple[Table, Path]]:
    seen = 0
    for table in Table:
        for path in _entries(folder / "data" / table.title):
            seen += 1
            if seen > limits.files:
                reason = f"more than {limits.files} files"
                findings.append(file_finding(TOO_LARGE, f"data/{table.title}", reason, table=table))
                return
            if _OWN_NAME.fullmatch(path.name):
                yield table, path
            elif not path.name.endswith(_TEMPORARY):  # a crash leaves those, and a campaign that goes on removes them
                findings.append(file_finding(UNKNOWN, _name(folder, path), "it is no file of the table", table=table))


def _entries(home: Path) -> list[Path]:
    try:
        return sorted(home.iterdir()) if home.is_dir() else []
    except OSError as error:
        raise DatasetError(f"{home} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _data_file(folder: Path, table: Table, path: Path, limits: Limits, findings: list[Finding]) -> DataFile | None:
    name = _name(folder, path)
    if not path.is_file():
        findings.append(file_finding(IRREGULAR, name, "it is no ordinary file", table=table))
        return None
    if path.is_symlink():
        findings.append(file_finding(LINKED, name, "it is a link", table=table))
    try:
        problem = _too_large(path, limits)
        if problem is None:
            check_file(path, table)
            problem, rows = _claims_too_much(path, limits)
    except NewerSchema as error:
        findings.append(file_finding(NEWER, name, _first_line(error, path), table=table))
        return None
    except DatasetError as error:
        findings.append(file_finding(DAMAGED, name, _first_line(error, path), table=table))
        return None
    if problem is not None:
        findings.append(file_finding(TOO_LARGE, name, problem, table=table))
        return None
    return DataFile(table=table, name=name, rows=rows)


def _first_line(error: Exception, path: Path) -> str:
    """What happened; the path is in the finding already."""
    return str(error).splitlines()[0].replace(f"{path} ", "").rstrip(".")


def _too_large(path: Path, limits: Limits) -> str | None:
    """What is too large about a file, before a reader of Parquet sees it."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size_bytes - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error
    footer_bytes = int.from_bytes(tail[:4], "little")
    if size_bytes > limits.file_bytes:
        return f"{size_bytes} bytes, and at most {limits.file_bytes} are read"
    if tail.endswith(b"PAR1") and footer_bytes > limits.footer_bytes:
        return f"a footer of {footer_bytes} bytes, and at most {limits.footer_bytes} are read"
    return None


def _claims_too_much(path: Path, limits: Limits) -> tuple[str | None, int]:
    """What is too much in a footer that could be read, and its rows."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(min(metadata.num_row_groups, limits.row_groups))]
    largest_bytes = max((group.total_byte_size for group in groups), default=0)
    rows = sum(group.num_rows for group in groups)
    if metadata.num_row_groups > limits.row_groups:
        return f"{metadata.num_row_groups} row groups, and at most {limits.row_groups} are read", rows
    if largest_bytes > limits.row_group_bytes or any(group.total_byte_size < 0 for group in groups):
        return f"a row group of {largest_bytes} bytes, and at most {limits.row_group_bytes} are read", rows
    if rows != metadata.num_rows:
        return f"its footer states {metadata.num_rows} rows, and its row groups {rows}", rows
    if sum(group.total_byte_size for group in groups) > limits.table_bytes:
        return f"more than {limits.table_bytes} bytes uncompressed", rows
    return None, rows


def _too_many_rows(files: list[DataFile], limits: Limits) -> list[Finding]:
    counts = {table: sum(file.rows for file in files if file.table is table) for table in Table}
    return [
        file_finding(
            TOO_LARGE,
            f"data/{table.title}",
            f"{rows} rows, and at most {limits.table_rows} are read",
            table=table,
        )
        for table, rows in counts.items()
        if rows > limits.table_rows
    ]


def _manifest(folder: Path) -> tuple[Manifest | None, tuple[Finding, ...]]:
    try:
        return read_manifest(folder), ()
    except NewerSchema as error:
        return None, (file_finding(NEWER, MANIFEST, _first_line(error, folder / MANIFEST)),)
    except CorruptFile as error:
        return None, (file_finding(MANIFEST_DAMAGED, MANIFEST, _first_line(error, folder / MANIFEST)),)


def _contradicted(folder: Path, manifest: Manifest, files: list[DataFile]) -> Iterator[Finding]:
    known = {file.name: file for file in files}
    for listed in manifest.files:
        contradiction = _contradiction(folder, listed, known.get(listed.path))
        if contradiction is not None:
            yield replace(contradiction, table=listed.table)


def _contradiction(folder: Path, listed: ListedFile, file: DataFile | None) -> Finding | None:
    path = folder / listed.path
    if not path.is_file():
        return file_finding(MANIFEST_CONTRADICTED, listed.path, _GONE)
    if file is None:  # what is wrong with it has been said
        return None
    size_bytes = path.stat().st_size
    if size_bytes != listed.size_bytes:
        reason = f"it has {size_bytes} bytes, and {listed.size_bytes} are stated"
        return file_finding(MANIFEST_CONTRADICTED, listed.path, reason, column="bytes")
    if file.rows != listed.rows:
        reason = f"it has {file.rows} rows, and {listed.rows} are stated"
        return file_finding(MANIFEST_CONTRADICTED, listed.path, reason, column="rows")
    if file_sha256(path) != listed.sha256:
        return file_finding(MANIFEST_CONTRADICTED, listed.path, "its sha256 is not the one stated", column="sha256")
    return None
