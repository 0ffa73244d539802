"""The figures of a release: energy per output token, and what is covered; drawn from its tables."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.dataset.release.fact_records import ReleaseFacts, TokenEnergy
from harness.dataset.release.svg import FAINT, INK, PAPER, Drawing, shortened, text_width
from harness.records import Provenance, Workload
from harness.units import si

FOLDER = "figures"
_MOST_MODELS = 40
_ROW = 22.0
_DOT_ROW = 34.0
_CELL = 46.0
_LABEL_LETTERS = 42
# Okabe and Ito's colours, told apart by most people; devices beyond them share grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4ea3", "#8c564b")
_OTHER_COLOUR = "#7f8c98"
_LOW, _HIGH = (233, 241, 248), (8, 64, 129)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One file and the words under it."""

    name: str
    caption: str
    svg: str

    @property
    def markdown(self) -> str:
        """As the card shows it."""
        return f"![{self.caption}]({FOLDER}/{self.name})\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A count at a row and a column of a heat map."""

    row: str
    column: str
    count: int


def figures(facts: ReleaseFacts) -> tuple[Figure, ...]:
    """Those for which there is something to show."""
    found = (_token_energy(facts.token_energies), _coverage(facts), _kernels(facts))
    return tuple(figure for figure in found if figure is not None)


# ---- energy per output token ----


def _token_energy(points: Sequence[TokenEnergy]) -> Figure | None:
    if not points:
        return None
    runs: Counter[str] = Counter()
    for point in points:
        runs[point.model] += point.runs
    chosen = {model for model, _ in runs.most_common(_MOST_MODELS)}
    shown = [point for point in points if point.model in chosen]
    models = sorted(chosen, key=lambda model: min(point.median_j for point in shown if point.model == model))
    left_out = f"; the {_MOST_MODELS} of {len(runs)} models with the most runs" if len(runs) > len(chosen) else ""
    caption = (
        "Energy per output token of each model and device: the median over its requests, and the range from the lowest "
        f"to the highest{left_out}"
    )
    return Figure(name="energy_per_output_token.svg", caption=caption, svg=_dots(shown, models).svg())


def _dots(points: Sequence[TokenEnergy], models: Sequence[str]) -> Drawing:
    gpus = sorted({point.gpu for point in points})
    colours = {gpu: _COLOURS[place] if place < len(_COLOURS) else _OTHER_COLOUR for place, gpu in enumerate(gpus)}
    left = 24 + max(text_width(shortened(model, _LABEL_LETTERS)) for model in models)
    marks = {(point.provenance, point.workload) for point in points}
    legend = len(gpus) + len(marks)
    top, plot = 48.0, 520.0
    height = top + _DOT_ROW * len(models) + 56 + 18 * legend
    drawing = Drawing(left + plot + 40, height, "Energy per output token")
    drawing.text(16, 26, "Energy per output token", size=16)
    low, high = min(point.low_j for point in points), max(point.high_j for point in points)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    bottom = top + _DOT_ROW * len(models)
    for power in range(first, last + 1):
        x = left + plot * (power - first) / (last - first)
        drawing.line(x, top - 8, x, bottom)
        drawing.text(x, bottom + 18, si(10.0**power, "J"), anchor="middle")
    for place, model in enumerate(models):
        y = top + _DOT_ROW * (place + 0.5)
        drawing.line(left, y, left + plot, y, colour="#eef2f5")
        drawing.text(left - 10, y + 4, shortened(model, _LABEL_LETTERS), anchor="end")
        of_model = [point for point in points if point.model == model]
        for number, point in enumerate(of_model):
            _mark(drawing, point, colours[point.gpu], left, plot / (last - first), first, y + _spread(number, of_model))
    _legend(drawing, colours, sorted(marks), bottom + 44)
    return drawing


def _spread(number: int, points: Sequence[TokenEnergy]) -> float:
    """Devices of one model side by side within its row, so that they do not hide each other."""
    return (number - (len(points) - 1) / 2) * min(7.0, 26.0 / len(points))


def _mark(drawing: Drawing, point: TokenEnergy, colour: str, left: float, decade: float, first: int, y: float) -> None:
    low_x, x, high_x = (left + decade * (math.log10(j) - first) for j in (point.low_j, point.median_j, point.high_j))
    drawing.line(low_x, y, high_x, y, colour=colour, width=1.4)
    tip = f"{point.model}, {point.gpu}, {point.provenance}: {si(point.median_j, 'J')} per token, {point.runs} runs"
    _shape(drawing, point.provenance, point.workload, x, y, colour, tip)


