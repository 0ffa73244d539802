"""Rules about repeats and about rows that can be compared: trials, spread, outliers."""

from harness.dataset.pooling import POOL_SQL
from harness.dataset.schema import Table
from harness.dataset.validation.facts import FactTable
from harness.dataset.validation.findings import Severity
from harness.dataset.validation.relations import PHASES, RUNS
from harness.dataset.validation.rules import Relation, Rule, Test
from harness.measuring.protocol import STANDARD
from harness.records import Provenance, Quality, Workload

WIDE, WIDE_QUICK, SPREAD = 0.10, 0.25, 0.25
APART = 1.5
LEAST_ROWS, ROBUST_Z = 10, 8.0
_NORMAL = 1.4826  # standard deviations in a median absolute deviation, of a normal distribution
_STANDARD = f"quality = '{Quality.STANDARD}'"

# What has to be equal before two runs are one thing made twice; of a server the questions matter too.
_SAME_THING = f"""workload, gpu, n_gpus, nodes, parallelism, tensor_parallel, pipeline_parallel, expert_parallel,
    data_parallel, model, weights, dtype, quantization, runtime, runtime_version, attention, kv_cache, cuda_graphs,
    batch_size, prompt_tokens, output_tokens, power_limit_w, sm_clock_mhz,
    CASE workload WHEN '{Workload.SERVER}' THEN prompts END"""


def _compared(prefix: str, *, ours: bool) -> str:
    return f"""
    SELECT
        {str(ours).lower()} AS ours, run_id,
        hash({POOL_SQL}, {_SAME_THING}) AS thing,
        CASE workload WHEN '{Workload.SERVER}' THEN energy_j / nullif(mean_output_tokens, 0) ELSE energy_j END
            AS compared_j
    FROM {prefix}runs AS runs
    LEFT JOIN (
        SELECT DISTINCT ON (environment_id) environment_id, calibration, power_limit_w, sm_clock_mhz
        FROM {prefix}environments
        ORDER BY environment_id
    ) AS environments USING (environment_id)
    WHERE superseded_by IS NULL AND energy_j > 0
    """  # noqa: S608


COMPARED = FactTable(
    name="compared", query=f"{_compared('', ours=True)} UNION ALL {_compared('reference_', ours=False)}"
)

# The usual energy is the median of all, and of two the other one.
_TWINS = Relation(
    name="runs with comparable runs",
    table=Table.RUNS,
    query="""
    WITH things AS (
        SELECT thing, count(*) AS twins, median(compared_j) AS middle_j, sum(compared_j) AS sum_j
        FROM compared
        GROUP BY thing
        HAVING count(*) > 1
    )
    SELECT
        runs.file, runs.row, runs.run_id, runs.energy_j, twins, compared_j,
        CASE twins WHEN 2 THEN sum_j - compared_j ELSE middle_j END AS usual_j
    FROM compared
    JOIN things USING (thing)
    JOIN runs USING (run_id)
    WHERE ours
    """,
)

# Joules per FLOP of the phases of one kind of device, on a logarithmic scale.
_RATED_PHASES = Relation(
    name="phases with joules per FLOP",
    table=Table.PHASES,
    query=f"""
    WITH rated AS (
        SELECT
            phases.file, phases.row, phases.energy_j, phases.phase, run_gpu, pool,
            ln(phases.energy_j / flop) AS log_j_per_flop
        FROM phases
        JOIN phase_sums USING (run_id, phase)
        JOIN facts USING (run_id)
        WHERE phases.energy_j > 0 AND flop > 0 AND current
    ),
    centred AS (
        SELECT *, count(*) OVER same AS rows_alike, log_j_per_flop - median(log_j_per_flop) OVER same AS off
        FROM rated
        WINDOW same AS (PARTITION BY pool, run_gpu, phase)
    )
    SELECT
        *,
        {_NORMAL} * median(abs(off)) OVER (PARTITION BY pool, run_gpu, phase) AS usual_off
    FROM centred
    """,  # noqa: S608
)

_REQUEST = "model, gpu, environment_id, n_gpus, parallelism, dtype, runtime, attention, kv_cache, cuda_graphs, \
batch_size, prompt_tokens, output_tokens"
_REQUESTS = Relation(
    name="runs with equal requests",
    table=Table.RUNS,
    query=f"""
    SELECT
        *,
        row_number() OVER equal_request > 1 AS again,
        first_value(run_id) OVER equal_request AS twin
    FROM runs
    WHERE superseded_by IS NULL AND provenance <> '{Provenance.IMPORTED}'
    WINDOW equal_request AS (PARTITION BY campaign_id, status, quality, lab, {_REQUEST} ORDER BY file, row)
    """,  # noqa: S608
)

