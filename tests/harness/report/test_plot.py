"""Charts: escaped text, honest axes, specifications that plotly accepts."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.plot import (
    Axis,
    Bars,
    Mark,
    Points,
    grouped_bars,
    label,
    scatter,
    script_json,
    stacked_bars,
)

HOSTILE = "</script><img src=x onerror=alert(1)>%{x} <a href='javascript:alert(1)'>b</a>"


def points(y: Sequence[float | None], x: Sequence[float | None] | None = None, note: str = "note") -> Points:
    return Points(
        series="setup 1",
        mark=Mark(colour="#0072B2"),
        x=(x if x is not None else [float(index + 1) for index in range(len(y))],),
        y=y,
        half_widths=[0.1 if value is not None else None for value in y],
        notes=[(note, "second line")] * len(y),
    )


def spec_of(series: Points, x_axis: Axis | None = None, y_axis: Axis | None = None) -> dict[str, Any]:
    axes = (x_axis or Axis(title="x", log=True),)
    figure = scatter(name="f", title="t", series=[series], x_axes=axes, y_axis=y_axis or Axis(title="y", log=True))
    spec: dict[str, Any] = json.loads(figure.spec)
    return spec


@given(st.text())
def test_a_label_says_what_it_was_given_and_holds_no_tag(raw: str) -> None:
    assert html.unescape(label(raw)) == raw
    assert "<" not in label(raw)
    assert ">" not in label(raw)


@given(st.recursive(st.text() | st.none() | st.integers(), lambda inner: st.lists(inner)))
def test_json_in_a_script_reads_back_and_cannot_end_the_script(content: object) -> None:
    written = script_json(content)

    assert json.loads(written) == content
    assert not set("<>&\u2028\u2029") & set(written)


def test_a_hostile_note_is_escaped_and_not_read_as_a_template() -> None:
    spec = spec_of(points([1.0], note=HOSTILE))
    trace = spec["data"][0]

    assert trace["hoverinfo"] == "text"
    assert "hovertemplate" not in trace
    assert trace["hovertext"] == [html.escape(HOSTILE, quote=False) + "<br>second line"]


def test_values_that_are_not_known_are_not_drawn_as_zero() -> None:
    trace = spec_of(points([1.0, None, math.nan, math.inf]))["data"][0]

    assert trace["y"] == [1.0, None, None, None]
    assert trace["error_y"]["array"] == [0.1, None, 0.1, 0.1]


def test_an_interval_that_reaches_further_up_than_down_is_drawn_so() -> None:
    trace = spec_of(replace(points([1.0]), lower_half_widths=[0.05]))["data"][0]

    assert trace["error_y"]["symmetric"] is False
    assert (trace["error_y"]["array"], trace["error_y"]["arrayminus"]) == ([0.1], [0.05])


@pytest.mark.parametrize(
    ("values", "kind"), [([1.0, 10.0], "log"), ([1.0, 9.0], "linear"), ([0.0, 100.0], "linear"), ([None], "linear")]
)
def test_an_axis_is_logarithmic_only_where_the_numbers_span_a_decade_and_none_is_zero(
    values: list[float | None], kind: str
) -> None:
    assert spec_of(points(values))["layout"]["yaxis"]["type"] == kind


def test_the_unit_stands_beside_the_title_of_the_axis() -> None:
    layout = spec_of(points([1.0]), y_axis=Axis(title="energy", unit="J"))["layout"]

    assert layout["yaxis"]["title"]["text"] == "energy (J)"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1.0, 2.0, 4.0, 32.0], {"tickvals": [1.0, 2.0, 4.0, 32.0]}),
        ([2.0, 3.0], {"dtick": 1}),
        ([64.0], {}),
        ([100.0, 101.0, 1001.0], {"minallowed": math.log10(75)}),
    ],
)
def test_whole_numbers_get_whole_ticks(values: list[float | None], ticks: dict[str, object]) -> None:
    spec = spec_of(points([1.0] * len(values), values), Axis(title="batch size", log=True, whole=True))
    axis = spec["layout"]["xaxis"]

    assert {key: axis[key] for key in ("tickvals", "dtick", "minallowed") if axis.get(key, "D2") != "D2"} == ticks


@pytest.mark.parametrize(("largest", "tick"), [(10.0, "D2"), (900.0, "D2"), (5000.0, 1)])
def test_a_logarithmic_axis_has_ticks_at_1_2_and_5_or_at_decades(largest: float, tick: object) -> None:
    assert spec_of(points([1.0, largest]))["layout"]["yaxis"]["dtick"] == tick


def test_plotly_accepts_every_key_of_the_charts() -> None:
    piece = Bars(
        series="gemm",
        mark=Mark(colour="#0072B2", pattern="/"),
        names=["#1 · 1 × 2 → 3"],
        lengths=([1.0], [100.0]),
        notes=[("note",)],
    )
    axes = (Axis(title="energy", unit="J"), Axis(title="share", unit="%"))
    bars = json.loads(stacked_bars(name="b", title="b", pieces=[piece], axes=axes, names=piece.names).spec)
    whole = Axis(title="batch", log=True, whole=True)

    placed = replace(piece, starts=([2.0], [200.0]), half_widths=([0.5], [50.0]), always_visible=True)
    waterfall = json.loads(stacked_bars(name="w", title="w", pieces=[piece, placed], axes=axes, names=piece.names).spec)
    grouped = json.loads(grouped_bars(name="g", title="g", pieces=[piece, placed], axes=axes, names=piece.names).spec)

    for spec in (spec_of(points([1.0, 20.0]), whole), spec_of(points([1.0]), whole), bars, waterfall, grouped):
        go.Figure(data=spec["data"], layout=spec["layout"])
        for view in spec["views"]:
            go.Figure(layout={"xaxis": view["axis"]})
            assert len(view["data"]) == len(spec["data"])


def piece_of(**changes: Any) -> Bars:
    made = Bars(series="a", mark=Mark(colour="#0072B2"), names=["row"], lengths=([1.0], [10.0]), notes=[("note",)])
    return replace(made, **changes)


def bars_of(*pieces: Bars) -> dict[str, Any]:
    axes = (Axis(title="energy", unit="J"), Axis(title="share", unit="%"))
    spec: dict[str, Any] = json.loads(stacked_bars(name="b", title="b", pieces=pieces, axes=axes, names=["row"]).spec)
    return spec


def test_bars_that_say_where_they_start_are_placed_and_keep_their_places_in_every_view() -> None:
    spec = bars_of(piece_of(starts=([0.0], [0.0])), piece_of(starts=([1.0], [10.0]), half_widths=([0.1], [None])))

    assert spec["layout"]["barmode"] == "overlay"
    assert [trace["base"] for trace in spec["data"]] == [[0.0], [1.0]]
    assert [view["starts"] for view in spec["views"]] == [[[0.0], [1.0]], [[0.0], [10.0]]]
    assert [view["errors"] for view in spec["views"]] == [[None, [0.1]], [None, [None]]]


def test_bars_without_places_are_stacked_by_their_lengths() -> None:
    spec = bars_of(piece_of(), piece_of(lengths=([-1.0], [-10.0])))

    assert spec["layout"]["barmode"] == "relative"
    assert not any("base" in trace or "error_x" in trace for trace in spec["data"])


@pytest.mark.parametrize(("always_visible", "width"), [(True, 2), (False, 0)])
def test_a_piece_that_must_be_seen_has_an_outline_in_its_colour(always_visible: bool, width: int) -> None:
    line = bars_of(piece_of(lengths=([0.0], [0.0]), always_visible=always_visible))["data"][0]["marker"]["line"]

    assert line == {"width": width, "color": "#0072B2"}
