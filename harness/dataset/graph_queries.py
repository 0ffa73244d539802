"""The SQL behind ``harness.dataset.graph_summary``."""

# Kernels of phases that have a graph. Sums of few groups: nothing of the size of the table is kept.
_TRACED = """
    FROM kernels
    JOIN current_runs USING (run_id)
    SEMI JOIN (SELECT run_id, phase FROM phases WHERE graph_id IS NOT NULL) AS in_graphs USING (run_id, phase)
"""

CREATE_GRAPH_SHARES = f"""
CREATE TEMP TABLE graph_shares AS
WITH of_run AS (
    SELECT
        setup, run_id, phase,
        sum(launches) AS launches,
        coalesce(sum(launches) FILTER (graph_kernel IS NOT NULL), 0) AS matched_launches,
        complete_sum(traced_duration_s) AS traced_duration_s,
        complete_sum(CASE WHEN graph_kernel IS NULL THEN 0 ELSE traced_duration_s END) AS matched_duration_s
    {_TRACED}
    GROUP BY ALL
)
SELECT
    setup, phase,
    count(*) AS runs,
    sum(launches) AS launches,
    sum(matched_launches) AS matched_launches,
    complete_sum(traced_duration_s) AS traced_duration_s,
    complete_sum(matched_duration_s) AS matched_duration_s
FROM of_run
GROUP BY setup, phase
"""  # noqa: S608

GRAPH_SHARES = """
SELECT
    *,
    matched_launches / nullif(launches, 0) AS matched_launch_share,
    matched_duration_s / nullif(traced_duration_s, 0) AS matched_time_share
FROM graph_shares
ORDER BY setup, phase DESC
"""

UNMATCHED = f"""
WITH added AS (
    SELECT
        setup, phase, kind, op, module,
        sum(launches) AS launches,
        complete_sum(traced_duration_s) AS traced_duration_s
    {_TRACED}
    WHERE graph_kernel IS NULL
    GROUP BY ALL
)
SELECT added.*, added.traced_duration_s / nullif(graph_shares.traced_duration_s, 0) AS time_share
FROM added
JOIN graph_shares USING (setup, phase)
ORDER BY setup, phase DESC, added.traced_duration_s DESC NULLS LAST, added.launches DESC, op, module
"""  # noqa: S608
