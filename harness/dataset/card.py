"""The card of a dataset: ``README.md`` with the front matter by which ``datasets.load_dataset(DIR, "runs")`` works.

It names the files that count, so it is also what keeps other readers from seeing leftovers of an interruption.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.dataset.manifest import Manifest
from harness.dataset.schema import Table
from harness.records import Provenance, Quality, RunRow, Status

CARD_MARK = "Made with Joulegraph."
MEANINGS = {
    Provenance.MEASURED: "read from a hardware energy counter",
    Provenance.ESTIMATED: "a power model times time; no counter was read",
    Provenance.SIMULATED: "made by the virtual GPU; not a measurement of anything",
    Provenance.IMPORTED: "somebody else's measurement, see `source`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the card says about a run; runs that agree are counted together."""

    campaign_id: str
    provenance: Provenance
    source: str
    quality: Quality | None
    status: Status
    model: str | None
    gpu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPattern:
    """Parts of a table that exist: files that are not compacted yet."""

    table: Table
    prefix: str

    @property
    def glob(self) -> str:
        """As the front matter names them."""
        return f"data/{self.table.title}/{self.prefix}*.parquet"


def run_facts(row: RunRow) -> RunFacts:
    """What the card says about this run."""
    return RunFacts(
        campaign_id=row.campaign_id,
        provenance=row.provenance,
        source=row.source,
        quality=row.quality,
        status=row.status,
        model=row.model,
        gpu=row.gpu,
    )


def card_text(facts: Mapping[RunFacts, int], manifest: Manifest | None, parts: Collection[PartPattern]) -> str:
    """The card of a dataset as it stands; ``facts`` counts the runs."""
    sections = [
        _front_matter(manifest, parts),
        "# Energy of LLM inference, per phase and per kernel\n",
        _INTRODUCTION,
        _provenance(facts),
        _runs(facts),
        *([_UNFINISHED] if parts else []),
        _tables(manifest),
        _USE,
    ]
    return "\n".join(sections)


def escaped(text: str) -> str:
    """Text that came from data, so that Markdown shows it and does nothing else with it."""
    one_line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return re.sub(r"([\\`*_\[\]<>|~&@]|:(?=//))", r"\\\1", one_line)


_INTRODUCTION = f"""{CARD_MARK} A run is one request (model, batch size, prompt tokens, output tokens, dtype) on one
deployment. Energies are joules summed over the GPUs in use, gross of idle power unless a column says otherwise.
Null means "not known". The energy of a kernel is always inferred, never read; `method` says how.
"""

_UNFINISHED = """**More runs are being recorded.** The counts on this page are of the time it was written; the tables
hold every run recorded since.
"""

_USE = """## Use

```python
import datasets

runs = datasets.load_dataset("PATH_OF_THIS_FOLDER", "runs", split="train")
```

Every run is there, also those that ended `oom`, `failed` or `skipped`: filter on `status`. Do not mix values of
`provenance`, and compare only rows of the same `quality`. Units are part of the column names (`_j` joules, `_s`
seconds, `_w` watts, `_bytes` bytes).
"""


def _front_matter(manifest: Manifest | None, parts: Collection[PartPattern]) -> str:
    lines = [
        "---",
        "license: cc-by-4.0",
        'pretty_name: "Energy of LLM inference, per phase and per kernel"',
        "tags:",
        *(f"- {tag}" for tag in ("energy", "llm", "inference", "gpu", "sustainability", "joulegraph")),
    ]
    configs = [(table, _data_files(table, manifest, parts)) for table in Table]
    lines += ["configs:"] if any(files for _, files in configs) else []
    for table, files in configs:
        if files:
            lines += [f"- config_name: {table.title}", *(["  default: true"] if table is Table.RUNS else [])]
            lines += [
                "  data_files:",
                "  - split: train",
                "    path:",
                *(f"    - {json.dumps(name)}" for name in files),
            ]
    return "\n".join([*lines, "---\n"])


def _data_files(table: Table, manifest: Manifest | None, parts: Collection[PartPattern]) -> list[str]:
    """Compacted files by name, parts by pattern; a pattern without a file would make ``load_dataset`` fail."""
    listed = manifest.files_of(table) if manifest else ()
    return [*(file.path for file in listed), *sorted(part.glob for part in parts if part.table is table)]


def _provenance(facts: Mapping[RunFacts, int]) -> str:
    counts: Counter[tuple[Provenance, str, str]] = Counter()
    for fact, runs in facts.items():
        counts[fact.provenance, fact.quality or "", fact.source] += runs
    lines = [
        "## How the numbers came about\n",
        "| provenance | meaning | quality | source | runs |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| **{provenance}** | {MEANINGS[provenance]} | {quality} | {escaped(source)} | {runs} |"
        for (provenance, quality, source), runs in sorted(counts.items())
    ]
    if any(quality == Quality.QUICK for _, quality, _ in counts):
        lines.append(
            "\nRows of quality `quick` come from short windows and few trials: for trying out, not for comparing."
        )
    return "\n".join([*lines, ""])


def _runs(facts: Mapping[RunFacts, int]) -> str:
    lines = ["## Runs\n", f"| model | device | {' | '.join(Status)} |", f"|---|---|{'---|' * len(Status)}"]
    cells: Counter[tuple[str, str, Status]] = Counter()
    for fact, runs in facts.items():
        cells[fact.model or "", fact.gpu, fact.status] += runs
    for model, gpu in sorted({(model, gpu) for model, gpu, _ in cells}):
        numbers = " | ".join(str(cells[model, gpu, status]) for status in Status)
        lines.append(f"| {escaped(model)} | {escaped(gpu)} | {numbers} |")
    totals = " | ".join(str(sum(cells[key] for key in cells if key[2] is status)) for status in Status)
    return "\n".join([*lines, f"| **all** | | {totals} |", ""])


def _tables(manifest: Manifest | None) -> str:
    lines = ["## Tables\n", "| table | what a row is | rows |", "|---|---|---|"]
    for table in Table:
        rows = str(sum(file.rows for file in manifest.files_of(table))) if manifest else ""
        meaning = (table.row_class.__doc__ or "").splitlines()[0]
        lines.append(f"| `{table.title}` | {meaning} | {rows} |")
    return "\n".join([*lines, ""])
