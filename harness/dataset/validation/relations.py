"""The relations that rules are asked of, as SQL for DuckDB: the tables, and the tables with what belongs to their rows.

A view named like each table holds its rows with ``file`` and ``row``.
"""

from harness.dataset.schema import Table
from harness.dataset.validation.facts import SAME_KERNEL, TIMED_KERNELS
from harness.dataset.validation.rules import Relation
from harness.records import EnergyMethod

KEYS = {
    Table.RUNS: ("run_id",),
    Table.PHASES: ("run_id", "phase"),
    Table.KERNELS: ("run_id", "phase", "rank", "kernel_id"),
    Table.KERNEL_ENERGIES: ("run_id", "phase", "rank", "kernel_id", "method"),
    Table.GRAPHS: ("graph_id",),
    Table.READINGS: ("run_id", "part", "trial", "rank", "meter"),
    Table.RANK_TIMES: ("run_id", "part", "trial", "rank"),
    Table.POWER_TRACES: ("run_id", "rank", "t_s"),
    Table.ENVIRONMENTS: ("environment_id",),
    Table.SOURCES: ("source",),
}

RAW = {
    table: Relation(name=table.title, table=table, query=f"SELECT * FROM {table.title}")  # noqa: S608
    for table in Table
}


def _repeated(table: Table) -> Relation:
    """Rows whose key an earlier row has. Hashes first: they fit in memory where keys do not."""
    keys = ", ".join(KEYS[table])
    query = f"""
    SELECT * FROM {table.title}
    WHERE hash({keys}) IN (SELECT hash({keys}) FROM {table.title} GROUP BY 1 HAVING count(*) > 1)
    QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY file, row) > 1
    """  # noqa: S608
    return Relation(name=f"repeated {table.title}", table=table, query=query)


REPEATED = {table: _repeated(table) for table in Table}

