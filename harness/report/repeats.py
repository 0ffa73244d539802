"""How well the numbers repeat: windows against each other, and a request's own window against its phases."""

import statistics
from collections.abc import Iterable

from harness.dataset.summary import PartSummary, RunSummary, WindowSummary
from harness.records import Part, Provenance
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.plot import Axis, Figure, Mark, Points, scatter
from harness.report.setups import LegendEntry, Scene, provenance_mark
from harness.report.text import (
    NOTHING,
    count,
    percent,
    plain,
    quantity,
    short,
    signed_percent,
    time_span,
    with_interval,
)

_PART_NAMES = {
    Part.RUN: "Whole request",
    Part.PREFILL: "Prefill",
    Part.DECODE: "Decode",
    Part.IDLE: "Idle, model loaded",
}
_REJECTED = "rejected"
_RUN_AXIS = Axis(title="run (number in the table of runs)", whole=True)


def repeat_section(scene: Scene) -> Section:
    """Every window as a point, and the spread of each part."""
    windows = scene.summary.windows
    figures = [figure for part in _PART_NAMES if (figure := _part_figure(scene, part)) is not None]
    rejected = [window for window in windows if window.rejected is not None]
    tables = [_spread_table(scene)] if windows else []
    if rejected:
        tables.append(_rejected_table(scene, rejected))
    legend = scene.legend(scene.runs[window.run_id].setup for window in windows)
    if rejected:
        legend = (
            *legend,
            LegendEntry(series=_REJECTED, text="rejected window", mark=Mark(colour="#6B7280", symbol="x")),
        )
    missing = () if windows else ("No window was read.",)
    return Section(
        name="repeats",
        title="Repeats and their spread",
        lead="Each point is one window as the meter gave it: energy per pass (idle: power) relative to the mean of "
        "the used windows of the same run and part. Decode windows are compared with those of the same context.",
        groups=(Group(legend=legend, figures=tuple(figures), tables=tuple(tables), notes=missing),),
    )


def agreement_section(scene: Scene) -> Section:
    """Prefill + decode against the window of the whole request."""
    compared = [run for run in scene.summary.runs if run.window_difference_j is not None]
    notes = () if compared else ("No run has both an energy of its own and one for each of its phases.",)
    figures = (_agreement_figure(scene, compared),) if compared else ()
    tables = (_agreement_table(scene, compared),) if compared else ()
    return Section(
        name="agreement",
        title="Do the phases add up to the request?",
        lead="A request's energy is read in a window of its own, never added up from its phases. The difference "
        "shows what the phases' windows miss or count twice. Whiskers: 95 % interval of the difference; what the meter "
        "gets wrong in all windows alike (gain, offset) nearly cancels in it.",
        groups=(
            Group(legend=scene.legend(run.setup for run in compared), figures=figures, tables=tables, notes=notes),
        ),
    )


def _part_figure(scene: Scene, part: Part) -> Figure | None:
    windows = [window for window in scene.summary.windows if window.part is part and window.deviation is not None]
    if not windows:
        return None
    return scatter(
        name=f"repeats-{part.value}",
        title=_PART_NAMES[part],
        series=_window_series(scene, windows),
        x_axes=(_RUN_AXIS,),
        y_axis=Axis(title="from the mean", unit="%"),
        height_px=260,
    )


def _window_series(scene: Scene, windows: list[WindowSummary]) -> list[Points]:
    """Used windows by setup and provenance, rejected ones as crosses."""
    groups: dict[tuple[str, Mark], list[WindowSummary]] = {}
    for window in windows:
        setup = scene.runs[window.run_id].setup
        mark = provenance_mark(window.provenance, scene.marks[setup])
        if window.rejected is not None:
            mark = Mark(colour=mark.colour, symbol="x")
        name = scene.series(setup) if window.rejected is None else _REJECTED
        groups.setdefault((name, mark), []).append(window)
    return [
        Points(
            series=name,
            mark=mark,
            x=([float(scene.runs[window.run_id].number) for window in found],),
            y=[100 * window.deviation if window.deviation is not None else None for window in found],
            notes=[_window_notes(scene, window) for window in found],
        )
        for (name, mark), found in groups.items()
    ]


def _window_notes(scene: Scene, window: WindowSummary) -> tuple[str, ...]:
    run = scene.runs[window.run_id]
    energy = f"{quantity(window.energy_per_pass_j, 'J')} per pass, {window.passes:.4g} passes, "
    context = f"context from {count(window.context_start_tokens)} tokens" if window.context_start_tokens else ""
    rejected = f"rejected: {plain(window.rejected)}" if window.rejected is not None else ""
    lines = (
        f"{_PART_NAMES[window.part]} of {scene.run_name(run)}, window {window.trial + 1}",
        f"{signed_percent(window.deviation, None)} from the mean",
        f"{'' if window.part is Part.IDLE else energy}{quantity(window.average_power_w, 'W')}",
        f"{with_interval(window.energy_j, window.uncertainty_j, 'J')} in {time_span(window.duration_s)}",
        context,
        f"{window.provenance.value}, {plain(window.meter)}",
        rejected,
        *scene.run_notes(run),
    )
    return tuple(line for line in lines if line)


