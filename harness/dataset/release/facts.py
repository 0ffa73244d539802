"""Collecting what the documents of a release say in numbers."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import duckdb
import pyarrow.parquet as pq

from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.release.database import number, opened
from harness.dataset.release.fact_records import (
    EndingCount,
    FlagCount,
    KindCount,
    LabCount,
    MethodCount,
    ProvenanceCount,
    ReleaseFacts,
    Resolution,
    SourceCount,
    TableSize,
    TokenEnergy,
    Totals,
    WordCount,
)
from harness.dataset.release.terms import WORDS_SQL, Inclusion
from harness.dataset.schema import Table
from harness.records import SourceRow

Record = TypeVar("Record")

_SOURCED = f"""
CREATE TEMP TABLE sourced AS
SELECT *, {WORDS_SQL} AS words
FROM all_runs AS runs
LEFT JOIN (SELECT source, any_value(licence) AS licence FROM all_sources GROUP BY source) AS sources USING (source)
"""  # noqa: S608

_TOTALS = """
SELECT
    count(*) AS runs,
    count(*) FILTER (status = 'ok') AS ok_runs,
    count(energy_j) AS energy_runs,
    count(*) FILTER (energy_j IS NOT NULL AND energy_ci95_j IS NOT NULL) AS interval_runs,
    count(residual_j) AS ledger_runs,
    count(superseded_by) AS superseded_runs,
    count(DISTINCT model) AS models,
    count(DISTINCT gpu) AS gpus,
    coalesce(max(n_gpus), 0) AS most_gpus,
    min(started_at_utc) AS first_start_utc,
    max(started_at_utc) AS last_start_utc
FROM sourced
"""

_PROVENANCES = """
SELECT provenance, quality, source, licence, count(*) AS runs
FROM sourced GROUP BY ALL ORDER BY ALL
"""

_ENDINGS = "SELECT model, gpu, status, count(*) AS runs FROM sourced GROUP BY ALL ORDER BY ALL"

_RESOLUTIONS = """
WITH of_phases AS (
    SELECT run_id, count(*) AS phases, count(energy_j) AS energies, count(duration_s) AS durations
    FROM all_phases GROUP BY run_id
),
of_kernels AS (
    SELECT run_id, count(*) AS kernels, count(duration_s) AS durations FROM all_kernels GROUP BY run_id
),
of_energies AS (
    SELECT run_id, count(energy_j) AS energies FROM all_kernel_energies GROUP BY run_id
)
SELECT
    source, licence, provenance, gpu,
    count(DISTINCT model) AS models,
    count(*) AS runs,
    coalesce(sum(phases), 0)::BIGINT AS phases,
    coalesce(sum(kernels), 0)::BIGINT AS kernels,
    (count(energy_j) + coalesce(sum(of_phases.energies), 0) + coalesce(sum(of_energies.energies), 0))::BIGINT
        AS energies,
    (
        count(coalesce(duration_s, ttft_s, tpot_s))
        + coalesce(sum(of_phases.durations), 0) + coalesce(sum(of_kernels.durations), 0)
    )::BIGINT AS durations,
    count(mean_power_w) AS powers
FROM sourced
LEFT JOIN of_phases USING (run_id)
LEFT JOIN of_kernels USING (run_id)
LEFT JOIN of_energies USING (run_id)
GROUP BY source, licence, provenance, gpu
ORDER BY source, gpu, provenance
"""

# A server's energy is that of one sequence; a batch's is that of all its sequences.
_POINTS = """
WITH per_token AS (
    SELECT
        model, gpu, provenance, workload,
        CASE
            WHEN workload = 'batch' THEN energy_j / nullif(batch_size * output_tokens, 0)
            WHEN workload = 'server' THEN energy_j / nullif(coalesce(mean_output_tokens, output_tokens), 0)
        END AS energy_j
    FROM sourced
    WHERE model IS NOT NULL AND status = 'ok' AND superseded_by IS NULL
)
SELECT
    model, gpu, provenance, workload, count(*) AS runs,
    min(energy_j) AS low_j, median(energy_j) AS median_j, max(energy_j) AS high_j
