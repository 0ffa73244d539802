"""The datasheet of a release: the template beside this file, filled with what the tables say."""

from importlib.resources import files
from string import Template

from harness.dataset.card import escaped
from harness.dataset.release.fact_records import ReleaseFacts
from harness.dataset.release.licences import OWN
from harness.dataset.release.limits import (
    COLLECTION,
    MAINTENANCE,
    MISSING,
    PERSONAL,
    PREPROCESSING,
    USES,
    biases,
    limitations,
)
from harness.dataset.release.markdown import link, percentage, table
from harness.dataset.release.record import ReleaseRecord
from harness.dataset.release.titles import summary, title
from harness.records import Provenance


def datasheet(record: ReleaseRecord, facts: ReleaseFacts) -> str:
    """The whole page."""
    template = Template(files(__package__).joinpath("datasheet.md").read_text(encoding="utf-8"))
    totals = facts.totals
    return template.substitute(
        title=title(facts),
        version=record.version,
        date=record.date,
        harness=escaped(record.harness),
        labs=", ".join(escaped(count.lab) for count in facts.labs) or "none yet",
        summary=summary(facts),
        tables=table(("table", "rows", "files"), [(size.table.title, size.rows, size.files) for size in facts.tables]),
        left_out=_left_out(record),
        missing=MISSING,
        energy_runs=f"{totals.energy_runs:,}",
        intervals=percentage(totals.interval_runs, totals.energy_runs),
        ok_runs=f"{totals.ok_runs:,}",
        runs=f"{totals.runs:,}",
        flags=_flags(facts),
        personal=PERSONAL,
        collection=COLLECTION,
        methods=_methods(facts),
        timeframe=_timeframe(facts),
        preprocessing=PREPROCESSING,
        uses=" ".join(USES),
        limitations="\n".join(["", "", *(f"- {line}" for line in limitations(facts))]),
        biases="\n".join(f"- {escaped(line)}" for line in biases(facts)),
        where=f", at {link(record.url)}" if record.url else "",
        licences=_licences(facts),
        maintenance=MAINTENANCE,
    )


def _left_out(record: ReleaseRecord) -> str:
    if not record.left_out:
        return "Nothing else was left out."
    parts = [f"{left.runs:,} ({', '.join(left.needs)})" for left in record.left_out]
    return f"Left out of this version were runs released only when asked for by name: {', '.join(parts)}."


def _flags(facts: ReleaseFacts) -> str:
    if not facts.flags:
        return "No row of this version does."
    return table(("table", "rule", "rows"), [(count.table, count.flag, count.rows) for count in facts.flags])


def _methods(facts: ReleaseFacts) -> str:
    rows = [(str(count.provenance), count.method, count.runs) for count in facts.methods]
    return table(("provenance", "how the energy of a run was read", "runs"), rows) if rows else ""


def _timeframe(facts: ReleaseFacts) -> str:
    totals = facts.totals
    if totals.first_start_utc is None or totals.last_start_utc is None:
        return "Not published by the sources."
    first, last = escaped(totals.first_start_utc[:10]), escaped(totals.last_start_utc[:10])
    return f"Runs whose time is known were made from {first} to {last}."


def _licences(facts: ReleaseFacts) -> str:
    imported = any(count.provenance is Provenance.IMPORTED for count in facts.provenances)
    text = f"What Joulegraph and its contributors measured, and the compilation: {OWN}."
    if not imported:
        return text
    named = ", ".join(escaped(licence) if licence else "none stated" for licence in facts.licences)
    return f"{text} Imported rows keep the licence of their source: {named}."
