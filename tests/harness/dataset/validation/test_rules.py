"""Every rule: the healthy dataset keeps it, and one change breaks it, at the place that is said.

Changes to different runs share a dataset, since validating one takes half a second; what is found is told apart by run.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.dataset.validation.catalogue import all_rules
from harness.dataset.validation.check import validate
from harness.dataset.validation.findings import Finding
from tests.harness.dataset.validation.cases import CASES, Case
from tests.harness.dataset.validation.mutating import Edit, change, data_file

RULES = {rule.name: rule for rule in all_rules()}
# Asked of more rows than a case makes: test_check.
ELSEWHERE = {"unlike-its-gpu"}
OF_THE_WHOLE = {"unused-row", "rules-not-asked"}  # broken in rows, or none, that belong to no run


def run_of(case: Case) -> str | None:
    """The one run that a case changes; None where it changes more than cells of it."""
    runs = {edit.where.get("run_id") for edit in case.edits}
    alone = case.also & OF_THE_WHOLE or not all(
        isinstance(edit, Edit) and "run_id" not in edit.values for edit in case.edits
    )
    return None if alone or len(runs) > 1 else runs.pop()


def groups() -> Iterator[tuple[Case, ...]]:
    """Cases that can share a dataset: each of another run, or one alone."""
    shared: list[dict[str, Case]] = []
    for case in CASES:
        run = run_of(case)
        if run is None:
            yield (case,)
            continue
        free = next((group for group in shared if run not in group), None)
        if free is None:
            shared.append({run: case})
        else:
            free[run] = case
    yield from (tuple(group.values()) for group in shared)


def name(group: tuple[Case, ...]) -> str:
    return " + ".join(map(str, group))


def test_the_healthy_dataset_breaks_no_rule(untouched: Path) -> None:
    assert validate(untouched).findings == ()


@pytest.mark.parametrize("group", list(groups()), ids=name)
def test_a_change_breaks_its_rule_and_no_other(folder: Path, group: tuple[Case, ...]) -> None:
    for case in group:
        change(folder, *case.edits)

    findings = validate(folder).findings

    if len(group) == 1:
        assert {finding.rule for finding in findings} == {group[0].rule} | group[0].also
    else:
        expected = {(run_of(case), rule) for case in group for rule in {case.rule} | case.also}
        assert {(cell(folder, finding, "run_id"), finding.rule) for finding in findings} == expected
    for case in group:
        check(
            folder, case, [each for each in findings if len(group) == 1 or cell(folder, each, "run_id") == run_of(case)]
        )


def check(folder: Path, case: Case, findings: list[Finding]) -> None:
    """The finding is where the case says, and tells what there is and what to do."""
    (found, *_) = (
        finding
        for finding in findings
        if (finding.rule, finding.table, finding.column) == (case.rule, case.table, case.column)
    )
    rule = RULES[case.rule]
    assert found.severity == (case.severity or rule.severity)
    assert found.remedy == rule.remedy
    assert found.reason
    assert found.count >= 1
    assert found.file == data_file(folder, case.table).relative_to(folder).as_posix()
    if case.value is not None:
        assert case.value in (found.value or "")
    if case.rule != "duplicate-key":
        assert (found.value is None) == (cell(folder, found, case.column) is None)


def cell(folder: Path, finding: Finding, column: str) -> object:
    """What stands in the row of a finding."""
    assert finding.table is not None
    assert finding.row is not None
    return pq.read_table(data_file(folder, finding.table)).column(column)[finding.row].as_py()


def test_every_rule_about_rows_has_a_case() -> None:
    with_tests = {name for name, rule in RULES.items() if rule.tests}

    assert with_tests - {case.rule for case in CASES} == ELSEWHERE
