"""What the raw rows of a contribution must be, among each other and beside those of the release.

The first folder of the connection is the contribution, the second the release (see ``release.database``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb

from harness.dataset.contributions.ids import graph_of
from harness.dataset.contributions.objections import Fault, Objection, objection
from harness.dataset.contributions.run_rules import ORIGINS
from harness.dataset.schema import Table, columns_of
from harness.errors import InvalidGraph
from harness.records import GraphRow, Part, Provenance

_COPIED_SHARE = 0.2  # of a run's windows; two windows never agree to the last digit in both energy and time
_SLOWEST_LAUNCH_S = 0.005  # eager Hugging Face needs 12 to 17 µs for a launch; a traced, throttled CPU a thousand times
_SLOWEST_SHARE = 1 / 300  # of the peaks; what is slower than both is in another unit
_FASTEST_LAUNCH_S = 1e-8  # a hundredth of what any device needs
_COPY_DIGITS = 1e7  # shares of windows are compared to so many digits; those of two measurements differ in the fourth
_MOST_FAULTS = 10_000  # that are looked at; a table of millions of bad rows is refused all the same
_SMOOTH = 1e-9  # relative; the clock of a real machine jitters by a thousand times more

_REPEATED = """
SELECT new.run_id, 'it is in the release' FROM all_runs AS new
WHERE folder = 0 AND run_id IN (SELECT run_id FROM all_runs WHERE folder = 1)
"""

# Somebody else's windows times a number, in whatever order: each still has the same share of their sum.
_SCALED = f"""
WITH windows AS (
    SELECT folder, run_id, part, rank, provenance,
        energy_j / sum(energy_j) OVER together AS energy_share, duration_s / sum(duration_s) OVER together AS time_share
    FROM all_readings
    WHERE part <> '{Part.IDLE}' AND energy_j > 0 AND duration_s > 0
    WINDOW together AS (PARTITION BY folder, run_id, part, rank)
), shapes AS (
    SELECT folder, run_id, 'energies' AS what,
        list(round(energy_share * {_COPY_DIGITS})::BIGINT ORDER BY energy_share) AS shape
    FROM windows GROUP BY folder, run_id, part, rank
    HAVING count(*) > 2 AND max(energy_share) > 1.00001 * min(energy_share)
    UNION ALL
    SELECT folder, run_id, 'times', list(round(time_share * {_COPY_DIGITS})::BIGINT ORDER BY time_share)
    FROM windows WHERE provenance <> '{Provenance.SIMULATED}' GROUP BY folder, run_id, part, rank
    HAVING count(*) > 2 AND max(time_share) > 1.00001 * min(time_share)
), shared AS (
    SELECT what, shape, min(run_id) AS one, max(run_id) AS another FROM shapes
    GROUP BY what, shape HAVING count(DISTINCT run_id) > 1
)
SELECT run_id, format('the {{}} of its windows are those of run {{}}, scaled', any_value(what),
    any_value(CASE WHEN one = run_id THEN another ELSE one END))
FROM shapes JOIN shared USING (what, shape)
WHERE folder = 0
GROUP BY run_id
"""  # noqa: S608

# Grouped, never joined with themselves: what is there a million times must not become a million times a million.
_COPIED = f"""
WITH windows AS (
    SELECT DISTINCT run_id, folder, energy_j, duration_s FROM all_readings
    WHERE part <> '{Part.IDLE}' AND energy_j IS NOT NULL AND duration_s IS NOT NULL
), shared AS (
    SELECT energy_j, duration_s, min(run_id) AS one, max(run_id) AS another FROM windows
    GROUP BY energy_j, duration_s HAVING count(DISTINCT run_id) > 1
)
SELECT windows.run_id, format('{{}} of its windows are those of run {{}}', count(one),
    any_value(CASE WHEN one = windows.run_id THEN another ELSE one END))
