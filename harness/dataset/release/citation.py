"""``CITATION.cff`` (Citation File Format 1.2.0) and ``CHANGELOG.md`` of a release."""

import json
from collections.abc import Iterator

from harness.dataset.card import escaped
from harness.dataset.release.fact_records import ReleaseFacts, SourceCount
from harness.dataset.release.front_matter import TAGS
from harness.dataset.release.licences import OWN
from harness.dataset.release.markdown import table
from harness.dataset.release.record import Change, ReleaseRecord
from harness.dataset.release.titles import summary, title
from harness.records import Provenance


def citation_cff(record: ReleaseRecord, facts: ReleaseFacts) -> str:
    """The citation file; strings are written as JSON, which YAML reads as it is."""
    lines = [
        "cff-version: 1.2.0",
        "message: If you use this dataset, please cite it, and the sources whose rows you use.",
        "type: dataset",
        f"title: {_text(title(facts))}",
        f"abstract: {_text(summary(facts))}",
        f"version: {_text(record.version)}",
        f"date-released: {_text(record.date)}",
        f"license: {OWN}",
        *([f"url: {_text(record.url)}"] if record.url else []),
        "authors:",
        '- name: "The Joulegraph developers"',
        *(f"- name: {_text(count.lab)}" for count in facts.labs),
        f"keywords: [{', '.join(TAGS)}]",
    ]
    references = list(_references(facts))
    return "\n".join([*lines, *(["references:", *references] if references else []), ""])


def changelog(record: ReleaseRecord) -> str:
    """What each version brought, the newest first."""
    return "\n".join(["# Changelog\n", *(_entry(change) for change in record.changes), _left_out(record)])


def _references(facts: ReleaseFacts) -> Iterator[str]:
    imported = {count.source for count in facts.provenances if count.provenance is Provenance.IMPORTED}
    for count in facts.sources:
        if count.row.source in imported:
            yield from _reference(count)


def _reference(count: SourceCount) -> Iterator[str]:
    row = count.row
    yield from ("- type: data", f"  title: {_text(row.title)}", "  authors:")
    yield f"  - name: {_text(f'The authors of {row.title}')}"
    if row.url and row.url.startswith("https://"):
        yield f"  url: {_text(row.url)}"
    if row.version:
        yield f"  version: {_text(row.version)}"
    if row.citation:
        yield f"  notes: {_text(row.citation)}"


def _entry(change: Change) -> str:
    lines = [f"- {escaped(line)}" for line in change.lines]
    return "\n".join([f"## {change.version} ({change.date})\n", *lines, ""])


def _left_out(record: ReleaseRecord) -> str:
    if not record.left_out:
        return ""
    rows = [(", ".join(left.needs), left.runs) for left in record.left_out]
    return f"Left out of {record.version}:\n\n{table(('what these runs are', 'runs'), rows)}\n"


def _text(value: str) -> str:
    """A YAML string on one line."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    return json.dumps(line, ensure_ascii=False)
