"""Runs across several ranks: how long each rank takes, and what talking to each other costs."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from harness.dataset.rank_summary import CollectiveSummary, CommunicationSummary, RankSummary
from harness.dataset.summary import Setup
from harness.kernels import Phase
from harness.records import Part
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.breakdown import spread_out
from harness.report.phases import PHASE_NAMES
from harness.report.plot import Axis, Bars, Figure, Mark, stacked_bars
from harness.report.setups import LegendEntry, Scene
from harness.report.text import NOTHING, count, percent, plain, plural, quantity, time_span

_PARTS = {Part.RUN: "Whole request", Part.PREFILL: "Prefill", Part.DECODE: "Decode"}
_MOVING, _WAITING, _OTHER = "moving data", "waiting for the last rank", "other kernels and host gaps"
_UNDIVIDED = "communication, waiting not known"
_MARKS = {
    _MOVING: Mark(colour="#A6761D"),
    _UNDIVIDED: Mark(colour="#A6761D", pattern="x"),
    _WAITING: Mark(colour="#D55E00", pattern="/"),
    _OTHER: Mark(colour="#B8BDC6"),
}
_RankTimes = dict[tuple[str, Part], list[RankSummary]]


def rank_section(scene: Scene) -> Section | None:
    """Ranks and their collectives, for each setup apart; None where no run spans several ranks."""
    groups = tuple(
        group
        for setup in scene.summary.setups
        if ((setup.tensor_parallel or 1) > 1 or setup.nodes > 1) and (group := _setup_group(scene, setup)) is not None
    )
    if not groups:
        return None
    return Section(
        name="ranks",
        title="Several ranks: who waits, what is sent",
        lead="A rank is one process with one share of every layer; all ranks start a window together. A rank's time "
        "lasts from there to the end of its own work, its collectives included; the skew is what the first rank to end "
        "then waits for the last. In a collective (all-reduce, all-gather, …) ranks wait too: for the one that arrives "
        "last. That wait is part of the collective's time; it is found by comparing the same launch on all ranks, in "
        "which the last to arrive stays for the shortest.",
        groups=groups,
    )


def _setup_group(scene: Scene, setup: Setup) -> Group | None:
    of_parts = _by_part(scene, setup)
    communication = [one for one in scene.summary.communication if scene.runs[one.run_id].setup == setup.setup]
    collectives = [one for one in scene.summary.collectives if one.setup == setup.setup]
    if not of_parts and not communication:
        return None
    figures, tables, notes = [], [], []
    for phase in Phase:
        shown = spread_out([one for one in communication if one.phase is phase and one.share is not None])
        if shown:
            figures.append(_share_figure(scene, setup, phase, shown))
    if of_parts:
        tables.append(_rank_table(scene, of_parts))
    else:
        notes.append("The time of each rank was not recorded.")
    if communication:
        tables.extend((_communication_table(scene, communication), _collective_table(setup, collectives)))
    else:
        notes.append("No collective was traced, so what they cost is not known.")
    return Group(
        title=scene.names[setup.setup],
        legend=_share_legend(communication),
        figures=tuple(figures),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _by_part(scene: Scene, setup: Setup) -> _RankTimes:
    found: _RankTimes = defaultdict(list)
    for one in scene.summary.ranks:
        if scene.runs[one.run_id].setup == setup.setup:
            found[one.run_id, one.part].append(one)
    return found


def _rank_table(scene: Scene, of_parts: _RankTimes) -> Table:
    """One row per run and part, one column per rank."""
    names = {one.rank: _place(one) for ranks in of_parts.values() for one in ranks}
    columns = sorted(names)
    return Table(
        caption="Time of each rank, one pass: median over the used windows, and their spread",
        columns=(
            Column(title="run"),
            Column(title="part"),
            Column(title="windows", number=True),
            *(Column(title=f"rank {rank}", number=True, note=names[rank]) for rank in columns),
            Column(title="slowest to fastest", number=True, note="difference, of the mean of the ranks"),
            Column(title="skew", number=True, note="longest wait at the end of a window, median over the windows"),
        ),
        rows=tuple(
            _rank_row(scene, part, of_parts[run_id, part], columns)
            for part in _PARTS
            for run_id, found in of_parts
            if found is part
        ),
    )


def _rank_row(scene: Scene, part: Part, ranks: Sequence[RankSummary], columns: Sequence[int]) -> tuple[Cell, ...]:
    run = scene.runs[ranks[0].run_id]
    by_rank = {one.rank: one for one in ranks}
    range_share, skew_s = _range(ranks), max((one.wait_s for one in ranks if one.wait_s is not None), default=None)
    windows = min(one.windows for one in ranks)
    return (
        Cell(text=scene.run_name(run), key=run.number, note=f"run {run.run.run_id}"),
        Cell(text=_PARTS[part]),
        Cell(text=count(windows), key=windows),
        *(_time_cell(by_rank.get(rank)) for rank in columns),
        Cell(text=percent(range_share), key=range_share),
        Cell(text=_wait(skew_s), key=skew_s),
    )


def _time_cell(one: RankSummary | None) -> Cell:
    if one is None:
        return Cell(text=NOTHING)
    spread = f" (spread {percent(one.spread)})" if one.spread is not None else ""
    note = f"then waits {_wait(one.wait_s)} at the end of a window"
    return Cell(text=f"{time_span(one.duration_s)}{spread}", key=one.duration_s, note=note)


def _share_figure(scene: Scene, setup: Setup, phase: Phase, shown: Sequence[CommunicationSummary]) -> Figure:
    names = [scene.run_name(scene.runs[one.run_id]) for one in shown]
    pieces = [_share_bars(scene, name, shown) for name in _MARKS]
    return stacked_bars(
        name=f"communication-{setup.setup}-{phase.value}",
        title=f"{PHASE_NAMES[phase]}: time in communication",
        pieces=[piece for piece in pieces if piece.names],
        axes=(Axis(title="share of the phase's duration", unit="%"),),
        names=names,
    )


def _share_bars(scene: Scene, name: str, shown: Sequence[CommunicationSummary]) -> Bars:
    found = [(one, share) for one in shown if (share := _pieces(one).get(name)) is not None]
    return Bars(
        series=name,
        mark=_MARKS[name],
        names=[scene.run_name(scene.runs[one.run_id]) for one, _ in found],
        lengths=([100 * share for _, share in found],),
        notes=[
            (
                f"{name}: {percent(share)} of the {one.phase.value}, mean of the ranks",
                f"communication: {time_span(one.duration_s)}, of it waiting {_wait(one.wait_s)}",
                *scene.run_notes(scene.runs[one.run_id]),
            )
            for one, share in found
        ],
    )


def _pieces(one: CommunicationSummary) -> dict[str, float]:
    """What a phase's duration is spent on, as shares that add up to 1."""
    share = one.share or 0.0
    if one.wait_share is None:
        return {_UNDIVIDED: share, _OTHER: 1 - share}
    return {_MOVING: share - one.wait_share, _WAITING: one.wait_share, _OTHER: 1 - share}


