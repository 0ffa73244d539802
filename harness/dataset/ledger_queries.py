"""The SQL behind ``harness.dataset.ledger_summary``."""

from harness.dataset.rank_summary import COLLECTIVE_KINDS
from harness.records import EnergyMethod, Status

_APPORTIONED, _REPLAY, _REGRESSED = EnergyMethod.APPORTIONED, EnergyMethod.REPLAY, EnergyMethod.REGRESSED
_INDEPENDENT = f"method IN ('{_REPLAY}', '{_REGRESSED}')"
LARGE_SHARE = 0.01  # of the phase: the kernels that its energy depends on
SHOWN_KERNELS = 15  # of a setup and phase

# Runs with a method that does not use their phases' energy. What is not in here costs no time below.
CREATE_INDEPENDENT_RUNS = f"""
CREATE TEMP TABLE independent_runs AS
SELECT
    run_id,
    count(*) FILTER (kernel_energies.method = '{_REPLAY}') AS replayed_kernels,
    count(*) FILTER (kernel_energies.method = '{_REGRESSED}') AS regressed_kernels
FROM kernel_energies
WHERE {_INDEPENDENT}
GROUP BY run_id
"""  # noqa: S608

INDEPENDENT_RUN_COUNT = "SELECT count(*) FROM independent_runs JOIN current_runs USING (run_id)"

LEDGERS = f"""
WITH traced_runs AS (SELECT DISTINCT run_id FROM kernel_sums WHERE NOT of_setup)
SELECT
    run_id,
    ledger_idle_j + ledger_kernels_j + ledger_gaps_j AS explained_j,
    residual_j / nullif(energy_j, 0) AS residual_share,
    residual_ci95_j / nullif(energy_j, 0) AS residual_share_ci95,
    abs(residual_j) <= residual_ci95_j AS closes,
    traced_runs.run_id IS NOT NULL AS traced,
    coalesce(replayed_kernels, 0) AS replayed_kernels,
    coalesce(regressed_kernels, 0) AS regressed_kernels
FROM current_runs
LEFT JOIN traced_runs USING (run_id)
LEFT JOIN independent_runs USING (run_id)
WHERE status = '{Status.OK}'
ORDER BY number
"""  # noqa: S608

# Kernels of the runs at some positions, each with its energies beside one another, as in queries._KERNEL_SUMS. A run's
# rows of one kernel differ by rank, so a rank that lacks a method leaves the sum of that method unknown.
_METHOD_SUMS = f"""
SELECT
    setup, kernels.phase, kind, op, module, dtype, shape,
    count(DISTINCT position) AS runs,
    sum(launches) AS launches,
    complete_sum(apportioned_j) AS apportioned_j,
    complete_sum(replay_j) AS replay_j,
    complete_sum(replay_ci95_j) AS replay_ci95_j,
    complete_sum(replay_active_j) AS replay_active_j,
    complete_sum(regressed_j) AS regressed_j,
    complete_sum(regressed_ci95_j) AS regressed_ci95_j,
    complete_sum(regressed_active_j) AS regressed_active_j
FROM (
    SELECT kernels.*, position, setup, hash(phase, rank, kernel_id) AS kernel
    FROM kernels
    JOIN current_runs USING (run_id)
    SEMI JOIN independent_runs USING (run_id)
    WHERE phase IS NOT NULL AND position BETWEEN $first AND $last
) AS kernels
LEFT JOIN (
    SELECT
        position, hash(phase, rank, kernel_id) AS kernel,
        any_value(kernel_energies.energy_j) FILTER (kernel_energies.method = '{_APPORTIONED}') AS apportioned_j,
        any_value(kernel_energies.energy_j) FILTER (kernel_energies.method = '{_REPLAY}') AS replay_j,
        any_value(kernel_energies.energy_ci95_j) FILTER (kernel_energies.method = '{_REPLAY}') AS replay_ci95_j,
        any_value(active_energy_j) FILTER (kernel_energies.method = '{_REPLAY}') AS replay_active_j,
        any_value(kernel_energies.energy_j) FILTER (kernel_energies.method = '{_REGRESSED}') AS regressed_j,
        any_value(kernel_energies.energy_ci95_j) FILTER (kernel_energies.method = '{_REGRESSED}') AS regressed_ci95_j,
        any_value(active_energy_j) FILTER (kernel_energies.method = '{_REGRESSED}') AS regressed_active_j
    FROM kernel_energies
    JOIN current_runs USING (run_id)
    SEMI JOIN independent_runs USING (run_id)
    WHERE position BETWEEN $first AND $last
    GROUP BY ALL
) AS energies USING (position, kernel)
GROUP BY ALL
"""  # noqa: S608

CREATE_METHOD_SUMS = f"CREATE TEMP TABLE method_sums AS {_METHOD_SUMS}"

ADD_METHOD_SUMS = f"INSERT INTO method_sums {_METHOD_SUMS}"

