"""The energy of single kernels by every method, side by side, and how far the independent ones disagree."""

import re
from collections.abc import Callable, Sequence

from harness.dataset.ledger_summary import DisagreementSummary, MethodSummary
from harness.kernels import Phase
from harness.records import EnergyMethod
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.phases import PHASE_NAMES
from harness.report.plot import Axis, Bars, Figure, Mark, Values, grouped_bars
from harness.report.setups import LegendEntry, Scene
from harness.report.text import count, percent, plain, plural, quantity, short, signed_percent, with_interval

_DRAWN_KERNELS = 8
_MARKS = {
    EnergyMethod.REPLAY: Mark(colour="#0072B2"),
    EnergyMethod.REGRESSED: Mark(colour="#D55E00"),
    EnergyMethod.APPORTIONED: Mark(colour="#B8BDC6"),
}
_COMPARED = (EnergyMethod.REPLAY, EnergyMethod.REGRESSED)
_MEANINGS = {
    EnergyMethod.REPLAY: "replay: the kernel looped alone",
    EnergyMethod.REGRESSED: "regressed: least squares over mixtures of kernels",
    EnergyMethod.APPORTIONED: "apportioned: a share of the phase, by a power model",
}
_MISSING = (
    "A dash: that method has no value for the kernel on every rank. It did not run, or the kernel was too small to be "
    "looped alone: small ones are looped together, count in the ledger as a sum, and have no energy of their own."
)


def method_section(scene: Scene) -> Section | None:
    """Methods side by side for each setup; None where no independent method ran."""
    setups = sorted({one.setup for one in scene.summary.methods})
    if not setups:
        return None
    return Section(
        name="methods-of-kernels",
        title="Kernel energies by three methods",
        lead="Gross energy of all launches of a kernel in one pass of its phase, over all ranks (mean of the runs). "
        "Replay and regression measure kernels without the energy of the phase, and independently of each other; their "
        "disagreement (active energy by replay over that by regression, less 1) says how far either can be trusted. "
        "Apportioned shares fill the phase by construction and have no interval. Intervals of ranks and runs are "
        "added, since their meters may err alike.",
        views=("one pass", "one launch"),
        groups=tuple(_setup_group(scene, setup) for setup in setups),
    )


