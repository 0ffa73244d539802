"""Rules that need more than SQL: JSON of configurations and graphs, and corrections that go round in a circle."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from harness.dataset.schema import Table
from harness.dataset.validation.findings import Finding, Severity
from harness.dataset.validation.rules import Rule
from harness.errors import InvalidGraph
from harness.tracing.graph import KernelGraph

_AT_ONCE = 100
_GRAPH_COLUMNS = ("graph_id", "model", "phase", "batch_size", "query_tokens", "context_tokens", "dtype", "attention")

MALFORMED = Rule(
    name="malformed-document",
    severity=Severity.ERROR,
    checks="configuration and calibration are JSON objects, without NaN or infinities.",
    remedy="Write it with a JSON library.",
)
NO_GRAPH = Rule(
    name="malformed-graph",
    severity=Severity.ERROR,
    checks="A graph is what its id says: kernels and edges are of the form that `python -m harness.graph --json` "
    "writes, consistent, and hash to graph_id.",
    remedy="Capture it again; a graph that differs has another id.",
)
CIRCLE = Rule(
    name="circular-correction",
    severity=Severity.ERROR,
    checks="No run corrects itself, by way of others or not.",
    remedy="Write null into superseded_by of the run that is right.",
)
DOCUMENT_RULES = (MALFORMED, NO_GRAPH, CIRCLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    table: Table
    column: str


_DOCUMENTS = (
    _Document(table=Table.RUNS, column="configuration"),
    _Document(table=Table.ENVIRONMENTS, column="calibration"),
)


def document_findings(connection: duckdb.DuckDBPyConnection, *, examples: int) -> Iterator[Finding]:
    """What these rules find, at most ``examples`` findings for each."""
    for document in _DOCUMENTS:
        yield from _bad_documents(connection, document, examples)
    yield from _bad_graphs(connection, examples)
    yield from _circles(connection, examples)


def _bad_documents(connection: duckdb.DuckDBPyConnection, document: _Document, examples: int) -> Iterator[Finding]:
    found = connection.execute(
        f"SELECT min_by(file, row), min(row), count(*), {document.column} FROM {document.table.title} "  # noqa: S608
        f"WHERE {document.column} IS NOT NULL GROUP BY {document.column}"
    )

    def problem(row: tuple[Any, ...]) -> str | None:
        return _json_problem(row[3])

    yield from _judged(found, problem, MALFORMED, document.table, document.column, examples)


def _json_problem(text: str) -> str | None:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"
    return None if isinstance(value, dict) else "it is no JSON object"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _bad_graphs(connection: duckdb.DuckDBPyConnection, examples: int) -> Iterator[Finding]:
    columns = ", ".join((*_GRAPH_COLUMNS, "tensor_parallel", "kernels", "edges"))
    found = connection.execute(f"SELECT file, row, 1, {columns} FROM graphs")  # noqa: S608
    yield from _judged(found, _graph_problem, NO_GRAPH, Table.GRAPHS, "kernels", examples)


def _graph_problem(row: tuple[Any, ...]) -> str | None:
    *header, tensor_parallel, kernels, edges = row[3:]
    try:
        values = dict(zip(_GRAPH_COLUMNS, header, strict=True)) | {"tensor_parallel": tensor_parallel}
        values |= {"kernels": json.loads(kernels), "edges": json.loads(edges)}
        KernelGraph.from_json(json.dumps(values))
    except (ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"
    except InvalidGraph as error:
        return str(error).splitlines()[0]
    return None


def _judged(
    found: duckdb.DuckDBPyConnection,
    problem: Callable[[tuple[Any, ...]], str | None],
    rule: Rule,
    table: Table,
    column: str,
    examples: int,
) -> Iterator[Finding]:
    bad: list[tuple[tuple[Any, ...], str]] = []
    count = 0
    while rows := found.fetchmany(_AT_ONCE):
        for row in rows:
            why = problem(row)
            if why is not None:
                count += row[2]
                bad.append((row, why))
        bad = sorted(bad, key=lambda each: each[0][:2])[:examples]
    for row, why in bad:
        yield _finding(rule, table, column, row[0], row[1], str(row[3]), why, count)


def _circles(connection: duckdb.DuckDBPyConnection, examples: int) -> Iterator[Finding]:
    """Runs whose corrections never end: following twice as many at every round, those that end are gone after log₂ n.

    Runs that only lead into a circle are among them.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE ways AS SELECT DISTINCT ON (run_id) run_id, superseded_by AS target FROM runs "
        "WHERE superseded_by IS NOT NULL ORDER BY run_id, file, row"
    )
    left = _count(connection)
    for _ in range(left.bit_length() + 1):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE ways AS SELECT first.run_id, second.target FROM ways AS first "
            "JOIN ways AS second ON second.run_id = first.target"
        )
        left = _count(connection)
        if not left:
            return
    found = connection.execute(
        "SELECT file, row, superseded_by FROM runs SEMI JOIN ways USING (run_id) ORDER BY file, row LIMIT ?",
        [examples],
    )
    for file, row, value in found.fetchall():
        reason = "following the corrections from here never ends"
        yield _finding(CIRCLE, Table.RUNS, "superseded_by", file, row, value, reason, left)


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    row = connection.execute("SELECT count(*) FROM ways").fetchone()
    return int(row[0]) if row else 0


def _finding(
    rule: Rule, table: Table, column: str, file: str, row: int, value: str, reason: str, count: int
) -> Finding:
    return Finding(
        severity=rule.severity,
        rule=rule.name,
        table=table,
        file=file,
        row=row,
        column=column,
        value=value[:200],
        reason=reason[:500],
        remedy=rule.remedy,
        count=count,
    )
