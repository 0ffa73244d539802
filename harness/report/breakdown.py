"""Where the energy of a phase goes: by kind of kernel, with the host gaps, and by operator."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.dataset.summary import KernelSummary, KindSummary, PhaseSummary, RunSummary
from harness.kernels import KernelKind, Phase
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.phases import PHASE_NAMES
from harness.report.plot import Axis, Bars, Figure, Mark, stacked_bars
from harness.report.setups import LegendEntry, Scene
from harness.report.text import count, percent, plain, plural, quantity, short, time_span, with_interval

Bar = TypeVar("Bar")

MAX_BARS = 40
TOP_KERNELS = 10
_TOLERANCE = 1e-3  # of the phase's energy; below that a remainder is rounding
_GAP = "host gap"
_REST = "not attributed"

# Colours of setups again, so that the page has one palette; patterns tell apart what shares a colour.
_MARKS = {
    KernelKind.GEMM: Mark(colour="#0072B2"),
    KernelKind.MOE_GEMM: Mark(colour="#0072B2", pattern="/"),
    KernelKind.ATTENTION: Mark(colour="#D55E00"),
    KernelKind.SCAN: Mark(colour="#D55E00", pattern="/"),
    KernelKind.NORM: Mark(colour="#009E73"),
    KernelKind.ACTIVATION: Mark(colour="#CC79A7"),
    KernelKind.ELEMENTWISE: Mark(colour="#56B4E9"),
    KernelKind.EMBEDDING: Mark(colour="#E69F00"),
    KernelKind.COPY: Mark(colour="#7A5195"),
    KernelKind.ALL_REDUCE: Mark(colour="#A6761D"),
    KernelKind.ALL_GATHER: Mark(colour="#A6761D", pattern="/"),
    KernelKind.REDUCE_SCATTER: Mark(colour="#A6761D", pattern="x"),
    KernelKind.ALL_TO_ALL: Mark(colour="#A6761D", pattern="."),
    KernelKind.OTHER: Mark(colour="#6B7280"),
}
_GAP_MARK = Mark(colour="#B8BDC6")
_REST_MARK = Mark(colour="#B8BDC6", pattern="x")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A part of the energy of one phase of one run."""

    name: str
    energy_j: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """One phase of one run, cut into pieces."""

    phase: PhaseSummary
    run: RunSummary
    name: str
    pieces: tuple[_Piece, ...]


def kernel_section(scene: Scene) -> Section:
    """Kernels of each phase, for each setup apart."""
    kinds: dict[tuple[str, Phase], list[KindSummary]] = defaultdict(list)
    for kind in scene.summary.kinds:
        kinds[kind.run_id, kind.phase].append(kind)
    bars: dict[int, list[_Bar]] = defaultdict(list)
    for phase in scene.summary.phases:
        if phase.row.energy_j:
            run = scene.runs[phase.row.run_id]
            bars[run.setup].append(_bar(scene, phase, run, kinds[phase.row.run_id, phase.row.phase]))
    groups = tuple(_setup_group(scene, setup, bars[setup]) for setup in sorted(bars))
    return Section(
        name="kernels",
        title="Where the energy goes: kernels",
        lead="Each bar is the energy of one phase of one run. No meter can read a single kernel: these energies are "
        "inferred (apportioned). The phase's energy is split over its kernels by modelled power × traced time, so "
        "that kernels and host gaps (time in which no kernel ran) fill the phase exactly. "
        "Runs are named #number · batch × prompt → output tokens.",
        views=("energy", "energy per token", "share of the phase") if groups else (),
        groups=groups or (Group(notes=("No run of this dataset has an energy to show here.",)),),
    )


def _bar(scene: Scene, phase: PhaseSummary, run: RunSummary, kinds: Sequence[KindSummary]) -> _Bar:
    whole_j = phase.row.energy_j or 0.0
    pieces = [_kind_piece(kind, whole_j) for kind in kinds if kind.energy_j is not None]
    gap_j = phase.row.host_gap_energy_j
    if gap_j is not None:
        pieces.append(
            _Piece(name=_GAP, energy_j=gap_j, detail=f"no kernel ran; {percent(gap_j / whole_j)} of the phase")
        )
    rest_j = whole_j - sum(piece.energy_j for piece in pieces)
    if abs(rest_j) > _TOLERANCE * whole_j:
        why = "some kernels have no energy" if kinds else "kernels were not traced"
        pieces.append(_Piece(name=_REST, energy_j=rest_j, detail=f"{why}; {percent(rest_j / whole_j)} of the phase"))
    return _Bar(phase=phase, run=run, name=scene.run_name(run), pieces=tuple(pieces))


def _kind_piece(kind: KindSummary, whole_j: float) -> _Piece:
    energy_j = kind.energy_j or 0.0
    detail = (
        f"{percent(energy_j / whole_j)} of the phase; {plural(kind.launches, 'launch', 'launches')}, "
        f"{time_span(kind.duration_s)}; {quantity(kind.flop, 'FLOP')}, {quantity(kind.traffic_bytes, 'B')} in and out"
    )
    return _Piece(name=kind.kind.value, energy_j=energy_j, detail=detail)


