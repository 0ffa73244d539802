"""The top and the bottom of the page: what ran where, how far to trust it, headline numbers, machines."""

from dataclasses import dataclass

from harness.dataset.summary import RunSummary, Setup, Summary, WindowTotal
from harness.records import EnvironmentRow, Provenance, Status
from harness.report.blocks import Cell, Column, Group, Section, Table, Tile
from harness.report.setups import Scene
from harness.report.text import (
    NOTHING,
    count,
    device_name,
    memory,
    model_name,
    moment,
    parallel_name,
    percent,
    plain,
    plural,
    quantity,
    short,
    time_span,
    yes_no,
)

METHODS = (
    "Energies are gross: everything the device used in the window, idle power included. Active energy is gross "
    "energy less idle power × time; it is in the dataset, beside the gross one.",
    "Prefill reads the prompt and yields the first token; decode yields the others, one forward pass each, so that "
    "output_tokens tokens take output_tokens − 1 decode steps.",
    "A request's energy comes from a window of its own around prefill and decode. It is not the sum of its phases.",
    "The energy of a kernel is inferred, never read: a kernel lasts microseconds, a counter moves every 20 to "
    "100 milliseconds. Apportioned energies split a phase's energy by modelled power × traced time; they add up to "
    "the phase by construction, which proves nothing about a single kernel. Replay loops a kernel alone until the "
    "window is long enough; regression fits kernels to windows of many mixtures. Neither uses the phase's energy.",
    "The ledger of a run: its own energy = idle power × duration + active energy of its kernels by replay or "
    "regression + active energy of host gaps + a residual, which is what these do not explain.",
    "Energy was read in passes without a profiler; kernels were traced in passes of their own.",
    "± and whiskers are half widths of 95 % intervals: spread of the repeated windows, steps of the counter and, where "
    "it is stated, what the meter gets wrong in all readings alike. In percent they are relative to the value.",
    "A dash (–) means not known. No unknown value is shown or counted as 0, and a sum with an unknown part is unknown.",
    "Numbers of different provenance, device or protocol are never pooled: each has its own colour, and the symbol "
    "says the provenance (circle: measured, diamond: estimated, square: simulated, triangle: imported).",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    """One line about a machine."""

    name: str
    value: str


def title(summary: Summary) -> str:
    """What ran where, in one line."""
    models = sorted({model_name(setup.model) for setup in summary.setups})
    devices = sorted({device_name(setup.gpu, setup.n_gpus) for setup in summary.setups})
    if not models:
        return "Energy of LLM inference: no runs yet"
    what = models[0] if len(models) == 1 else plural(len(models), "model")
    where = devices[0] if len(devices) == 1 else plural(len(devices), "device")
    return f"Energy of {what} on {where}"


def subtitle(summary: Summary) -> str:
    """With which weights and dtype, how many runs, and when."""
    weights = sorted({setup.weights.value for setup in summary.setups if setup.weights})
    dtypes = sorted({plain(setup.dtype) for setup in summary.setups})
    moments = sorted(moment(run.run.started_at_utc) for run in summary.runs if run.run.started_at_utc)
    when = " to ".join(dict.fromkeys((moments[0], moments[-1]))) + " UTC" if moments else ""
    parts = (
        f"{' and '.join(weights)} weights" if weights else "",
        short(", ".join(dtypes)),
        _ranks(summary),
        plural(len(summary.runs), "run"),
        when,
    )
    return " · ".join(part for part in parts if part)


def _ranks(summary: Summary) -> str:
    """How many ranks computed together, and on how many machines; nothing where each run had one of either."""
    ranks = sorted({setup.tensor_parallel or 1 for setup in summary.setups})
    nodes = sorted({setup.nodes for setup in summary.setups})
    found = [(ranks, "rank"), (nodes, "node")]
    told = [f"{_listed(counts)} {noun}s" for counts, noun in found if counts and counts[-1] > 1]
    return " on ".join(told)


def _listed(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def tiles(summary: Summary) -> tuple[Tile, ...]:
    """Headline numbers; energies apart for each provenance."""
    counts = {found.status: found.runs for found in summary.status_counts}
    others = [f"{counts.get(status, 0)} {name}" for status, name in _OTHER_STATUSES]
    tiles = [
        Tile(title="Runs finished", value=f"{counts.get(Status.OK, 0)} of {len(summary.runs)}", note=", ".join(others))
    ]
    for provenance in Provenance:
        runs = [run for run in summary.runs if run.run.provenance is provenance and run.run.energy_j is not None]
        if runs:
            tiles.extend((_energy_tile(provenance, runs), _token_tile(provenance, runs)))
        tiles.extend(_window_tile(total) for total in summary.window_totals if total.provenance is provenance)
    return tuple(tiles)


_OTHER_STATUSES = ((Status.OOM, "out of memory"), (Status.FAILED, "failed"), (Status.SKIPPED, "skipped"))


def setup_section(scene: Scene) -> Section:
    """What ran where, one row per setup."""
    summary = scene.summary
    columns = ("model", "revision", "weights", "dtype", "device", "runtime", "energy", "protocol", "finished")
    table = Table(
        caption="Each row is one series of the charts below",
        columns=tuple(Column(title=name) for name in columns),
        rows=tuple(_setup_row(summary, setup) for setup in summary.setups),
    )
    notes = []
    if summary.superseded_runs:
        notes.append(
            f"{plural(summary.superseded_runs, 'row')} that a later row corrects: kept in the dataset, left out here."
        )
    return Section(
        name="setups",
        title="What ran where",
        lead="",
        groups=(
            Group(
                legend=scene.legend(setup.setup for setup in summary.setups),
                tables=(table,) if summary.setups else (),
                notes=tuple(notes),
            ),
        ),
    )


def environment_section(summary: Summary) -> Section:
    """The machines and software of the runs."""
    return Section(
        name="environments",
        title="Machines and software",
        lead="Recorded by the worker of each run; equal set-ups are listed once.",
        groups=(
            Group(
                tables=(_environment_table(summary.environments),) if summary.environments else (),
                notes=() if summary.environments else ("No worker started, so no machine was recorded.",),
            ),
        ),
    )


def _energy_tile(provenance: Provenance, runs: list[RunSummary]) -> Tile:
    total_j = sum(run.run.energy_j or 0.0 for run in runs)
    note = f"one request of each of {plural(len(runs), 'finished run')}, added up"
    return Tile(title=f"Energy of the requests, {provenance.value}", value=quantity(total_j, "J"), note=note)


def _token_tile(provenance: Provenance, runs: list[RunSummary]) -> Tile:
    known = sorted(
        (run.energy_per_output_token_j, run.number, run) for run in runs if run.energy_per_output_token_j is not None
    )
    heading = f"J per output token, {provenance.value}"
    if not known:
        return Tile(title=heading, value=NOTHING, note="no run made output tokens")
    ends = [known[0], known[-1]] if len(known) > 1 else [known[0]]
    return Tile(
        title=heading,
        value=" – ".join(quantity(value, "J").replace(" ", "\u00a0") for value, _, _ in ends),
        note="; ".join(_end_note(run) for _, _, run in ends),
    )


def _window_tile(total: WindowTotal) -> Tile:
    return Tile(
        title=f"Energy in all windows, {total.provenance.value}",
        value=quantity(total.energy_j, "J"),
        note=f"{plural(total.windows, 'window')} over {time_span(total.duration_s)}, repeats and idle included, "
        "loops of kernels not",
    )


def _end_note(run: RunSummary) -> str:
    value, half_width = run.energy_per_output_token_j, run.energy_per_output_token_ci95_j
    interval = f" ± {percent(half_width / value)}" if value and half_width is not None else ""
    return f"#{run.number} (batch {run.run.batch_size}){interval}"


def _setup_row(summary: Summary, setup: Setup) -> tuple[Cell, ...]:
    runs = [run for run in summary.runs if run.setup == setup.setup]
    revisions = sorted({plain(run.run.model_revision) for run in runs})
    methods = sorted({plain(run.run.method) for run in runs if run.run.method})
    finished = sum(run.run.status is Status.OK for run in runs)
    quantised = f", {plain(setup.quantization)}" if setup.quantization else ""
    return (
        Cell(text=short(plain(setup.model)), note=plain(setup.model)),
        Cell(text=short(", ".join(revisions), 24), note=", ".join(revisions)),
        Cell(text=setup.weights.value if setup.weights else NOTHING),
        Cell(text=plain(setup.dtype) + quantised),
        Cell(text=device_name(setup.gpu, setup.n_gpus)),
        Cell(text=_runtime(setup)),
        Cell(text=f"{setup.provenance.value}: {', '.join(methods) or NOTHING}"),
        Cell(text=plain(setup.quality)),
        Cell(text=f"{finished} of {len(runs)}", key=finished),
    )


def _runtime(setup: Setup) -> str:
    parts = [plain(setup.runtime), plain(setup.attention)]
    if setup.kv_cache is False:
        parts.append("no KV cache")
    if setup.cuda_graphs:
        parts.append("CUDA graphs")
    parts.append(parallel_name(setup.parallelism, setup.tensor_parallel, setup.nodes))
    return ", ".join(part for part in parts if part)


def _environment_table(environments: tuple[EnvironmentRow, ...]) -> Table:
    """One column per environment."""
    rows = zip(*(_environment_facts(environment) for environment in environments), strict=True)
    return Table(
        caption="Environments",
        columns=(Column(title="what"), *(Column(title=plain(one.device_name)) for one in environments)),
        rows=tuple((Cell(text=facts[0].name), *(Cell(text=fact.value) for fact in facts)) for facts in rows),
    )


def _environment_facts(row: EnvironmentRow) -> tuple[_Fact, ...]:
    cores = plural(row.cpu_cores, "logical core")
    return (
        _Fact(name="name in the dataset", value=plain(row.gpu)),
        _Fact(name="GPUs in the machine", value=count(row.n_devices)),
        _Fact(name="CPU", value=f"{plain(row.cpu)}, {cores} usable"),
        _Fact(name="memory", value=memory(row.memory_bytes)),
        _Fact(name="virtual machine", value=yes_no(row.virtual_machine)),
        _Fact(name="meter", value=plain(row.meter)),
        _Fact(name="the meter moves every", value=time_span(row.meter_step_s)),
        _Fact(name="peak compute for the dtype", value=quantity(row.peak_flop_per_s, "FLOP/s")),
        _Fact(name="peak memory bandwidth", value=quantity(row.peak_bytes_per_s, "B/s")),
        _Fact(name="power limit", value=quantity(row.power_limit_w, "W")),
        _Fact(name="driver", value=plain(row.driver)),
        _Fact(name="CUDA", value=plain(row.cuda)),
        _Fact(name="VBIOS", value=plain(row.vbios)),
        _Fact(name="ECC", value=yes_no(row.ecc)),
        _Fact(name="MIG", value=yes_no(row.mig)),
        _Fact(name="persistence mode", value=yes_no(row.persistence_mode)),
        _Fact(name="links between GPUs", value=plain(row.topology)),
        _Fact(name="operating system", value=plain(row.os)),
        _Fact(name="Python", value=plain(row.python)),
        _Fact(name="torch", value=f"{plain(row.torch)}, {plural(row.threads, 'thread')}"),
        _Fact(name="transformers", value=plain(row.transformers)),
        _Fact(name="joulegraph", value=plain(row.harness)),
        _Fact(name="calibration", value=NOTHING if row.calibration is None else "see Calibration of the meters"),
        _Fact(name="environment id", value=row.environment_id[:12]),
    )