FROM windows LEFT JOIN shared USING (energy_j, duration_s)
WHERE folder = 0
GROUP BY windows.run_id
HAVING count(one) >= {_COPIED_SHARE} * count(*) AND count(one) > 0
UNION ALL
SELECT run_id, 'its energy and time are those of another run to the last digit'
FROM all_runs
SEMI JOIN (
    SELECT energy_j, duration_s FROM all_runs GROUP BY energy_j, duration_s HAVING count(DISTINCT run_id) > 1
) AS shared USING (energy_j, duration_s)
WHERE folder = 0
UNION ALL
SELECT * FROM ({_SCALED})
"""  # noqa: S608  constants, and nothing else

_WINDOWS = f"""
SELECT runs.run_id, format('{{}} windows of the run were used, and trials is {{}}', coalesce(used, 0), trials)
FROM (SELECT * FROM all_runs WHERE folder = 0) AS runs
LEFT JOIN (
    SELECT run_id, count(DISTINCT trial) AS used FROM all_readings
    WHERE folder = 0 AND part = '{Part.RUN}' AND rejected IS NULL
    GROUP BY run_id
) AS counted ON counted.run_id = runs.run_id
WHERE coalesce(used, 0) <> trials
"""  # noqa: S608

_OWN_METERS = " OR ".join(
    f"(runs.provenance = '{each.provenance}' AND starts_with(meter, '{each.meters}'))" for each in ORIGINS
)
_METERS = f"""
SELECT run_id, format('a window read by {{}} is {{}}, the run is {{}}', meter, readings.provenance, runs.provenance)
FROM (SELECT * FROM all_readings WHERE folder = 0) AS readings
JOIN (SELECT * FROM all_runs WHERE folder = 0) AS runs USING (run_id)
WHERE readings.provenance <> runs.provenance OR (n_gpus > 0) <> (device_sha256 IS NOT NULL) OR NOT ({_OWN_METERS})
UNION ALL
SELECT run_id, format('its {{}} was read by {{}}, the run by {{}}', phase, phases.method, runs.method)
FROM (SELECT * FROM all_phases WHERE folder = 0) AS phases
JOIN (SELECT * FROM all_runs WHERE folder = 0) AS runs USING (run_id)
WHERE phases.method IS DISTINCT FROM runs.method
"""  # noqa: S608

_SMOOTH_CLOCK = f"""
SELECT run_id, format('its {{}} windows took the same time to the last digit', count(*))
FROM (SELECT * FROM all_readings WHERE folder = 0 AND part = '{Part.RUN}' AND rejected IS NULL) AS readings
JOIN (
    SELECT run_id FROM all_runs
    WHERE folder = 0 AND provenance IN ('{Provenance.MEASURED}', '{Provenance.ESTIMATED}')
) AS runs USING (run_id)
GROUP BY run_id, rank
HAVING count(*) > 2 AND max(duration_s / passes) - min(duration_s / passes) < {_SMOOTH} * max(duration_s / passes)
"""  # noqa: S608

_SLOW = f"""
SELECT run_id, format('{{}} takes {{:.3g}} s, and its work needs at most {{:.3g}} s', phase, duration_s, longest_s)
FROM (SELECT run_id, phase, duration_s FROM all_phases WHERE folder = 0) AS phases
JOIN (
    SELECT run_id, phase,
        sum(launches) * {_SLOWEST_LAUNCH_S}
        + (
            sum(flop::DOUBLE) / min(peak_flop_per_s) + sum(read_bytes::DOUBLE + write_bytes) / min(peak_bytes_per_s)
        ) / {_SLOWEST_SHARE}
            AS longest_s
    FROM (SELECT * FROM all_kernels WHERE folder = 0) AS kernels
    JOIN (SELECT run_id, environment_id FROM all_runs WHERE folder = 0) AS runs USING (run_id)
    JOIN (SELECT * FROM all_environments WHERE folder = 0) AS environments USING (environment_id)
    GROUP BY run_id, phase
) AS work USING (run_id, phase)
WHERE duration_s > longest_s
"""  # noqa: S608

_LAUNCHES = f"""
SELECT run_id, format('kernel {{}} is launched {{}} times in {{:.3g}} s', kernel_id, launches, duration_s)
FROM all_kernels
WHERE folder = 0 AND (launches < 1 OR (duration_s > 0 AND launches * {_FASTEST_LAUNCH_S} > duration_s))
"""  # noqa: S608

_OF_OTHERS = " UNION ALL ".join(
    f"SELECT DISTINCT run_id, '{table.title} have {column}, which only importers write' FROM all_{table.title} "  # noqa: S608
    f"WHERE folder = 0 AND {column} IS NOT NULL"
    for table, column in (
        (Table.KERNELS, "variant"),
        (Table.KERNELS, "flags"),
        (Table.KERNEL_ENERGIES, "flags"),
        (Table.PHASES, "flags"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowRule:
    name: str
    query: str  # run and reason of every row that breaks it
    remedy: str


_RULES = (
    _RowRule(name="repeated run", query=_REPEATED, remedy="Nothing is to be done: the release holds these runs."),
    _RowRule(
        name="copied run",
        query=_COPIED,
        remedy="Windows of two measurements never agree to the last digit. Submit each run once, under one name.",
    ),
    _RowRule(name="windows", query=_WINDOWS, remedy="Submit runs with their raw windows, as run writes them."),
    _RowRule(name="meters", query=_METERS, remedy="Only what a lab measured itself is taken, as its meters gave it."),
    _RowRule(name="clock", query=_SMOOTH_CLOCK, remedy="Times of a real machine jitter; these come from no clock."),
    _RowRule(name="launches", query=_LAUNCHES, remedy="Submit kernels with the counts that the trace gave."),
    _RowRule(name="columns", query=_OF_OTHERS, remedy="Submit what `harness.run` measured, and nothing beside it."),
    _RowRule(name="slow", query=_SLOW, remedy="Look at the units: times are seconds."),
)


def row_objections(connection: duckdb.DuckDBPyConnection) -> Iterator[Objection]:
    """What raw rows say against a contribution."""
    for rule in _RULES:
        found = connection.execute(f"SELECT * FROM ({rule.query}) LIMIT {_MOST_FAULTS}").fetchall()  # noqa: S608
        faults = (Fault(row=f"run {run_id}", why=why) for run_id, why in found)
        yield from objection(rule.name, faults, rule.remedy)
    yield from _shared_objections(connection)


def graph_objections(graphs: Iterable[GraphRow]) -> Iterator[Objection]:
    """Whether every graph is one, and has the id that its content gives it."""
    yield from objection("graph", _graph_faults(graphs), "Submit graphs as `harness.run` writes them.")


def _graph_faults(graphs: Iterable[GraphRow]) -> Iterator[Fault]:
    for row in graphs:
        try:
            graph = graph_of(row)
            graph.validate()
        except (InvalidGraph, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            yield Fault(row=f"graph {row.graph_id}", why=str(error).splitlines()[0][:200])
            continue
        if graph.graph_id != row.graph_id:
            yield Fault(row=f"graph {row.graph_id}", why="its id is not the hash of its content")


def _shared_objections(connection: duckdb.DuckDBPyConnection) -> Iterator[Objection]:
    """Rows that several runs share: one key, one content."""
    for table in Table:
        if table.shared_key is None:
            continue
        columns = ", ".join(column.name for column in columns_of(table))
        query = f"""
            SELECT {table.shared_key}, 'the release has another row of this name' FROM all_{table.title}
            WHERE {table.shared_key} IN (SELECT {table.shared_key} FROM all_{table.title} WHERE folder = 0)
            GROUP BY {table.shared_key} HAVING count(DISTINCT hash({columns})) > 1
        """  # noqa: S608  names of the schema, and nothing else
        faults = (Fault(row=f"{table.title} {key}", why=why) for key, why in connection.execute(query).fetchall())
        yield from objection("shared row", faults, "Rows of a release are never rewritten. Ask for a bundle made anew.")
