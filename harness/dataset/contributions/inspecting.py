"""Looking at a bundle: everything that speaks against taking it, and what it would be compared with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.dataset.contributions.comparing import Comparison, compared, comparison_objections
from harness.dataset.contributions.objections import Objection
from harness.dataset.contributions.opening import OpenedBundle
from harness.dataset.contributions.row_rules import graph_objections, row_objections
from harness.dataset.contributions.run_rules import Offered, run_objections
from harness.dataset.reading import Dataset
from harness.dataset.release.database import opened
from harness.dataset.validation.findings import Finding, ValidationReport, groups
from harness.records import EnvironmentRow, GraphRow, RunRow, SourceRow

Validate = Callable[[Path, Path | None], ValidationReport]  # a folder, and one with whose runs it is compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found in a bundle."""

    runs: tuple[RunRow, ...]
    objections: tuple[Objection, ...]
    warnings: tuple[Finding, ...]  # what a person should look at and nothing is refused for
    comparisons: tuple[Comparison, ...]


def inspect(
    given: OpenedBundle,
    release: Dataset | None,
    *,
    include: frozenset[str] = frozenset(),
    validate: Validate | None = None,
) -> Inspection:
    """Judge an opened bundle, beside a release if there is one; raises what reading the release raises."""
    offered = Offered(
        bundle=given.bundle,
        runs=tuple(given.dataset.rows(RunRow)),
        environments={row.environment_id: row for row in given.dataset.rows(EnvironmentRow)},
        sources=tuple(given.dataset.rows(SourceRow)),
        include=include,
    )
    objections = list(run_objections(offered))
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[Finding, ...] = ()
    # One after the other: what is refused anyway is not worth the minutes that large tables take.
    if not objections:
        objections += graph_objections(given.dataset.rows(GraphRow))
        with opened([given.dataset, *([] if release is None else [release])]) as connection:
            objections += row_objections(connection)
            comparisons = compared(connection)
    if not objections:
        report = (validate or validated)(given.dataset.folder, None if release is None else release.folder)
        objections, warnings = list(_of_validation(report.errors)), report.warnings
    return Inspection(
        runs=offered.runs,
        objections=(*objections, *comparison_objections(comparisons)),
        warnings=warnings,
        comparisons=comparisons,
    )


def _of_validation(errors: Sequence[Finding]) -> Iterator[Objection]:
    for finding, *_ in groups(errors):
        table = "" if finding.table is None else f"{finding.table.title} "
        place = f"{table}row {finding.row}, column {finding.column} (one of {finding.count})"
        yield Objection(rule=finding.rule, reason=f"{place}: {finding.reason}", remedy=finding.remedy)


def validated(folder: Path, reference: Path | None) -> ValidationReport:
    """The rules that hold for any dataset."""
    from harness.dataset.validation.check import validate

    return validate(folder, reference=reference)
