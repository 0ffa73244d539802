"""The coverage page: which GPU × model × batch cells of the dataset are filled, and which are wanted."""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.dataset.reading import Dataset
from harness.dataset.release.markdown import counted, table
from harness.records import Provenance, Quality, RunRow, Status, Weights, Workload

WANTED_FILE = Path(__file__).parents[1] / "data" / "wanted.toml"
_BATCHES_SHOWN = 12
_MEANINGS = {
    Provenance.MEASURED: "Measured by labs in the standard protocol",
    Provenance.IMPORTED: "Imported: measured by others, in protocols of their own",
    Provenance.ESTIMATED: "Estimated by a power model; nothing was measured",
    Provenance.SIMULATED: "Simulated; nothing was measured",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Cells that are wanted: every model on every GPU with every batch size."""

    title: str
    gpus: tuple[str, ...]
    models: tuple[str, ...]
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell."""

    gpu: str
    model: str
    batch_size: int


@dataclass(slots=True)
class Filling:
    """What is in a cell; grows while the runs are gone through."""

    runs: int = 0
    trials: int = 0
    labs: Counter[str] | None = None

    def add(self, run: RunRow) -> None:
        """Count a run."""
        self.labs = self.labs or Counter()
        self.runs += 1
        self.trials += run.trials or 0
        self.labs[run.lab or run.source] += 1


Fillings = Mapping[Cell, Filling]


def coverage_text(dataset: Dataset) -> str:
    """The page, as Markdown; raises what reading the dataset raises."""
    found = fillings(dataset.rows(RunRow))
    sections = ["# Coverage\n", _INTRODUCTION, *_wanted(found[Provenance.MEASURED])]
    for provenance, title in _MEANINGS.items():
        if found[provenance]:
            sections += [f"## {title}\n", _filled(found[provenance]), ""]
    return "\n".join(sections)


def fillings(runs: Iterable[RunRow]) -> Mapping[Provenance, Fillings]:
    """What the runs that can be compared fill, by how their numbers came about: those that ended well, not quick."""
    found: Mapping[Provenance, dict[Cell, Filling]] = {provenance: defaultdict(Filling) for provenance in Provenance}
    for run in runs:
        if _counts(run) and run.model is not None and run.batch_size is not None:
            found[run.provenance][Cell(gpu=run.gpu, model=_name(run), batch_size=run.batch_size)].add(run)
    return found


def _name(run: RunRow) -> str:
    """Random weights toggle other bits than trained ones, so they fill a cell of their own."""
    return f"{run.model}{' (random weights)' if run.weights is Weights.RANDOM else ''}"


@cache
def wanted() -> tuple[Want, ...]:
    """The cells that are wanted, as they ship with the package."""
    listed = tomllib.loads(WANTED_FILE.read_text(encoding="utf-8"))["want"]
    return tuple(
        Want(
            title=entry["title"],
            gpus=tuple(entry["gpus"]),
            models=tuple(entry["models"]),
            batches=tuple(entry["batches"]),
        )
        for entry in listed
    )


_INTRODUCTION = """A cell is one model on one GPU with one batch size, whatever the lengths of prompts and outputs. It
is filled by runs that ended well under the standard protocol; runs of random weights, such as those of the reference
pack, fill cells of their own. What is not wanted below is welcome too.
`CONTRIBUTING.md` of Joulegraph says how to fill a cell in an evening.
"""


def _counts(run: RunRow) -> bool:
    return (
        run.status is Status.OK
        and run.superseded_by is None
        and run.workload is not Workload.KERNELS
        and run.quality is not Quality.QUICK
        and run.energy_j is not None
    )


def _wanted(measured: Fillings) -> Iterator[str]:
    cells = [
        Cell(gpu=gpu, model=model, batch_size=batch)
        for want in wanted()
        for gpu in want.gpus
        for model in want.models
        for batch in want.batches
    ]
    filled = sum(cell in measured for cell in cells)
    yield "## Wanted\n"
    yield f"{filled} of {counted(len(cells), 'wanted cell')} filled by measurement. ✓ marks a batch size that is.\n"
    for want in wanted():
        yield f"### {want.title}\n"
        yield table(("GPU", *want.models), (_wanted_row(want, gpu, measured) for gpu in want.gpus))
        yield ""


def _wanted_row(want: Want, gpu: str, measured: Fillings) -> Sequence[str]:
    return (gpu, *(_batches_wanted(want, gpu, model, measured) for model in want.models))


def _batches_wanted(want: Want, gpu: str, model: str, measured: Fillings) -> str:
    marks = (
        f"{batch} ✓" if Cell(gpu=gpu, model=model, batch_size=batch) in measured else f"{batch}"
        for batch in want.batches
    )
    return ", ".join(marks)


def _filled(found: Fillings) -> str:
    rows: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in sorted(found, key=lambda cell: (cell.gpu, cell.model, cell.batch_size)):
        rows[cell.gpu, cell.model].append(cell)
    return table(
        ("GPU", "model", "batch (runs)", "runs", "trials", "labs"),
        (_filled_row(gpu, model, cells, found) for (gpu, model), cells in rows.items()),
    )


def _filled_row(gpu: str, model: str, cells: Sequence[Cell], found: Fillings) -> Sequence[str | int]:
    parts = [f"{cell.batch_size} ({found[cell].runs})" for cell in cells[:_BATCHES_SHOWN]]
    if len(cells) > _BATCHES_SHOWN:
        parts.append(f"{len(cells) - _BATCHES_SHOWN} more")
    labs = set().union(*(found[cell].labs or () for cell in cells))
    runs, trials = sum(found[cell].runs for cell in cells), sum(found[cell].trials for cell in cells)
    return (gpu, model, ", ".join(parts), runs, trials, len(labs))
