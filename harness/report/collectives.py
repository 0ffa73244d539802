"""What it costs that ranks talk to each other: energy of moving data and of waiting, by size of the message."""

from collections.abc import Callable, Sequence

from harness.dataset.ledger_summary import CollectiveEnergySummary
from harness.kernels import KernelKind
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.plot import Axis, Figure, Points, scatter
from harness.report.setups import Scene
from harness.report.text import NOTHING, count, percent, quantity, time_span, with_interval

_BYTES_PER_GB = 1e9
_Field = Callable[[CollectiveEnergySummary], float | None]


def collective_section(scene: Scene) -> Section | None:
    """Collectives of all runs by size and ranks; None where no run has any."""
    found = scene.summary.collective_energies
    if not found:
        return None
    kinds = [kind for kind in KernelKind if any(one.kind is kind for one in found)]
    figures = [figure for kind in kinds for figure in _figures(scene, kind)]
    missing = [one for one in found if one.energy_j is None]
    notes = []
    if missing:
        notes.append("A dash: not every one of these collectives has an energy by that method.")
    if any(one.energy_j is not None and one.waiting_j is None for one in found):
        notes.append(
            "Only replay tells waiting from moving data, by loops in which one rank is always late; by other methods "
            "the energy is that of both together, unless no rank waited."
        )
    return Section(
        name="collectives",
        title="All-reduce and its kin: moving data, and waiting for it",
        lead="One launch on every rank, the mean over all launches of the dataset in both phases; energies are gross "
        "and of all ranks together, times those of one rank. Waiting is for the last rank to arrive, and burns power "
        "too; moving data is the rest. Joules per GB are those of moving, over the bytes that the ranks send (a ring "
        "is assumed). ±: 95 % interval of the whole energy.",
        groups=(
            Group(
                legend=scene.legend(one.setup for one in found),
                figures=tuple(figures),
                tables=(_table(scene, found),),
                notes=tuple(notes),
            ),
        ),
    )


def _figures(scene: Scene, kind: KernelKind) -> list[Figure]:
    """Of every setup and message the first method that knows what moving data costs: replay before others."""
    best: dict[tuple[int, int | None], CollectiveEnergySummary] = {}
    for one in scene.summary.collective_energies:
        if one.kind is kind and one.transfer_j_per_byte is not None:
            best.setdefault((one.setup, one.message_bytes), one)
    if not best:
        return []
    shown = list(best.values())
    moving = _figure(
        scene,
        shown,
        name=f"moving-{kind.value}",
        title=f"{kind.value}: moving data",
        y_axis=Axis(title="energy per GB sent", unit="J", log=True),
        y=lambda one: _scaled(one.transfer_j_per_byte, _BYTES_PER_GB),
        half_width=lambda one: _scaled(one.transfer_ci95_j_per_byte, _BYTES_PER_GB),
    )
    waiting = _figure(
        scene,
        shown,
        name=f"waiting-{kind.value}",
        title=f"{kind.value}: waiting for the last rank",
        y_axis=Axis(title="share of the energy", unit="%", from_zero=True),
        y=lambda one: _scaled(one.waiting_share, 100),
        half_width=lambda one: None,  # noqa: ARG005
    )
    return [moving, waiting]


def _figure(
    scene: Scene,
    shown: Sequence[CollectiveEnergySummary],
    *,
    name: str,
    title: str,
    y_axis: Axis,
    y: _Field,
    half_width: _Field,
) -> Figure:
    setups = sorted({one.setup for one in shown})
    return scatter(
        name=name,
        title=title,
        series=[_points(scene, [one for one in shown if one.setup == setup], y, half_width) for setup in setups],
        x_axes=(Axis(title="message of each rank", unit="B", log=True),),
        y_axis=y_axis,
    )


def _points(scene: Scene, shown: Sequence[CollectiveEnergySummary], y: _Field, half_width: _Field) -> Points:
    setup = shown[0].setup
    return Points(
        series=scene.series(setup),
        mark=scene.marks[setup],
        x=([None if one.message_bytes is None else float(one.message_bytes) for one in shown],),
        y=[y(one) for one in shown],
        half_widths=[half_width(one) for one in shown],
        notes=[_notes(scene, one) for one in shown],
    )


def _notes(scene: Scene, one: CollectiveEnergySummary) -> tuple[str, ...]:
    return (
        f"{one.kind.value} of {quantity(one.message_bytes, 'B')} over {one.ranks} ranks",
        f"moving data: {quantity(one.transfer_j, 'J')} in {time_span(one.transfer_s)}",
        f"waiting: {quantity(one.waiting_j, 'J')} in {_time(one.waiting_s)}",
        f"{_per_gb(one)} per GB sent, by {_method(one)}",
        scene.names[one.setup],
    )


def _table(scene: Scene, found: Sequence[CollectiveEnergySummary]) -> Table:
    several = len({one.setup for one in found}) > 1
    return Table(
        caption="One collective, by size and ranks",
        columns=(
            Column(title="kind"),
            Column(title="message", number=True, note="what each rank puts in"),
            Column(title="ranks", number=True),
            Column(title="method", note="how the energies were inferred"),
            Column(title="launches", number=True, note="on each rank, in one pass of each phase and run"),
            Column(title="energy", number=True, note="moving and waiting, all ranks; ± 95 % interval"),
            Column(title="moving", number=True, note="energy of moving data"),
            Column(title="waiting", number=True, note="energy of waiting for the last rank"),
            Column(title="time moving", number=True, note="of one rank, the mean"),
            Column(title="time waiting", number=True, note="of one rank, the mean"),
            Column(title="J per GB", number=True, note="moving, over the bytes that all ranks send"),
            *((Column(title="series"),) if several else ()),
        ),
        rows=tuple((*_cells(one), *((Cell(text=scene.names[one.setup]),) if several else ())) for one in found),
    )


def _cells(one: CollectiveEnergySummary) -> tuple[Cell, ...]:
    share = "" if one.waiting_share is None else f", {percent(one.waiting_share)}"
    return (
        Cell(text=one.kind.value),
        Cell(text=quantity(one.message_bytes, "B"), key=one.message_bytes),
        Cell(text=count(one.ranks), key=one.ranks),
        Cell(text=_method(one)),
        Cell(text=count(round(one.collectives)), key=one.collectives),
        Cell(text=with_interval(one.energy_j, one.energy_ci95_j, "J"), key=one.energy_j),
        Cell(text=quantity(one.transfer_j, "J"), key=one.transfer_j),
        Cell(text=f"{quantity(one.waiting_j, 'J')}{share}", key=one.waiting_j),
        Cell(text=time_span(one.transfer_s), key=one.transfer_s),
        Cell(text=_time(one.waiting_s), key=one.waiting_s),
        Cell(text=_per_gb(one), key=one.transfer_j_per_byte),
    )


def _method(one: CollectiveEnergySummary) -> str:
    return NOTHING if one.method is None else one.method.value


def _per_gb(one: CollectiveEnergySummary) -> str:
    value, half_width = one.transfer_j_per_byte, one.transfer_ci95_j_per_byte
    return with_interval(_scaled(value, _BYTES_PER_GB), _scaled(half_width, _BYTES_PER_GB), "J")


def _time(seconds: float | None) -> str:
    """A time; none at all is known too."""
    return "0 s" if seconds == 0 else time_span(seconds)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
