"""The fields of a plan: what each accepts, and errors that say what would have been right.

A field is an annotation such as ``Annotated[int, Option(...)]``. ``read_value`` checks and normalises one value,
whether it comes from a plan file, the command line or Python, so the three cannot disagree.
"""

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError
from harness.units import parse_duration_s

MAX_LIST = 10_000  # entries of one list; beyond it a plan is a mistake
MAX_TEXT = 4096  # characters, the longest path on Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What help and error messages say about a field."""

    text: str
    group: str
    flag: str | None = None  # where it is not the field's name
    metavar: str | None = None
    at_least: int = 1
    at_most: int = 2**31 - 1
    used_by: tuple[str, ...] = ()  # values of `sampling` under which it acts; empty: always


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a plan with its type and its option."""

    name: str
    kind: object  # the type: int, tuple[int, ...], Literal[...], ...
    option: Option
    default: object

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return self.option.flag or "--" + self.name.replace("_", "-")

    @property
    def item_kind(self) -> object | None:
        """The type of the entries of a list; ``None`` if the field is no list."""
        return typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is tuple else None

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words; empty if any text or number will do."""
        if typing.get_origin(self.kind) is typing.Literal:
            return typing.get_args(self.kind)
        if isinstance(self.kind, type) and issubclass(self.kind, StrEnum):
            return tuple(member.value for member in self.kind)
        return ()

    def error(self, problem: str, remedy: str) -> UsageError:
        """An error about this field, under both of its names."""
        return UsageError(f"{self.name} ({self.flag}): {problem}.\n{remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpec:
    """A request of a list: everything but the model and the dtype."""

    batch_size: int
    prompt_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"{self.batch_size}x{self.prompt_tokens}x{self.output_tokens}"


REQUEST_FORM = "Write batch x prompt x output, e.g. 8x512x128 for 8 sequences of 512 prompt and 128 output tokens."
_REQUEST_KEYS = tuple(RequestSpec.__dataclass_fields__)


def closest(word: str, words: Iterable[str]) -> str:
    """Say which of ``words`` was probably meant, or name them all.

    >>> closest("btach", ["batch", "prompt"])
    'Did you mean batch?'
    """
    known = sorted(words)
    near = difflib.get_close_matches(word.lower(), known, n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."


def shown(value: object) -> str:
    """Write any value briefly, for an error message. Integers too long to print are described.

    >>> shown("a" * 100)[-4:], shown(1 << 99999)
    ('a...', 'a number of 100000 bits')
    """
    if isinstance(value, int) and abs(value) >> 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple | dict):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_value(field: Field, value: object) -> object:
    """Check ``value`` and return it as the field stores it; raises ``UsageError``."""
    kind = field.kind
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = typing.get_args(kind)[0]
    if field.item_kind is not None:
        return _read_list(field, value)
    return _read_one(field, kind, value)


def _read_list(field: Field, value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise field.error(f"{shown(value)} is not a list", f"Write a list, e.g. {field.name} = [{_example(field)}].")
    if len(value) > MAX_LIST:
        raise field.error(f"{len(value)} entries are too many", f"At most {MAX_LIST} are allowed.")
    items = tuple(_read_one(field, field.item_kind, item) for item in value)
    seen: set[object] = set()
    for item in items:
        if item in seen:
            raise field.error(f"{item} is there twice", "Name each once: repeats of a run are its trials.")
        seen.add(item)
    return items


def _read_one(field: Field, kind: object, value: object) -> object:
    if field.choices:
        return _read_choice(field, value)
    if kind is bool:
        if not isinstance(value, bool):
            raise field.error(f"{shown(value)} is neither true nor false", "Write true or false.")
        return value
    if kind is int:
        return read_count(field, value)
    if kind is float:
        return _read_seconds(field, value)
    if kind is RequestSpec:
        return _read_request(field, value)
    return _read_text(field, value)


def read_count(field: Field, value: object) -> int:
    """Check a whole number against the limits of its field; raises ``UsageError``."""
    least, most = field.option.at_least, field.option.at_most
    if type(value) is not int:
        raise field.error(f"{shown(value)} is not a whole number", f"Write a number from {least} to {most}.")
    if not least <= value <= most:
        raise field.error(f"{shown(value)} is out of range", f"Write a number from {least} to {most}.")
    return value


def _read_choice(field: Field, value: object) -> str:
    if not isinstance(value, str):
        raise field.error(f"{shown(value)} is not text", f"Allowed: {', '.join(field.choices)}.")
    if value not in field.choices:
        raise field.error(f"{shown(value)} is not allowed", closest(value, field.choices))
    return field.kind(value) if isinstance(field.kind, type) and issubclass(field.kind, StrEnum) else value


def _read_text(field: Field, value: object) -> str:
    if not isinstance(value, str):
        raise field.error(f"{shown(value)} is not text", f"Write text in quotes, e.g. {_example(field)}.")
    if not 0 < len(value) <= MAX_TEXT or value.isspace():
        raise field.error(f"text of {len(value)} characters is not a name", "Leave it out, or write a name or path.")
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F or 0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise field.error(f"{shown(value)} has characters that no name may have", "Write a name or path in UTF-8.")
    return value


def _read_seconds(field: Field, value: object) -> float:
    remedy = "Write seconds, or a time span such as 90s, 5min or 1.5h."
    if isinstance(value, str):
        try:
            value = parse_duration_s(value)
        except ValueError as problem:
            raise field.error(f"{shown(value)} is not a time span", remedy) from problem
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise field.error(f"{shown(value)} is not a time span", remedy)
    if not 0 < value <= field.option.at_most or math.isnan(value):
        raise field.error(
            f"{shown(value)} is out of range", f"It must be above 0 and at most {field.option.at_most} s."
        )
    return float(value)


def _read_request(field: Field, value: object) -> RequestSpec:
    if isinstance(value, RequestSpec):
        numbers: Sequence[object] = (value.batch_size, value.prompt_tokens, value.output_tokens)
    elif isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*", value, re.IGNORECASE | re.ASCII)
        if match is None:
            raise field.error(f"{shown(value)} is not a request", REQUEST_FORM)
        numbers = [int(number) for number in match.groups()]
    elif isinstance(value, dict):
        numbers = _request_numbers(field, value)
    else:
        raise field.error(f"{shown(value)} is not a request", REQUEST_FORM)
    batch, prompt, output = (read_count(field, number) for number in numbers)
    return RequestSpec(batch_size=batch, prompt_tokens=prompt, output_tokens=output)


def _request_numbers(field: Field, table: dict[str, object]) -> list[object]:
    for key in table:
        if key not in _REQUEST_KEYS:
            raise field.error(f"no such key in a request: {shown(key)}", closest(key, _REQUEST_KEYS))
    for key in _REQUEST_KEYS:
        if key not in table:
            raise field.error(f"a request lacks {key}", f"Each needs {', '.join(_REQUEST_KEYS)}.")
    return [table[key] for key in _REQUEST_KEYS]


def _example(field: Field) -> str:
    if field.item_kind is int or field.kind is int:
        return str(field.option.at_least)
    return '"8x512x128"' if field.item_kind is RequestSpec else f'"{field.option.metavar or "name"}"'
