"""Records of dataclasses as canonical JSON, and back from texts that nobody vouches for."""

import json
import math
import types
import typing
from dataclasses import asdict, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar

from harness.errors import CorruptFile

_REMEDY = "Name a file that `python -m harness.calibrate --out FILE` wrote, or write it again."
_MOST_ENTRIES = 10_000
_LONGEST_TEXT = 10_000
_LARGEST = 1e15

Record = TypeVar("Record")


def to_text(record: Any) -> str:
    """Canonical JSON of a dataclass: sorted keys, no spaces, no NaN (``ValueError``)."""
    return json.dumps(asdict(record), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def read_record(kind: type[Record], text: str, name: str) -> Record:
    """A record from its JSON; every key is checked, and ``CorruptFile`` names the one that is wrong."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{name} is no valid JSON: {error}.\n{_REMEDY}") from error
    found: Record = _record(kind, content, name)
    return found


def _record(kind: Any, content: object, place: str) -> Any:
    if not isinstance(content, dict):
        raise _wrong(place, content, "an object")
    known = {field.name: field for field in fields(kind)}
    if extra := sorted(set(content) - set(known)):
        raise CorruptFile(f"{place} has the key {extra[0][:80]!r}, which is not known.\nThe keys: {', '.join(known)}.")
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{place}: {key}") for key, value in content.items()}
    try:
        return kind(**values)
    except TypeError as error:
        missing = [key for key in known if key not in content]
        raise CorruptFile(f"{place} lacks {', '.join(missing)}.\n{_REMEDY}") from error


def _value(kind: Any, value: object, place: str) -> object:
    if isinstance(kind, types.UnionType):
        if value is None and type(None) in kind.__args__:
            return None
        (kind,) = (each for each in kind.__args__ if each is not type(None))
    if typing.get_origin(kind) is tuple:
        return _entries(typing.get_args(kind)[0], value, place)
    if is_dataclass(kind):
        return _record(kind, value, place)
    if kind is float:
        return _number(value, place)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in [each.value for each in kind]:
            raise _wrong(place, value, f"one of {', '.join(kind)}")
        return kind(value)
    if type(value) is not kind or (kind is str and len(str(value)) > _LONGEST_TEXT):
        raise _wrong(place, value, {str: "a text", int: "a whole number", bool: "true or false"}[kind])
    if kind is int and abs(typing.cast("int", value)) > _LARGEST:
        raise _wrong(place, value, "a number of a size that occurs")
    return value


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(place, value, "a number")
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise _wrong(place, value, "a number of a size that occurs")
    return float(value)


def _entries(kind: Any, value: object, place: str) -> tuple[object, ...]:
    if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
        raise _wrong(place, value, "a list")
    return tuple(_value(kind, each, f"{place} {index}") for index, each in enumerate(value))


def _wrong(place: str, value: object, wanted: str) -> CorruptFile:
    return CorruptFile(f"{place} is {str(value)[:80]!r}, and not {wanted}.\n{_REMEDY}")
