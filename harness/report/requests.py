"""What was asked and how each run ended: sampled requests, failures, the table of all runs."""

from harness.dataset.summary import RunSummary
from harness.records import Status
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.plot import Axis, Figure, Mark, Points, scatter
from harness.report.setups import LegendEntry, Scene, size_px
from harness.report.text import (
    count,
    interval_parts,
    memory,
    moment,
    plain,
    quantity,
    short,
    time_with_interval,
    with_interval,
)

_STATUS_NAMES = {
    Status.OK: "ok",
    Status.OOM: "out of memory",
    Status.FAILED: "failed",
    Status.SKIPPED: "skipped",
}
_UNFINISHED = "unfinished"
_CLIPPED = "clipped"


def request_section(scene: Scene) -> Section:
    """Prompt against output length of every run, clipped and unfinished ones marked."""
    runs = scene.summary.runs
    legend = scene.legend(run.setup for run in runs)
    if any(run.run.clipped for run in runs):
        legend = (*legend, LegendEntry(series=_CLIPPED, text="clipped", mark=Mark(colour="#6B7280", symbol="star")))
    if any(run.run.status is not Status.OK for run in runs):
        legend = (
            *legend,
            LegendEntry(series=_UNFINISHED, text="not finished", mark=Mark(colour="#6B7280", symbol="x")),
        )
    clipped = [run for run in runs if run.run.clipped]
    return Section(
        name="requests",
        title="The requests",
        lead="What was asked of the model: tokens of each sequence in and out; larger points: larger batches. "
        "A clipped request was shortened, by the context, memory or time there is.",
        groups=(
            Group(
                legend=legend,
                figures=(_request_figure(scene),) if runs else (),
                tables=(_clipped_table(scene, clipped),) if clipped else (),
                notes=() if runs else ("This dataset holds no runs.",),
            ),
        ),
    )


def failure_section(scene: Scene) -> Section:
    """Runs that did not end well, each with its reason."""
    failures = [run for run in scene.summary.runs if run.run.status is not Status.OK]
    return Section(
        name="failures",
        title="Runs that did not finish",
        lead="Each is kept as a row with its reason; none has an energy.",
        groups=(
            Group(
                tables=(_failure_table(scene, failures),) if failures else (),
                notes=() if failures else ("Every run finished.",),
            ),
        ),
    )


def run_section(scene: Scene) -> Section:
    """Every run, sortable."""
    runs = scene.summary.runs
    return Section(
        name="runs",
        title="All runs",
        lead="One row per request on one deployment. Energy is gross, of one whole request, from a window of its "
        "own; ± is the half width of the 95 % interval. Click a heading to sort.",
        groups=(Group(tables=(_run_table(scene),) if runs else (), notes=() if runs else ("No runs.",)),),
    )


def _request_figure(scene: Scene) -> Figure:
    groups: dict[tuple[str, Mark], list[RunSummary]] = {}
    for run in scene.summary.runs:
        if run.run.prompt_tokens is not None and run.run.output_tokens is not None:
            groups.setdefault(_series_of(scene, run), []).append(run)
    series = [
        Points(
            series=name,
            mark=mark,
            x=([float(run.run.prompt_tokens or 0) for run in runs],),
            y=[float(run.run.output_tokens or 0) for run in runs],
            notes=[_request_notes(scene, run) for run in runs],
            sizes_px=[size_px(run.run.batch_size) for run in runs],
        )
        for (name, mark), runs in groups.items()
    ]
    return scatter(
        name="requests",
        title="Prompt and output lengths",
        series=series,
        x_axes=(Axis(title="prompt tokens of each sequence", log=True, whole=True),),
        y_axis=Axis(title="output tokens of each sequence", log=True, whole=True),
        height_px=380,
    )


def _series_of(scene: Scene, run: RunSummary) -> tuple[str, Mark]:
    """Colour says the setup; the symbol says how the request fared."""
    colour = scene.marks[run.setup].colour
    if run.run.status is not Status.OK:
        return _UNFINISHED, Mark(colour=colour, symbol="x")
    if run.run.clipped:
        return _CLIPPED, Mark(colour=colour, symbol="star")
    return scene.series(run.setup), scene.marks[run.setup]


