"""What a mapping says of one column of the dataset, and how a cell of a file becomes its value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.dataset.schema import Column, Scalar
from harness.units import J_PER_KWH

Cell = str | int | float | bool | None

# Units by the end of a column's name, as factors to the unit that the name carries.
_ENERGY: Final = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "kJ": 1e3, "MJ": 1e6, "Wh": J_PER_KWH / 1e3, "kWh": J_PER_KWH}
_TIME: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_POWER: Final = {"W": 1.0, "mW": 1e-3, "kW": 1e3}
_SIZE: Final = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_WORK: Final = {"FLOP": 1, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12}
_CLOCK: Final = {"MHz": 1.0, "GHz": 1e3, "Hz": 1e-6}
_UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "_per_s": {"1/s": 1.0},
    "_j": _ENERGY,
    "_s": _TIME,
    "_w": _POWER,
    "_bytes": _SIZE,
    "flop": _WORK,
    "_mhz": _CLOCK,
}
_MISSING: Final = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_LONGEST: Final = 500  # of a text; the dataset holds names, not prose
_LARGEST: Final = 2**53


class BadCell(Exception):
    """A cell that is not what its column should hold; the text is the rule that rejects the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Where the value of one column comes from: a constant, or a column of the file."""

    constant: Cell = None
    column: str | None = None
    factor: float = 1.0  # to the unit of the dataset
    times: str | None = None  # another column: energy = power × time
    words: Mapping[str, str] | None = None  # of the file → of the dataset; others are rejected
    missing: tuple[str, ...] = ()  # what stands for "not known" besides an empty cell

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the file that it is made of."""
        return tuple(name for name in (self.column, self.times) if name is not None)


def units_of(name: str) -> Mapping[str, float]:
    """Units that a column of the dataset may be given in; empty for a count or a text."""
    return next((units for end, units in _UNITS.items() if name.endswith(end)), {})


def value_of(value: Value, target: Column, cells: Mapping[str, Cell]) -> Scalar:
    """The value for one column from one row; None is "not known". Raises ``BadCell``."""
    if value.column is None:
        return constant(value.constant, target)
    cell = _known(cells[value.column], value.missing)
    if cell is None:
        return None
    if value.words is not None:
        text = str(cell)
        if text not in value.words:
            raise BadCell(f"{target.name}: a word the mapping does not have")
        return typed(value.words[text], target)
    if value.factor == 1.0 and value.times is None:
        return _physical(typed(cell, target), target)
    scaled = _scaled(_number(cell, target), value.factor)
    if value.times is not None:
        other = _known(cells[value.times], value.missing)
        if other is None:
            return None
        scaled *= _number(other, target)
    return _physical(typed(scaled, target), target)


def _scaled(number: float, factor: float) -> float:
    """Dividing by 1000 is exact where multiplying by 0.001 is not."""
    parts = round(1 / factor)
    return number / parts if parts > 1 and math.isclose(parts * factor, 1, rel_tol=1e-12) else number * factor


def constant(cell: Cell, target: Column) -> Scalar:
    """A value that all rows have; raises ``BadCell``."""
    return _physical(typed(cell, target), target)


def typed(cell: Cell, target: Column) -> Scalar:
    """A cell in the type of its column; raises ``BadCell``."""
    if cell is None:
        return None
    if target.choices is not None:
        return _choice(str(cell), target.choices, target)
    if target.scalar is str:
        return _text(cell, target)
    if target.scalar is bool:
        return _bool(cell, target)
    number = _number(cell, target)
    if target.scalar is float:
        return number
    if not number.is_integer() or abs(number) > _LARGEST:
        raise BadCell(f"{target.name}: not a whole number")
    return int(number)


def _known(cell: Cell, missing: tuple[str, ...]) -> Cell:
    """None for whatever stands for "not known"."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    text = str(cell).strip()
    return None if text.lower() in _MISSING or text in missing else cell


def _choice(text: str, choices: type[StrEnum], target: Column) -> str:
    if text not in {choice.value for choice in choices}:
        raise BadCell(f"{target.name}: not one of {', '.join(choices)}")
    return choices(text)


def _text(cell: Cell, target: Column) -> str:
    text = str(cell).strip()
    if len(text) > _LONGEST or not text.isprintable():
        raise BadCell(f"{target.name}: a text that is too long or cannot be printed")
    return text


def _bool(cell: Cell, target: Column) -> bool:
    found = _TRUTH.get(str(cell).strip().lower())
    if found is None:
        raise BadCell(f"{target.name}: neither true nor false")
    return found


def _number(cell: Cell, target: Column) -> float:
    if isinstance(cell, bool):
        raise BadCell(f"{target.name}: not a number")
    try:
        number = float(cell if cell is not None else "")
    except (ValueError, OverflowError):
        raise BadCell(f"{target.name}: not a number") from None
    if not math.isfinite(number):
        raise BadCell(f"{target.name}: not a finite number")
    return number


def _physical(value: Scalar, target: Column) -> Scalar:
    """Energies, times and powers are above 0; a source that writes 0 for "not known" says so with ``missing``."""
    measured = target.name.endswith(("_j", "_s", "_w")) and isinstance(value, float)
    if measured and isinstance(value, float) and value <= 0:
        raise BadCell(f"{target.name}: 0 or less")
    if isinstance(value, int | float) and value < 0:
        raise BadCell(f"{target.name}: less than 0")
    return value
