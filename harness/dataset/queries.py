"""The SQL behind ``harness.dataset.summary``: one statement per record class, for DuckDB."""

from harness.records import EnergyMethod, Part

COMPLETE_SUM = "CREATE MACRO complete_sum(x) AS CASE WHEN count(x) = count(*) THEN sum(x) END"

# Of a difference of squares that rounding may have made negative.
ROOT = "CREATE MACRO root(x) AS CASE WHEN x <= 0 THEN 0 ELSE sqrt(x) END"

SUPERSEDED_RUNS = "SELECT count(*) FROM runs WHERE superseded_by IS NOT NULL"

SETUP_COLUMNS = (
    "provenance, quality, gpu, n_gpus, parallelism, tensor_parallel, nodes, model, weights, dtype, quantization, "
    "runtime, attention, kv_cache, cuda_graphs"
)

CURRENT_RUNS = f"""
CREATE TEMP TABLE current_runs AS
SELECT
    *,
    row_number() OVER (ORDER BY started_at_utc, run_id) AS number,
    dense_rank() OVER (ORDER BY {SETUP_COLUMNS}) AS setup
FROM (SELECT *, row_number() OVER () AS position FROM runs WHERE superseded_by IS NULL)
"""  # noqa: S608

SETUPS = f"SELECT DISTINCT setup, {SETUP_COLUMNS} FROM current_runs ORDER BY setup"  # noqa: S608

# What a meter gets wrong in all of its readings (systematic) it gets wrong in the windows of both phases alike, so that
# part adds up; in the difference of two windows it nearly cancels. The rest varies from window to window.
RUNS = """
WITH both_phases AS (
    SELECT
        run_id,
        count(*) AS n_phases,
        complete_sum(energy_j) AS phases_energy_j,
        sum(coalesce(energy_systematic95_j, 0)) AS phases_systematic95_j,
        complete_sum(energy_ci95_j * energy_ci95_j - coalesce(energy_systematic95_j, 0) ** 2) AS phases_varying,
        root(phases_varying + phases_systematic95_j ** 2) AS phases_energy_ci95_j
    FROM phases
    GROUP BY run_id
),
compared AS (
    SELECT
        runs.*,
        both_phases.* EXCLUDE (run_id, n_phases),
        energy_ci95_j * energy_ci95_j - coalesce(energy_systematic95_j, 0) ** 2 AS varying,
        -- The energy of a batch is that of all its sequences; of a server's, that of one.
        CASE workload WHEN 'server' THEN 1 ELSE nullif(batch_size, 0) END AS sequences,
        nullif(sequences * coalesce(output_tokens, mean_output_tokens), 0) AS all_output_tokens,
        nullif(sequences * prompt_tokens, 0) AS all_prompt_tokens
    FROM current_runs AS runs
    LEFT JOIN both_phases
        ON both_phases.run_id = runs.run_id
        AND both_phases.n_phases = CASE WHEN runs.output_tokens > 1 THEN 2 ELSE 1 END
)
SELECT
    *,
    coalesce(energy_j / nullif(duration_s, 0), mean_power_w) AS average_power_w,
    root(energy_ci95_j * energy_ci95_j - energy_systematic95_j * energy_systematic95_j) AS energy_repeat95_j,
    energy_j / sequences AS energy_per_sequence_j,
    energy_ci95_j / sequences AS energy_per_sequence_ci95_j,
    energy_j / all_output_tokens AS energy_per_output_token_j,
    energy_ci95_j / all_output_tokens AS energy_per_output_token_ci95_j,
    energy_j / all_prompt_tokens AS energy_per_prompt_token_j,
    energy_ci95_j / all_prompt_tokens AS energy_per_prompt_token_ci95_j,
    energy_j - phases_energy_j AS window_difference_j,
    root(varying + phases_varying + (coalesce(energy_systematic95_j, 0) - phases_systematic95_j) ** 2)
        AS window_difference_ci95_j
FROM compared
ORDER BY number
"""

PHASES = """
WITH counted AS (
    SELECT
        phases.*,
        runs.number,
        runs.batch_size * CASE phase WHEN 'prefill' THEN runs.prompt_tokens ELSE steps END AS tokens
    FROM phases
    JOIN current_runs AS runs USING (run_id)
)
SELECT
    *,
    energy_j / nullif(tokens, 0) AS energy_per_token_j,
    energy_ci95_j / nullif(tokens, 0) AS energy_per_token_ci95_j,
    root(energy_ci95_j * energy_ci95_j - energy_systematic95_j * energy_systematic95_j) AS energy_repeat95_j,
    energy_j / nullif(duration_s, 0) AS average_power_w
FROM counted
ORDER BY number, phase DESC
"""

KERNEL_COUNT = "SELECT count(*) FROM kernels"

RUN_COUNT = "SELECT count(*) FROM current_runs"

