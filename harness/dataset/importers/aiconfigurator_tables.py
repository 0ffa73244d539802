"""One group of aiconfigurator's files as runs, kernels and their energies."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import duckdb

from harness.dataset.importers.account import Account, Flagged, Rejection
from harness.dataset.importers.aiconfigurator_groups import Group
from harness.dataset.importers.aiconfigurator_kinds import literal
from harness.dataset.importers.aiconfigurator_query import (
    ENERGY_FLAGS,
    NO_KERNEL,
    PHYSICAL_COLUMNS,
    TOO_FAST,
    found_sql,
    rows_sql,
)
from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN, identified
from harness.dataset.importers.importing import ImportedBatch, bulk, content_id
from harness.dataset.store import BulkTables
from harness.records import EnvironmentRow, RunRow, SourceRow
from harness.words import EnergyMethod, Workload

_METER = "device events around a loop of launches; power: NVML, polled every 100 ms during the loop"
_HOW = "mean board power over the loop × time of one launch"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A run of a group, and the columns that its rows share."""

    run: RunRow
    environment: EnvironmentRow
    gpus: int
    power_limit_w: float | None


def group_batch(connection: duckdb.DuckDBPyConnection, group: Group, source: SourceRow) -> ImportedBatch:
    """Read the files of a group."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE found AS {found_sql(group.readings, group.gpu)}")
    made = _runs(connection, group, source)
    account = _account(connection, group)
    if not made:
        return ImportedBatch(tables=None, account=account)
    rows = bulk(runs=[each.run for each in made], environments=[each.environment for each in made], sources=[source])
    tables = BulkTables(
        runs=rows.runs,
        environments=rows.environments,
        sources=rows.sources,
        kernels=connection.sql(_kernels_sql(made)).to_arrow_table(),
        kernel_energies=connection.sql(_energies_sql(made)).to_arrow_table(),
    )
    connection.execute("DROP TABLE found")
    return ImportedBatch(tables=tables, account=account)


def _runs(connection: duckdb.DuckDBPyConnection, group: Group, source: SourceRow) -> list[_Made]:
    query = "SELECT DISTINCT gpus, power_limit FROM found WHERE rule IS NULL ORDER BY gpus, power_limit NULLS FIRST"
    return [_made(group, source, gpus, limit) for gpus, limit in connection.execute(query).fetchall()]


def _made(group: Group, source: SourceRow, gpus: int, power_limit_w: float | None) -> _Made:
    """Equal files give equal ids, so that importing them again adds nothing."""
    environment = identified(
        replace(
            BLANK_ENVIRONMENT,
            gpu=group.gpu.name,
            device_name=group.device_name,
            power_limit_w=power_limit_w,
            meter=_METER if power_limit_w is not None else _METER.partition(";")[0],
            peak_bytes_per_s=group.gpu.peak_bytes_per_s,
        )
    )
    run = replace(
        BLANK_RUN,
        run_id=content_id(
            source.source, group.gpu.name, group.backend, group.version, gpus, power_limit_w, group.content
        ),
        campaign_id=content_id(source.source, source.version),
        environment_id=environment.environment_id,
        source=source.source,
        workload=Workload.KERNELS,
        runtime=group.backend,
        runtime_version=group.version,
        gpu=group.gpu.name,
        n_gpus=gpus,
    )
    return _Made(run=run, environment=environment, gpus=gpus, power_limit_w=power_limit_w)


def _kernels_sql(made: Iterable[_Made]) -> str:
    counts = ", ".join(PHYSICAL_COLUMNS)
    return f"""
        SELECT run_id, NULL::VARCHAR AS phase, 0::BIGINT AS rank, kernel_id, kind, op, NULL::VARCHAR AS module, dtype,
            shape, variant, 1::BIGINT AS launches, {counts}, duration_s, NULL::DOUBLE AS traced_duration_s,
            NULL::DOUBLE AS wait_s, NULL::BIGINT AS graph_kernel, flags
        FROM found JOIN {_ids_sql(made)} WHERE rule IS NULL ORDER BY number, row, part
    """  # noqa: S608


def _energies_sql(made: Iterable[_Made]) -> str:
    return f"""
        SELECT run_id, NULL::VARCHAR AS phase, 0::BIGINT AS rank, kernel_id, {literal(EnergyMethod.IMPORTED)} AS method,
            power * duration_s AS energy_j, NULL::DOUBLE AS active_energy_j, NULL::DOUBLE AS energy_ci95_j,
            NULL::DOUBLE AS wait_energy_j, NULL::DOUBLE AS disagreement, {literal(_HOW)} AS how,
            {ENERGY_FLAGS} AS flags
        FROM found JOIN {_ids_sql(made)} WHERE rule IS NULL AND power IS NOT NULL ORDER BY number, row, part
    """  # noqa: S608


def _ids_sql(made: Iterable[_Made]) -> str:
    rows = ", ".join(
        f"({each.gpus}, {'NULL' if each.power_limit_w is None else repr(each.power_limit_w)}::DOUBLE, "
        f"{literal(each.run.run_id)})"
        for each in made
    )
    return (
        f"(VALUES {rows}) AS ids(run_gpus, run_limit, run_id) "
        f"ON gpus = run_gpus AND power_limit IS NOT DISTINCT FROM run_limit"
    )


def _account(connection: duckdb.DuckDBPyConnection, group: Group) -> Account:
    """A row of a file is kept if a kernel of it is; several kernels may stand in one row."""
    outcomes = connection.execute("""
        SELECT rule, count(*), min(number * 10000000000 + row) FROM (
            SELECT number, row, CASE WHEN bool_or(rule IS NULL) THEN NULL ELSE min(rule) END AS rule
            FROM found GROUP BY number, row
        ) GROUP BY rule
    """).fetchall()
    queries = [f"SELECT count(*) FROM {rows_sql(reading)}" for reading in group.readings]  # noqa: S608
    rows_in = sum(connection.execute(query).fetchall()[0][0] for query in queries)
    places = [reading.file.place for reading in group.readings]
    rejections = [
        Rejection(rule=rule, rows=rows, example=f"{places[first // 10**10]}, row {first % 10**10}")
        for rule, rows, first in outcomes
        if rule is not None
    ]
    if unmatched := rows_in - sum(rows for _, rows, _ in outcomes):
        rejections.append(Rejection(rule=NO_KERNEL, rows=unmatched, example=places[0]))
    return Account(
        rows_in=rows_in,
        rows_kept=sum(rows for rule, rows, _ in outcomes if rule is None),
        rejections=tuple(rejections),
        flagged=_flagged(connection),
    )


def _flagged(connection: duckdb.DuckDBPyConnection) -> tuple[Flagged, ...]:
    """Rows of the files by flag; how much faster than the Roofline a kernel is does not part them."""
    query = f"""
        SELECT CASE WHEN starts_with(flag, {literal(TOO_FAST)}) THEN {literal(TOO_FAST)} ELSE flag END AS rule,
            count(DISTINCT number * 10000000000 + row)
        FROM (
            SELECT number, row, unnest(string_split(flags, '; ')) AS flag
            FROM found WHERE rule IS NULL AND flags IS NOT NULL
            UNION ALL
            SELECT number, row, unnest(string_split({ENERGY_FLAGS}, '; '))
            FROM found WHERE rule IS NULL AND power IS NOT NULL
        ) WHERE flag IS NOT NULL GROUP BY rule ORDER BY rule
    """  # noqa: S608
    return tuple(Flagged(rule=rule, rows=rows) for rule, rows in connection.execute(query).fetchall())
