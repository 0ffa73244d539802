"""What every run of a contribution must be, told from its own row, its environment and the hardware table.

These rules come on top of those that hold for any dataset (``harness.dataset.validation``): they ask whether this can
be what it says it is, a measurement that its lab made itself.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from harness import __version__
from harness.dataset.contributions.bundle import LICENCE, Bundle
from harness.dataset.contributions.choosing import QUICK, SIMULATED
from harness.dataset.contributions.ids import ENVIRONMENT_ID, RUN_ID
from harness.dataset.contributions.objections import Fault, Objection, objection
from harness.dataset.contributions.pack import reference_pack
from harness.errors import UnknownHardware
from harness.hardware import Hardware, find
from harness.models.shipped import shipped_ids
from harness.records import SCHEMA_VERSION, EnvironmentRow, Provenance, Quality, RunRow, SourceRow, Status, Workload
from harness.setup_records import environment_content_id

CPU, VIRTUAL = "cpu: ", "virtual: "
_MOST_POWER = 1.15  # of the board's default limit: some boards may be set higher
_LEAST_POWER = 0.01  # of it: an idle A100 with a model loaded takes 0.16, a desktop card at rest 0.03
_LEAST_CPU_W, _MOST_CPU_W = 0.5, 2_000.0  # a small board computer; four sockets
_SOURCE = re.compile(r"joulegraph ((\d{1,6}\.\d{1,6}\.\d{1,6})[\w.+-]{0,20})", re.ASCII)
_TITLE = "Joulegraph: energy of LLM inference, per phase and per kernel"
_AUTHORS = "The Joulegraph developers"
_TOLD = re.compile(r"[\w `.,:;()-]{1,300}", re.ASCII)  # what the harness says of its numbers: no link, no markup
_FINEST = 1e-5  # relative half width of an interval; the best meters of boards are known to a thousandth
# What only importers write: of servers, and of what others measured.
_OF_OTHERS = (
    *("pipeline_parallel", "expert_parallel", "data_parallel", "mean_batch_size", "mean_output_tokens"),
    *("ttft_s", "tpot_s", "output_tokens_per_s", "mean_power_w", "host_energy_j", "runtime_version"),
)
_LOOKS = str.maketrans({"o": "0", "i": "1", "l": "1", "|": "1", "_": "-", " ": "-"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a provenance goes with: nothing else can bear it."""

    provenance: Provenance
    device: str  # how the name of the device begins
    methods: frozenset[str]
    meters: str  # how the names of its meters begin


