"""What a comparison varies and what it demands: ``gpu=H200,H100-SXM batch=1..64`` and ``ttft=0.5,tpot=0.05``."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.errors import UsageError
from predictor.table_columns import shown

_AXES: Final = {
    "model": "model",
    "gpu": "gpu",
    **dict.fromkeys(("gpus", "n_gpus"), "n_gpus"),
    **dict.fromkeys(("batch", "batch_size"), "batch_size"),
    **dict.fromkeys(("prompt", "prompt_tokens"), "prompt_tokens"),
    **dict.fromkeys(("output", "output_tokens"), "output_tokens"),
    "dtype": "dtype",
    "runtime": "runtime",
}
_NAMES: Final = "model, gpu, gpus, batch, prompt, output, dtype, runtime"
_COUNTS: Final = frozenset({"n_gpus", "batch_size", "prompt_tokens", "output_tokens"})
_BOUNDS: Final = {"ttft": "ttft_s", "tpot": "tpot_s", "time": "time_s"}
MOST_DEPLOYMENTS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One column of a request and its values, as text, each once."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Latencies that must not be exceeded, in seconds. None: no bound."""

    ttft_s: float | None = None  # to the first token: the prefill
    tpot_s: float | None = None  # per output token after the first
    time_s: float | None = None  # of the whole request


def read_axes(texts: Sequence[str], stated: Collection[str]) -> tuple[Axis, ...]:
    """Axes of ``what=values``; raises ``UsageError``. ``stated``: columns that have one value already.

    >>> read_axes(["batch=1..8"], ())
    (Axis(column='batch_size', values=('1', '2', '4', '8')),)
    """
    axes: dict[str, Axis] = {}
    for text in texts:
        axis = _axis(text)
        if axis.column in axes or axis.column in stated:
            raise UsageError(f"{axis.column} is given twice, the second time as {shown(text)}.\nLeave out one of them.")
        axes[axis.column] = axis
    combinations = math.prod(len(axis.values) for axis in axes.values())
    if combinations > MOST_DEPLOYMENTS:
        raise UsageError(f"These are {combinations:,} combinations, more than {MOST_DEPLOYMENTS:,}.\nCompare fewer.")
    return tuple(axes.values())


def _axis(text: str) -> Axis:
    name, equals, values = text.partition("=")
    column = _AXES.get(name.strip().lower().replace("-", "_"))
    if not equals or column is None:
        raise UsageError(
            f"--compare {shown(text)} cannot be read.\nWrite WHAT=VALUES with any of {_NAMES}, such as "
            "gpu=H200,H100-SXM gpus=1,2,4 batch=1..64."
        )
    parts = [part.strip() for part in values.split(",")]
    if not all(parts):
        raise UsageError(f"--compare {shown(text)} has an empty value.\nWrite values with commas between them.")
    expanded = [one for part in parts for one in (_range(part, text) if column in _COUNTS else (part,))]
    return Axis(column=column, values=tuple(dict.fromkeys(expanded)))


def _range(part: str, text: str) -> Iterator[str]:
    """1..64: from 1, doubling up to 64; 1..8:1: in steps of 1; anything else: itself."""
    first, dots, rest = part.partition("..")
    if not dots:
        yield part
        return
    last, colon, step = rest.partition(":")
    numbers = [first, last, *([step] if colon else [])]
    if not all(number.isascii() and number.isdigit() and len(number) <= 9 and int(number) > 0 for number in numbers):
        raise UsageError(
            f"The range {shown(part)} in {shown(text)} cannot be read.\nWrite 1..64 (doubling) or 1..8:1 (in steps)."
        )
    value, end = int(first), int(last)
    if value > end or (colon and (end - value) // int(step) >= MOST_DEPLOYMENTS):
        raise UsageError(f"The range {shown(part)} in {shown(text)} is empty, or has too many values.")
    while value <= end:
        yield str(value)
        value = value + int(step) if colon else 2 * value


def read_bounds(text: str | None) -> Bounds:
    """Bounds of ``ttft=0.5,tpot=0.05,time=30``, in seconds; raises ``UsageError``.

    >>> read_bounds("tpot=0.05")
    Bounds(ttft_s=None, tpot_s=0.05, time_s=None)
    """
    found: dict[str, float] = {}
    for part in text.split(",") if text is not None else ():
        name, _, value = (piece.strip() for piece in part.partition("="))
        field = _BOUNDS.get(name)
        seconds = _seconds(value)
        if field is None or seconds is None or field in found:
            raise UsageError(
                f"--under {shown(text)} cannot be read at {shown(part)}.\nWrite bounds in seconds, each once: "
                "ttft=0.5 (to the first token), tpot=0.05 (per further token), time=30 (whole request)."
            )
        found[field] = seconds
    return Bounds(**found)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
