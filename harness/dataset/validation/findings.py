"""What validation says: findings a person can act on, and the report that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.dataset.schema import Table


class Severity(StrEnum):
    """How bad a finding is; the worst comes first."""

    ERROR = "error"  # the row is wrong, or contradicts another
    WARNING = "warning"  # it may be right, and a person should look
    NOTE = "note"  # nothing is wrong; a reader should know

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)

    def at_least(self, other: "Severity") -> bool:
        """Whether this is as bad as the other, or worse."""
        return self.rank <= other.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place where a rule is broken, as an example of ``count`` such places."""

    severity: Severity
    rule: str
    table: Table | None  # None: the folder, or a file of no table
    file: str | None  # inside the folder, with forward slashes
    row: int | None  # of the file, from 0; None: the file as a whole
    column: str | None
    value: str | None  # as text, shortened; None: null, or no single value is at fault
    reason: str
    remedy: str
    count: int  # places in the dataset that break the rule in the same column of the same table, this one included


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows:
    """How many rows of a table were looked at."""

    table: Table
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """Everything that was found in a folder, the worst first."""

    folder: Path
    rows: tuple[TableRows, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings for which the dataset is to be refused."""
        return self.of(Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that a person should look at."""
        return self.of(Severity.WARNING)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What a reader should know."""
        return self.of(Severity.NOTE)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def fails(self, at: Severity) -> bool:
        """Whether anything at least as bad as ``at`` was found."""
        return any(finding.severity.at_least(at) for finding in self.findings)

    def places(self, severity: Severity) -> int:
        """How many places there are of one severity, those without a finding of their own included."""
        return sum(group[0].count for group in groups(self.of(severity)))


def groups(findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], ...]:
    """Findings that are examples of one and the same thing, together; in the order of the first of each."""
    found: dict[object, list[Finding]] = {}
    for finding in findings:
        key = (finding.severity, finding.rule, finding.table, finding.column)
        found.setdefault(key, []).append(finding)
    return tuple(map(tuple, found.values()))


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first; else in the order found."""
    return tuple(sorted(findings, key=lambda finding: finding.severity.rank))