def _setup_group(scene: Scene, setup: int) -> Group:
    figures, tables = [], []
    compared = [one for one in scene.summary.disagreements if one.setup == setup]
    if compared:
        tables.append(_disagreement_table(compared))
    shown = [one for one in scene.summary.methods if one.setup == setup]
    for phase in Phase:
        if kernels := [one for one in shown if one.phase is phase]:
            figures.append(_figure(scene, setup, phase, kernels[:_DRAWN_KERNELS]))
            tables.append(_method_table(phase, kernels))
    notes = [_MISSING] if any(_incomplete(one) for one in shown) else []
    if not compared:
        notes.append("No kernel has both a replay and a regression, so how far they disagree is not known.")
    return Group(
        title=scene.names[setup],
        legend=tuple(
            LegendEntry(series=method.value, text=_MEANINGS[method], mark=mark) for method, mark in _MARKS.items()
        ),
        figures=tuple(figures),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _incomplete(one: MethodSummary) -> bool:
    return None in (one.replay_j, one.regressed_j)


def _figure(scene: Scene, setup: int, phase: Phase, kernels: Sequence[MethodSummary]) -> Figure:
    return grouped_bars(
        name=f"methods-{setup}-{phase.value}",
        title=f"{PHASE_NAMES[phase]}: the {len(kernels)} kernels with the most energy",
        pieces=[_bars(scene, method, mark, kernels) for method, mark in _MARKS.items()],
        axes=(Axis(title="energy in one pass", unit="J"), Axis(title="energy of one launch", unit="J")),
        names=_names(kernels),
    )


def _names(kernels: Sequence[MethodSummary]) -> list[str]:
    """Short names; numbers, as in the table, tell apart what reads alike."""
    return [f"{number} · {_place(one)}" for number, one in enumerate(kernels, 1)]


def _place(one: MethodSummary) -> str:
    module = plain(one.module).rsplit(".", 1)[-1] if one.module else ""
    operator = plain(one.op).rsplit("::", 1)[-1]
    return short(f"{operator} {module}".rstrip(), 30)


def _bars(scene: Scene, method: EnergyMethod, mark: Mark, kernels: Sequence[MethodSummary]) -> Bars:
    energy, half_width = _ENERGIES[method]
    return Bars(
        series=method.value,
        mark=mark,
        names=_names(kernels),
        lengths=_per_pass_and_launch(kernels, energy),
        half_widths=None if method is EnergyMethod.APPORTIONED else _per_pass_and_launch(kernels, half_width),
        notes=[(*_notes(method, one), scene.names[one.setup]) for one in kernels],
    )


_Field = Callable[[MethodSummary], float | None]
_ENERGIES: dict[EnergyMethod, tuple[_Field, _Field]] = {
    EnergyMethod.REPLAY: (lambda one: one.replay_j, lambda one: one.replay_ci95_j),
    EnergyMethod.REGRESSED: (lambda one: one.regressed_j, lambda one: one.regressed_ci95_j),
    EnergyMethod.APPORTIONED: (lambda one: one.apportioned_j, lambda one: None),  # noqa: ARG005
}


def _per_pass_and_launch(kernels: Sequence[MethodSummary], field: _Field) -> tuple[Values, Values]:
    return [field(one) for one in kernels], [_per_launch(field(one), one) for one in kernels]


def _per_launch(energy_j: float | None, one: MethodSummary) -> float | None:
    return None if energy_j is None or not one.launches else energy_j / one.launches


def _notes(method: EnergyMethod, one: MethodSummary) -> tuple[str, ...]:
    energy, half_width = _ENERGIES[method]
    energy_j, half_width_j = energy(one), half_width(one)
    return (
        f"{method.value}: {with_interval(energy_j, half_width_j, 'J')} in one pass",
        f"{with_interval(_per_launch(energy_j, one), _per_launch(half_width_j, one), 'J')} of one launch",
        f"{plain(one.op)} in {plain(one.module)}, {plain(one.shape)}",
        f"replay against regressed: {signed_percent(one.disagreement, None)} (active energy)",
    )


def _method_table(phase: Phase, kernels: Sequence[MethodSummary]) -> Table:
    return Table(
        caption=f"Kernels of the {phase.value} with the most energy, by every method",
        columns=(
            Column(title="#", number=True),
            Column(title="operator"),
            Column(title="module", note="model.layers.* is left out"),
            Column(title="shape"),
            Column(title="launches", number=True, note="in one pass, of all ranks"),
            *(column for method in _COMPARED for column in _method_columns(method)),
            Column(title="disagree", number=True, note="active energy: replay over regressed, less 1"),
            *_method_columns(EnergyMethod.APPORTIONED),
        ),
        rows=tuple(_method_row(number, one) for number, one in enumerate(kernels, 1)),
    )


def _method_columns(method: EnergyMethod) -> tuple[Column, Column]:
    return (
        Column(title=method.value, number=True, note="in one pass; ± half width of the 95 % interval"),
        Column(title="per launch", number=True, note=f"by {method.value}; ± in percent as in one pass"),
    )


def _method_row(number: int, one: MethodSummary) -> tuple[Cell, ...]:
    module = plain(one.module)
    return (
        Cell(text=str(number), key=number),
        Cell(text=short(plain(one.op), 20), note=f"{plain(one.op)} ({one.kind.value})", code=True),
        Cell(text=short(module.removeprefix("model.layers.*."), 24), note=module, code=one.module is not None),
        Cell(text=_shape(one.shape), note=f"{plain(one.shape)} {plain(one.dtype)}"),
        Cell(text=count(round(one.launches)), key=one.launches, note=f"mean of {plural(one.runs, 'run')}"),
        *(cell for method in _COMPARED for cell in _method_cells(method, one)),
        Cell(text=signed_percent(one.disagreement, None), key=one.disagreement),
        *_method_cells(EnergyMethod.APPORTIONED, one),
    )


def _method_cells(method: EnergyMethod, one: MethodSummary) -> tuple[Cell, Cell]:
    energy, half_width = _ENERGIES[method]
    energy_j, half_width_j = energy(one), half_width(one)
    launch_j, launch_half_width_j = _per_launch(energy_j, one), _per_launch(half_width_j, one)
    return (
        Cell(text=with_interval(energy_j, half_width_j, "J"), key=energy_j),
        Cell(text=quantity(launch_j, "J"), key=launch_j, note=with_interval(launch_j, launch_half_width_j, "J")),
    )


def _shape(shape: str) -> str:
    """Dimensions without the marks of JSON.

    >>> _shape('{"m":512,"n":576}')
    'm 512, n 576'
    """
    bare = re.sub('[{}"]', "", plain(shape)).replace(":", " ").replace(",", ", ")
    return short(bare, 24)


def _disagreement_table(compared: Sequence[DisagreementSummary]) -> Table:
    return Table(
        caption="How far replay and regression disagree, rank by rank",
        columns=(
            Column(title="phase"),
            Column(title="kernels", note="large: at least 1 % of the phase's energy on the rank"),
            Column(title="compared", number=True, note="kernels of all ranks and runs that have both"),
            Column(title="median", number=True, note="size of the disagreement"),
            Column(title="95th percentile", number=True, note="size of the disagreement"),
            Column(title="bias", number=True, note="median with its sign; above 0: replay says more"),
        ),
        rows=tuple(
            (
                Cell(text=one.phase.value),
                Cell(text="large" if one.large_only else "all"),
                Cell(text=count(one.kernels), key=one.kernels),
                Cell(text=percent(one.median), key=one.median),
                Cell(text=percent(one.percentile95), key=one.percentile95),
                Cell(text=signed_percent(one.bias, None), key=one.bias),
            )
            for one in compared
        ),
    )
