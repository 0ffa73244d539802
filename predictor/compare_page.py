"""A comparison as a page: energy per token against latency, and the table; one HTML file that needs no network.

Charts, tables and styles are those of the harness's report.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import jinja2
from plotly.offline import get_plotlyjs

from harness import __version__
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.graph_page import write_text
from harness.report.plot import Axis, Mark, Points, scatter
from harness.report.setups import LegendEntry
from harness.units import duration, si
from predictor.compare import Candidate, Comparison, front_of
from predictor.compare_text import RULES, TITLES, bounds_text, marks, rank_text, shared_text, varied

# Okabe and Ito's palette without yellow and black, as the report has it; then the same again with other symbols.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195")
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "star")
_FRONT: Final = Mark(colour="#7f8790", symbol="circle-open")
_FRONT_SERIES: Final = "Pareto front"
_MOST_ROWS: Final = 2000  # of the table
_VIEWS: Final[Mapping[str, Callable[[Candidate], float | None]]] = {
    "time of the request": lambda one: one.time_s,
    "time to the first token": lambda one: one.ttft_s,
    "time per output token": lambda one: one.tpot_s,
}
METHODS: Final = (
    *RULES,
    "A deployment beyond a bound has an open mark. A ring marks the Pareto front of the latency that is shown, among "
    "those within the bounds.",
    "Whiskers are the 90 % interval.",
    "Energy is that of the GPUs in use, for the whole batch, over its output tokens.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    title: str
    subtitle: str
    section: Section
    table: Table
    refusals: tuple[str, ...]
    methods: tuple[str, ...]
    footer: str


def write_page(comparison: Comparison, out: Path) -> None:
    """Write the page, at once or not at all; raises ``CannotWrite``."""
    write_text(comparison_page(comparison), out)


def comparison_page(comparison: Comparison) -> str:
    """The page as HTML; every text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": _file("predictor", "compare_template.html")}),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    scripts = tuple(_Script(text) for text in (get_plotlyjs(), _file("harness.report", "report.js")))
    style = _file("harness.report", "style.css")
    return environment.get_template("page").render(page=_page(comparison), style=style, scripts=scripts)


