"""Typed values out of the JSON of one event; whatever is of another type or out of range is a ``WrongEvent``."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_LARGEST_US = 10**16  # three hundred years
NEVER_NS = 2 * _LARGEST_US * 1000  # later than any time in a trace
_LARGEST_COUNT = 2**63
_MOST_DIMENSIONS = 64  # c10's limit


class WrongEvent(ValueError):
    """What is wrong with one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadId:
    """A thread of the host."""

    process: str
    thread: str


def object_in(event: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object; an empty one where there is none."""
    value = event.get(key, {})
    if isinstance(value, dict):
        return value
    raise WrongEvent(f"its {key} is no object")


def nanoseconds(event: Mapping[str, object], key: str) -> int:
    """A time in microseconds as whole nanoseconds."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise WrongEvent(f"its {key} is no number")
    if not -_LARGEST_US <= value <= _LARGEST_US:
        raise WrongEvent(f"its {key} is out of range")
    return int(value * 1000)


def thread_of(event: Mapping[str, object]) -> ThreadId:
    """Where an event of the host took place."""
    process, thread = event.get("pid"), event.get("tid")
    if isinstance(process, int | str) and isinstance(thread, int | str):
        return ThreadId(process=str(process), thread=str(thread))
    raise WrongEvent("its process or thread is missing")


def count(arguments: Mapping[str, object], key: str) -> int | None:
    """A number of things; None where there is none."""
    value = arguments.get(key)
    if value is None:
        return None
    if type(value) is int and 0 <= value < _LARGEST_COUNT:
        return value
    raise WrongEvent(f"its {key} is no count")


def counts(arguments: Mapping[str, object], key: str) -> tuple[int, ...] | None:
    """A list of counts; None where there is none."""
    value = arguments.get(key)
    if value is None:
        return None
    if isinstance(value, list) and is_shape(value):
        return tuple(value)
    raise WrongEvent(f"its {key} is no list of counts")


def is_shape(sizes: object) -> bool:
    """Whether this is the shape of a tensor that can exist."""
    if not isinstance(sizes, list) or not all(type(size) is int and 0 <= size < _LARGEST_COUNT for size in sizes):
        return False
    return len(sizes) <= _MOST_DIMENSIONS and math.prod(sizes) < _LARGEST_COUNT


def identity(arguments: Mapping[str, object], *keys: str) -> int | None:
    """A number that links events; None for 0 and −1, which ROCm writes where it has none (roctracer#100)."""
    value = next((arguments[key] for key in keys if key in arguments), None)
    if value is None:
        return None
    if type(value) is int and abs(value) < 2 * _LARGEST_COUNT:
        return value if value > 0 else None
    raise WrongEvent(f"its {keys[0]} is no whole number")


def number_in(value: object, otherwise: object = None) -> int | None:
    """The number of a device or stream: ``7``, or 7 in ``"stream 7"``; ``otherwise`` is asked where there is none.

    >>> number_in(7), number_in("stream 7"), number_in(None, "stream 7"), number_in(None)
    (7, 7, 7, None)
    """
    for text in (value, otherwise):
        digits = re.search(r"\d{1,18}$", text) if isinstance(text, str) else None
        if digits or type(text) is int:
            return int(digits[0]) if digits else int(str(text))
    return None
