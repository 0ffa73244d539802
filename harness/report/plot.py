"""Charts as plotly.js draws them; the only file that knows its vocabulary.

All text that reaches a chart is escaped here: plotly.js reads labels as a small HTML.
"""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Values = Sequence[float | None]

_DECADES_FOR_LOG = 1.0  # an axis spanning less than a factor of ten stays linear
_DECADES_FOR_125 = 3.0
_FEW_TICKS = 6
_CROWD = 100  # points; from there on they are drawn smaller, and whiskers without ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How a series is drawn; ``pattern`` is for bars, ``symbol`` for points."""

    colour: str
    symbol: str = "circle"
    pattern: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis. Numbers carry SI prefixes, and the unit stands beside the title; ``%`` stands behind each number."""

    title: str
    unit: str = ""
    log: bool = False  # where the numbers allow it
    whole: bool = False  # whole numbers only
    from_zero: bool = False  # logarithmic ones, where they are not, always are


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """A series of points, with one set of x values for each view of the figure."""

    series: str  # entry of the legend that shows and hides it
    mark: Mark
    x: tuple[Values, ...]
    y: Values
    half_widths: Values | None = None  # error bars along y
    lower_half_widths: Values | None = None  # downwards, where they are not as long as upwards
    notes: Sequence[Sequence[str]]  # lines shown when pointed at
    sizes_px: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One piece of horizontal bars, with one set of lengths (starts, half widths) for each view of the figure."""

    series: str
    mark: Mark
    names: Sequence[str]
    lengths: tuple[Values, ...]
    notes: Sequence[Sequence[str]]
    starts: tuple[Values, ...] | None = None  # where the bars begin, else where the piece before ends
    half_widths: tuple[Values, ...] | None = None  # error bars at their ends
    always_visible: bool = False  # also where the length is too small to be drawn, or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart ready to be drawn. ``spec`` is JSON: data, layout, views."""

    name: str
    title: str
    description: str  # read out to those who cannot see it
    height_px: int
    spec: str


def scatter(
    *, name: str, title: str, series: Sequence[Points], x_axes: Sequence[Axis], y_axis: Axis, height_px: int = 320
) -> Figure:
    """Points on axes; ``x_axes`` has one axis for each view."""
    heights = [value for points in series for value in points.y]
    y = _axis(y_axis, heights)
    views = [_axis(axis, [value for points in series for value in points.x[i]]) for i, axis in enumerate(x_axes)]
    drawn = sum(value is not None for value in heights)
    return Figure(
        name=name,
        title=title,
        description=f"{title}: {y_axis.title} against {x_axes[0].title}, {drawn} points.",
        height_px=height_px,
        spec=_spec(
            data=[_points(points, crowded=drawn > _CROWD) for points in series],
            layout={"xaxis": views[0], "yaxis": y, "hovermode": "closest"},
            views=[
                {"data": [_numbers(points.x[i]) for points in series], "axis": axis} for i, axis in enumerate(views)
            ],
        ),
    )


def stacked_bars(
    *, name: str, title: str, pieces: Sequence[Bars], axes: Sequence[Axis], names: Sequence[str]
) -> Figure:
    """Horizontal bars from top to bottom in the order of ``names``; ``axes`` has one axis for each view.

    Pieces that say where they start lie where they say; a piece of negative length then runs back over those before it.
    """
    placed = any(piece.starts is not None for piece in pieces)
    return _bar_figure(
        name=name,
        title=title,
        pieces=pieces,
        axes=axes,
        names=names,
        mode="overlay" if placed else "relative",
        row_px=26,
    )


def grouped_bars(
    *, name: str, title: str, pieces: Sequence[Bars], axes: Sequence[Axis], names: Sequence[str]
) -> Figure:
    """Horizontal bars beside one another in each row, as ``stacked_bars`` otherwise."""
    row_px = 12 + 10 * len(pieces)
    return _bar_figure(name=name, title=title, pieces=pieces, axes=axes, names=names, mode="group", row_px=row_px)


def _bar_figure(
    *,
    name: str,
    title: str,
    pieces: Sequence[Bars],
    axes: Sequence[Axis],
    names: Sequence[str],
    mode: str,
    row_px: int,
) -> Figure:
    lengths = [_axis(axis, []) for axis in axes]
    rows = {"type": "category", "categoryarray": [label(row) for row in names], "autorange": "reversed"}
    return Figure(
        name=name,
        title=title,
        description=f"{title}: {axes[0].title}, {len(names)} bars of up to {len(pieces)} pieces.",
        height_px=90 + row_px * max(3, len(names)),
        spec=_spec(
            data=[_bars(piece) for piece in pieces],
            layout={
                "barmode": mode,
                "bargap": 0.25,
                "hovermode": "closest",
                "xaxis": lengths[0],
                "yaxis": {**rows, "automargin": True, "showgrid": False, "ticks": "", "fixedrange": True},
            },
            views=[_bar_view(pieces, view, axis) for view, axis in enumerate(lengths)],
        ),
    )


