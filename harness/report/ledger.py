"""The energy ledger: what a run used against what idle power, kernels and host gaps explain, and what is left."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.dataset.ledger_summary import LedgerSummary
from harness.dataset.summary import RunSummary
from harness.records import EnergyMethod, Provenance
from harness.report.blocks import Cell, Column, Group, Section, Table, Tile
from harness.report.breakdown import MAX_BARS, spread_out
from harness.report.plot import Axis, Bars, Figure, Mark, Values, stacked_bars
from harness.report.setups import LegendEntry, Scene
from harness.report.text import (
    NOTHING,
    percent,
    plain,
    plural,
    quantity,
    short,
    signed_percent,
    signed_quantity,
    with_interval,
)

_IDLE, _KERNELS, _GAPS, _RESIDUAL = "idle", "kernels", "host gaps", "residual"
_MARKS = {
    _IDLE: Mark(colour="#B8BDC6"),
    _KERNELS: Mark(colour="#0072B2"),
    _GAPS: Mark(colour="#E69F00"),
    _RESIDUAL: Mark(colour="#D55E00"),
}
_MEANINGS = {
    _IDLE: "idle: idle power × duration",
    _KERNELS: "kernels: active energy, by replay or regression",
    _GAPS: "host gaps: active energy while no kernel ran",
    _RESIDUAL: "residual: what these do not explain",
}
_CLOSES, _OPEN, _UNKNOWN = "closes", "does not close", "interval not known"
_VERDICTS = {
    _CLOSES: Mark(colour="#009E73"),
    _OPEN: Mark(colour="#D55E00", pattern="/"),
    _UNKNOWN: Mark(colour="#6B7280", pattern="x"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A run with its ledger."""

    run: RunSummary
    ledger: LedgerSummary

    @property
    def drawn(self) -> bool:
        """Whether it has a ledger, and all of its terms."""
        return self.run.run.residual_j is not None and self.ledger.explained_j is not None

    @property
    def verdict(self) -> str:
        """Whether the residual lies inside its interval."""
        return {True: _CLOSES, False: _OPEN, None: _UNKNOWN}[self.ledger.closes]

    def terms_j(self) -> dict[str, float]:
        """The terms of a ledger that is complete, in the order in which they are stacked."""
        row = self.run.run
        known = zip(_MARKS, (row.ledger_idle_j, row.ledger_kernels_j, row.ledger_gaps_j, row.residual_j), strict=True)
        return {name: term_j for name, term_j in known if term_j is not None}


def ledger_section(scene: Scene) -> Section:
    """Ledgers of all finished runs, for each setup apart."""
    entries = [_Entry(run=scene.runs[ledger.run_id], ledger=ledger) for ledger in scene.summary.ledgers]
    setups = sorted({entry.run.setup for entry in entries})
    groups = tuple(
        _setup_group(scene, setup, [entry for entry in entries if entry.run.setup == setup]) for setup in setups
    )
    return Section(
        name="ledger",
        title="The energy ledger: is all of it explained?",
        lead="Run = idle + kernels + host gaps + residual. Each term comes from windows of its own: the run from that "
        "of the whole request, kernels from loops of single kernels (replay) or from mixtures of them (regression), "
        "never from a share of the run. So the residual is not 0 by construction: it is what the methods fail to "
        "explain. Negative: they explain more than was used. Whiskers: 95 % interval of the residual; a ledger closes "
        "if they reach back to the end of the explained part, or, in the chart of the residual alone, to 0.",
        views=("energy", "share of the run") if any(entry.drawn for entry in entries) else (),
        groups=groups or (Group(notes=("No run of this dataset finished, so there is no ledger.",)),),
    )


def ledger_tiles(scene: Scene) -> tuple[Tile, ...]:
    """How many ledgers close, for each provenance that has any."""
    entries = [_Entry(run=scene.runs[ledger.run_id], ledger=ledger) for ledger in scene.summary.ledgers]
    have = [entry for entry in entries if entry.run.run.residual_j is not None]
    by_provenance = {
        provenance: [entry for entry in have if entry.run.run.provenance is provenance] for provenance in Provenance
    }
    return tuple(
        Tile(
            title=f"Ledgers that close, {provenance.value}",
            value=f"{_closing(found)} of {len(found)}",
            note=_typical(found),
        )
        for provenance, found in by_provenance.items()
        if found
    )


def _closing(entries: Sequence[_Entry]) -> int:
    return sum(entry.verdict == _CLOSES for entry in entries)


def _typical(entries: Sequence[_Entry]) -> str:
    shares = [abs(entry.ledger.residual_share) for entry in entries if entry.ledger.residual_share is not None]
    return f"residual: median size {percent(statistics.median(shares))} of the run" if shares else ""


