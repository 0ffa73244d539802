"""The card of a release: ``README.md``. Every table in it is made from the data."""

from collections import Counter

from harness.dataset.card import CARD_MARK, MEANINGS, escaped
from harness.dataset.release.fact_records import ReleaseFacts, Resolution, SourceCount
from harness.dataset.release.front_matter import front_matter
from harness.dataset.release.licences import OWN, address
from harness.dataset.release.limits import limitations
from harness.dataset.release.markdown import link, table
from harness.dataset.release.record import ReleaseRecord
from harness.dataset.release.snippets import snippets
from harness.dataset.release.titles import citation_text, summary, title, warnings
from harness.records import Provenance, Status

_NONE = "kernels alone"


def card(record: ReleaseRecord, facts: ReleaseFacts, figures: tuple[str, ...]) -> str:
    """The whole page; ``figures`` are Markdown images with their captions."""
    sections = [
        front_matter(facts),
        f"# {title(facts)}\n",
        f"Version {record.version}, {record.date}. {CARD_MARK}\n",
        *(f"> {line}\n" for line in warnings(facts)),
        f"{summary(facts)}\n",
        _INTRODUCTION,
        _load(record, facts),
        _provenance(facts),
        _resolution(facts),
        *figures,
        _runs(facts),
        _tables(facts),
        _left_out(record),
        _limits(facts),
        _licence(facts),
        f"## Cite\n\n```bibtex\n{citation_text(record, facts)}\n```\n\nAnd the sources whose rows you use.\n",
    ]
    return "\n".join(sections)


_INTRODUCTION = """A run is one request (model, batch size, prompt tokens, output tokens, dtype) on one deployment, or
what a published source has in its place. Energies are joules summed over the GPUs in use, gross of idle power unless a
column says otherwise. Units are part of the column names: `_j` joules, `_s` seconds, `_w` watts, `_bytes` bytes. Null
means "not known". The energy of a kernel is always inferred, never read; `method` says how.

[Columns](schema.md) · [Datasheet](datasheet.md) · [Coverage](coverage.md) · [Changes](CHANGELOG.md) ·
[Croissant](croissant.json) · [Hashes of all files](manifest.json)
"""


def _load(record: ReleaseRecord, facts: ReleaseFacts) -> str:
    phases = any(size.table.title == "phases" and size.rows for size in facts.tables)
    lines = ["## Load\n"]
    for snippet in snippets(record, phases=phases):
        lines += [f"{snippet.title}:\n", f"```python\n{snippet.code}\n```\n"]
    lines.append(
        "Each table is one configuration with one split. Do not mix values of `provenance`, compare only rows of the "
        "same `quality`, and leave out rows that are `superseded_by` another. Files are sorted and one per device; "
        "rows that are released under a name have it in the name of their file.\n"
    )
    return "\n".join(lines)


def _provenance(facts: ReleaseFacts) -> str:
    rows = [
        (
            count.provenance,
            MEANINGS[count.provenance].replace("`", ""),
            count.quality,
            count.source,
            count.licence,
            count.runs,
        )
        for count in facts.provenances
    ]
    headers = ("provenance", "meaning", "quality", "source", "licence", "runs")
    return f"## How the numbers came about\n\n{table(headers, rows)}\n"


def _resolution(facts: ReleaseFacts) -> str:
    headers = ("source", "device", "models", "runs", "phases", "kernels", "quantities", "finest", "licence")
    rows = [
        (
            found.source,
            found.gpu,
            found.models,
            found.runs,
            found.phases,
            found.kernels,
            _quantities(found),
            _finest(found),
            _terms(found.licence, found.provenance),
        )
        for found in facts.resolutions
    ]
    return f"## What is in it\n\n{table(headers, rows)}\n"


def _quantities(found: Resolution) -> str:
    counts = (("energy", found.energies), ("time", found.durations), ("power", found.powers))
    return ", ".join(f"{name} ({rows:,})" for name, rows in counts if rows)


def _finest(found: Resolution) -> str:
    return "kernel" if found.kernels else "phase" if found.phases else "run"


def _terms(licence: str | None, provenance: Provenance) -> str:
    return licence or ("none stated" if provenance is Provenance.IMPORTED else OWN)


def _runs(facts: ReleaseFacts) -> str:
    cells: Counter[tuple[str, str, Status]] = Counter()
    for count in facts.endings:
        cells[count.model or _NONE, count.gpu, count.status] += count.runs
    statuses = [status for status in Status if any(key[2] is status for key in cells)]
    rows: list[list[str | int | None]] = [
        [model, gpu, *(cells[model, gpu, status] for status in statuses)]
        for model, gpu in sorted({(model, gpu) for model, gpu, _ in cells})
    ]
    totals = (sum(cells[key] for key in cells if key[2] is status) for status in statuses)
    shown = table(("model", "device", *map(str, statuses)), rows)
    total = ", ".join(f"{runs:,} {status}" for runs, status in zip(totals, statuses, strict=True))
    return f"## Runs\n\n{shown}\n\nTogether: {total}.\n"


def _tables(facts: ReleaseFacts) -> str:
    rows = [
        (size.table.title, (size.table.row_class.__doc__ or "").splitlines()[0], size.rows, size.files)
        for size in facts.tables
    ]
    return f"## Tables\n\n{table(('table', 'what a row is', 'rows', 'files'), rows)}\n"


def _left_out(record: ReleaseRecord) -> str:
    if not record.left_out:
        return ""
    rows = [(", ".join(left.needs), left.runs) for left in record.left_out]
    shown = table(("what these runs are", "runs"), rows)
    return f"## What was left out\n\nRuns that are released only when they are asked for by name:\n\n{shown}\n"


def _limits(facts: ReleaseFacts) -> str:
    lines = [f"- {line}" for line in limitations(facts)]
    return "\n".join(["## Limits\n", *lines, ""])


def _licence(facts: ReleaseFacts) -> str:
    lines = [
        "## Licences and attribution\n",
        f"What Joulegraph and its contributors measured, and the compilation, is licensed under [{OWN}](LICENSE). "
        "Imported rows keep the licence of their source (column `source`):\n",
        *(_source(count) for count in facts.sources),
    ]
    if facts.labs:
        labs = ", ".join(f"{escaped(count.lab)} ({count.runs:,} runs)" for count in facts.labs)
        lines.append(f"\nContributed by {labs}.")
    return "\n".join([*lines, ""])


def _source(count: SourceCount) -> str:
    """One source with everything that its licence asks to be said."""
    row = count.row
    where = f", {link(row.url)}" if row.url else ""
    version = f", {escaped(row.version)}" if row.version else ""
    known = address(row.licence) if row.licence else None
    terms = escaped(row.licence) if row.licence else "no licence stated: do not redistribute"
    terms = f"[{terms}]({known})" if known else terms
    parts = [f"- **{escaped(row.source)}** ({count.runs:,} runs): {escaped(row.title)}{where}{version}. {terms}."]
    parts.append(f"Measured: {escaped(row.measured)}.")
    parts += [f"Derived: {escaped(row.derived)}."] if row.derived else []
    parts += [f"Cite: {escaped(row.citation)}"] if row.citation else []
    return " ".join(parts)
