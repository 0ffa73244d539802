"""Energy per output token as ``.eval_results/*.yaml``: what the Hub shows on the page of a model.

https://huggingface.co/docs/hub/eval-results: a list of entries with the dataset and task they are results of, the
value, its date, where it comes from, and notes. One file per model and device; the value is the median over requests.
Strings are written as JSON, which YAML reads as it is.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.dataset.export.leaving import Leaving, LeavingRun
from harness.dataset.export.writing import write_text
from harness.dataset.release.hub import dataset_url
from harness.dataset.release.selection import slug
from harness.dataset.release.terms import in_order, suffix
from harness.errors import DatasetError
from harness.records import Provenance, Workload

TASK = "energy_per_output_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """The dataset on the Hub that the results belong to."""

    repository: str  # owner/name
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one value is of; everything in it is in its notes."""

    model: str
    gpu: str
    n_gpus: int
    provenance: Provenance
    workload: Workload
    dtype: str
    runtime: str
    words: str
    source: str

    @property
    def name(self) -> str:
        """As a file name."""
        parts = (self.gpu, f"{max(1, self.n_gpus)}x", self.dtype, self.runtime, self.workload, self.source)
        return f"joulegraph-{slug(' '.join(parts))}{self.words or f'-{self.provenance}'}"


def export_eval_results(leaving: Leaving, benchmark: Benchmark, out: Path) -> tuple[Path, ...]:
    """Write ``out/<owner>/<model>/.eval_results/<setup>.yaml`` for every model with a page on the Hub.

    Raises ``CannotWrite``, and ``DatasetError`` where no run can be told per output token.
    """
    setups: dict[Setup, list[LeavingRun]] = {}
    for run in leaving.runs:
        if run.model_url is not None and run.output_tokens:
            setups.setdefault(_setup(run), []).append(run)
    if not setups:
        raise DatasetError(
            "No run is of a model with an id on the Hub and a known number of output tokens.\n"
            "There is nothing to tell on a model's page."
        )
    paths = []
    for setup, runs in sorted(setups.items(), key=lambda item: (item[0].model, item[0].name)):
        owner, _, name = setup.model.partition("/")
        path = out / owner / name / ".eval_results" / f"{setup.name}.yaml"
        write_text(path, "\n".join([*_entry(setup, runs, benchmark), ""]))
        paths.append(path)
    return tuple(paths)


def _setup(run: LeavingRun) -> Setup:
    row = run.row
    return Setup(
        model=row.model or "",
        gpu=row.gpu,
        n_gpus=row.n_gpus,
        provenance=row.provenance,
        workload=row.workload,
        dtype=row.quantization or row.dtype or "dtype unknown",
        runtime=row.runtime or "runtime unknown",
        words=suffix(run.words),
        source=row.source,
    )


def _entry(setup: Setup, runs: Sequence[LeavingRun], benchmark: Benchmark) -> Iterator[str]:
    per_token_j = [run.energy_j / (run.output_tokens or 1) for run in runs]
    url = dataset_url(benchmark.repository)
    yield from ("- dataset:", f"    id: {_text(benchmark.repository)}", f"    task_id: {TASK}")
    if benchmark.revision is not None:
        yield f"    revision: {_text(benchmark.revision)}"
    yield f"  value: {statistics.median(per_token_j):.6g}"
    last = max((run.row.started_at_utc[:10] for run in runs if run.row.started_at_utc), default=None)
    if last is not None:
        yield f"  date: {_text(last)}"
    yield from ("  source:", f"    url: {_text(url)}", f"    name: {_text(f'Joulegraph dataset ({setup.provenance})')}")
    yield f"  notes: {_text(_notes(setup, runs, per_token_j))}"


def _notes(setup: Setup, runs: Sequence[LeavingRun], per_token_j: Sequence[float]) -> str:
    words = in_order(word for run in runs for word in run.words)
    device = f"{max(1, setup.n_gpus)} x {setup.gpu}"
    named = f" Released as {', '.join(words)}." if words else ""
    made = runs[0].source if setup.provenance is Provenance.IMPORTED else None
    named += f" Source: {made.title}, {made.licence or 'no licence stated'}." if made else ""
    return (
        f"Joules per output token, prefill included, idle power included, GPUs (or processor) only; {runs[0].how}. "
        f"Median of {len(runs)} requests from {min(per_token_j):.3g} to {max(per_token_j):.3g} J; {device}, "
        f"{setup.dtype}, {setup.runtime}, {setup.workload}, batch {_range(runs)}. Lower is better.{named}"
    )


def _range(runs: Sequence[LeavingRun]) -> str:
    sizes = sorted({run.row.batch_size for run in runs if run.row.batch_size})
    if not sizes:
        return "not known"
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _text(value: str) -> str:
    return json.dumps("".join(letter if letter.isprintable() else " " for letter in value), ensure_ascii=False)
