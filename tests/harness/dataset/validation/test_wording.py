"""A report for people, programs and the page of rules; nothing in it can act on a terminal."""

import json
from pathlib import Path

from harness.dataset.schema import Table
from harness.dataset.validation.catalogue import all_rules
from harness.dataset.validation.findings import Finding, Severity, TableRows, ValidationReport, groups, ordered
from harness.dataset.validation.wording import report_json, report_text, rules_markdown, rules_text, visible


def a_finding(row: int = 3, value: str | None = "-1", rule: str = "negative-number", count: int = 2) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        rule=rule,
        table=Table.RUNS,
        file="data/runs/data-00000.parquet",
        row=row,
        column="energy_j",
        value=value,
        reason="it cannot be below 0",
        remedy="Look for a difference.",
        count=count,
    )


def a_report(*findings: Finding) -> ValidationReport:
    rows = (TableRows(table=Table.RUNS, rows=12_345), TableRows(table=Table.PHASES, rows=0))
    return ValidationReport(folder=Path("somewhere"), rows=rows, findings=findings)


def test_a_report_names_place_value_reason_and_remedy() -> None:
    text = report_text(a_report(a_finding(3), a_finding(8)))

    assert text.splitlines() == [
        "somewhere: 12,345 runs",
        "",
        "ERROR negative-number: runs.energy_j (2 places)",
        "  data/runs/data-00000.parquet row 3: energy_j = -1: it cannot be below 0",
        "  data/runs/data-00000.parquet row 8: energy_j = -1: it cannot be below 0",
        "  → Look for a difference.",
        "",
        "2 errors. Rows are counted from 0 in each file. All rules: python -m harness.validate --rules",
    ]


def test_many_places_are_counted_not_listed() -> None:
    text = report_text(a_report(*(a_finding(row, count=1000) for row in range(20))))

    assert text.count("row ") == 5
    assert "  and 995 more\n" in text
    assert "1,000 errors" in text


def test_a_report_without_findings_says_so() -> None:
    assert report_text(a_report()).endswith("Nothing is wrong: every rule holds.\n")


def test_what_comes_out_of_data_is_escaped() -> None:
    report = a_report(a_finding(value="\x1b]0;mine\x07 \u202e \u200b"))

    for text in (report_text(report), report_json(report)):
        assert not any(letter in text for letter in "\x1b\x07\u202e\u200b")
    assert r"\x1b]0;mine\x07 \u202e \u200b" in report_text(report)


def test_a_null_and_a_finding_without_a_row_are_written() -> None:
    whole_file = Finding(
        severity=Severity.NOTE,
        rule="file-unknown",
        table=None,
        file=None,
        row=None,
        column=None,
        value=None,
        reason="nobody knows it",
        remedy="Remove it.",
        count=1,
    )
    text = report_text(a_report(a_finding(value=None, count=1), whole_file))

    assert "energy_j = null: it cannot" in text
    assert "  the folder: nobody knows it\n" in text
    assert "1 error, 1 note." in text


def test_programs_get_every_finding() -> None:
    report = json.loads(report_json(a_report(a_finding(3), a_finding(8))))

    assert report["rows"] == {"runs": 12_345, "phases": 0}
    assert (report["errors"], report["warnings"], report["notes"]) == (2, 0, 0)
    assert [finding["row"] for finding in report["findings"]] == [3, 8]
    assert report["findings"][0] == {
        "severity": "error",
        "rule": "negative-number",
        "table": "runs",
        "file": "data/runs/data-00000.parquet",
        "row": 3,
        "column": "energy_j",
        "value": "-1",
        "reason": "it cannot be below 0",
        "remedy": "Look for a difference.",
        "count": 2,
    }


def test_a_report_fails_at_a_severity_or_above() -> None:
    warned = a_report(*ordered([_as(Severity.NOTE), _as(Severity.WARNING)]))

    assert [warned.fails(severity) for severity in Severity] == [False, True, True]
    assert [finding.severity for finding in warned.findings] == [Severity.WARNING, Severity.NOTE]
    assert (warned.errors, len(warned.warnings), len(warned.notes)) == ((), 1, 1)


def test_findings_of_one_kind_are_grouped() -> None:
    grouped = groups([a_finding(1), a_finding(2, rule="other"), a_finding(3)])

    assert [[finding.row for finding in group] for group in grouped] == [[1, 3], [2]]


def test_every_rule_is_on_the_page_and_in_the_text() -> None:
    page, text = rules_markdown(), rules_text()

    for rule in all_rules():
        assert f"| `{rule.name}` | {rule.severity}" in page
        assert f" {rule.name}\n" in text


def test_rules_are_named_once_in_short_words_and_say_what_to_do() -> None:
    rules = all_rules()

    assert len({rule.name for rule in rules}) == len(rules)
    for rule in rules:
        assert all(word.isalnum() and word.islower() for word in rule.name.split("-")), rule.name
        assert rule.checks.endswith("."), rule.name
        assert rule.remedy.endswith("."), rule.name


def test_the_page_in_the_docs_is_that_of_the_rules() -> None:
    page = Path(__file__).parents[4] / "docs" / "validation.md"

    assert page.read_text() == rules_markdown(), "python -m harness.validate --rules --markdown > docs/validation.md"


def test_visible_text_is_shortened() -> None:
    assert visible("x" * 9, 5) == "xxxx…"
    assert visible("grün 1 – 2") == "grün 1 – 2"


def _as(severity: Severity) -> Finding:
    return Finding(
        severity=severity,
        rule="a-rule",
        table=None,
        file=None,
        row=None,
        column=None,
        value=None,
        reason="so",
        remedy="Do.",
        count=1,
    )