ORIGINS = (
    Origin(
        provenance=Provenance.MEASURED, device="", methods=frozenset({"nvml-counter", "nvml-power"}), meters="nvml:"
    ),
    Origin(provenance=Provenance.MEASURED, device=CPU, methods=frozenset({"rapl"}), meters="rapl"),
    Origin(
        provenance=Provenance.ESTIMATED, device=CPU, methods=frozenset({"codecarbon-cpu-load"}), meters="codecarbon-"
    ),
    Origin(provenance=Provenance.SIMULATED, device=VIRTUAL, methods=frozenset({"virtual-counter"}), meters="virtual:"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A contribution as rows, small tables only."""

    bundle: Bundle
    runs: tuple[RunRow, ...]
    environments: Mapping[str, EnvironmentRow]
    sources: tuple[SourceRow, ...]
    include: frozenset[str]  # simulated, quick: what is taken although it is no measurement to publish


def run_objections(offered: Offered) -> Iterator[Objection]:
    """Everything that a run, its environment or its source says against itself."""
    for rule, remedy, check in _RUN_RULES:
        yield from objection(rule, _faults(offered, check), remedy)
    repeated = (Fault(row=f"run {run_id}", why="it is there twice") for run_id in _repeated(offered.runs))
    yield from objection("id", repeated, _ALTERED)
    yield from _pack(offered)
    yield from objection("environment", _environment_faults(offered), _ALTERED)
    yield from objection("source", map(_source_fault, _others(offered.sources)), _ALTERED)


def origin_of(gpu: str, provenance: Provenance) -> Origin | None:
    """What a provenance goes with on a device; None where there is no such thing."""
    kind = next((start for start in (CPU, VIRTUAL) if gpu.startswith(start)), "")
    return next((each for each in ORIGINS if (each.provenance, each.device) == (provenance, kind)), None)


Check = Callable[[Offered, RunRow], str | None]
_ALTERED = "The bundle was changed after it was written, or by hand. Ask for one that `python -m harness.submit` wrote."


def _faults(offered: Offered, check: Check) -> Iterator[Fault]:
    for run in offered.runs:
        why = check(offered, run)
        if why is not None:
            yield Fault(row=f"run {run.run_id[:40]}", why=why)


def _header(offered: Offered, run: RunRow) -> str | None:
    bundle = offered.bundle
    if (run.lab, run.gpu, run.schema_version) != (bundle.lab, bundle.gpu, SCHEMA_VERSION):
        return f"it is of lab {run.lab}, on {run.gpu}, schema {run.schema_version}; bundle.json says otherwise"
    if run.started_at_utc is None or run.started_at_utc > bundle.created_utc:
        return "it was started after the bundle was written, or at no time"
    return None


def _ids(_: Offered, run: RunRow) -> str | None:
    ids_fit = RUN_ID.fullmatch(run.run_id) and ENVIRONMENT_ID.fullmatch(run.campaign_id)
    return None if ids_fit else "its run_id or campaign_id is none that submit makes"


def _source(offered: Offered, run: RunRow) -> str | None:
    environment = offered.environments.get(run.environment_id or "")
    listed = run.source in {row.source for row in offered.sources}
    if listed and environment is not None and run.source == f"joulegraph {environment.harness}":
        return None
    return f"it comes from {run.source}, its environment from version {environment and environment.harness}"


def _complete(_: Offered, run: RunRow) -> str | None:
    if run.status is not Status.OK or run.superseded_by is not None or run.workload is not Workload.BATCH:
        return "it did not end well, was corrected, or is of no batch"
    needed = ("energy_j", "duration_s", "idle_power_w", "trials", "method", "quality", "configuration", "model")
    absent = [name for name in needed if getattr(run, name) is None]
    return f"it lacks {', '.join(absent)}" if absent else None


def _columns(_: Offered, run: RunRow) -> str | None:
    filled = [name for name in _OF_OTHERS if getattr(run, name) is not None]
    if filled:
        return f"it has {', '.join(filled)}, which this harness does not measure"
    ranks = max(1, run.n_gpus, run.tensor_parallel or 1)
    return None if 1 <= run.nodes <= ranks else f"it spans {run.nodes} machines with {ranks} ranks"


def _interval(_: Offered, run: RunRow) -> str | None:
    """An interval of nothing would outweigh everybody else's rows."""
    if run.energy_j is None or run.energy_ci95_j is None:
        return None
    least_j = max(_FINEST * run.energy_j, 0.999 * (run.energy_systematic95_j or 0.0))
    if run.energy_ci95_j >= least_j:
        return None
    return f"its energy is said to be known to {run.energy_ci95_j:.3g} J of {run.energy_j:.3g} J"


def _quality(offered: Offered, run: RunRow) -> str | None:
    quick = run.quality is not Quality.STANDARD
    return f"its quality is {run.quality}" if quick and QUICK not in offered.include else None


def _provenance(offered: Offered, run: RunRow) -> str | None:
    if run.provenance is Provenance.SIMULATED and SIMULATED not in offered.include:
        return "it is simulated"
    origin = origin_of(run.gpu, run.provenance)
    if origin is None:
        return f"{run.provenance} energy on {run.gpu} is nothing a lab contributes"
    environment = offered.environments.get(run.environment_id or "")
    if environment is None:
        return "its environment is not in the bundle"
    if run.method not in origin.methods:
        return f"it is {run.provenance}, and {run.method} does not measure that"
    if not environment.meter.startswith(origin.meters) or f"({run.provenance})" not in environment.meter:
        return f"it is {run.provenance}, and its environment was read by {environment.meter[:60]}"
    return _device(run, environment)


def _device(run: RunRow, environment: EnvironmentRow) -> str | None:
    """Whether the device that the driver named is the one that the row names."""
    if run.gpu != environment.gpu:
        return f"it is on {run.gpu}, its environment on {environment.gpu}"
    if run.gpu.startswith(CPU):
        return None if run.gpu == f"{CPU}{environment.cpu}" else f"its environment has the CPU {environment.cpu}"
    if run.gpu.startswith(VIRTUAL):
        told = f"VIRTUAL {run.gpu.removeprefix(VIRTUAL)}"
        return None if environment.device_name == told else f"the device calls itself {environment.device_name}"
    if environment.driver is None or environment.cuda is None or (environment.torch or "").endswith("+cpu"):
        return "its environment has no driver, or a torch without CUDA: nothing ran on a GPU there"
    if not environment.n_devices:
        return f"it ran on {run.n_gpus} GPUs, and its environment has none"
    hardware = known_hardware(run.gpu)
    names = () if hardware is None else (hardware.name, *hardware.nvml_names)
    known = environment.device_name in names or _named(environment.device_name) == run.gpu
    return None if known else f"the driver calls the device {environment.device_name}"


@cache
def _named(device_name: str) -> str | None:
    """The device in the hardware table that a driver means by a name; None where that is none, or not clear."""
    try:
        return find(device_name).name
    except UnknownHardware:
        return None


@cache
def known_hardware(gpu: str) -> Hardware | None:
    """The device in the hardware table that bears exactly this name; a virtual one has the figures of its original."""
    name = gpu.removeprefix(VIRTUAL)
    try:
        hardware = find(name)
    except UnknownHardware:
        return None
    return hardware if hardware.name == name else None


def _hardware(_: Offered, run: RunRow) -> str | None:
    if run.gpu.startswith(CPU) or known_hardware(run.gpu) is not None:
        return None
    return f"{run.gpu} is not in the hardware table"


def _power(_: Offered, run: RunRow) -> str | None:
    """Whether energy, time and idle power can be those of such a device: a wrong unit shows here."""
    if run.energy_j is None or not run.duration_s or run.idle_power_w is None:
        return None
    least_w, most_w = _power_range_w(run)
    power_w = run.energy_j / run.duration_s
    for what, found_w in (("mean power", power_w), ("idle power", run.idle_power_w)):
        if not least_w <= found_w <= most_w:
            return f"its {what} is {found_w:.3g} W, and {run.gpu} takes {least_w:.3g} to {most_w:.3g} W"
    if power_w < 0.9 * run.idle_power_w:
        return f"its mean power is {power_w:.3g} W, below its idle power of {run.idle_power_w:.3g} W"
    return None


def _power_range_w(run: RunRow) -> tuple[float, float]:
    hardware = known_hardware(run.gpu)
    if run.gpu.startswith(CPU) or hardware is None or hardware.board_power_w is None:
        return _LEAST_CPU_W, _MOST_CPU_W * max(1, run.n_gpus)
    count = max(1, run.n_gpus)
    return _LEAST_POWER * hardware.board_power_w * count, _MOST_POWER * hardware.board_power_w * count


def _model(_: Offered, run: RunRow) -> str | None:
    """A name that looks like that of a known model and is another one."""
    name = run.model or ""
    meant = _known_looks().get(_look(name))
    return f"{name} looks like {meant} and is spelt otherwise" if meant not in (None, name) else None


@cache
def _known_looks() -> Mapping[str, str]:
    return {_look(name): name for name in shipped_ids()}


def _look(name: str) -> str:
    return name.lower().translate(_LOOKS).replace("rn", "m")


_RUN_RULES: Sequence[tuple[str, str, Check]] = (
    ("header", _ALTERED, _header),
    ("id", _ALTERED, _ids),
    ("source", _ALTERED, _source),
    ("complete", _ALTERED, _complete),
    ("provenance", "Only what a lab measured itself is taken, and it is what its meters say.", _provenance),
    ("quality", "Run the campaign again in standard quality.", _quality),
    (
        "hardware",
        "Send the device's figures for harness/data/hardware.toml first, each with its document (CONTRIBUTING.md).",
        _hardware,
    ),
    ("columns", _ALTERED, _columns),
    ("interval", _ALTERED, _interval),
    ("power", "Look at the units: energies are joules, times seconds, powers watts.", _power),
    ("model", "Name the model as the Hub does.", _model),
)


def _repeated(runs: Sequence[RunRow]) -> list[str]:
    return [run_id for run_id, count in Counter(run.run_id for run in runs).items() if count > 1]


def _pack(offered: Offered) -> Iterator[Objection]:
    qualities = frozenset({Quality.STANDARD, Quality.QUICK} if QUICK in offered.include else {Quality.STANDARD})
    missing = reference_pack().missing(offered.runs, offered.bundle.gpu, qualities)
    yield from objection(
        "reference pack",
        (Fault(row=str(request), why="no run answers it") for request in missing),
        "Run `python -m harness.run --reference-pack --out PACK` on the same device, and submit with --pack PACK.",
    )


def _environment_faults(offered: Offered) -> Iterator[Fault]:
    used = {run.environment_id for run in offered.runs}
    for row in offered.environments.values():
        if row.environment_id != environment_content_id(row):
            yield Fault(row=f"environment {row.environment_id}", why="its id is not the hash of what it says")
        elif row.environment_id not in used:
            yield Fault(row=f"environment {row.environment_id}", why="no run was made on it")


def _others(sources: Iterable[SourceRow]) -> Iterator[SourceRow]:
    """Sources that are not a version of this harness."""
    for row in sources:
        match = _SOURCE.fullmatch(row.source)
        known = match is not None and row.version == match[1] and _release(match[2]) <= _release(__version__)
        terms = (row.title, row.licence, row.url) == (_TITLE, LICENCE, None)
        told = all(_TOLD.fullmatch(text) for text in (row.measured, row.derived or "-", row.citation or ""))
        if not (known and terms and told and (row.citation or "").startswith(_AUTHORS)):
            yield row


def _release(version: str) -> tuple[int, ...]:
    """The three numbers of a version: nobody says today what a later one is called."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _source_fault(row: SourceRow) -> Fault:
    return Fault(
        row=f"source {row.source[:60]}", why=f"it is no version of this harness up to {__version__}, as it says"
    )
