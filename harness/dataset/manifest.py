"""``manifest.json``: which files make up the dataset. It is written last, and what it does not list does not count."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.dataset.files import newer_schema
from harness.dataset.schema import Table
from harness.errors import CorruptFile, DatasetError
from harness.records import SCHEMA_VERSION

MANIFEST = "manifest.json"
_LARGEST_BYTES = 16 * 1024**2
_KEYS = ("schema_version", "campaign_id", "harness", "created_utc", "files")
_FILE_KEYS = ("table", "path", "sha256", "bytes", "rows")
_TABLES = {table.title: table for table in Table}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """One Parquet file of the dataset."""

    table: Table
    path: str  # inside the dataset folder, with forward slashes
    sha256: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the dataset consists of."""

    schema_version: int
    campaign_id: str | None  # null: runs of several campaigns
    harness: str  # version that wrote it
    created_utc: str
    files: tuple[ListedFile, ...]

    def files_of(self, table: Table) -> tuple[ListedFile, ...]:
        """Files of one table, in order."""
        return tuple(file for file in self.files if file.table is table)


def read_manifest(folder: Path) -> Manifest | None:
    """Manifest of a dataset folder; None while there is none yet.

    Raises ``CorruptFile``, ``NewerSchema``, and ``DatasetError`` where it may not be read.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Read a manifest; raises ``CorruptFile`` naming ``path``, or ``NewerSchema``."""
    if len(content) > _LARGEST_BYTES:
        raise _corrupt(path, f"it is larger than {_LARGEST_BYTES} bytes")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"it is no JSON: {error}") from error
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise newer_schema(path, version)
    try:
        return _manifest(fields)
    except ValueError as error:
        raise _corrupt(path, str(error)) from error


def manifest_text(manifest: Manifest) -> str:
    """Inverse of ``parse_manifest``."""
    files = [
        {
            "table": file.table.title,
            "path": file.path,
            "sha256": file.sha256,
            "bytes": file.size_bytes,
            "rows": file.rows,
        }
        for file in manifest.files
    ]
    fields = {
        "schema_version": manifest.schema_version,
        "campaign_id": manifest.campaign_id,
        "harness": manifest.harness,
        "created_utc": manifest.created_utc,
        "files": files,
    }
    return json.dumps(fields, indent=1) + "\n"


def _corrupt(path: Path, why: str) -> CorruptFile:
    return CorruptFile(
        f"{path} is no manifest of a dataset: {why}.\n"
        f"Restore it from a copy. It lists which files under data/ belong to the dataset, with their hashes; "
        f"those files are untouched and can be read one by one with any Parquet reader."
    )


def _manifest(fields: Any) -> Manifest:
    _expect_keys(fields, _KEYS, "the manifest")
    entries: list[Any] = _typed(fields, "files", list)
    files = tuple(_listed_file(entry) for entry in entries)
    if len({file.path for file in files}) < len(files):
        raise ValueError("a file is listed twice")
    version = _count(fields, "schema_version")
    if version < 1:
        raise ValueError("schema_version is less than 1")
    return Manifest(
        schema_version=version,
        campaign_id=None if fields["campaign_id"] is None else _typed(fields, "campaign_id", str),
        harness=_typed(fields, "harness", str),
        created_utc=_typed(fields, "created_utc", str),
        files=files,
    )


def _listed_file(entry: Any) -> ListedFile:
    _expect_keys(entry, _FILE_KEYS, "an entry of files")
    table = _TABLES.get(_typed(entry, "table", str))
    if table is None:
        raise ValueError(f"{entry['table']!r} is none of the tables {', '.join(_TABLES)}")
    sha256 = _matching(entry, "sha256", r"[0-9a-f]{64}")
    # The folder is fixed and the name has no separator: a manifest cannot point outside the dataset.
    path = _matching(entry, "path", rf"data/{table.title}/data-[A-Za-z0-9_-]+\.parquet")
    size_bytes, rows = _count(entry, "bytes"), _count(entry, "rows")
    return ListedFile(table=table, path=path, sha256=sha256, size_bytes=size_bytes, rows=rows)


def _expect_keys(fields: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(fields, dict):
        raise ValueError(f"{what} is no JSON object")
    if wrong := sorted(set(fields) ^ set(keys)):
        raise ValueError(f"missing or unknown keys in {what}: {', '.join(wrong)}")


def _typed(fields: dict[str, Any], key: str, wanted: Callable[..., T]) -> T:
    value = fields[key]
    if type(value) is not wanted:
        raise ValueError(f"{key} is {value!r}")
    return value  # type: ignore[no-any-return]


def _count(fields: dict[str, Any], key: str) -> int:
    value = _typed(fields, key, int)
    if not 0 <= value < 2**63:
        raise ValueError(f"{key} is {value}")
    return value


def _matching(fields: dict[str, Any], key: str, pattern: str) -> str:
    value = _typed(fields, key, str)
    if re.fullmatch(pattern, value) is None:
        raise ValueError(f"{key} is {value!r}")
    return value