METHODS = f"""
WITH added AS (
    SELECT
        setup, phase, kind, op, module, dtype, shape,
        sum(runs) AS n_runs,
        sum(launches) / n_runs AS launches,
        complete_sum(apportioned_j) / n_runs AS apportioned_j,
        complete_sum(replay_j) / n_runs AS replay_j,
        complete_sum(replay_ci95_j) / n_runs AS replay_ci95_j,
        complete_sum(regressed_j) / n_runs AS regressed_j,
        complete_sum(regressed_ci95_j) / n_runs AS regressed_ci95_j,
        complete_sum(replay_active_j) / nullif(complete_sum(regressed_active_j), 0) - 1 AS disagreement
    FROM method_sums
    GROUP BY ALL
)
SELECT * RENAME (n_runs AS runs), coalesce(replay_j, regressed_j, apportioned_j) AS known_j
FROM added
QUALIFY row_number() OVER (PARTITION BY setup, phase ORDER BY known_j DESC NULLS LAST, op, module, shape, dtype)
    <= {SHOWN_KERNELS}
ORDER BY setup, phase DESC, known_j DESC NULLS LAST, op, module, shape, dtype
"""  # noqa: S608

# The disagreement as replay's row states it. A kernel's share is of its rank's part of the phase.
DISAGREEMENTS = f"""
WITH compared AS (
    SELECT
        setup, phase, disagreement,
        kernel_energies.energy_j >= {LARGE_SHARE} * phases.energy_j / runs.tensor_parallel AS large
    FROM kernel_energies
    JOIN current_runs AS runs USING (run_id)
    LEFT JOIN phases USING (run_id, phase)
    WHERE kernel_energies.method = '{_REPLAY}' AND disagreement IS NOT NULL AND phase IS NOT NULL
),
both_ways AS (
    SELECT *, false AS large_only FROM compared
    UNION ALL
    SELECT *, true AS large_only FROM compared WHERE large
)
SELECT
    setup, phase, large_only,
    count(*) AS kernels,
    quantile_cont(abs(disagreement), 0.5) AS median,
    quantile_cont(abs(disagreement), 0.95) AS percentile95,
    quantile_cont(disagreement, 0.5) AS bias
FROM both_ways
GROUP BY ALL
ORDER BY setup, phase DESC, large_only
"""  # noqa: S608

_COLLECTIVE_KINDS = ", ".join(f"'{kind}'" for kind in COLLECTIVE_KINDS)

COLLECTIVE_COUNT = "SELECT count(*) FROM collectives"

# A collective that did not wait spent nothing on waiting, whatever the method. Apportioned shares are told only of
# collectives that no other method knows.
COLLECTIVE_ENERGIES = f"""
WITH launched AS (
    SELECT
        run_id, setup, tensor_parallel, kernels.phase, rank, kernel_id, kind, launches, link_bytes,
        read_bytes // nullif(launches, 0) AS message_bytes,
        kernels.duration_s, wait_s
    FROM kernels
    JOIN current_runs USING (run_id)
    WHERE kernels.phase IS NOT NULL AND kind IN ({_COLLECTIVE_KINDS})
),
by_method AS (
    SELECT
        launched.*, energies.method, energies.energy_j, energies.energy_ci95_j,
        CASE WHEN wait_s = 0 AND energies.energy_j IS NOT NULL THEN 0 ELSE wait_energy_j END AS waiting_j
    FROM launched
    LEFT JOIN (SELECT * FROM kernel_energies SEMI JOIN launched USING (run_id, kernel_id)) AS energies
        USING (run_id, phase, rank, kernel_id)
),
added AS (
    SELECT
        setup, kind, message_bytes, tensor_parallel AS ranks, method,
        count(DISTINCT run_id) AS runs,
        sum(launches) AS all_launches,
        all_launches / tensor_parallel AS collectives,
        complete_sum(energy_j) / collectives AS energy_j,
        complete_sum(energy_ci95_j) / collectives AS energy_ci95_j,
        complete_sum(waiting_j) / collectives AS waiting_j,
        complete_sum(wait_s) / all_launches AS waiting_s,
        complete_sum(duration_s - wait_s) / all_launches AS transfer_s,
        complete_sum(link_bytes) / collectives AS link_bytes
    FROM by_method
    GROUP BY setup, kind, message_bytes, tensor_parallel, method
)
SELECT
    *,
    energy_j - waiting_j AS transfer_j,
    transfer_j / nullif(link_bytes, 0) AS transfer_j_per_byte,
    energy_ci95_j / nullif(link_bytes, 0) AS transfer_ci95_j_per_byte,
    waiting_j / nullif(energy_j, 0) AS waiting_share,
    CASE WHEN {_INDEPENDENT} THEN 2 WHEN method IS NOT NULL THEN 1 ELSE 0 END AS worth
FROM added
QUALIFY worth = max(worth) OVER (PARTITION BY setup, kind, message_bytes)
ORDER BY kind, message_bytes, ranks, setup, list_position(['{_REPLAY}', '{_REGRESSED}', '{_APPORTIONED}'], method)
"""  # noqa: S608