def _setup_group(scene: Scene, setup: int, entries: Sequence[_Entry]) -> Group:
    have = [entry for entry in entries if entry.run.run.residual_j is not None]
    lack = [entry for entry in entries if entry.run.run.residual_j is None]
    drawn = _chosen([entry for entry in have if entry.drawn])
    notes = []
    if have:
        closing, typical = _closing(have), _typical(have)
        notes.append(f"{closing} of {plural(len(have), 'ledger')} {'closes' if closing == 1 else 'close'}; {typical}.")
    if len(drawn) < len(have):
        notes.append(
            f"{len(drawn)} of {len(have)} are drawn: those that do not close first, the rest spread evenly from most "
            "to least energy. The table has all."
        )
    notes += [f"{plural(runs, 'run')} without a ledger: {why}." for why, runs in Counter(map(_why_none, lack)).items()]
    figures = (_stack_figure(scene, setup, drawn), _residual_figure(scene, setup, drawn)) if drawn else ()
    tables = [_ledger_table(scene, have)] if have else []
    if lack and have:
        tables.append(_lacking_table(scene, lack))
    return Group(
        title=scene.names[setup],
        legend=_legend(drawn),
        figures=figures,
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _chosen(entries: Sequence[_Entry]) -> list[_Entry]:
    """Of many ledgers some, none that is open left out for one that closes; the most energy first."""
    by_energy = sorted(entries, key=lambda entry: entry.run.run.energy_j or 0.0, reverse=True)
    if len(by_energy) <= MAX_BARS:
        return by_energy
    opened = [entry for entry in by_energy if entry.verdict != _CLOSES][:MAX_BARS]
    closed = spread_out([entry for entry in by_energy if entry.verdict == _CLOSES], MAX_BARS - len(opened))
    chosen = {entry.run.number for entry in (*opened, *closed)}
    return [entry for entry in by_energy if entry.run.number in chosen]


def _why_none(entry: _Entry) -> str:
    """Why a run that finished has no ledger."""
    ledger = entry.ledger
    if entry.run.run.energy_j is None:
        return "every window of the request was rejected, so there is no energy to explain"
    if not ledger.traced:
        return "its kernels were not traced"
    if not ledger.replayed_kernels and not ledger.regressed_kernels:
        return (
            "no independent kernel method (replay or regression) ran, and apportioned kernels fill the phase by "
            "construction: a residual from them would be 0 and mean nothing"
        )
    return "replay or regression ran, but did not cover every kernel and gap, and a sum with a gap would be too small"


def _legend(drawn: Sequence[_Entry]) -> tuple[LegendEntry, ...]:
    if not drawn:
        return ()
    verdicts = {entry.verdict for entry in drawn}
    return (
        *(LegendEntry(series=name, text=_MEANINGS[name], mark=mark) for name, mark in _MARKS.items()),
        *(LegendEntry(series=name, text=name, mark=mark) for name, mark in _VERDICTS.items() if name in verdicts),
    )


def _stack_figure(scene: Scene, setup: int, drawn: Sequence[_Entry]) -> Figure:
    return stacked_bars(
        name=f"ledger-{setup}",
        title="Run = idle + kernels + host gaps + residual",
        pieces=[_piece(scene, name, drawn) for name in _MARKS],
        axes=(Axis(title="energy of the run", unit="J"), Axis(title="share of the run's energy", unit="%")),
        names=[scene.run_name(entry.run) for entry in drawn],
    )


def _piece(scene: Scene, name: str, drawn: Sequence[_Entry]) -> Bars:
    """One term of every ledger, lying where the terms before it end. The residual ends at the run's own energy."""
    terms = [entry.terms_j() for entry in drawn]
    before = list(_MARKS)[: list(_MARKS).index(name)]
    residual = name == _RESIDUAL
    return Bars(
        series=name,
        mark=_MARKS[name],
        names=[scene.run_name(entry.run) for entry in drawn],
        lengths=_both_views(drawn, [term[name] for term in terms]),
        starts=_both_views(drawn, [sum(term[other] for other in before) for term in terms]),
        half_widths=_both_views(drawn, [entry.run.run.residual_ci95_j for entry in drawn]) if residual else None,
        notes=[_piece_notes(scene, name, entry) for entry in drawn],
        always_visible=residual,
    )


def _piece_notes(scene: Scene, name: str, entry: _Entry) -> tuple[str, ...]:
    row, term_j = entry.run.run, entry.terms_j()[name]
    signed = signed_quantity(term_j, row.residual_ci95_j, "J") if name == _RESIDUAL else quantity(term_j, "J")
    return (
        f"{name}: {signed}, {percent(term_j / row.energy_j) if row.energy_j else NOTHING} of the run",
        f"run {scene.run_name(entry.run)}: {with_interval(row.energy_j, row.energy_ci95_j, 'J')}",
        f"explained: {quantity(entry.ledger.explained_j, 'J')}, kernels by {_method(row.ledger_method)}",
        entry.verdict,
        *scene.run_notes(entry.run),
    )


def _residual_figure(scene: Scene, setup: int, drawn: Sequence[_Entry]) -> Figure:
    """The residuals alone, on an axis of their own: beside the run they may be too small to see."""
    return stacked_bars(
        name=f"residual-{setup}",
        title="The residual alone",
        pieces=[
            _residual_bars(scene, name, mark, found)
            for name, mark in _VERDICTS.items()
            if (found := [entry for entry in drawn if entry.verdict == name])
        ],
        axes=(Axis(title="residual", unit="J"), Axis(title="residual, share of the run's energy", unit="%")),
        names=[scene.run_name(entry.run) for entry in drawn],
    )


def _residual_bars(scene: Scene, name: str, mark: Mark, found: Sequence[_Entry]) -> Bars:
    return Bars(
        series=name,
        mark=mark,
        names=[scene.run_name(entry.run) for entry in found],
        lengths=_both_views(found, [entry.run.run.residual_j for entry in found]),
        half_widths=_both_views(found, [entry.run.run.residual_ci95_j for entry in found]),
        notes=[_piece_notes(scene, _RESIDUAL, entry) for entry in found],
        always_visible=True,
    )


def _both_views(entries: Sequence[_Entry], values_j: Values) -> tuple[Values, Values]:
    """Joules, and percent of each run."""
    wholes_j = [entry.run.run.energy_j for entry in entries]
    percents = [
        None if part_j is None or not whole_j else 100 * part_j / whole_j
        for part_j, whole_j in zip(values_j, wholes_j, strict=True)
    ]
    return values_j, percents


def _ledger_table(scene: Scene, entries: Sequence[_Entry]) -> Table:
    return Table(
        caption="Every term of the ledgers",
        columns=(
            Column(title="run"),
            Column(title="energy of the run", number=True, note="from a window of its own"),
            Column(title="idle", number=True, note="idle power × duration"),
            Column(title="kernels", number=True, note="active energy on all ranks"),
            Column(title="host gaps", number=True, note="active energy while no kernel ran"),
            Column(title="residual", number=True, note="what is left; ± half width of its 95 % interval"),
            Column(title="of the run", number=True, note="± percentage points"),
            Column(title="kernels by"),
            Column(title="closes", note="whether the residual lies inside its own interval"),
            Column(title="flags"),
        ),
        rows=tuple(_ledger_row(scene, entry) for entry in entries),
    )


def _ledger_row(scene: Scene, entry: _Entry) -> tuple[Cell, ...]:
    row, ledger = entry.run.run, entry.ledger
    verdict = {_CLOSES: "yes", _OPEN: "NO", _UNKNOWN: _UNKNOWN}[entry.verdict]
    flags = plain(row.status_detail)
    return (
        Cell(text=scene.run_name(entry.run), key=entry.run.number, note=f"run {row.run_id}"),
        Cell(text=with_interval(row.energy_j, row.energy_ci95_j, "J"), key=row.energy_j),
        *(_term_cell(entry, term_j) for term_j in (row.ledger_idle_j, row.ledger_kernels_j, row.ledger_gaps_j)),
        Cell(text=signed_quantity(row.residual_j, row.residual_ci95_j, "J"), key=row.residual_j),
        Cell(text=signed_percent(ledger.residual_share, ledger.residual_share_ci95), key=ledger.residual_share),
        Cell(text=_method(row.ledger_method)),
        Cell(text=verdict),
        Cell(text=short(flags, 100), note=flags),
    )


def _term_cell(entry: _Entry, term_j: float | None) -> Cell:
    whole_j = entry.run.run.energy_j
    share = f", {percent(term_j / whole_j)}" if term_j is not None and whole_j else ""
    return Cell(text=f"{quantity(term_j, 'J')}{share}", key=term_j)


def _method(method: EnergyMethod | None) -> str:
    return NOTHING if method is None else method.value


def _lacking_table(scene: Scene, entries: Sequence[_Entry]) -> Table:
    return Table(
        caption="Runs without a ledger",
        columns=(Column(title="run"), Column(title="why"), Column(title="flags")),
        rows=tuple(
            (
                Cell(text=scene.run_name(entry.run), key=entry.run.number, note=f"run {entry.run.run.run_id}"),
                Cell(text=_why_none(entry)),
                Cell(text=short(plain(entry.run.run.status_detail), 100), note=plain(entry.run.run.status_detail)),
            )
            for entry in entries
        ),
    )