def _spread_table(scene: Scene) -> Table:
    return Table(
        caption="Relative standard deviation of the used windows of a run",
        columns=(
            Column(title="part"),
            Column(title="provenance"),
            Column(title="windows used", number=True),
            Column(title="rejected", number=True),
            Column(title="median spread", number=True, note="over the runs"),
            Column(title="largest spread", number=True),
            Column(title="in run"),
        ),
        rows=tuple(
            _spread_row(scene, part, provenance, found)
            for part in _PART_NAMES
            for provenance in Provenance
            if (found := _parts(scene, part, provenance))
        ),
    )


def _parts(scene: Scene, part: Part, provenance: Provenance) -> list[PartSummary]:
    parts = [one for one in scene.summary.parts if one.part is part]
    return [one for one in parts if scene.runs[one.run_id].run.provenance is provenance]


def _spread_row(scene: Scene, part: Part, provenance: Provenance, found: list[PartSummary]) -> tuple[Cell, ...]:
    spreads = [(one.spread, one.run_id) for one in found if one.spread is not None]
    middle = statistics.median(spread for spread, _ in spreads) if spreads else None
    largest, run_id = max(spreads) if spreads else (None, None)
    used, rejected = sum(one.windows_used for one in found), sum(one.windows_rejected for one in found)
    return (
        Cell(text=_PART_NAMES[part]),
        Cell(text=provenance.value),
        Cell(text=count(used), key=used),
        Cell(text=count(rejected), key=rejected),
        Cell(text=percent(middle), key=middle),
        Cell(text=percent(largest), key=largest),
        Cell(text=NOTHING if run_id is None else scene.run_name(scene.runs[run_id])),
    )


def _rejected_table(scene: Scene, windows: Iterable[WindowSummary]) -> Table:
    return Table(
        caption="Rejected windows: read, kept, and not used",
        columns=(
            Column(title="run"),
            Column(title="part"),
            Column(title="window", number=True),
            Column(title="energy per pass", number=True),
            Column(title="from the mean", number=True),
            Column(title="reason"),
        ),
        rows=tuple(
            (
                _run_cell(scene, scene.runs[window.run_id]),
                Cell(text=_PART_NAMES[window.part]),
                Cell(text=str(window.trial + 1), key=window.trial),
                Cell(text=quantity(window.energy_per_pass_j, "J"), key=window.energy_per_pass_j),
                Cell(text=signed_percent(window.deviation, None), key=window.deviation),
                Cell(text=short(plain(window.rejected), 120), note=plain(window.rejected)),
            )
            for window in windows
        ),
    )


def _agreement_figure(scene: Scene, runs: list[RunSummary]) -> Figure:
    setups = sorted({run.setup for run in runs})
    return scatter(
        name="agreement",
        title="Request's own window less prefill + decode",
        series=[_agreement_points(scene, setup, [run for run in runs if run.setup == setup]) for setup in setups],
        x_axes=(_RUN_AXIS,),
        y_axis=Axis(title="difference, share of the request", unit="%"),
    )


def _agreement_points(scene: Scene, setup: int, runs: list[RunSummary]) -> Points:
    return Points(
        series=scene.series(setup),
        mark=scene.marks[setup],
        x=([float(run.number) for run in runs],),
        y=[_percent_of_request(run.window_difference_j, run) for run in runs],
        half_widths=[_percent_of_request(run.window_difference_ci95_j, run) for run in runs],
        notes=[_agreement_notes(scene, run) for run in runs],
    )


def _agreement_notes(scene: Scene, run: RunSummary) -> tuple[str, ...]:
    return (
        scene.run_name(run),
        f"own window: {with_interval(run.run.energy_j, run.run.energy_ci95_j, 'J')}",
        f"prefill + decode: {with_interval(run.phases_energy_j, run.phases_energy_ci95_j, 'J')}",
        f"difference: {_difference(run)} of the request",
        *scene.run_notes(run),
    )


def _agreement_table(scene: Scene, runs: list[RunSummary]) -> Table:
    return Table(
        caption="A request's own window against its phases",
        columns=(
            Column(title="run"),
            Column(title="own window", number=True),
            Column(title="prefill + decode", number=True),
            Column(title="difference", number=True, note="of the request; ± percentage points, 95 %"),
        ),
        rows=tuple(
            (
                _run_cell(scene, run),
                Cell(text=with_interval(run.run.energy_j, run.run.energy_ci95_j, "J"), key=run.run.energy_j),
                Cell(text=with_interval(run.phases_energy_j, run.phases_energy_ci95_j, "J"), key=run.phases_energy_j),
                Cell(text=_difference(run), key=_percent_of_request(run.window_difference_j, run)),
            )
            for run in runs
        ),
    )


def _run_cell(scene: Scene, run: RunSummary) -> Cell:
    return Cell(text=scene.run_name(run), key=run.number, note=scene.names[run.setup])


def _difference(run: RunSummary) -> str:
    return _share_of_request(run, run.window_difference_j, run.window_difference_ci95_j)


def _share_of_request(run: RunSummary, part_j: float | None, half_width_j: float | None) -> str:
    whole_j = run.run.energy_j
    if part_j is None or not whole_j:
        return NOTHING
    return signed_percent(part_j / whole_j, None if half_width_j is None else half_width_j / whole_j)


def _percent_of_request(part_j: float | None, run: RunSummary) -> float | None:
    return None if part_j is None or not run.run.energy_j else 100 * part_j / run.run.energy_j
