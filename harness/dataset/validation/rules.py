"""What a rule is: a sentence for people and conditions for DuckDB. The rules themselves are in the modules beside."""

from dataclasses import dataclass

from harness.dataset.schema import Table
from harness.dataset.validation.findings import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What conditions are asked of: rows of a table with more columns beside them, as a query for DuckDB.

    Every row has ``file`` and ``row``, where it stands. Where imported rows are judged softer it has ``imported`` and
    ``flagged``.
    """

    name: str
    table: Table
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One condition of a rule, in the SQL of DuckDB. Where a value it needs is null it says nothing."""

    of: Relation
    column: str  # that the finding names
    broken: str  # true: the row breaks the rule
    reason: str  # a text: what is wrong with this row
    value: str | None = None  # a text or number; None: that of ``column``


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold, how exactly, and what to do where it does not."""

    name: str
    severity: Severity
    checks: str  # what must hold, for people
    remedy: str
    tolerance: str | None = None  # how exactly, and why so; None: exactly
    softer_for_imports: bool = False  # imported rows: a warning, and a note where the importer flagged the row
    tests: tuple[Test, ...] = ()  # none: not asked of rows in SQL


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
