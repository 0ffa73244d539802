"""What a bundle is: one ZIP (see ``archive``) with ``bundle.json`` first, then one Parquet file per table.

    bundle.json             who gives what: lab, GPU, licence; and of each file its hash, bytes and rows
    data/runs.parquet       rows of ``runs``, in the columns of the schema
    data/<table>.parquet    the same for every other table that has rows

``bundle.json`` is canonical: reading and writing it again gives the same bytes, so no key is there twice and no number
is written in two ways.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.dataset.schema import Table
from harness.errors import NewerSchema
from harness.records import SCHEMA_VERSION

BUNDLE_VERSION = 1
# History of the format. A reader of version N reads every version ≤ N.
#   1 (2026-11-30)  first version: bundle.json, data/<table>.parquet; stored, canonical, at most 256 MiB

HEADER = "bundle.json"
LICENCE = "CC-BY-4.0"
STATEMENT = (
    "The measurements in this file were made by the lab named here, which publishes them under CC-BY-4.0. "
    "Host names, user names, paths, addresses and serial numbers were removed, device ids hashed."
)
MAX_BUNDLE_BYTES = 256 * 1024**2
MAX_HEADER_BYTES = 64 * 1024
MAX_ROWS: Mapping[Table, int] = {
    Table.RUNS: 20_000,
    Table.PHASES: 40_000,
    Table.KERNELS: 20_000_000,
    Table.KERNEL_ENERGIES: 60_000_000,
    Table.GRAPHS: 40_000,
    Table.READINGS: 20_000_000,
    Table.RANK_TIMES: 20_000_000,
    Table.POWER_TRACES: 50_000_000,
    Table.ENVIRONMENTS: 1_000,
    Table.SOURCES: 16,
}
LAB = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
LAB_FORM = "2 to 40 of the characters a-z, 0-9 and -, such as green-lab"
_KEYS = (
    "bundle_version",
    "schema_version",
    "harness",
    "lab",
    "contact",
    "gpu",
    "created_utc",
    "licence",
    "statement",
    "files",
)
_FILE_KEYS = ("table", "sha256", "bytes", "rows")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", re.ASCII)


class BadHeader(ValueError):
    """A ``bundle.json`` that is not what it should be; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFile:
    """One table of a bundle."""

    table: Table
    sha256: str
    size_bytes: int
    rows: int

    @property
    def name(self) -> str:
        """Its name in the archive."""
        return member_name(self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What ``bundle.json`` says."""

    schema_version: int = SCHEMA_VERSION
    harness: str  # version that wrote it
    lab: str
    contact: str | None  # how to reach the lab, where it wants to be reached
    gpu: str  # as in ``runs``; a bundle is of one device
    created_utc: str  # when its last run was started: equal runs make equal bundles
    files: tuple[BundledFile, ...]

    def rows_of(self, table: Table) -> int:
        """Rows of a table; 0 where the bundle has none."""
        return sum(file.rows for file in self.files if file.table is table)


def member_name(table: Table) -> str:
    """Name of a table's file in the archive."""
    return f"data/{table.title}.parquet"


def member_names() -> tuple[str, ...]:
    """Every name that a bundle may hold."""
    return (HEADER, *map(member_name, Table))


def is_lab(text: str) -> bool:
    """Whether a text can be the name of a lab."""
    return len(text) > 1 and LAB.fullmatch(text) is not None and "--" not in text


def gpu_slug(gpu: str) -> str:
    """A device's name as part of a file name.

    >>> gpu_slug("NVIDIA A100-SXM4-80GB")
    'nvidia-a100-sxm4-80gb'
    """
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")[:60] or "device"


def header_text(bundle: Bundle) -> str:
    """Inverse of ``parse_header``."""
    files = [
        {"table": file.table.title, "sha256": file.sha256, "bytes": file.size_bytes, "rows": file.rows}
        for file in bundle.files
    ]
    fields = {
        "bundle_version": BUNDLE_VERSION,
        "schema_version": bundle.schema_version,
        "harness": bundle.harness,
        "lab": bundle.lab,
        "contact": bundle.contact,
        "gpu": bundle.gpu,
        "created_utc": bundle.created_utc,
        "licence": LICENCE,
        "statement": STATEMENT,
        "files": files,
    }
    return json.dumps(fields, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def parse_header(content: bytes) -> Bundle:
    """Read ``bundle.json``; raises ``BadHeader`` and ``NewerSchema``."""
    if len(content) > MAX_HEADER_BYTES:
        raise BadHeader(f"it has more than {MAX_HEADER_BYTES} bytes")
    try:
        text = content.decode("ascii")
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"it is no JSON in ASCII: {error}") from error
    _refuse_newer(fields)
    bundle = _bundle(fields)
    if header_text(bundle) != text:
        raise BadHeader("it is not written as a bundle's header is: licence, statement, order of keys or spaces differ")
    return bundle


def _refuse_newer(fields: Any) -> None:
    if not isinstance(fields, dict):
        raise BadHeader("it is no JSON object")
    version, schema = fields.get("bundle_version"), fields.get("schema_version")
    if type(version) is not int or type(schema) is not int or version < 1 or schema < 1:
        raise BadHeader("it states no version")
    if version > BUNDLE_VERSION or schema > SCHEMA_VERSION:
        raise NewerSchema(
            f"The bundle is of version {version}, its schema of version {schema}; this harness reads bundles up to "
            f"{BUNDLE_VERSION} and schemas up to {SCHEMA_VERSION}.\nUpdate the harness (git pull in its clone)."
        )


def _bundle(fields: dict[str, Any]) -> Bundle:
    if set(fields) != set(_KEYS):
        raise BadHeader(f"missing or unknown keys: {', '.join(sorted(set(fields) ^ set(_KEYS)))[:200]}")
    texts = {key: _text(fields[key], key, 200) for key in ("harness", "lab", "gpu", "created_utc")}
    contact = None if fields["contact"] is None else _text(fields["contact"], "contact", 200)
    if not is_lab(texts["lab"]):
        raise BadHeader(f"lab {texts['lab']!r} is no name of a lab: {LAB_FORM}")
    if _UTC.fullmatch(texts["created_utc"]) is None:
        raise BadHeader("created_utc is no time in UTC")
    files = fields["files"]
    if not isinstance(files, list) or len(files) > len(Table):
        raise BadHeader("files is no list of tables")
    listed = tuple(_file(entry) for entry in files)
    if [file.table for file in listed] != [table for table in Table if table in {file.table for file in listed}]:
        raise BadHeader("a table is listed twice, or the tables are not in order")
    return Bundle(schema_version=fields["schema_version"], contact=contact, files=listed, **texts)


def _file(entry: Any) -> BundledFile:
    if not isinstance(entry, dict) or set(entry) != set(_FILE_KEYS):
        raise BadHeader(f"an entry of files has other keys than {', '.join(_FILE_KEYS)}")
    table = next((table for table in Table if table.title == entry["table"]), None)
    if table is None:
        raise BadHeader("files names a table that there is not")
    sha256 = _text(entry["sha256"], "sha256", 64)
    if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise BadHeader(f"sha256 of {table.title} is no hash")
    size_bytes = _count(entry["bytes"], f"bytes of {table.title}", MAX_BUNDLE_BYTES)
    rows = _count(entry["rows"], f"rows of {table.title}", MAX_ROWS[table])
    return BundledFile(table=table, sha256=sha256, size_bytes=size_bytes, rows=rows)


def _text(value: Any, key: str, longest: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable() or not value.isascii():
        raise BadHeader(f"{key} is no short text in ASCII")
    return value


def _count(value: Any, key: str, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise BadHeader(f"{key} is not a whole number from 1 to {most}")
    return value