def _setup_group(scene: Scene, setup: int, bars: list[_Bar]) -> Group:
    figures, tables, notes = [], [], []
    for phase in Phase:
        of_phase = [bar for bar in bars if bar.phase.row.phase is phase]
        shown = spread_out(sorted(of_phase, key=lambda bar: bar.phase.row.energy_j or 0.0, reverse=True))
        if shown:
            figures.append(_figure(scene, setup, phase, shown))
        if len(shown) < len(of_phase):
            notes.append(
                f"{PHASE_NAMES[phase]}: {len(shown)} of {len(of_phase)} runs, spread evenly from most to least energy."
            )
        kernels = [one for one in scene.summary.kernels if one.setup == setup and one.phase is phase]
        if kernels:
            tables.append(_kernel_table(phase, kernels))
    names = {piece.name for bar in bars for piece in bar.pieces}
    legend = tuple(LegendEntry(series=name, text=name, mark=mark) for name, mark in _all_marks() if name in names)
    return Group(
        title=scene.names[setup], legend=legend, figures=tuple(figures), tables=tuple(tables), notes=tuple(notes)
    )


def spread_out(bars: Sequence[Bar], at_most: int = MAX_BARS) -> Sequence[Bar]:
    """Of many bars some that are evenly apart, the first and the last among them where there is room for both."""
    if len(bars) <= at_most:
        return bars
    return [bars[round(i * (len(bars) - 1) / max(1, at_most - 1))] for i in range(at_most)]


def _all_marks() -> tuple[tuple[str, Mark], ...]:
    return (*((kind.value, mark) for kind, mark in _MARKS.items()), (_GAP, _GAP_MARK), (_REST, _REST_MARK))


def _figure(scene: Scene, setup: int, phase: Phase, bars: Sequence[_Bar]) -> Figure:
    pieces = [_bars_of(scene, name, mark, bars) for name, mark in _all_marks()]
    return stacked_bars(
        name=f"kernels-{setup}-{phase.value}",
        title=f"{PHASE_NAMES[phase]} by kind of kernel",
        pieces=[piece for piece in pieces if piece.names],
        axes=(
            Axis(title="energy of one pass", unit="J"),
            Axis(title="energy of one pass, per token", unit="J"),
            Axis(title="share of the phase's energy", unit="%"),
        ),
        names=[bar.name for bar in bars],
    )


def _bars_of(scene: Scene, name: str, mark: Mark, bars: Sequence[_Bar]) -> Bars:
    found = [(bar, piece) for bar in bars for piece in bar.pieces if piece.name == name]
    return Bars(
        series=name,
        mark=mark,
        names=[bar.name for bar, _ in found],
        lengths=(
            [piece.energy_j for _, piece in found],
            [piece.energy_j / bar.phase.tokens if bar.phase.tokens else None for bar, piece in found],
            [100 * piece.energy_j / (bar.phase.row.energy_j or 1.0) for bar, piece in found],
        ),
        notes=[
            (
                f"{name}: {quantity(piece.energy_j, 'J')}",
                piece.detail,
                f"{PHASE_NAMES[bar.phase.row.phase]} of {bar.name}: "
                f"{with_interval(bar.phase.row.energy_j, bar.phase.row.energy_ci95_j, 'J')}",
                *scene.run_notes(bar.run),
            )
            for bar, piece in found
        ],
    )


_KERNEL_COLUMNS = (
    Column(title="kind"),
    Column(title="operator"),
    Column(title="module", note="layer numbers written as *"),
    Column(title="launches", number=True),
    Column(title="time", number=True, note="in an untraced pass, added over ranks"),
    Column(title="energy", number=True, note="apportioned: inferred, not read"),
    Column(title="share", number=True, note="of the energy of these phases, host gaps included"),
    Column(title="FLOP", number=True, note="a multiply-add counts as 2"),
    Column(title="traffic", number=True, note="bytes that its inputs and outputs occupy"),
    Column(title="FLOP/B", number=True, note="arithmetic intensity"),
)


def _kernel_table(phase: Phase, kernels: list[KernelSummary]) -> Table:
    runs = max(kernel.runs for kernel in kernels)
    top = kernels[:TOP_KERNELS]
    which = f"the {len(top)} with the most energy of {len(kernels)}" if len(top) < len(kernels) else "all"
    return Table(
        caption=f"Kernels of the {phase.value}: {which}, added over one pass of each of {plural(runs, 'run')}",
        columns=_KERNEL_COLUMNS,
        rows=tuple(_kernel_row(kernel) for kernel in top),
    )


def _kernel_row(kernel: KernelSummary) -> tuple[Cell, ...]:
    module = plain(kernel.module)
    return (
        Cell(text=kernel.kind.value),
        Cell(text=short(plain(kernel.op), 40), note=plain(kernel.op), code=True),
        Cell(text=short(module, 44), note=module, code=kernel.module is not None),
        Cell(text=count(kernel.launches), key=kernel.launches),
        Cell(text=time_span(kernel.duration_s), key=kernel.duration_s),
        Cell(text=quantity(kernel.energy_j, "J"), key=kernel.energy_j),
        Cell(text=percent(kernel.energy_share), key=kernel.energy_share),
        Cell(text=quantity(kernel.flop, "FLOP"), key=kernel.flop),
        Cell(text=quantity(kernel.traffic_bytes, "B"), key=kernel.traffic_bytes),
        Cell(text=quantity(kernel.intensity_flop_per_byte, "").strip(), key=kernel.intensity_flop_per_byte),
    )