def _bar_view(pieces: Sequence[Bars], view: int, axis: dict[str, Any]) -> dict[str, Any]:
    """Everything about the bars that differs from view to view."""
    return {
        "data": [_numbers(piece.lengths[view]) for piece in pieces],
        "starts": [None if piece.starts is None else _numbers(piece.starts[view]) for piece in pieces],
        "errors": [None if piece.half_widths is None else _numbers(piece.half_widths[view]) for piece in pieces],
        "axis": axis,
    }


def label(text: str) -> str:
    """Text as plotly.js must be given it to show it letter by letter.

    >>> label("<b>a</b> & b")
    '&lt;b&gt;a&lt;/b&gt; &amp; b'
    """
    return html.escape(text, quote=False)


def script_json(content: object) -> str:
    r"""JSON that can stand inside a script element: no character of it can end the element or open a tag.

    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _spec(*, data: list[dict[str, Any]], layout: dict[str, Any], views: list[dict[str, Any]]) -> str:
    return script_json({"data": data, "layout": layout, "views": views})


def _points(points: Points, *, crowded: bool) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": label(points.series),
        "meta": points.series,
        "x": _numbers(points.x[0]),
        "y": _numbers(points.y),
        "hoverinfo": "text",
        "hovertext": [_note(lines) for lines in points.notes],
        "marker": {
            "color": points.mark.colour,
            "symbol": points.mark.symbol,
            "size": list(points.sizes_px) if points.sizes_px is not None else 6 if crowded else 9,
            "opacity": 0.85,
        },
    }
    if points.half_widths is not None and any(width is not None for width in points.half_widths):
        ends = {"thickness": 0.7, "width": 0} if crowded else {"thickness": 1.3, "width": 4}
        trace["error_y"] = {"type": "data", "array": _numbers(points.half_widths), **ends}
        if points.lower_half_widths is not None:
            trace["error_y"] |= {"symmetric": False, "arrayminus": _numbers(points.lower_half_widths)}
    return trace


def _bars(piece: Bars) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "name": label(piece.series),
        "meta": piece.series,
        "y": [label(name) for name in piece.names],
        "x": _numbers(piece.lengths[0]),
        "hoverinfo": "text",
        "hovertext": [_note(lines) for lines in piece.notes],
        "textposition": "none",
        "marker": {
            "color": piece.mark.colour,
            "pattern": {
                "shape": piece.mark.pattern,
                "fillmode": "overlay",
                "fgcolor": "rgba(255,255,255,0.8)",
                "size": 6,
            },
            "line": {"width": 2 if piece.always_visible else 0, "color": piece.mark.colour},
        },
    }
    if piece.starts is not None:
        trace["base"] = _numbers(piece.starts[0])
    if piece.half_widths is not None:
        trace["error_x"] = {"type": "data", "array": _numbers(piece.half_widths[0]), "thickness": 1.5, "width": 5}
    return trace


def _note(lines: Sequence[str]) -> str:
    return "<br>".join(label(line) for line in lines)


def _axis(axis: Axis, values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    decades = math.log10(max(known) / min(known)) if known and min(known) > 0 else 0.0
    log = axis.log and decades >= _DECADES_FOR_LOG
    in_percent = axis.unit == "%"
    title = f"{axis.title} ({axis.unit})" if axis.unit and not in_percent else axis.title
    layout: dict[str, Any] = {
        "title": {"text": label(title), "standoff": 12},
        "type": "log" if log else "linear",
        "tickformat": "" if in_percent else "~s",
        "ticksuffix": " %" if in_percent else "",
        "automargin": True,
        "nticks": _FEW_TICKS,
        "rangemode": "tozero" if axis.log or axis.from_zero else "normal",
    }
    if log:
        layout["dtick"] = "D2" if decades < _DECADES_FOR_125 else 1  # D2: at 1, 2 and 5
    return layout | (_whole_ticks(known, log, axis.log) if axis.whole and known else {})


def _whole_ticks(values: list[float], log: bool, from_zero: bool) -> dict[str, Any]:
    """Ticks at whole numbers only: at the values themselves where they are few and far between."""
    steps = sorted(set(values))
    if not log:
        return {"dtick": 1} if steps[-1] - (0 if from_zero else steps[0]) < _FEW_TICKS else {}
    apart = all(after >= 1.4 * before for before, after in pairwise(steps))
    if apart and len(steps) <= _FEW_TICKS and steps[-1] < 1000:
        return {"tickvals": steps}
    return {"minallowed": math.log10(steps[0] * 0.75)}


def _numbers(values: Values) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]
