"""Numbers and names as the page writes them. What is not known is a dash, never a 0."""

import math
import unicodedata
from datetime import datetime

from harness.records import RunRow
from harness.units import duration, gibibytes, si

NOTHING = "–"
_SMALLEST_SHARE = 1e-5  # below it digits would say more than anybody knows


def quantity(value: float | None, unit: str) -> str:
    """Write a value with its unit.

    >>> quantity(0.0123, "J"), quantity(None, "J")
    ('12.3 mJ', '–')
    """
    return NOTHING if value is None or not math.isfinite(value) else si(value, unit)


def with_interval(value: float | None, half_width: float | None, unit: str) -> str:
    """Write a value with the half width of its 95 % interval, relative to it.

    >>> with_interval(12.3, 0.4, "J"), with_interval(12.3, None, "J"), with_interval(None, None, "J")
    ('12.3 J ± 3.3 %', '12.3 J', '–')
    """
    text = quantity(value, unit)
    if value is None or half_width is None or value == 0:
        return text
    return f"{text} ± {percent(half_width / abs(value))}"


def percent(share: float | None) -> str:
    """Write a share of one.

    >>> percent(0.033), percent(0.4567), percent(1e-12), percent(None)
    ('3.3 %', '46 %', '< 0.001 %', '–')
    """
    if share is None or not math.isfinite(share):
        return NOTHING
    if 0 < abs(share) < _SMALLEST_SHARE:
        return "< 0.001 %"
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


def signed_percent(share: float | None, half_width: float | None) -> str:
    """Write a relative difference, and its interval in percentage points.

    >>> signed_percent(-0.012, 0.034), signed_percent(0.5, None)
    ('−1.2 % ± 3.4 %', '+50 %')
    """
    if share is None:
        return NOTHING
    text = f"{'−' if share < 0 else '+'}{percent(abs(share))}"
    return text if half_width is None else f"{text} ± {percent(half_width)}"


def signed_quantity(value: float | None, half_width: float | None, unit: str) -> str:
    """Write a difference with its sign, and its interval in the same unit: beside 0 a share would say nothing.

    >>> signed_quantity(-0.012, 0.034, "J"), signed_quantity(2.5, None, "J")
    ('−12 mJ ± 34 mJ', '+2.5 J')
    """
    if value is None:
        return NOTHING
    text = f"{'−' if value < 0 else '+'}{quantity(abs(value), unit)}"
    return text if half_width is None else f"{text} ± {quantity(half_width, unit)}"


def count(number: int | None) -> str:
    """Write a whole number with thin spaces between the thousands.

    >>> count(1234567) == "1\u202f234\u202f567"
    True
    """
    return NOTHING if number is None else f"{number:,}".replace(",", "\u202f")


def plural(number: int | None, noun: str, nouns: str | None = None) -> str:
    """Write a count and its noun.

    >>> plural(1, "run"), plural(2, "run"), plural(2, "launch", "launches")
    ('1 run', '2 runs', '2 launches')
    """
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def time_span(seconds: float | None) -> str:
    """Write a time span."""
    return NOTHING if seconds is None else duration(seconds)


def time_with_interval(seconds: float | None, half_width: float | None) -> str:
    """Write a time span with the half width of its 95 % interval, relative to it.

    >>> time_with_interval(75, 1.5), time_with_interval(None, 1.5)
    ('1 min 15 s ± 2 %', '–')
    """
    return time_span(seconds) + (f" ± {percent(half_width / seconds)}" if seconds and half_width is not None else "")


def interval_parts(value: float | None, repeat95: float | None, systematic95: float | None) -> str:
    """Say what an interval is made of, relative to the value; nothing where that is not known.

    >>> interval_parts(100.0, 0.5, 5.0)
    'repeats ± 0.5 %, gain and offset of the meter ± 5 %'
    """
    if not value or repeat95 is None or systematic95 is None:
        return ""
    return f"repeats ± {percent(repeat95 / abs(value))}, gain and offset of the meter {systematic(value, systematic95)}"


def systematic(value: float | None, systematic95: float | None) -> str:
    """The part of an interval that no repeat shows, relative to the value: 0 where nobody states it.

    >>> systematic(100.0, 5.0), systematic(100.0, 0.0), systematic(100.0, None)
    ('± 5 %', 'not stated', '–')
    """
    if not value or systematic95 is None:
        return NOTHING
    return f"± {percent(systematic95 / abs(value))}" if systematic95 else "not stated"


def memory(size_bytes: int | None) -> str:
    """Write a size in memory."""
    return NOTHING if size_bytes is None else gibibytes(size_bytes)


def yes_no(value: bool | None) -> str:
    """Write a flag."""
    return NOTHING if value is None else "yes" if value else "no"


def plain(text: str | None) -> str:
    r"""Text from the dataset on one line, without control characters.

    >>> plain("a\nb\x00c"), plain(None)
    ('a b c', '–')
    """
    if text is None:
        return NOTHING
    visible = "".join(" " if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character for character in text)
    return " ".join(visible.split())


def short(text: str, length: int = 60) -> str:
    """Cut text that is too long for its place.

    >>> short("abcdefgh", 5)
    'abcd…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def moment(iso: str) -> str:
    """Write an ISO 8601 time to the minute; anything else stays as it is.

    >>> moment("2026-11-23T10:05:59+00:00"), moment("last week")
    ('2026-11-23 10:05', 'last week')
    """
    try:
        return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M}"
    except ValueError:
        return plain(iso)


def model_name(model: str | None) -> str:
    """Last part of a Hub id or path: the organisation is in the tables; none for kernels measured alone."""
    if model is None:
        return "no model"
    return short(plain(model).rstrip("/").rsplit("/", 1)[-1], 40) or NOTHING


def device_name(gpu: str, n_gpus: int) -> str:
    """Write a device, with its count if there are several.

    >>> device_name("NVIDIA A100-SXM4-80GB", 4), device_name("cpu: Xeon", 0)
    ('4 × NVIDIA A100-SXM4-80GB', 'CPU Xeon')
    """
    name = short(plain(gpu), 48)
    if name.startswith("cpu: "):
        name = name.removeprefix("cpu: ")
        return name if "cpu" in name.lower() else f"CPU {name}"
    return f"{n_gpus} × {name}" if n_gpus > 1 else name


def parallel_name(parallelism: str | None, tensor_parallel: int | None, nodes: int) -> str:
    """How a model is spread out; nothing for a model on one device.

    >>> parallel_name("tensor", 3, 1), parallel_name("tensor", 16, 2), parallel_name("none", 1, 1)
    ('tensor parallel, 3 ranks', 'tensor parallel, 16 ranks on 2 nodes', '')
    """
    where = f"on {plural(nodes, 'node')}" if nodes > 1 else ""
    if tensor_parallel is not None and tensor_parallel > 1:
        return f"tensor parallel, {plural(tensor_parallel, 'rank')} {where}".rstrip()
    return " ".join(part for part in ("" if parallelism in ("none", None) else plain(parallelism), where) if part)


def request_name(run: RunRow) -> str:
    """What was asked, in short: batch × prompt → output tokens."""
    sizes = ("–" if size is None else str(size) for size in (run.batch_size, run.prompt_tokens, run.output_tokens))
    return "{} × {} → {}".format(*sizes)
