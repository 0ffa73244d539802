"""The SQL behind ``harness.dataset.rank_summary``."""

from harness.dataset.rank_summary import COLLECTIVE_KINDS

COMPLETE_MEAN = "CREATE MACRO complete_mean(x) AS CASE WHEN count(x) = count(*) THEN avg(x) END"

# Windows at different contexts differ by more than chance, so each is compared with those of its own context.
RANKS = """
WITH taken AS (
    SELECT run_id, part, trial, any_value(context_start_tokens) AS context_start_tokens, count(rejected) AS rejections
    FROM windows
    GROUP BY run_id, part, trial
),
laps AS (
    SELECT
        run_id, part, rank, node, device, number, context_start_tokens,
        rank_times.duration_s / nullif(passes, 0) AS pass_s,
        rank_times.wait_s,
        pass_s / nullif(avg(pass_s) OVER (PARTITION BY run_id, part, rank, context_start_tokens), 0) - 1 AS deviation
    FROM rank_times
    JOIN current_runs AS runs USING (run_id)
    LEFT JOIN taken USING (run_id, part, trial)
    WHERE (runs.tensor_parallel > 1 OR runs.nodes > 1) AND coalesce(rejections, 0) = 0
)
SELECT
    run_id, part, rank,
    any_value(node) AS node,
    any_value(device) AS device,
    count(*) AS windows,
    median(pass_s) AS duration_s,
    median(wait_s) AS wait_s,
    sqrt(
        sum(deviation * deviation)
        / nullif(count(*) - count(DISTINCT coalesce(context_start_tokens, -1)), 0)
    ) AS spread
FROM laps
GROUP BY run_id, part, rank, number
ORDER BY number, part, rank
"""

_COLLECTIVE_KINDS = ", ".join(f"'{kind}'" for kind in COLLECTIVE_KINDS)

CREATE_COLLECTIVES = f"""
CREATE TEMP TABLE collectives AS
SELECT
    run_id, setup, number, phase, kind, rank,
    read_bytes // nullif(launches, 0) AS message_bytes,
    sum(launches) AS launches,
    complete_sum(link_bytes) AS link_bytes,
    complete_sum(kernels.duration_s) AS duration_s,
    complete_sum(wait_s) AS wait_s
FROM kernels
JOIN current_runs USING (run_id)
WHERE phase IS NOT NULL AND kind IN ({_COLLECTIVE_KINDS})
GROUP BY ALL
"""  # noqa: S608

COLLECTIVES = """
WITH of_one_rank AS (
    SELECT
        setup, run_id, phase, kind, message_bytes,
        avg(launches) AS launches,
        complete_mean(link_bytes) AS link_bytes,
        complete_mean(duration_s) AS duration_s,
        complete_mean(wait_s) AS wait_s
    FROM collectives
    GROUP BY ALL
),
added AS (
    SELECT
        setup, phase, kind, message_bytes,
        count(*) AS runs,
        sum(launches) AS launches,
        complete_sum(link_bytes) AS link_bytes,
        complete_sum(duration_s) AS duration_s,
        complete_sum(wait_s) AS wait_s
    FROM of_one_rank
    GROUP BY ALL
)
SELECT *, link_bytes / nullif(duration_s - wait_s, 0) AS rate_bytes_per_s
FROM added
ORDER BY setup, phase DESC, kind, message_bytes
"""

COMMUNICATION = """
WITH of_rank AS (
    SELECT run_id, number, phase, rank, complete_sum(duration_s) AS duration_s, complete_sum(wait_s) AS wait_s
    FROM collectives
    GROUP BY ALL
),
of_phase AS (
    SELECT
        run_id, number, phase,
        complete_mean(duration_s) AS duration_s,
        complete_mean(wait_s) AS wait_s,
        CASE WHEN count(wait_s) = count(*) THEN max(wait_s) END AS longest_wait_s,
        CASE WHEN count(wait_s) = count(*) THEN arg_max(rank, wait_s) END AS longest_waiting_rank
    FROM of_rank
    GROUP BY ALL
)
SELECT
    of_phase.*,
    of_phase.duration_s / nullif(phases.duration_s, 0) AS share,
    of_phase.wait_s / nullif(phases.duration_s, 0) AS wait_share
FROM of_phase
LEFT JOIN phases USING (run_id, phase)
ORDER BY number, phase DESC
"""
