"""The file format of the hardware table: TOML in, ``Hardware`` records out, with an error for everything else."""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.hardware import EXAMPLE_FILE, FieldSource, Hardware, Peaks, name_key

_SIZE_LIMIT_BYTES = 1 << 20  # a hardware file is text written by hand


@dataclass(frozen=True, slots=True)
class _Quantity:
    """What a number may be: bounds that catch a wrong unit, and an example for the error."""

    low: float
    high: float
    example: str
    whole: bool = False


_PEAK = _Quantity(1e9, 1e18, "71e12 (FLOP per second, dense)")
_QUANTITIES: Mapping[str, _Quantity] = {
    "process_nm": _Quantity(1, 1000, "4 (nanometres)"),
    "memory_bytes": _Quantity(1e8, 1e15, "25_769_803_776 (bytes, here 24 GiB)", whole=True),
    "peak_bytes_per_s": _Quantity(1e9, 1e15, "936e9 (bytes per second)"),
    "l2_bytes": _Quantity(1e4, 1e12, "6_291_456 (bytes, here 6 MiB)", whole=True),
    "link_bytes_per_s": _Quantity(1e8, 1e15, "32e9 (bytes per second in one direction)"),
    "board_power_w": _Quantity(1, 1e5, "350 (watts)"),
    "sm_count": _Quantity(1, 1e5, "82", whole=True),
    "base_clock_mhz": _Quantity(10, 1e5, "1395 (megahertz)"),
    "boost_clock_mhz": _Quantity(10, 1e5, "1695 (megahertz)"),
}
_TEXTS = ("name", "architecture", "compute_capability", "memory_type", "link_kind", "source", "note")
_NAME_LISTS = ("nvml_names", "short_names")
_REQUIRED = ("name", "memory_bytes", "peak_bytes_per_s", "peak_flop_per_s", "source")


def parse_hardware_file(path: str | PathLike[str]) -> tuple[Hardware, ...]:
    """Read a table of devices; raises ``UsageError`` naming the entry, the key and what would be right."""
    document = _toml(path)
    tables = document.get("gpu")
    if list(document) != ["gpu"] or not isinstance(tables, list) or not tables:
        raise UsageError(
            f"{path}: a hardware file is one or more [[gpu]] tables and nothing else, such as\n\n{EXAMPLE_FILE}"
        )
    devices = tuple(_hardware(table, f"{path}: gpu {number}") for number, table in enumerate(tables, start=1))
    seen: set[str] = set()
    for hardware in devices:
        if name_key(hardware.name) in seen:
            raise UsageError(f"{path}: two entries are called {hardware.name!r}.\nGive each device a name of its own.")
        seen.add(name_key(hardware.name))
    return devices


def _toml(path: str | PathLike[str]) -> Mapping[str, object]:
    file = Path(path)
    try:
        if not file.is_file():
            raise UsageError(f"{path} is not a file.\nGive --hardware a TOML file that describes devices.")
        if file.stat().st_size > _SIZE_LIMIT_BYTES:
            raise UsageError(f"{path} is larger than {_SIZE_LIMIT_BYTES >> 20} MiB, so it is no hardware file.")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, absurd numbers, absurd nesting
        raise UsageError(
            f"{path} is not valid TOML: {error}.\nA hardware file looks like this:\n\n{EXAMPLE_FILE}"
        ) from error


def _hardware(table: object, where: str) -> Hardware:
    if not isinstance(table, dict):
        raise UsageError(f"{where} is no table.\nWrite [[gpu]] and one key = value per line.")
    name = table.get("name")
    label = f"{where} ({name[:80]})" if isinstance(name, str) else where
    _check_keys(table, [field.name for field in fields(Hardware)], label)
    missing = [key for key in _REQUIRED if key not in table]
    if missing:
        raise UsageError(f"{label} lacks {', '.join(missing)}.\nThe least an entry needs:\n\n{EXAMPLE_FILE}")
    values: dict[str, Any] = {key: _value(key, value, label) for key, value in table.items()}
    return Hardware(**values)


def _check_keys(table: Mapping[str, object], allowed: Sequence[str], label: str) -> None:
    for key in table:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"{label}: {key[:80]!r} is not a key.\n{hint}The keys are: {', '.join(allowed)}.")


def _value(key: str, value: object, label: str) -> object:
    if key in _QUANTITIES:
        return _number(key, value, _QUANTITIES[key], label)
    if key in _TEXTS:
        return _text(key, value, label)
    if key in _NAME_LISTS:
        if not isinstance(value, list):
            raise _wrong(key, value, 'a list of names, such as ["example"]', label)
        return tuple(_text(key, name, label) for name in value)
    if not isinstance(value, dict) or not value:
        raise _wrong(key, value, "a table, such as { float16 = 71e12 }", label)
    if key == "sources":
        _check_keys(value, [field.name for field in fields(Hardware)], f"{label}: sources")
        return tuple(FieldSource(field=field, document=_text(field, text, label)) for field, text in value.items())
    _check_keys(value, [field.name for field in fields(Peaks)], f"{label}: peak_flop_per_s")
    return Peaks(**{dtype: _number(f"peak_flop_per_s.{dtype}", peak, _PEAK, label) for dtype, peak in value.items()})


def _number(key: str, value: object, allowed: _Quantity, label: str) -> float:
    kind = "a whole number" if allowed.whole else "a number"
    right = f"{kind} from {allowed.low:g} to {allowed.high:g}, such as {allowed.example}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not allowed.low <= value <= allowed.high:
        raise _wrong(key, value, right, label)
    if allowed.whole:
        if value != math.floor(value):
            raise _wrong(key, value, right, label)
        return int(value)
    return float(value)


def _text(key: str, value: object, label: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 300:
        raise _wrong(key, value, "text in quotes, not empty, on one line", label)
    if key == "compute_capability" and not re.fullmatch(r"\d{1,2}\.\d", value):
        raise _wrong(key, value, 'text such as "9.0"', label)
    return value


def _wrong(key: str, value: object, right: str, label: str) -> UsageError:
    return UsageError(f"{label}: {key} = {str(value)[:80]!r} cannot be.\nIt is {right}.")
