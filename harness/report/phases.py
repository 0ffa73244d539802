"""Energy and time of each phase and of whole requests, against batch size and length."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.dataset.summary import PhaseSummary, RunSummary
from harness.kernels import Phase
from harness.records import Provenance
from harness.report.blocks import Group, Section
from harness.report.plot import Axis, Figure, Points, Values, scatter
from harness.report.setups import Scene, size_px
from harness.report.text import (
    interval_parts,
    plain,
    plural,
    quantity,
    time_span,
    time_with_interval,
    with_interval,
)

PHASE_NAMES = {Phase.PREFILL: "Prefill", Phase.DECODE: "Decode"}
_TOKENS = {Phase.PREFILL: "prompt tokens", Phase.DECODE: "decode steps"}
_VIEWS = ("batch × length", "length", "batch size")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """A phase or a whole request with the run it belongs to; ``x`` has a value for each view."""

    run: RunSummary
    x: tuple[float, ...]
    y: float | None
    half_width: float | None
    notes: tuple[str, ...]


def phase_section(scene: Scene) -> Section:
    """Energy and time of prefill and decode."""
    phases = [phase for phase in scene.summary.phases if phase.row.energy_j is not None]
    figures = [
        make(scene, phase, [summary for summary in phases if summary.row.phase is phase])
        for phase in Phase
        for make in (_energy_figure, _time_figure)
        if any(summary.row.phase is phase for summary in phases)
    ]
    return Section(
        name="phases",
        title="Energy and time of each phase",
        lead="Gross energy and duration of one pass of the phase (idle power included), each phase from windows of "
        f"its own. {_methods(scene, phases)} Whiskers: 95 % interval over the repeats. Larger points: larger batches.",
        views=_VIEWS if figures else (),
        choice="Against",
        groups=(_group(scene, figures, [scene.runs[phase.row.run_id].setup for phase in phases]),),
    )


def token_section(scene: Scene) -> Section:
    """Joules per token of phases and of whole requests."""
    by_phase = {phase: [one for one in scene.summary.phases if one.row.phase is phase] for phase in Phase}
    figures = [
        _token_figure(
            scene, "prefill-token", "Prefill, per prompt token", _phase_tokens(scene, by_phase[Phase.PREFILL])
        ),
        _token_figure(scene, "decode-token", "Decode, per token made", _phase_tokens(scene, by_phase[Phase.DECODE])),
        _token_figure(scene, "request-token", "Whole request, per output token", _request_tokens(scene)),
    ]
    shown = [run.setup for run in scene.summary.runs if run.energy_per_output_token_j is not None]
    drawn = [figure for figure in figures if figure is not None]
    return Section(
        name="tokens",
        title="Joules per token",
        lead="The same energies divided by the tokens of all sequences of the batch: prompt tokens read in the "
        "prefill, tokens made in the decode, and, for the whole request, its own window over its output tokens. "
        "Whiskers: 95 % interval.",
        views=("batch size", "length") if drawn else (),
        choice="Against",
        groups=(_group(scene, drawn, shown),),
    )


def _group(scene: Scene, figures: Iterable[Figure], setups: Iterable[int]) -> Group:
    drawn = tuple(figures)
    missing = () if drawn else ("No run of this dataset has an energy to show here.",)
    return Group(legend=scene.legend(setups) if drawn else (), figures=drawn, notes=missing)


def _methods(scene: Scene, phases: list[PhaseSummary]) -> str:
    """How the energies were read, for each provenance in sight."""
    told = sorted({(scene.runs[one.row.run_id].run.provenance, plain(one.row.method)) for one in phases})
    by_provenance = {
        provenance: ", ".join(method for found, method in told if found is provenance) for provenance in Provenance
    }
    known = [f"{provenance.value} by {methods}" for provenance, methods in by_provenance.items() if methods]
    return f"Energy {'; '.join(known)}." if known else ""


def _energy_figure(scene: Scene, phase: Phase, phases: list[PhaseSummary]) -> Figure:
    points = _phase_points(scene, phases, lambda one: one.row.energy_j, lambda one: one.row.energy_ci95_j)
    return _phase_figure(scene, phase, "energy", Axis(title="energy of one pass", unit="J", log=True), points)


def _time_figure(scene: Scene, phase: Phase, phases: list[PhaseSummary]) -> Figure:
    points = _phase_points(scene, phases, lambda one: one.row.duration_s, lambda _: None)
    return _phase_figure(scene, phase, "time", Axis(title="duration of one pass", unit="s", log=True), points)


def _phase_figure(scene: Scene, phase: Phase, quantity_name: str, y_axis: Axis, points: list[_Point]) -> Figure:
    tokens = _TOKENS[phase]
    return scatter(
        name=f"{phase.value}-{quantity_name}",
        title=f"{PHASE_NAMES[phase]} {quantity_name}",
        series=_series(scene, points),
        x_axes=(
            Axis(title=f"batch size × {tokens}", log=True, whole=True),
            Axis(title=f"{tokens} of each sequence", log=True, whole=True),
            Axis(title="batch size", log=True, whole=True),
        ),
        y_axis=y_axis,
    )


def _token_figure(scene: Scene, name: str, title: str, points: list[_Point]) -> Figure | None:
    known = [point for point in points if point.y is not None]
    if not known:
        return None
    length = "output tokens" if name == "request-token" else _TOKENS[Phase(name.removesuffix("-token"))]
    return scatter(
        name=name,
        title=title,
        series=_series(scene, known),
        x_axes=(
            Axis(title="batch size", log=True, whole=True),
            Axis(title=f"{length} of each sequence", log=True, whole=True),
        ),
        y_axis=Axis(title="energy per token", unit="J", log=True),
    )


def _series(scene: Scene, points: list[_Point]) -> list[Points]:
    """One series per setup, so that nothing of different provenance or device is pooled."""
    setups = sorted({point.run.setup for point in points})
    return [_of_setup(scene, setup, [point for point in points if point.run.setup == setup]) for setup in setups]


def _of_setup(scene: Scene, setup: int, points: list[_Point]) -> Points:
    column: Callable[[int], Values] = lambda view: [point.x[view] for point in points]  # noqa: E731
    return Points(
        series=scene.series(setup),
        mark=scene.marks[setup],
        x=tuple(column(view) for view in range(len(points[0].x))),
        y=[point.y for point in points],
        half_widths=[point.half_width for point in points],
        notes=[point.notes for point in points],
        sizes_px=[size_px(point.run.run.batch_size) for point in points],
    )


def _phase_points(
    scene: Scene,
    phases: list[PhaseSummary],
    y: Callable[[PhaseSummary], float | None],
    half_width: Callable[[PhaseSummary], float | None],
) -> list[_Point]:
    """A point for every phase whose request is known in all its sizes."""
    points = []
    for phase in phases:
        run = scene.runs[phase.row.run_id]
        length = run.run.prompt_tokens if phase.row.phase is Phase.PREFILL else phase.row.steps
        if phase.tokens is None or length is None or run.run.batch_size is None:
            continue
        x = (float(phase.tokens), float(length), float(run.run.batch_size))
        notes = _phase_notes(scene, phase, run)
        points.append(_Point(run=run, x=x, y=y(phase), half_width=half_width(phase), notes=notes))
    return points


def _phase_tokens(scene: Scene, phases: list[PhaseSummary]) -> list[_Point]:
    points = _phase_points(scene, phases, lambda one: one.energy_per_token_j, lambda one: one.energy_per_token_ci95_j)
    return [
        _Point(run=one.run, x=(one.x[2], one.x[1]), y=one.y, half_width=one.half_width, notes=one.notes)
        for one in points
    ]


def _phase_notes(scene: Scene, phase: PhaseSummary, run: RunSummary) -> tuple[str, ...]:
    row = phase.row
    trials = f", {plural(row.trials, 'trial')}" if row.trials is not None else ""
    return (
        f"{PHASE_NAMES[row.phase]} of {scene.run_name(run)}",
        f"{with_interval(row.energy_j, row.energy_ci95_j, 'J')}{trials}, {plain(row.method)}",
        *_parts(row.energy_j, phase.energy_repeat95_j, row.energy_systematic95_j),
        f"{time_span(row.duration_s)}, on average {quantity(phase.average_power_w, 'W')}",
        f"{with_interval(phase.energy_per_token_j, phase.energy_per_token_ci95_j, 'J')} per token",
        *scene.run_notes(run),
    )


def _request_tokens(scene: Scene) -> list[_Point]:
    return [
        _Point(
            run=run,
            x=(float(run.run.batch_size), float(tokens)),
            y=run.energy_per_output_token_j,
            half_width=run.energy_per_output_token_ci95_j,
            notes=_request_notes(scene, run),
        )
        for run in scene.summary.runs
        if run.energy_per_output_token_j is not None
        and run.run.batch_size is not None
        and (tokens := run.run.output_tokens or run.run.mean_output_tokens) is not None
    ]


def _request_notes(scene: Scene, run: RunSummary) -> tuple[str, ...]:
    row = run.run
    trials = f", {plural(row.trials, 'trial')}" if row.trials is not None else ""
    per_output = with_interval(run.energy_per_output_token_j, run.energy_per_output_token_ci95_j, "J")
    return (
        f"Whole request {scene.run_name(run)}",
        f"{with_interval(row.energy_j, row.energy_ci95_j, 'J')}{trials}, {plain(row.method)}",
        *_parts(row.energy_j, run.energy_repeat95_j, row.energy_systematic95_j),
        f"{time_with_interval(row.duration_s, row.duration_ci95_s)}, on average {quantity(run.average_power_w, 'W')}",
        f"{per_output} per output token, {quantity(run.energy_per_prompt_token_j, 'J')} per prompt token",
        *scene.run_notes(run),
    )


def _parts(energy_j: float | None, repeat95_j: float | None, systematic95_j: float | None) -> tuple[str, ...]:
    """What the interval is made of, as a line of its own where that is known."""
    text = interval_parts(energy_j, repeat95_j, systematic95_j)
    return (text,) if text else ()