FROM per_token WHERE energy_j > 0
GROUP BY ALL
ORDER BY model, gpu, provenance, workload
"""

_KINDS = """
SELECT kind, gpu, sum(rows)::BIGINT AS rows
FROM (SELECT run_id, kind, count(*) AS rows FROM all_kernels GROUP BY ALL)
JOIN sourced USING (run_id)
GROUP BY ALL ORDER BY kind, gpu
"""

# Some flags hold a number of their own row, which is left out so that equal flags are counted together.
_FLAGS = r"""
WITH flagged AS (
    SELECT 'phases' AS "table", flags, count(*) AS rows FROM all_phases GROUP BY flags
    UNION ALL
    SELECT 'kernels', flags, count(*) FROM all_kernels GROUP BY flags
    UNION ALL
    SELECT 'kernel_energies', flags, count(*) FROM all_kernel_energies GROUP BY flags
    UNION ALL
    SELECT 'runs', status_detail, count(*) FROM all_runs WHERE status = 'ok' GROUP BY status_detail
),
single AS (
    SELECT "table", unnest(string_split(flags, '; ')) AS flag, rows FROM flagged WHERE flags IS NOT NULL
)
SELECT "table", regexp_replace(flag, '(× ?[0-9.]+)|([0-9.]+ ?%)', '…', 'g') AS flag, sum(rows)::BIGINT AS rows
FROM single GROUP BY ALL ORDER BY rows DESC, "table", flag
LIMIT 40
"""

_LABS = "SELECT lab, count(*) AS runs FROM sourced WHERE lab IS NOT NULL GROUP BY lab ORDER BY runs DESC, lab"

_METHODS = """
SELECT coalesce(method, 'not stated') AS method, provenance, count(*) AS runs
FROM sourced WHERE energy_j IS NOT NULL GROUP BY ALL ORDER BY runs DESC, method, provenance
"""


def collect_facts(folder: Path) -> ReleaseFacts:
    """The facts of a release folder; raises as ``open_dataset`` does."""
    dataset = open_dataset(folder)
    with opened((dataset,)) as connection:
        connection.execute(_SOURCED)
        return ReleaseFacts(
            totals=_records(connection, _TOTALS, Totals)[0],
            words=_words(connection),
            provenances=_records(connection, _PROVENANCES, ProvenanceCount),
            endings=_records(connection, _ENDINGS, EndingCount),
            sources=_sources(connection, dataset),
            resolutions=_records(connection, _RESOLUTIONS, Resolution),
            tables=_tables(dataset),
            token_energies=_records(connection, _POINTS, TokenEnergy),
            kinds=_records(connection, _KINDS, KindCount),
            flags=_records(connection, _FLAGS, FlagCount),
            labs=_records(connection, _LABS, LabCount),
            methods=_records(connection, _METHODS, MethodCount),
        )


def _words(connection: duckdb.DuckDBPyConnection) -> tuple[WordCount, ...]:
    query = "SELECT count(*) FROM sourced WHERE list_contains(words, '{}')"
    counts = ((word, number(connection, query.format(word))) for word in Inclusion)
    return tuple(WordCount(word=word, runs=runs) for word, runs in counts if runs)


def _sources(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> tuple[SourceCount, ...]:
    found = connection.execute("SELECT source, count(*) FROM sourced GROUP BY source").fetchall()
    runs: dict[str, int] = dict(found)
    rows = sorted(dataset.rows(SourceRow), key=lambda row: row.source)
    return tuple(SourceCount(row=row, runs=runs.get(row.source, 0)) for row in rows)


def _tables(dataset: Dataset) -> tuple[TableSize, ...]:
    files = dataset.manifest.files if dataset.manifest else ()
    listed = {table: [file for file in files if file.table is table] for table in Table}
    return tuple(
        TableSize(
            table=table,
            rows=sum(file.rows for file in of_table),
            files=len(of_table),
            size_bytes=sum(file.size_bytes for file in of_table),
            unpacked_bytes=sum(_unpacked_bytes(dataset.folder / file.path) for file in of_table),
        )
        for table, of_table in listed.items()
    )


def _unpacked_bytes(path: Path) -> int:
    """Size of a file before compression, by its footer."""
    metadata = pq.read_metadata(path)
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _records(connection: duckdb.DuckDBPyConnection, query: str, record_class: type[Record]) -> tuple[Record, ...]:
    """Rows as records: columns by field name, text into its enumeration."""
    cursor = connection.execute(query)
    position = {column[0]: index for index, column in enumerate(cursor.description or ())}
    hints = get_type_hints(record_class)
    readers = [(name, _reader(hint), position[name]) for name, hint in hints.items()]
    return tuple(record_class(**{name: read(row[index]) for name, read, index in readers}) for row in cursor.fetchall())


def _reader(hint: Any) -> Callable[[Any], Any]:
    kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type) and issubclass(kind, StrEnum)]
    if not kinds:
        return lambda value: value
    return lambda value: None if value is None else kinds[0](value)