def _request_notes(scene: Scene, run: RunSummary) -> tuple[str, ...]:
    row = run.run
    weight = f"stands for {row.sampling_weight:.3g} average samples of the trace" if row.sampling_weight else ""
    lines = (
        scene.run_name(run),
        f"{_STATUS_NAMES[row.status]}: {short(plain(row.status_detail), 100)}" if row.status is not Status.OK else "",
        f"clipped: {short(plain(row.clipped), 100)}" if row.clipped else "",
        weight,
        with_interval(row.energy_j, row.energy_ci95_j, "J") if row.energy_j is not None else "",
        scene.names[run.setup],
        f"run {row.run_id[:12]}",
    )
    return tuple(line for line in lines if line)


def _clipped_table(scene: Scene, runs: list[RunSummary]) -> Table:
    return Table(
        caption="Clipped requests",
        columns=(Column(title="run"), Column(title="what was shortened, and why")),
        rows=tuple((_run_cell(scene, run), Cell(text=plain(run.run.clipped))) for run in runs),
    )


def _failure_table(scene: Scene, runs: list[RunSummary]) -> Table:
    return Table(
        caption="Runs out of memory, failed and skipped",
        columns=(Column(title="run"), Column(title="how it ended"), Column(title="reason"), Column(title="where")),
        rows=tuple(
            (
                _run_cell(scene, run),
                Cell(text=_STATUS_NAMES[run.run.status]),
                Cell(text=short(plain(run.run.status_detail), 300), note=plain(run.run.status_detail)),
                Cell(text=scene.names[run.setup]),
            )
            for run in runs
        ),
    )


def _run_cell(scene: Scene, run: RunSummary) -> Cell:
    return Cell(text=scene.run_name(run), key=run.number, note=f"run {run.run.run_id}")


def _run_table(scene: Scene) -> Table:
    spread_out = _spread_columns(scene)
    return Table(
        caption="All runs, in the order of their start",
        columns=(
            Column(title="#", number=True),
            Column(title="status"),
            Column(title="series", note="provenance and device, as in the charts; details under What ran where"),
            *spread_out,
            Column(title="batch", number=True),
            Column(title="prompt", number=True, note="tokens of each sequence"),
            Column(title="output", number=True, note="tokens of each sequence"),
            Column(title="energy", number=True),
            Column(title="time", number=True),
            Column(title="J per output token", number=True, note="of the whole request, all sequences"),
            Column(title="power", number=True, note="average over the request"),
            Column(title="trials", number=True),
            Column(title="peak memory", number=True),
            Column(title="started (UTC)"),
            Column(title="run id"),
        ),
        rows=tuple(_run_row(scene, run, len(spread_out)) for run in scene.summary.runs),
    )


def _spread_columns(scene: Scene) -> tuple[Column, ...]:
    """Ranks, and machines beside them, where some run had several."""
    if any(setup.nodes > 1 for setup in scene.summary.setups):
        return Column(title="ranks", number=True), Column(title="nodes", number=True, note="machines")
    if any((setup.tensor_parallel or 1) > 1 for setup in scene.summary.setups):
        return (Column(title="ranks", number=True),)
    return ()


def _run_row(scene: Scene, run: RunSummary, spread_columns: int) -> tuple[Cell, ...]:
    row = run.run
    spread_out = [Cell(text=count(number), key=number) for number in (row.tensor_parallel, row.nodes)]
    per_token_j = run.energy_per_output_token_j
    return (
        Cell(text=str(run.number), key=run.number),
        Cell(text=_STATUS_NAMES[row.status] + ("*" if row.status_detail else ""), note=plain(row.status_detail)),
        Cell(text=scene.names[run.setup], note=f"{plain(row.model)}; {plain(row.method)}; {plain(row.source)}"),
        *spread_out[:spread_columns],
        Cell(text=count(row.batch_size), key=row.batch_size),
        Cell(text=count(row.prompt_tokens), key=row.prompt_tokens, note=plain(row.clipped)),
        Cell(text=count(row.output_tokens), key=row.output_tokens, note=plain(row.clipped)),
        Cell(
            text=with_interval(row.energy_j, row.energy_ci95_j, "J"),
            key=row.energy_j,
            note=interval_parts(row.energy_j, run.energy_repeat95_j, row.energy_systematic95_j),
        ),
        Cell(text=time_with_interval(row.duration_s, row.duration_ci95_s), key=row.duration_s),
        Cell(text=with_interval(per_token_j, run.energy_per_output_token_ci95_j, "J"), key=per_token_j),
        Cell(text=quantity(run.average_power_w, "W"), key=run.average_power_w),
        Cell(text=count(row.trials), key=row.trials),
        Cell(text=memory(row.peak_memory_bytes), key=row.peak_memory_bytes),
        Cell(text=moment(row.started_at_utc or "")),
        Cell(text=row.run_id[:12], note=row.run_id, code=True),
    )