def _share_legend(communication: Sequence[CommunicationSummary]) -> tuple[LegendEntry, ...]:
    names = {name for one in communication if one.share is not None for name in _pieces(one)}
    return tuple(LegendEntry(series=name, text=name, mark=mark) for name, mark in _MARKS.items() if name in names)


def _communication_table(scene: Scene, communication: Sequence[CommunicationSummary]) -> Table:
    return Table(
        caption="Communication: all collectives of one pass, mean of the ranks",
        columns=(
            Column(title="run"),
            Column(title="phase"),
            Column(title="time", number=True, note="in an untraced pass"),
            Column(title="of the phase", number=True, note="share of the phase's duration"),
            Column(title="of it waiting", number=True, note="for the last rank to arrive"),
            Column(title="waiting, of the phase", number=True),
            Column(title="waits longest", note="rank, and how long it waits in all collectives of the pass"),
        ),
        rows=tuple(_communication_row(scene, one) for one in communication),
    )


def _communication_row(scene: Scene, one: CommunicationSummary) -> tuple[Cell, ...]:
    run = scene.runs[one.run_id]
    longest = f"rank {one.longest_waiting_rank}: {_wait(one.longest_wait_s)}"
    return (
        Cell(text=scene.run_name(run), key=run.number, note=f"run {run.run.run_id}"),
        Cell(text=one.phase.value),
        Cell(text=time_span(one.duration_s), key=one.duration_s),
        Cell(text=percent(one.share), key=one.share),
        Cell(text=_wait(one.wait_s), key=one.wait_s),
        Cell(text=percent(one.wait_share), key=one.wait_share),
        Cell(text=NOTHING if one.longest_wait_s is None else longest, key=one.longest_wait_s),
    )


def _collective_table(setup: Setup, collectives: Sequence[CollectiveSummary]) -> Table:
    runs = max(one.runs for one in collectives)
    return Table(
        caption=f"Collectives of one rank, mean of the ranks, added over one pass of each of {plural(runs, 'run')}",
        columns=(
            Column(title="phase"),
            Column(title="kind"),
            Column(title="ranks", number=True),
            Column(title="message", number=True, note="what each rank puts in, per launch"),
            Column(title="launches", number=True),
            Column(title="sent", number=True, note="bytes that a rank sends to others; a ring is assumed"),
            Column(title="time", number=True, note="in an untraced pass"),
            Column(title="of it waiting", number=True, note="for the last rank to arrive"),
            Column(title="sent per second", number=True, note="while not waiting"),
        ),
        rows=tuple(_collective_row(setup, one) for one in collectives),
    )


def _collective_row(setup: Setup, one: CollectiveSummary) -> tuple[Cell, ...]:
    share = None if one.wait_s is None or not one.duration_s else one.wait_s / one.duration_s
    waiting = _wait(one.wait_s) if share is None else f"{_wait(one.wait_s)}, {percent(share)}"
    return (
        Cell(text=one.phase.value),
        Cell(text=one.kind.value),
        Cell(text=count(setup.tensor_parallel), key=setup.tensor_parallel),
        Cell(text=quantity(one.message_bytes, "B"), key=one.message_bytes),
        Cell(text=count(round(one.launches)), key=one.launches),
        Cell(text=quantity(one.link_bytes, "B"), key=one.link_bytes),
        Cell(text=time_span(one.duration_s), key=one.duration_s),
        Cell(text=waiting, key=one.wait_s),
        Cell(text=quantity(one.rate_bytes_per_s, "B/s"), key=one.rate_bytes_per_s),
    )


def _place(one: RankSummary) -> str:
    return f"rank {one.rank} on {plain(one.device)} of node {one.node}"


def _mean_s(ranks: Sequence[RankSummary]) -> float | None:
    known = [one.duration_s for one in ranks if one.duration_s is not None]
    return statistics.fmean(known) if len(known) == len(ranks) else None


def _range(ranks: Sequence[RankSummary]) -> float | None:
    mean_s = _mean_s(ranks)
    durations_s = [one.duration_s for one in ranks if one.duration_s is not None]
    return (max(durations_s) - min(durations_s)) / mean_s if mean_s else None


def _wait(wait_s: float | None) -> str:
    """A wait; the last rank has none, which is known."""
    return "0 s" if wait_s == 0 else time_span(wait_s)
