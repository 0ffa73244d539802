"""Every rule: the healthy dataset keeps it, and one change breaks it, at the place that is said."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.dataset.validation.catalogue import all_rules
from harness.dataset.validation.check import validate
from tests.harness.dataset.validation.cases import CASES, Case
from tests.harness.dataset.validation.mutating import change, data_file

RULES = {rule.name: rule for rule in all_rules()}
# Asked of more rows than a case makes: test_check.
ELSEWHERE = {"unlike-its-gpu"}


def test_the_healthy_dataset_breaks_no_rule(untouched: Path) -> None:
    assert validate(untouched).findings == ()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_change_breaks_its_rule_and_no_other(folder: Path, case: Case) -> None:
    change(folder, *case.edits)

    report = validate(folder)

    assert {finding.rule for finding in report.findings} == {case.rule} | case.also
    found = next(
        finding
        for finding in report.findings
        if (finding.rule, finding.table, finding.column) == (case.rule, case.table, case.column)
    )
    rule = RULES[case.rule]
    assert found.severity == (case.severity or rule.severity)
    assert found.remedy == rule.remedy
    assert found.reason
    assert found.count >= 1
    path = data_file(folder, case.table)
    assert found.file == path.relative_to(folder).as_posix()
    assert found.row is not None
    cell = pq.read_table(path).column(case.column)[found.row].as_py()
    if case.value is not None:
        assert case.value in (found.value or "")
    if case.rule != "duplicate-key":
        assert (found.value is None) == (cell is None)


def test_every_rule_about_rows_has_a_case() -> None:
    with_tests = {name for name, rule in RULES.items() if rule.tests}

    assert with_tests - {case.rule for case in CASES} == ELSEWHERE
