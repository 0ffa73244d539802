"""The file format of virtual GPUs: TOML in, ``VirtualGpu`` out, with an error for everything else."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import UnknownHardware, UsageError
from harness.hardware import Hardware, find
from harness.virtual.gpu import FEATURES, HOTTEST_C, Load, Sensor, VirtualGpu

_SIZE_LIMIT_BYTES = 1 << 20  # a description is text written by hand


@dataclass(frozen=True, slots=True)
class _Quantity:
    """What a number may be: bounds that catch a wrong unit."""

    low: float
    high: float
    unit: str


_SHARE = _Quantity(0.01, 1.0, "a share of the peak")
_POWER = _Quantity(0.0, 1e4, "watts")
_CLOCK = _Quantity(1.0, 1e5, "megahertz")
_PERIOD = _Quantity(1e-4, 100.0, "seconds")
_LATENCY = _Quantity(0.0, 1.0, "seconds")
_PICOJOULES = _Quantity(0.0, 1e5, "picojoules")
_TEMPERATURE = _Quantity(-50.0, HOTTEST_C, "°C")

_LOAD: Mapping[str, _Quantity] = {
    "flop_efficiency": _SHARE,
    "bytes_efficiency": _SHARE,
    "link_efficiency": _SHARE,
    "launch_s": _Quantity(0.0, 0.01, "seconds"),
    "link_latency_s": _Quantity(0.0, 0.01, "seconds"),
    "idle_power_w": _Quantity(0.1, 1e4, "watts"),
    "bare_idle_power_w": _Quantity(0.1, 1e4, "watts"),
    "busy_w": _POWER,
    "pj_per_flop": _PICOJOULES,
    "pj_per_byte": _PICOJOULES,
    "pj_per_link_byte": _PICOJOULES,
    "wait_w": _POWER,
    "gap_w": _POWER,
    "leakage_w": _POWER,
    "leakage_reference_c": _TEMPERATURE,
    "leakage_per_c": _Quantity(0.0, 0.1, "per °C, relative"),
    "power_limit_w": _Quantity(1.0, 1e4, "watts"),
    "clock_mhz": _CLOCK,
    "lowest_clock_mhz": _CLOCK,
    "clock_step_mhz": _Quantity(0.1, 1e4, "megahertz"),
    "dynamic_exponent": _Quantity(1.0, 4.0, "without unit"),
    "ambient_c": _TEMPERATURE,
    "c_per_w": _Quantity(0.0, 10.0, "°C per watt"),
    "time_constant_s": _Quantity(0.1, 1e4, "seconds"),
    "rank_spread": _Quantity(0.0, 0.5, "relative"),
}
_SENSOR: Mapping[str, _Quantity] = {
    "counter_period_s": _PERIOD,
    "counter_jitter_s": _LATENCY,
    "counter_quantum_j": _Quantity(1e-9, 1e3, "joules"),
    "duty_cycle": _Quantity(0.01, 1.0, "a share of the duty period"),
    "duty_period_s": _PERIOD,
    "gain": _Quantity(0.5, 2.0, "a factor"),
    "offset_w": _Quantity(-1e3, 1e3, "watts"),
    "stated_gain_95": _Quantity(0.0, 1.0, "relative"),
    "noise_w": _POWER,
    "average_window_s": _PERIOD,
    "average_period_s": _PERIOD,
    "instant_period_s": _PERIOD,
    "power_quantum_w": _Quantity(1e-9, 100.0, "watts"),
    "read_latency_s": _Quantity(1e-7, 1.0, "seconds"),
    "read_latency_jitter_s": _LATENCY,
}


def parse_virtual_gpu(path: Path, hardware_table: Sequence[Hardware] | None = None) -> VirtualGpu:
    """Read one description; raises ``UsageError`` naming the key and what would be right."""
    document = _toml(path)
    _check_keys(document, ["name", "load", "sensor"], str(path))
    name = document.get("name", path.stem)
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 100:
        raise _wrong("name", name, "text in quotes, on one line", str(path))
    load = _load(_table(document, "load", path), f"{path}: load", hardware_table)
    sensor = _sensor(_table(document, "sensor", path), f"{path}: sensor")
    return VirtualGpu(name=name, load=load, sensor=sensor)


def _toml(path: Path) -> Mapping[str, object]:
    try:
        if not path.is_file():
            raise UsageError(f"{path} is not a file.\nGive a TOML file that describes a virtual GPU.")
        if path.stat().st_size > _SIZE_LIMIT_BYTES:
            raise UsageError(f"{path} is larger than {_SIZE_LIMIT_BYTES >> 20} MiB, so it describes no virtual GPU.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, absurd numbers, absurd nesting
        raise UsageError(f"{path} is not valid TOML: {error}.\nThe shipped virtual GPUs show the format.") from error


def _table(document: Mapping[str, object], key: str, path: Path) -> Mapping[str, object]:
    table = document.get(key)
    if not isinstance(table, dict):
        raise UsageError(f"{path} has no table [{key}].\nA virtual GPU has the tables [load] and [sensor].")
    return table


def _load(table: Mapping[str, object], label: str, hardware_table: Sequence[Hardware] | None) -> Load:
    values = _values(table, Load, _LOAD, label)
    try:
        return Load(**values | {"hardware": find(values["hardware"], hardware_table)})
    except UnknownHardware as error:
        raise UsageError(f"{label}: hardware: {error}") from error
    except ValueError as error:
        raise UsageError(f"{label}: {error}.\nChange one of these keys.") from error


def _sensor(table: Mapping[str, object], label: str) -> Sensor:
    try:
        return Sensor(**_values(table, Sensor, _SENSOR, label))
    except ValueError as error:
        raise UsageError(f"{label}: {error}.\nChange one of these keys.") from error


def _values(
    table: Mapping[str, object], record: type[Load] | type[Sensor], numbers: Mapping[str, _Quantity], label: str
) -> dict[str, Any]:
    _check_keys(table, [field.name for field in fields(record)], label)
    missing = [field.name for field in fields(record) if field.default is MISSING and field.name not in table]
    if missing:
        raise UsageError(f"{label} lacks {', '.join(missing)}.\nThe shipped virtual GPUs show what each key means.")
    return {key: _value(key, value, numbers, label) for key, value in table.items()}


def _value(key: str, value: object, numbers: Mapping[str, _Quantity], label: str) -> object:
    if key in numbers:
        return _number(key, value, numbers[key], label)
    if key == "counter_sampled" and not isinstance(value, bool):
        raise _wrong(key, value, "true or false", label)
    if key == "hardware" and not isinstance(value, str):
        raise _wrong(key, value, "the name of a device of the hardware table, in quotes", label)
    if key != "missing":
        return value
    if not isinstance(value, list) or not all(isinstance(feature, str) for feature in value):
        raise _wrong(key, value, f"a list of any of {', '.join(FEATURES)}, in quotes", label)
    return tuple(value)


def _number(key: str, value: object, allowed: _Quantity, label: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not allowed.low <= value <= allowed.high:
        raise _wrong(key, value, f"a number from {allowed.low:g} to {allowed.high:g} ({allowed.unit})", label)
    return float(value)


def _check_keys(table: Mapping[str, object], allowed: Sequence[str], label: str) -> None:
    for key in table:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"{label}: {key[:80]!r} is not a key.\n{hint}The keys are: {', '.join(allowed)}.")


def _wrong(key: str, value: object, right: str, label: str) -> UsageError:
    return UsageError(f"{label}: {key} = {str(value)[:80]!r} cannot be.\nIt is {right}.")
