"""A report, and the rules, in words: for a terminal, for a program, for a page.

What comes out of a dataset may be made to harm: on the way out control characters become visible escapes.
"""

import json
import textwrap
from collections.abc import Iterator, Sequence

from harness.dataset.validation.catalogue import CHAPTERS
from harness.dataset.validation.findings import Finding, Severity, ValidationReport, groups
from harness.dataset.validation.rules import Rule

_SHOWN = 5  # examples of one kind, for people
_LONGEST = 100  # characters of a value, for people
_PAGE_HEAD = """\
# What validation checks

Written by `python -m harness.validate --rules --markdown > docs/validation.md`; do not edit.

`python -m harness.validate DIR` holds a dataset folder against these rules. An **error** is a row that is wrong or
contradicts another; a **warning** may be right, and a person should look; a **note** is worth knowing. A rule says
nothing about a row where a value that it needs is null. *Softer for imports*: rows of provenance `imported` are warned
of, or only noted where the importer flagged the row already, since what others published cannot be measured again.
"""


def report_text(report: ValidationReport, *, width: int = 100) -> str:
    """The report for people: what was found, grouped by rule, the worst first."""
    lines = [f"{visible(str(report.folder))}: {_rows_text(report)}"]
    for group in groups(report.findings):
        lines += ["", *_group_lines(group, width)]
    return "\n".join([*lines, "", _verdict(report)]) + "\n"


def report_json(report: ValidationReport) -> str:
    """The report for programs, one JSON object."""
    fields = {
        "folder": visible(str(report.folder)),
        "rows": {each.table.title: each.rows for each in report.rows},
        "errors": report.places(Severity.ERROR),
        "warnings": report.places(Severity.WARNING),
        "notes": report.places(Severity.NOTE),
        "findings": [
            {
                "severity": finding.severity,
                "rule": finding.rule,
                "table": None if finding.table is None else finding.table.title,
                "file": finding.file,
                "row": finding.row,
                "column": finding.column,
                "value": finding.value,
                "reason": finding.reason,
                "remedy": finding.remedy,
                "count": finding.count,
            }
            for finding in report.findings
        ],
    }
    return json.dumps(fields, indent=1) + "\n"  # ASCII: nothing in it can act on a terminal


def rules_text(*, width: int = 100) -> str:
    """All rules for a terminal."""
    lines: list[str] = []
    for title, rules in CHAPTERS:
        lines += [title, ""]
        for rule in rules:
            lines.append(f"{rule.severity:<8} {rule.name}")
            lines += _wrapped(_rule_sentence(rule), width, "         ")
        lines.append("")
    return "\n".join(lines)


def rules_markdown() -> str:
    """The page docs/validation.md."""
    parts = [_PAGE_HEAD]
    for title, rules in CHAPTERS:
        parts.append(f"## {title}\n")
        parts.append("| rule | severity | what must hold | tolerance | what to do |\n|---|---|---|---|---|")
        parts += [_row(rule) for rule in rules]
        parts.append("")
    return "\n".join(parts)


def visible(text: str, longest: int | None = None) -> str:
    r"""Text without characters that act on a terminal or cannot be seen, shortened where asked.

    >>> print(visible("a" + chr(27) + "[31mb"), visible("x" * 9, 5))
    a\x1b[31mb xxxx…
    """
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _rows_text(report: ValidationReport) -> str:
    counted = [f"{each.rows:,} {each.table.title}" for each in report.rows if each.rows]
    return ", ".join(counted) or "no rows"


def _group_lines(group: Sequence[Finding], width: int) -> Iterator[str]:
    first = group[0]
    place = ".".join(part for part in (first.table.title if first.table else None, first.column) if part)
    count = f" ({first.count:,} places)" if first.count > 1 else ""
    yield f"{first.severity.upper()} {first.rule}{f': {place}' if place else ''}{count}"
    for finding in group[:_SHOWN]:
        yield from _wrapped(_finding_text(finding), width, "  ")
    if first.count > _SHOWN:
        yield f"  and {first.count - min(len(group), _SHOWN):,} more"
    yield from _wrapped(f"→ {first.remedy}", width, "  ")


def _finding_text(finding: Finding) -> str:
    where = visible(finding.file or "the folder")
    if finding.row is not None:
        where += f" row {finding.row}"
    if finding.row is None or finding.column is None:
        return f"{where}: {visible(finding.reason)}"
    value = "null" if finding.value is None else visible(finding.value, _LONGEST)
    return f"{where}: {finding.column} = {value}: {visible(finding.reason)}"


def _verdict(report: ValidationReport) -> str:
    counts = [(report.places(severity), severity) for severity in Severity]
    if not report.findings:
        return "Nothing is wrong: every rule holds."
    found = ", ".join(f"{count:,} {severity}{'' if count == 1 else 's'}" for count, severity in counts if count)
    return f"{found}. Rows are counted from 0 in each file. All rules: python -m harness.validate --rules"


def _rule_sentence(rule: Rule) -> str:
    tolerance = f" Tolerance: {rule.tolerance}." if rule.tolerance else ""
    softer = " Softer for imports." if rule.softer_for_imports else ""
    return f"{rule.checks}{tolerance}{softer} → {rule.remedy}"


def _row(rule: Rule) -> str:
    softer = " *(softer for imports)*" if rule.softer_for_imports else ""
    cells = (f"`{rule.name}`", f"{rule.severity}{softer}", rule.checks, rule.tolerance or "exact", rule.remedy)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    hanging = f"{indent}  "
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False)