_OF_RUNS = "workload, status, model, n_gpus, nodes, parallelism, tensor_parallel, runtime, batch_size, prompt_tokens, \
output_tokens, idle_power_w, quality"
RUNS = Relation(
    name="runs with what belongs to them",
    table=Table.RUNS,
    query=f"""
    SELECT
        runs.*, facts.* EXCLUDE (run_id),
        status_detail IS NOT NULL AS flagged,
        run_phases.* EXCLUDE (run_id),
        kernel_ranks, used_windows, contexts, mean_j, least_j, most_j, spread, meters, read_idle_w,
        sources.source IS NOT NULL AS known_source,
        others.run_id IS NOT NULL AS known_correction,
        CASE WHEN output_tokens > 1 THEN 2 ELSE 1 END = phases AND has_prefill AS all_phases,
        energy_ci95_j * energy_ci95_j - coalesce(energy_systematic95_j, 0) ** 2 AS varying_j2,
        root(varying_j2) AS repeat95_j,
        root(varying_j2 + phases_varying_j2 + (coalesce(energy_systematic95_j, 0) - phases_systematic_j) ** 2)
            AS difference95_j
    FROM runs
    LEFT JOIN (SELECT * EXCLUDE ({_OF_RUNS}) FROM facts) AS facts USING (run_id)
    LEFT JOIN run_phases USING (run_id)
    LEFT JOIN kernel_ranks USING (run_id)
    LEFT JOIN run_idle USING (run_id)
    LEFT JOIN (SELECT * FROM part_sums WHERE part = 'run') AS part_sums USING (run_id)
    LEFT JOIN (SELECT DISTINCT source FROM sources) AS sources ON sources.source = runs.source
    LEFT JOIN (SELECT DISTINCT run_id FROM runs) AS others ON others.run_id = superseded_by
    """,  # noqa: S608
)
PHASES = Relation(
    name="phases with what belongs to them",
    table=Table.PHASES,
    query="""
    SELECT
        phases.*, facts.* EXCLUDE (run_id),
        flags IS NOT NULL AS flagged,
        phase_sums.kernels, longest_rank_s, bound_s, flop, apportioned_kernels, apportioned_j,
        used_windows, contexts, mean_j, least_j, most_j, spread,
        graphs.graph_id IS NOT NULL AS known_graph,
        graphs.phase AS graph_phase, graphs.model AS graph_model, graphs.tensor_parallel AS graph_tensor_parallel,
        graphs.batch_size AS graph_batch_size
    FROM phases
    LEFT JOIN facts USING (run_id)
    LEFT JOIN phase_sums USING (run_id, phase)
    LEFT JOIN apportioned USING (run_id, phase)
    LEFT JOIN part_sums ON part_sums.run_id = phases.run_id AND part_sums.part = phases.phase
    LEFT JOIN (SELECT DISTINCT ON (graph_id) * FROM graphs ORDER BY graph_id, file, row) AS graphs
        ON graphs.graph_id = phases.graph_id
    """,
)
KERNELS = Relation(
    name="kernels with what belongs to them",
    table=Table.KERNELS,
    query=f"""
    SELECT timed.*, phase_rows.known_phase, graph_kernels
    FROM ({TIMED_KERNELS}) AS timed
    LEFT JOIN (
        SELECT run_id, phase, true AS known_phase, any_value(size) AS graph_kernels
        FROM phases
        LEFT JOIN (
            SELECT graph_id, CASE WHEN json_valid(kernels) THEN json_array_length(kernels) END AS size FROM graphs
        ) AS graphs USING (graph_id)
        GROUP BY run_id, phase
    ) AS phase_rows ON phase_rows.run_id = timed.run_id AND phase_rows.phase = timed.phase
    """,  # noqa: S608
)
KERNEL_ENERGIES = Relation(
    name="kernel energies with what belongs to them",
    table=Table.KERNEL_ENERGIES,
    query=f"""
    SELECT
        energies.*, facts.* EXCLUDE (run_id),
        flags IS NOT NULL AS flagged,
        kernels.kernel IS NOT NULL AS known_kernel,
        duration_s, wait_s,
        CASE WHEN idle_ranks = kernel_ranks THEN rank_idle_w WHEN kernel_ranks = 1 THEN idle_power_w END AS rank_idle_w,
        method <> '{EnergyMethod.APPORTIONED}' AS independent
    FROM (SELECT *, {SAME_KERNEL} AS kernel FROM kernel_energies) AS energies
    LEFT JOIN (SELECT {SAME_KERNEL} AS kernel, duration_s, wait_s FROM kernels) AS kernels USING (kernel)
    LEFT JOIN facts USING (run_id)
    LEFT JOIN kernel_ranks USING (run_id)
    LEFT JOIN run_idle USING (run_id)
    LEFT JOIN rank_idle ON rank_idle.run_id = energies.run_id AND rank_idle.rank = energies.rank
    """,  # noqa: S608
)
READINGS = Relation(
    name="readings with what belongs to them",
    table=Table.READINGS,
    query="""
    SELECT readings.*, facts.* EXCLUDE (run_id), rejected IS NOT NULL AS flagged
    FROM readings
    LEFT JOIN facts USING (run_id)
    """,
)
RANK_TIMES = Relation(
    name="rank times with what belongs to them",
    table=Table.RANK_TIMES,
    query="""
    SELECT rank_times.*, facts.* EXCLUDE (run_id), false AS flagged, window_s
    FROM rank_times
    LEFT JOIN facts USING (run_id)
    LEFT JOIN (SELECT run_id, part, trial, max(window_s) AS window_s FROM windows GROUP BY ALL) AS windows
        USING (run_id, part, trial)
    """,
)
POWER_TRACES = Relation(
    name="power traces with what belongs to them",
    table=Table.POWER_TRACES,
    query="""
    SELECT power_traces.*, facts.* EXCLUDE (run_id), false AS flagged
    FROM power_traces
    LEFT JOIN facts USING (run_id)
    """,
)
GRAPHS = Relation(
    name="graphs with what uses them",
    table=Table.GRAPHS,
    query="""
    SELECT *, graph_id IN (SELECT graph_id FROM phases WHERE graph_id IS NOT NULL) AS used FROM graphs
    """,
)
ENVIRONMENTS = Relation(
    name="environments with what uses them",
    table=Table.ENVIRONMENTS,
    query="""
    SELECT *, environment_id IN (SELECT environment_id FROM runs WHERE environment_id IS NOT NULL) AS used
    FROM environments
    """,
)
SOURCES = Relation(
    name="sources with what uses them",
    table=Table.SOURCES,
    query="SELECT *, source IN (SELECT source FROM runs) AS used FROM sources",
)
