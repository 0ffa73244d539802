"""Every energy and time of a run with its interval, and what the interval is made of."""

from collections.abc import Iterator

from harness.dataset.summary import PhaseSummary, RunSummary
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.phases import PHASE_NAMES
from harness.report.setups import Scene
from harness.report.text import NOTHING, percent, plural, systematic, time_with_interval, with_interval


def interval_section(scene: Scene) -> Section:
    """Requests and phases with the two parts of their intervals, and what is derived from them."""
    rows = tuple(_rows(scene))
    notes = [] if rows else ["No run of this dataset has an energy to show here."]
    unstated = sum(run.run.energy_systematic95_j == 0 for run in scene.summary.runs)
    if unstated:
        notes.append(
            f"Not stated: nobody says how far the gain of these meters is off ({plural(unstated, 'run')}), so their "
            "intervals are those of repeats and counter alone."
        )
    return Section(
        name="intervals",
        title="How sure is each number?",
        lead="± is the half width of a 95 % interval, relative to the value. Repeats: spread of the windows and what "
        "the counter's steps leave open; it shrinks with more trials. Gain and offset: what the meter gets wrong in "
        "every reading alike, as its maker or a calibration states it; no repeat shows it, and it cancels where two "
        "runs on the same device are compared. The two add in quadrature. Joules per sequence and per token are the "
        "energy over whole numbers that are exact, so their intervals are that of the energy.",
        groups=(Group(tables=(_table(rows),) if rows else (), notes=tuple(notes)),),
    )


def _rows(scene: Scene) -> Iterator[tuple[Cell, ...]]:
    phases: dict[str, list[PhaseSummary]] = {}
    for phase in scene.summary.phases:
        phases.setdefault(phase.row.run_id, []).append(phase)
    for run in scene.summary.runs:
        if run.run.energy_j is not None:
            yield _request_row(scene, run)
        for phase in phases.get(run.run.run_id, []):
            if phase.row.energy_j is not None:
                yield _phase_row(scene, run, phase)


def _table(rows: tuple[tuple[Cell, ...], ...]) -> Table:
    return Table(
        caption="Energies and times with their intervals",
        columns=(
            Column(title="run"),
            Column(title="part"),
            Column(title="energy", number=True, note="gross, of one pass"),
            Column(title="repeats", number=True, note="spread of the windows, steps of the counter"),
            Column(title="gain and offset", number=True, note="alike in all readings of the meter"),
            Column(title="time", number=True, note="phases: no interval is kept"),
            Column(title="J per sequence", number=True, note="of the batch"),
            Column(title="J per token", number=True, note="request: output tokens; prefill: prompt; decode: made"),
        ),
        rows=rows,
    )


def _request_row(scene: Scene, run: RunSummary) -> tuple[Cell, ...]:
    row = run.run
    return (
        Cell(text=scene.run_name(run), key=run.number, note=scene.names[run.setup]),
        Cell(text="Whole request"),
        *_energy_cells(row.energy_j, row.energy_ci95_j, run.energy_repeat95_j, row.energy_systematic95_j),
        Cell(text=time_with_interval(row.duration_s, row.duration_ci95_s), key=row.duration_s),
        _joules(run.energy_per_sequence_j, run.energy_per_sequence_ci95_j),
        _joules(run.energy_per_output_token_j, run.energy_per_output_token_ci95_j),
    )


def _phase_row(scene: Scene, run: RunSummary, phase: PhaseSummary) -> tuple[Cell, ...]:
    row, batch = phase.row, run.run.batch_size
    per_sequence = None if row.energy_j is None or not batch else row.energy_j / batch
    half_width = None if row.energy_ci95_j is None or not batch else row.energy_ci95_j / batch
    return (
        Cell(text=scene.run_name(run), key=run.number, note=scene.names[run.setup]),
        Cell(text=PHASE_NAMES[row.phase]),
        *_energy_cells(row.energy_j, row.energy_ci95_j, phase.energy_repeat95_j, row.energy_systematic95_j),
        Cell(text=time_with_interval(row.duration_s, None), key=row.duration_s),
        _joules(per_sequence, half_width),
        _joules(phase.energy_per_token_j, phase.energy_per_token_ci95_j),
    )


def _energy_cells(
    energy_j: float | None, ci95_j: float | None, repeat95_j: float | None, systematic95_j: float | None
) -> tuple[Cell, Cell, Cell]:
    repeat = None if not energy_j or repeat95_j is None else repeat95_j / energy_j
    return (
        _joules(energy_j, ci95_j),
        Cell(text=NOTHING if repeat is None else f"± {percent(repeat)}", key=repeat),
        Cell(text=systematic(energy_j, systematic95_j), key=systematic95_j and energy_j and systematic95_j / energy_j),
    )


def _joules(value_j: float | None, half_width_j: float | None) -> Cell:
    return Cell(text=with_interval(value_j, half_width_j, "J"), key=value_j)
