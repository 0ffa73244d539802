"""``release.json``: what a release says of itself that its tables do not."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from harness.dataset.release.terms import Inclusion, in_order
from harness.dataset.release.version import Version
from harness.errors import CorruptFile, DatasetError, UsageError

RECORD = "release.json"
_FORMAT = 1
_LARGEST_BYTES = 1024**2
_KEYS = ("format", "version", "date", "harness", "url", "previous", "included", "left_out", "changes")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Runs of the dataset folders that are not in the release, and the words that would have brought them in."""

    needs: tuple[Inclusion, ...]
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one version brought."""

    version: str
    date: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """What ``release.json`` holds."""

    version: str
    date: str  # ISO 8601, the day
    harness: str  # version that made it
    url: str | None  # where it is published; null: not said
    previous: str | None  # version it continues
    included: tuple[Inclusion, ...]  # what was asked for by name; more than the rows need, perhaps
    left_out: tuple[LeftOut, ...]
    changes: tuple[Change, ...]  # the newest first


def read_record(folder: Path) -> ReleaseRecord:
    """Read the record of a release folder; raises ``CorruptFile``, and ``DatasetError`` where there is none."""
    path = folder / RECORD
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder} is no release: it has no {RECORD}.\n"
            f"`python -m harness.release {folder} --version 1.0.0` makes one of a dataset folder."
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error
    try:
        if len(content) > _LARGEST_BYTES:
            raise ValueError(f"it is larger than {_LARGEST_BYTES} bytes")
        return _record(json.loads(content))
    except (ValueError, RecursionError, UsageError) as error:
        raise CorruptFile(
            f"{path} is no record of a release: {str(error).splitlines()[0]}.\n"
            "Restore it from a copy of the release; the tables are untouched."
        ) from error


def record_text(record: ReleaseRecord) -> str:
    """Inverse of ``read_record``."""
    fields = {
        "format": _FORMAT,
        "version": record.version,
        "date": record.date,
        "harness": record.harness,
        "url": record.url,
        "previous": record.previous,
        "included": [str(word) for word in record.included],
        "left_out": [{"needs": [str(word) for word in left.needs], "runs": left.runs} for left in record.left_out],
        "changes": [{"version": at.version, "date": at.date, "lines": list(at.lines)} for at in record.changes],
    }
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def _record(fields: Any) -> ReleaseRecord:
    _expect_keys(fields, _KEYS, "the record")
    if fields["format"] != _FORMAT:
        raise ValueError(f"format is {fields['format']!r}, and this harness reads {_FORMAT}")
    left_out: list[Any] = _typed(fields, "left_out", list)
    changes: list[Any] = _typed(fields, "changes", list)
    return ReleaseRecord(
        version=_version(fields, "version"),
        date=_day(fields, "date"),
        harness=_typed(fields, "harness", str),
        url=None if fields["url"] is None else checked_url(_typed(fields, "url", str)),
        previous=None if fields["previous"] is None else _version(fields, "previous"),
        included=_inclusions(fields, "included"),
        left_out=tuple(_left_out(entry) for entry in left_out),
        changes=tuple(_change(entry) for entry in changes),
    )


def checked_url(text: str) -> str:
    """A web address that can stand in every document as it is; raises ``UsageError``."""
    if len(text) > 500 or re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&*+,;=%-]+", text) is None:
        raise UsageError(
            f"{text[:80]!r} is no web address.\nWrite it in full: https://huggingface.co/datasets/me/energy"
        )
    return text


def _left_out(entry: Any) -> LeftOut:
    _expect_keys(entry, ("needs", "runs"), "an entry of left_out")
    runs: int = _typed(entry, "runs", int)
    return LeftOut(needs=_inclusions(entry, "needs"), runs=runs)


def _change(entry: Any) -> Change:
    _expect_keys(entry, ("version", "date", "lines"), "an entry of changes")
    lines: list[Any] = _typed(entry, "lines", list)
    if not all(type(line) is str for line in lines):
        raise ValueError("lines holds what is no text")
    return Change(version=_version(entry, "version"), date=_day(entry, "date"), lines=tuple(lines))


def _inclusions(fields: dict[str, Any], key: str) -> tuple[Inclusion, ...]:
    words: list[Any] = _typed(fields, key, list)
    return in_order(Inclusion(word) for word in words)


def _version(fields: dict[str, Any], key: str) -> str:
    return str(Version.read(_typed(fields, key, str)))


def _day(fields: dict[str, Any], key: str) -> str:
    return date.fromisoformat(_typed(fields, key, str)).isoformat()


def _typed(fields: dict[str, Any], key: str, wanted: Callable[..., T]) -> T:
    value = fields[key]
    if type(value) is not wanted:
        raise ValueError(f"{key} is {str(value)[:40]!r}")
    return value  # type: ignore[no-any-return]


def _expect_keys(fields: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(fields, dict):
        raise ValueError(f"{what} is no JSON object")
    if wrong := sorted(set(fields) ^ set(keys)):
        raise ValueError(f"missing or unknown keys in {what}: {', '.join(map(str, wrong[:5]))}")
