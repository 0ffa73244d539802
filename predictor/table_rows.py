"""Rows of cells as requests. What a column's cells have in common, a model or a GPU above all, is looked up once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.errors import HarnessError, UsageError
from harness.hardware import Hardware, find, known, read_hardware_file
from predictor.checks import KnownModel, check, default_dtype, find_model, one_line
from predictor.requests import Parallelism, PredictionRequest
from predictor.table_columns import COLUMNS, NAMES, BadCell, Cell, RequestColumn, Value

_MOST_REMEMBERED: Final = 100_000  # cells of one column


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One row: the request, or why it is none."""

    request: PredictionRequest | None
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bad:
    """A cell that rules its row out."""

    why: str


_Read = Value | KnownModel | Hardware | _Bad


class RequestReader:
    """Turns columns of cells into requests."""

    def __init__(
        self, names: Sequence[str], *, stated: Mapping[str, Cell] | None = None, hardware: Path | None = None
    ) -> None:
        """``names``: columns of the rows; ``stated``: cells of other columns that hold for all rows.

        Raises ``UsageError`` for a hardware file that cannot be read and for a stated cell.
        """
        self.names = tuple(name for name in NAMES if name in names)
        self._devices = known(() if hardware is None else read_hardware_file(hardware))
        self._memos: dict[str, dict[Cell, _Read]] = {name: {} for name in NAMES}
        self._stated: dict[str, _Read] = {}
        for column in COLUMNS:
            if stated is not None and column.name in stated:
                self._stated[column.name] = self._read(column, stated[column.name])
        for bad in self._stated.values():
            if isinstance(bad, _Bad):
                raise UsageError(bad.why)

    def read(self, columns: Mapping[str, Sequence[Cell]], rows: int) -> Iterator[Asked]:
        """One answer per row; ``columns`` has all of ``names``, each with ``rows`` cells of one type."""
        read = [self._column(column, columns, rows) for column in COLUMNS]
        return (_asked(cells) for cells in zip(*read, strict=True))

    def check(self, name: str, cell: Cell) -> None:
        """Raise ``UsageError`` for a cell that no row of any table could have."""
        found = next(self._read(column, cell) for column in COLUMNS if column.name == name)
        if isinstance(found, _Bad):
            raise UsageError(found.why)

    def _column(self, column: RequestColumn, columns: Mapping[str, Sequence[Cell]], rows: int) -> Sequence[_Read]:
        if column.name not in self.names:
            return [self._stated.get(column.name)] * rows
        memo = self._memos[column.name]
        if len(memo) > _MOST_REMEMBERED:
            memo.clear()
        cells = columns[column.name]
        for cell in set(cells) - memo.keys():
            memo[cell] = self._read(column, cell)
        return [memo[cell] for cell in cells]

    def _read(self, column: RequestColumn, cell: Cell) -> _Read:
        try:
            value = column.value(cell)
            if column.name == "gpu":
                return find(str(value), self._devices)
            return find_model(str(value)) if column.name == "model" else value
        except (BadCell, HarnessError) as error:
            return _Bad(why=str(error))


def read_one(cells: Mapping[str, Cell], *, hardware: Path | None = None) -> Asked:
    """One request; raises ``UsageError`` (also ``UnknownModel``, ``UnknownHardware``) with all that is to be said."""
    reader = RequestReader(tuple(cells), hardware=hardware)
    missing = [column.flag for column in COLUMNS if column.required and cells.get(column.name) is None]
    if missing:
        raise UsageError(f"The request lacks {', '.join(missing)}.\nSee python -m predictor.predict --help.")
    asked = next(reader.read({name: [cell] for name, cell in cells.items()}, 1))
    if asked.request is None:
        raise UsageError(asked.error or "")
    return asked


def _asked(cells: Sequence[Any]) -> Asked:
    """A row; ``cells`` in the order of ``COLUMNS``."""
    bad = [cell.why for cell in cells if type(cell) is _Bad]
    if bad:
        return Asked(request=None, error=bad[0] if len(bad) == 1 else "; ".join(map(one_line, bad)))
    values = dict(zip(NAMES, cells, strict=True))
    model, device = values.pop("model"), values.pop("gpu")
    stated = {name: value for name, value in values.items() if value is not None}
    warnings: tuple[str, ...] = ()
    if "dtype" not in stated:
        stated["dtype"] = default_dtype(device)
        if stated["dtype"] != "bfloat16":
            warnings = (f"no dtype is stated and {device.name} has no bfloat16: {stated['dtype']} is taken",)
    if "parallelism" in stated:
        stated["parallelism"] = Parallelism(stated["parallelism"])
    request = PredictionRequest(model=model.reference, hardware=device, **stated)
    found = check(request, model)
    if found.errors:
        return Asked(request=None, error="; ".join(found.errors))
    return Asked(request=request, warnings=(*warnings, *found.warnings))