class _Script:
    """A script of the page. Its hash is in the page's policy, so that browsers run these and no others."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _page(comparison: Comparison) -> _Page:
    bounds = bounds_text(comparison.bounds)
    meeting = sum(one.meets for one in comparison.candidates)
    within = f", {meeting:,} within the bounds ({bounds})" if bounds else ""
    return _Page(
        title="Deployments by energy per output token",
        subtitle=f"{shared_text(comparison)}. {len(comparison.candidates):,} deployments predicted{within}.",
        section=_section(comparison),
        table=_table(comparison),
        refusals=tuple(f"{one.times:,} × {one.reason} (first: {one.first})" for one in comparison.refused),
        methods=METHODS,
        footer=f"joulegraph {__version__}, predictor {comparison.predictor}",
    )


def _section(comparison: Comparison) -> Section:
    groups = _grouped(comparison)
    series_marks = {name: _mark(place) for place, name in enumerate(groups)}
    series = [*_fronts(comparison)]
    for name, members in groups.items():
        for meets in (True, False):
            some = [one for one in members if one.meets == meets]
            if some:
                mark = series_marks[name]
                drawn = mark if meets else Mark(colour=mark.colour, symbol=f"{mark.symbol}-open")
                series.append(_points(comparison, name, drawn, some))
    figure = scatter(
        name="comparison",
        title="Energy per output token",
        series=series,
        x_axes=[Axis(title=title, unit="s", log=True) for title in _VIEWS],
        y_axis=Axis(title="energy per output token", unit="J", log=True),
        height_px=520,
    )
    legend = [LegendEntry(series=name, text=name, mark=mark) for name, mark in series_marks.items()]
    legend.append(LegendEntry(series=_FRONT_SERIES, text=_FRONT_SERIES, mark=_FRONT))
    return Section(
        name="energy",
        title="Energy against latency",
        lead="Down and to the left is better.",
        groups=(Group(legend=tuple(legend), figures=(figure,)),),
        views=tuple(_VIEWS),
        choice="Against",
    )


def _grouped(comparison: Comparison) -> Mapping[str, list[Candidate]]:
    """A series for each GPU; where there is one GPU only, for each value of the first axis."""
    columns = [axis.column for axis in comparison.axes]
    place = columns.index("gpu") if "gpu" in columns else 0
    groups: dict[str, list[Candidate]] = {}
    for one in comparison.candidates:
        name = f"{TITLES[columns[place]]} {varied(comparison, one)[place]}"
        groups.setdefault(name.removeprefix("GPU "), []).append(one)
    return groups


def _mark(place: int) -> Mark:
    symbol = _SYMBOLS[place // len(_COLOURS) % len(_SYMBOLS)]
    return Mark(colour=_COLOURS[place % len(_COLOURS)], symbol=symbol)


def _points(comparison: Comparison, series: str, mark: Mark, members: Sequence[Candidate]) -> Points:
    return Points(
        series=series,
        mark=mark,
        x=tuple([latency(one) for one in members] for latency in _VIEWS.values()),
        y=[one.energy_per_token_j for one in members],
        half_widths=[one.energy_per_token_interval_j.high - one.energy_per_token_j for one in members],
        lower_half_widths=[one.energy_per_token_j - one.energy_per_token_interval_j.low for one in members],
        notes=[_notes(comparison, one) for one in members],
        sizes_px=[9.0] * len(members),
    )


def _fronts(comparison: Comparison) -> list[Points]:
    """Rings around the front of each view."""
    meeting = [one for one in comparison.candidates if one.meets]
    fronts = [front_of(meeting, latency) for latency in _VIEWS.values()]
    members = [one for one in meeting if any(id(one) in front for front in fronts)]
    if not members:
        return []
    return [
        Points(
            series=_FRONT_SERIES,
            mark=_FRONT,
            x=tuple(
                [latency(one) if id(one) in front else None for one in members]
                for latency, front in zip(_VIEWS.values(), fronts, strict=True)
            ),
            y=[one.energy_per_token_j for one in members],
            notes=[_notes(comparison, one) for one in members],
            sizes_px=[17.0] * len(members),
        )
    ]


def _notes(comparison: Comparison, one: Candidate) -> Sequence[str]:
    interval = one.energy_per_token_interval_j
    named = zip((TITLES[axis.column] for axis in comparison.axes), varied(comparison, one), strict=True)
    return (
        f"{rank_text(one)} · {' · '.join(f'{title} {value}' for title, value in named)}",
        f"{si(one.energy_per_token_j, 'J')} per token ({si(interval.low, 'J')} – {si(interval.high, 'J')})",
        f"first token {duration(one.ttft_s)}, request {duration(one.time_s)}",
        *(("beyond a bound",) if not one.meets else ()),
        *(("unlike anything that was learned from",) if not one.prediction.in_distribution else ()),
        *one.answer.warnings,
    )


def _table(comparison: Comparison) -> Table:
    shown = comparison.candidates[:_MOST_ROWS]
    left_out = len(comparison.candidates) - len(shown)
    more = f", the first {_MOST_ROWS:,}" if left_out else ""
    numbers = {"n_gpus", "batch_size", "prompt_tokens", "output_tokens"}
    varied_columns = [Column(title=TITLES[axis.column], number=axis.column in numbers) for axis in comparison.axes]
    return Table(
        caption=f"All deployments in order of rank{more}",
        columns=(
            Column(title="rank", number=True, note="= a tie"),
            *varied_columns,
            Column(title="J per token", number=True),
            Column(title="90 % interval", number=True),
            Column(title="first token", number=True),
            Column(title="per token", number=True),
            Column(title="request", number=True),
            Column(title="energy", number=True, note="of the whole batch"),
            Column(title="notes"),
        ),
        rows=tuple(_row(comparison, one) for one in shown),
    )


def _row(comparison: Comparison, one: Candidate) -> tuple[Cell, ...]:
    interval = one.energy_per_token_interval_j
    values = varied(comparison, one)
    return (
        Cell(text=rank_text(one), key=one.rank),
        *(Cell(text=value, key=float(value) if value.isdigit() else None) for value in values),
        Cell(text=si(one.energy_per_token_j, "J"), key=one.energy_per_token_j),
        Cell(text=f"{si(interval.low, 'J')} – {si(interval.high, 'J')}", key=interval.low),
        Cell(text=duration(one.ttft_s), key=one.ttft_s),
        Cell(text="–" if one.tpot_s is None else duration(one.tpot_s), key=one.tpot_s),
        Cell(text=duration(one.time_s), key=one.time_s),
        Cell(text=si(one.prediction.whole.energy_j, "J"), key=one.prediction.whole.energy_j),
        Cell(text=marks(one), note="; ".join(one.answer.warnings)),
    )