def _shape(
    drawing: Drawing, provenance: Provenance, workload: Workload, x: float, y: float, colour: str, tip: str = ""
) -> None:
    """Full: measured. Pale: imported. Empty: no meter was read. On its corner: a server, not one batch."""
    filled = {Provenance.MEASURED: 1.0, Provenance.IMPORTED: 0.4}.get(provenance, 0.0)
    draw = drawing.diamond if workload is Workload.SERVER else drawing.dot
    draw(x, y, 4.5, colour=colour, filled=filled, tip=tip)


def _legend(
    drawing: Drawing, colours: dict[str, str], marks: Sequence[tuple[Provenance, Workload]], top: float
) -> None:
    y = top
    for gpu, colour in colours.items():
        drawing.rectangle(20, y - 9, 10, 10, fill=colour)
        drawing.text(38, y, gpu)
        y += 18
    for provenance, workload in marks:
        _shape(drawing, provenance, workload, 25, y - 4, INK)
        drawing.text(38, y, f"{provenance}, {'one batch' if workload is Workload.BATCH else 'server'}")
        y += 18


# ---- heat maps ----


def _coverage(facts: ReleaseFacts) -> Figure | None:
    runs: Counter[tuple[str, str]] = Counter()
    for count in facts.endings:
        runs[count.model or "kernels alone", count.gpu] += count.runs
    cells = [Cell(row=model, column=gpu, count=number) for (model, gpu), number in runs.items()]
    return _heat_map(cells, "coverage.svg", "Runs by model and device")


def _kernels(facts: ReleaseFacts) -> Figure | None:
    cells = [Cell(row=count.kind, column=count.gpu, count=count.rows) for count in facts.kinds]
    return _heat_map(cells, "kernels.svg", "Kernel rows by kind and device")


def _heat_map(cells: Sequence[Cell], name: str, caption: str) -> Figure | None:
    if not cells:
        return None
    totals: Counter[str] = Counter()
    for cell in cells:
        totals[cell.row] += cell.count
    rows = [row for row, _ in totals.most_common(_MOST_MODELS)]
    left_out = f" (the {len(rows)} of {len(totals)} with the most)" if len(totals) > len(rows) else ""
    drawing = _drawn_map([cell for cell in cells if cell.row in rows], sorted(rows), caption + left_out)
    return Figure(name=name, caption=caption + left_out, svg=drawing.svg())


def _drawn_map(cells: Sequence[Cell], rows: Sequence[str], caption: str) -> Drawing:
    columns = sorted({cell.column for cell in cells})
    labels = [shortened(column, _LABEL_LETTERS) for column in columns]
    left = 24 + max(text_width(shortened(row, _LABEL_LETTERS)) for row in rows)
    rise = 0.71 * max(text_width(label) for label in labels)  # of a label that stands at 45 degrees
    top = 52 + rise
    width = max(left + _CELL * len(columns) + rise + 24, text_width(caption, 16) + 40)
    drawing = Drawing(width, top + _ROW * len(rows) + 20, caption)
    drawing.text(16, 26, caption, size=16)
    for place, label in enumerate(labels):
        drawing.text(left + _CELL * (place + 0.5), top - 8, label, turn=-45)
    for place, row in enumerate(rows):
        drawing.text(left - 10, top + _ROW * (place + 0.5) + 4, shortened(row, _LABEL_LETTERS), anchor="end")
    most = max(cell.count for cell in cells)
    for across in range(len(columns)):
        for down in range(len(rows)):
            x, y = left + _CELL * across, top + _ROW * down
            drawing.rectangle(x, y, _CELL - 2, _ROW - 2, fill="#f6f8fa", stroke=FAINT)
    for cell in cells:
        x, y = left + _CELL * columns.index(cell.column), top + _ROW * rows.index(cell.row)
        _fill(drawing, cell, x, y, math.log1p(cell.count) / math.log1p(most))
    return drawing


def _fill(drawing: Drawing, cell: Cell, x: float, y: float, strength: float) -> None:
    tip = f"{cell.row}, {cell.column}: {cell.count:,}"
    drawing.rectangle(x, y, _CELL - 2, _ROW - 2, fill=_shade(strength), tip=tip)
    colour = PAPER if strength > 0.55 else INK
    drawing.text(x + _CELL / 2 - 1, y + _ROW / 2 + 3, _short_count(cell.count), size=11, anchor="middle", colour=colour)


def _shade(strength: float) -> str:
    channels = (round(low + (high - low) * strength) for low, high in zip(_LOW, _HIGH, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _short_count(count: int) -> str:
    """As it fits into a cell.

    >>> _short_count(999), _short_count(12345), _short_count(1234567)
    ('999', '12k', '1.2M')
    """
    if count < 1000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"