STATISTICS_RULES = (
    Rule(
        name="few-trials",
        severity=Severity.WARNING,
        checks="An energy by the standard protocol is the mean of enough windows.",
        tolerance=f"at least {STANDARD.trials_min}, as the protocol asks",
        remedy="Run the campaign again: windows that were rejected are made anew.",
        tests=tuple(
            Test(
                of=of,
                column="trials",
                broken=f"{_STANDARD} AND trials < {STANDARD.trials_min}",
                reason=f"'the standard protocol takes {STANDARD.trials_min} windows or more'",
            )
            for of in (RUNS, PHASES)
        ),
    ),
    Rule(
        name="trials-contradict-readings",
        severity=Severity.ERROR,
        checks="trials is the number of windows in `readings` that were used.",
        remedy="Add the readings that are missing, or count anew.",
        softer_for_imports=True,
        tests=tuple(
            Test(
                of=of,
                column="trials",
                broken="trials <> used_windows",
                reason="format('{} windows that were used are in readings', used_windows)",
            )
            for of in (RUNS, PHASES)
        ),
    ),
    Rule(
        name="wide-interval",
        severity=Severity.WARNING,
        checks="Repeats by the standard protocol agree well enough to be used.",
        tolerance=f"half width {WIDE:.0%} beside gain and offset; the protocol wants {STANDARD.half_width_target:.0%}",
        remedy="Measure again on a quiet machine, with a longer warm-up.",
        tests=(
            Test(
                of=RUNS,
                column="energy_ci95_j",
                broken=f"{_STANDARD} AND repeat95_j > {WIDE} * energy_j",
                reason="format('± {:.1f} % of {:.4g} J', 100 * repeat95_j / energy_j, energy_j)",
            ),
        ),
    ),
    Rule(
        name="wide-interval-quick",
        severity=Severity.NOTE,
        checks="Repeats by the quick protocol agree roughly.",
        tolerance=f"half width {WIDE_QUICK:.0%}: three windows of a second",
        remedy="Use the standard protocol for numbers to rely on.",
        tests=(
            Test(
                of=RUNS,
                column="energy_ci95_j",
                broken=f"quality = '{Quality.QUICK}' AND repeat95_j > {WIDE_QUICK} * energy_j",
                reason="format('± {:.1f} % of {:.4g} J', 100 * repeat95_j / energy_j, energy_j)",
            ),
        ),
    ),
    Rule(
        name="wide-spread",
        severity=Severity.WARNING,
        checks="The windows of a run or phase do not scatter much.",
        tolerance=f"relative standard deviation {SPREAD:.0%}; public repeats scatter by 1 to 13 %. Not asked of quick "
        "windows",
        remedy="Look for windows with other work on the device, and for different things under one run.",
        tests=tuple(
            Test(
                of=of,
                column="energy_j",
                broken=f"spread > {SPREAD} AND coalesce(quality <> '{Quality.QUICK}', true)",
                reason="format('{} windows with a standard deviation of {:.1f} %', used_windows, 100 * spread)",
            )
            for of in (RUNS, PHASES)
        ),
    ),
    Rule(
        name="no-spread",
        severity=Severity.WARNING,
        checks="Measured windows are not all equal.",
        remedy="Look whether one reading was written several times.",
        tests=(
            Test(
                of=RUNS,
                column="energy_j",
                broken=f"run_provenance = '{Provenance.MEASURED}' AND used_windows > 2 AND most_j = least_j",
                reason="format('{} windows with the same energy to the last digit', used_windows)",
            ),
        ),
    ),
    Rule(
        name="same-request-twice",
        severity=Severity.WARNING,
        checks="No two runs of a campaign ask for the same request on the same deployment: repeats are trials.",
        remedy="Name the better run in superseded_by of the other.",
        tests=(
            Test(
                of=_REQUESTS,
                column="run_id",
                broken="again",
                reason="format('run {} asks for the same', twin)",
            ),
        ),
    ),
    Rule(
        name="unlike-comparable-runs",
        severity=Severity.WARNING,
        checks="A run's energy is like that of the same request on the same deployment, in this dataset or in the one "
        "it is compared with.",
        tolerance=f"a factor {APART:g}: repeats differ by up to 10 %, boards and machines of one kind by up to 30 %",
        remedy="Compare versions, power limits and other load of the two machines; keep both if both are right.",
        tests=(
            Test(
                of=_TWINS,
                column="energy_j",
                broken=f"greatest(compared_j, usual_j) > {APART} * least(compared_j, usual_j)",
                reason="format('{:.4g} J, and {} other(s) of the same have {:.4g} J', compared_j, twins - 1, usual_j)",
            ),
        ),
    ),
    Rule(
        name="unlike-its-gpu",
        severity=Severity.WARNING,
        checks="Joules per FLOP of a phase are like those of other phases of the same kind on the same GPU.",
        tolerance=f"{ROBUST_Z:g} robust standard deviations of the logarithm (at least 10 % each); {LEAST_ROWS} rows",
        remedy="Check units, steps and what the kernels' FLOP count.",
        tests=(
            Test(
                of=_RATED_PHASES,
                column="energy_j",
                broken=f"rows_alike >= {LEAST_ROWS} AND abs(off) > {ROBUST_Z} * greatest(usual_off, 0.1)",
                reason="format('{:.3g} × the usual of {} rows', exp(off), rows_alike)",
            ),
        ),
    ),
)