# Kernels of the runs at some positions, with their energies: per run and kind, and per setup and operator. Grouped in
# one go, since joining is what takes time. Positions follow the files, so that few row groups are read for each range.
# The hash stands for phase, rank and kernel_id within one run; it halves the time. Two of a run's 10,000 kernels share
# 64 bits once in 10¹¹ runs.
_KERNEL_SUMS = f"""
SELECT
    kernels.run_id, setup, kernels.phase, kind, op, module,
    grouping(kernels.run_id) = 1 AS of_setup,
    sum(launches) AS launches,
    complete_sum(energies.energy_j) AS energy_j,
    complete_sum(kernels.duration_s) AS duration_s,
    complete_sum(flop) AS flop,
    complete_sum(read_bytes + write_bytes) AS traffic_bytes
FROM (
    SELECT kernels.*, position, setup, hash(phase, rank, kernel_id) AS kernel
    FROM kernels JOIN current_runs USING (run_id)
    WHERE phase IS NOT NULL AND position BETWEEN $first AND $last
) AS kernels
LEFT JOIN (
    SELECT kernel_energies.energy_j, position, hash(phase, rank, kernel_id) AS kernel
    FROM kernel_energies JOIN current_runs USING (run_id)
    WHERE kernel_energies.method = '{EnergyMethod.APPORTIONED}' AND position BETWEEN $first AND $last
) AS energies USING (position, kernel)
GROUP BY GROUPING SETS ((kernels.run_id, setup, kernels.phase, kind), (setup, kernels.phase, kind, op, module))
"""  # noqa: S608

CREATE_KERNEL_SUMS = f"CREATE TEMP TABLE kernel_sums AS {_KERNEL_SUMS}"

ADD_KERNEL_SUMS = f"INSERT INTO kernel_sums {_KERNEL_SUMS}"

KINDS = """
SELECT run_id, phase, kind, launches, energy_j, duration_s, flop, traffic_bytes
FROM kernel_sums
WHERE NOT of_setup
ORDER BY run_id, phase DESC, kind
"""

KERNELS = """
WITH added AS (
    SELECT
        setup, phase, kind, op, module,
        sum(launches) AS launches,
        complete_sum(energy_j) AS energy_j,
        complete_sum(duration_s) AS duration_s,
        complete_sum(flop) AS flop,
        complete_sum(traffic_bytes) AS traffic_bytes
    FROM kernel_sums
    WHERE of_setup
    GROUP BY ALL
),
whole AS (
    SELECT setup, phase, count(*) AS runs, complete_sum(phases.energy_j) AS phases_energy_j
    FROM phases
    JOIN current_runs USING (run_id)
    SEMI JOIN (SELECT run_id, phase FROM kernel_sums WHERE NOT of_setup) AS traced USING (run_id, phase)
    GROUP BY setup, phase
)
SELECT
    *,
    energy_j / nullif(phases_energy_j, 0) AS energy_share,
    flop / nullif(traffic_bytes, 0) AS intensity_flop_per_byte
FROM added
JOIN whole USING (setup, phase)
ORDER BY setup, phase DESC, energy_j DESC NULLS LAST, duration_s DESC NULLS LAST, op, module
"""

# A window read on several devices is one window: their energies add up, the longest time counts, and what was
# rejected on one is rejected. The idle tail, in which the meter was waited for, is taken off before anything is
# derived. Decode windows are compared with those that started at the same context.
CREATE_WINDOWS = f"""
CREATE TEMP TABLE windows AS
WITH together AS (
    SELECT
        run_id, part, trial, readings.provenance, number, idle_power_w,
        string_agg(DISTINCT meter, ', ' ORDER BY meter) AS meter,
        any_value(context_start_tokens) AS context_start_tokens,
        sum(readings.energy_j) AS energy_j,
        sqrt(sum(uncertainty_j * uncertainty_j)) AS uncertainty_j,
        max(readings.duration_s) AS duration_s,
        max(tail_s) AS tail_s,
        avg(lead_s + tail_s) AS rest_s,
        max(passes) AS passes,
        string_agg(DISTINCT rejected, '; ' ORDER BY rejected) AS rejected
    FROM readings
    JOIN current_runs USING (run_id)
    WHERE part NOT IN ('{Part.REPLAY}', '{Part.MIXTURE}', '{Part.WAITING}')
    GROUP BY ALL
),
rated AS (
    SELECT
        *,
        CASE WHEN rest_s = 0 THEN energy_j ELSE energy_j - idle_power_w * rest_s END AS work_j,
        work_j / nullif(duration_s - rest_s, 0) AS average_power_w,
        CASE WHEN part <> '{Part.IDLE}' THEN work_j / nullif(passes, 0) END AS energy_per_pass_j,
        coalesce(energy_per_pass_j, average_power_w) AS compared
    FROM together
)
SELECT *, compared / nullif(avg(compared) FILTER (rejected IS NULL) OVER same, 0) - 1 AS deviation
FROM rated
WINDOW same AS (PARTITION BY run_id, part, provenance, context_start_tokens)
"""  # noqa: S608

WINDOWS = "SELECT * FROM windows ORDER BY number, part, trial"

PARTS = """
SELECT
    run_id,
    part,
    count(*) FILTER (rejected IS NULL) AS windows_used,
    count(rejected) AS windows_rejected,
    sqrt(
        sum(deviation * deviation) FILTER (rejected IS NULL)
        / nullif(windows_used - count(DISTINCT coalesce(context_start_tokens, -1)) FILTER (rejected IS NULL), 0)
    ) AS spread
FROM windows
GROUP BY run_id, part, number
ORDER BY number, part
"""

WINDOW_TOTALS = """
SELECT provenance, count(*) AS windows, sum(energy_j) AS energy_j, sum(duration_s) AS duration_s
FROM windows
GROUP BY provenance
ORDER BY provenance
"""

STATUS_COUNTS = "SELECT status, count(*) AS runs FROM current_runs GROUP BY status ORDER BY status"

ENVIRONMENTS = "SELECT DISTINCT * FROM environments ORDER BY gpu, environment_id"
