"""Grams of CO2 equivalent of every run, operational and embodied apart, or how to get them."""

from collections.abc import Iterator

from harness.carbon import CarbonFactors, Embodied, Grams, Stated, embodied_carbon, embodied_of, operational_carbon
from harness.dataset.summary import RunSummary
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.setups import Scene
from harness.report.text import NOTHING, percent, plain, time_span, with_interval

_SIMULATED_PREFIX = "virtual: "  # before the name of the hardware that a virtual GPU simulates
_FORMULA = (
    "Operational gCO2e = energy × PUE × grid intensity. Embodied gCO2e = (GPU + its share of the server) × "
    "(time × GPUs) / (lifetime × utilisation). Location-based: the average grid, no certificates (LLMCarbon, arXiv "
    "2309.14393)."
)
_HOW = (
    "No grid intensity was given, so there are no grams here. Ask for them with the average intensity of the grid "
    "where and when the runs were made, in gCO2e per kWh, its 95 % half width behind ±: "
    "python -m harness.report DIR --grid-intensity 56±10 --grid-source TEXT --grid-date 2025 --pue 1.2"
)
_INTERVALS = (
    "±: 95 % interval from those of the energy, the PUE and the intensity, relative half widths in quadrature (GUM). "
    "Intensity, PUE and the meter's gain and offset are the same for all runs: they cancel where two runs on the same "
    "device are compared, and do not average out over many."
)


def carbon_section(scene: Scene, factors: CarbonFactors | None) -> Section:
    """Grams of every run with an energy; without ``factors`` how to get them."""
    groups = (Group(notes=(_HOW,)),) if factors is None else (_group(scene, factors),)
    return Section(name="carbon", title="Carbon", lead=_FORMULA, groups=groups)


def _group(scene: Scene, factors: CarbonFactors) -> Group:
    runs = [run for run in scene.summary.runs if run.run.energy_j is not None]
    return Group(
        tables=(_table(scene, runs, factors),) if runs else (),
        notes=(*_factor_notes(factors), *_embodied_notes(runs), _INTERVALS) if runs else ("No run has an energy.",),
    )


def _factor_notes(factors: CarbonFactors) -> Iterator[str]:
    grid, pue = factors.grid, factors.pue
    date = plain(grid.date) if grid.date else "date not stated"
    yield f"Grid intensity: {_stated(grid.g_per_kwh, ' gCO2e/kWh')}; {plain(grid.source)}; {date}."
    if grid.g_per_kwh.half_width is None:
        yield "The intensity was given without ±, so operational carbon has no interval."
    exact = "" if pue.ratio.half_width is not None else "; taken as exact"
    yield f"PUE: {_stated(pue.ratio, '')}; {plain(pue.source)}{exact}."


def _stated(stated: Stated, unit: str) -> str:
    half_width = "" if stated.half_width is None else f" ± {stated.half_width:g}"
    return f"{stated.value:g}{half_width}{unit}"


def _embodied_notes(runs: list[RunSummary]) -> Iterator[str]:
    """The figures behind embodied carbon of every device, or that there are none."""
    for gpu in sorted({run.run.gpu for run in runs}):
        found = _embodied(gpu)
        if found is None:
            yield f"Embodied carbon of {plain(gpu)} is not known, and no other device stands in for it."
            continue
        unstated = " The sources state no interval." if found.relative95 is None else ""
        yield (
            f"Embodied, {plain(gpu)}: {found.gpu_kg:g} kgCO2e and {found.server_share_kg:g} kgCO2e of the server for "
            f"each GPU, {found.lifetime_years:g} years at a utilisation of {found.utilisation:g}. "
            f"{found.source}.{unstated}"
        )


def _embodied(gpu: str) -> Embodied | None:
    """Of a virtual GPU: what the device that it simulates took."""
    return embodied_of(gpu.removeprefix(_SIMULATED_PREFIX))


def _table(scene: Scene, runs: list[RunSummary], factors: CarbonFactors) -> Table:
    return Table(
        caption="gCO2e of one request",
        columns=(
            Column(title="run"),
            Column(title="energy", number=True, note="gross, of the devices that were metered"),
            Column(title="operational", number=True, note="gCO2e; ± 95 % interval"),
            Column(title="of it alike in all runs", number=True, note="intensity, PUE, gain and offset of the meter"),
            Column(title="per sequence", number=True, note="operational, of the batch"),
            Column(title="per output token", number=True, note="operational"),
            Column(title="time × GPUs", number=True),
            Column(title="embodied", number=True, note="gCO2e"),
        ),
        rows=tuple(_row(scene, run, factors) for run in runs),
    )


def _row(scene: Scene, run: RunSummary, factors: CarbonFactors) -> tuple[Cell, ...]:
    row = run.run
    grams = operational_carbon(
        energy_j=row.energy_j or 0.0,
        ci95_j=row.energy_ci95_j,
        systematic95_j=row.energy_systematic95_j,
        factors=factors,
    )
    held_s = None if row.duration_s is None or not row.n_gpus else row.duration_s * row.n_gpus
    return (
        Cell(text=scene.run_name(run), key=run.number, note=scene.names[run.setup]),
        Cell(text=with_interval(row.energy_j, row.energy_ci95_j, "J"), key=row.energy_j),
        _gram_cell(grams),
        Cell(text=_common(grams), key=grams.common95_g),
        _gram_cell(_over(grams, row.batch_size or 0)),
        _gram_cell(_over(grams, (row.batch_size or 0) * (row.output_tokens or 0))),
        Cell(text=time_span(held_s), key=held_s),
        _gram_cell(_embodied_grams(run)),
    )


def _embodied_grams(run: RunSummary) -> Grams | None:
    row = run.run
    embodied = _embodied(row.gpu)
    if embodied is None or row.duration_s is None or not row.n_gpus:
        return None
    return embodied_carbon(duration_s=row.duration_s, ci95_s=row.duration_ci95_s, n_gpus=row.n_gpus, embodied=embodied)


def _over(grams: Grams, number: int) -> Grams | None:
    """Grams of one of so many."""
    if not number:
        return None
    ci95_g = None if grams.ci95_g is None else grams.ci95_g / number
    common95_g = None if grams.common95_g is None else grams.common95_g / number
    return Grams(value_g=grams.value_g / number, ci95_g=ci95_g, common95_g=common95_g)


def _common(grams: Grams) -> str:
    known = grams.common95_g is not None and grams.value_g > 0
    return f"± {percent((grams.common95_g or 0.0) / grams.value_g)}" if known else NOTHING


def _gram_cell(grams: Grams | None) -> Cell:
    if grams is None:
        return Cell(text=NOTHING)
    return Cell(text=with_interval(grams.value_g, grams.ci95_g, "g"), key=grams.value_g)
