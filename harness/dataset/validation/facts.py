"""What rules about a row need to know beside it, as tables of DuckDB that are made once.

``facts`` has a row per run: its own columns that others are held against, and the limits of its device. The others hold
sums over the rows of a run, phase or rank. Sums are complete or null: one unknown term makes the sum unknown.
"""

from dataclasses import dataclass

from harness.dataset.pooling import POOL_SQL
from harness.kernels import KernelKind, Phase
from harness.records import EnergyMethod, Part, Provenance

ATTENTION_FACTOR = 2.0  # a causal kernel skips half of the square that `flop` counts
LINK_FACTOR = 2.0  # a switch that adds up on the way halves what a rank sends, and `link_bytes` assumes a ring
SAME_KERNEL = "hash(run_id, phase, rank, kernel_id)"  # two of 10⁷ kernels share 64 bits in one of 400,000 datasets

# The first row of every id: an id that is there twice would multiply what is joined to it.
_FACTS = f"""
SELECT
    runs.run_id,
    true AS known_run,
    coalesce(provenance = '{Provenance.IMPORTED}', false) AS imported,
    superseded_by IS NULL AS current,
    provenance AS run_provenance, source AS run_source, workload, status, model, runs.gpu AS run_gpu, n_gpus, nodes,
    parallelism, tensor_parallel, runs.dtype AS run_dtype, runtime, batch_size, prompt_tokens, output_tokens,
    idle_power_w, quality, runs.energy_j AS run_energy_j, runs.duration_s AS run_duration_s,
    CASE WHEN parallelism = 'layers' THEN 1 WHEN n_gpus > 0 THEN n_gpus ELSE tensor_parallel END AS ranks,
    environments.environment_id AS known_environment, environments.gpu AS environment_gpu, device_name,
    environments.meter AS environment_meter, environments.memory_bytes AS machine_bytes,
    CASE WHEN n_gpus > 0 THEN coalesce(power_limit_w, board_power_w) END AS limit_w,
    n_gpus * limit_w AS all_limit_w,
    all_limit_w / nullif(ranks, 0) AS rank_limit_w,
    CASE WHEN n_gpus > 0 THEN device_bytes END AS device_bytes,
    l2_bytes,
    coalesce(sm_clock_mhz / nullif(boost_clock_mhz, 0), 1.0) AS clock_share,
    CASE WHEN n_gpus > 0 THEN greatest(hardware.peak_bytes_per_s, environments.peak_bytes_per_s) END AS bytes_per_s,
    CASE WHEN n_gpus > 0 THEN environments.peak_flop_per_s END AS environment_flop_per_s,
    CASE WHEN n_gpus > 0 THEN link_bytes_per_s END AS link_bytes_per_s,
    hardware.gpu IS NOT NULL AS in_hardware_table,
    {POOL_SQL} AS pool
FROM (SELECT DISTINCT ON (run_id) * FROM runs ORDER BY run_id, file, row) AS runs
LEFT JOIN (SELECT DISTINCT ON (environment_id) * FROM environments ORDER BY environment_id, file, row) AS environments
    USING (environment_id)
LEFT JOIN hardware ON hardware.gpu = runs.gpu
"""  # noqa: S608

# Times that physics asks of a kernel. What lies in the L2 cache already costs no memory traffic, so up to its size is
# taken off every launch; where the size is not known, nothing is said about memory.
TIMED_KERNELS = f"""
SELECT
    kernels.*, facts.* EXCLUDE (run_id),
    kernels.flags IS NOT NULL AS flagged,
    CASE WHEN kernels.dtype = run_dtype THEN environment_flop_per_s END AS stated_flop_per_s,
    flop::DOUBLE / nullif(greatest(peaks.flop_per_s, stated_flop_per_s)
        * clock_share * CASE kind WHEN '{KernelKind.ATTENTION}' THEN {ATTENTION_FACTOR} ELSE 1 END, 0) AS compute_s,
    greatest(0, read_bytes::DOUBLE + write_bytes - launches::DOUBLE * l2_bytes) / nullif(bytes_per_s, 0) AS memory_s,
    link_bytes::DOUBLE / nullif(link_bytes_per_s * {LINK_FACTOR}, 0) AS link_s
FROM kernels
LEFT JOIN facts USING (run_id)
LEFT JOIN peaks ON peaks.gpu = run_gpu AND peaks.dtype = kernels.dtype
"""  # noqa: S608

_RANK_SUMS = f"""
SELECT
    run_id, phase, rank,
    count(*) AS kernels,
    sum(duration_s) AS kernels_s,
    sum(compute_s) AS compute_s,
    sum(memory_s) AS memory_s,
    CASE WHEN count(flop) = count(*) THEN sum(flop::DOUBLE) END AS flop
FROM ({TIMED_KERNELS})
GROUP BY run_id, phase, rank
"""  # noqa: S608

_PHASE_SUMS = """
SELECT
    run_id, phase,
    sum(kernels) AS kernels,
    max(kernels_s) AS longest_rank_s,
    max(greatest(compute_s, memory_s)) AS bound_s,
    CASE WHEN count(flop) = count(*) THEN sum(flop) END AS flop
FROM rank_sums
WHERE phase IS NOT NULL
GROUP BY run_id, phase
"""

_KERNEL_RANKS = "SELECT run_id, count(DISTINCT rank) AS kernel_ranks FROM rank_sums GROUP BY run_id"

_APPORTIONED = f"""
SELECT
    run_id, phase,
    count(*) AS apportioned_kernels,
    CASE WHEN count(energy_j) = count(*) THEN sum(energy_j) END AS apportioned_j
FROM kernel_energies
WHERE method = '{EnergyMethod.APPORTIONED}'
GROUP BY run_id, phase
"""  # noqa: S608

# A window that was read on several devices is one window: energies add up, the longest time counts, and what was
# rejected on one is rejected. Lead and tail, in which the devices idled, are taken off at the idle power of the run.
_WINDOWS = f"""
SELECT
    run_id, part, trial, context_start_tokens,
    any_value(facts.idle_power_w) AS idle_w,
    CASE WHEN count(energy_j) = count(*) THEN sum(energy_j) END AS window_j,
    max(readings.duration_s) AS window_s,
    coalesce(avg(lead_s + tail_s), 0) AS rest_s,
    max(passes) AS n_passes,
    bool_or(rejected IS NOT NULL) AS rejected,
    count(*) AS meters,
    count(DISTINCT device_sha256) AS devices,
    count(device_sha256) AS known_devices,
    CASE WHEN rest_s = 0 THEN window_j ELSE window_j - idle_w * rest_s END / nullif(n_passes, 0) AS pass_j,
    (window_s - rest_s) / nullif(n_passes, 0) AS pass_s
FROM readings
LEFT JOIN facts USING (run_id)
WHERE part IN ('{Part.PREFILL}', '{Part.DECODE}', '{Part.RUN}')
GROUP BY run_id, part, trial, context_start_tokens
"""  # noqa: S608

# Windows at different contexts differ by more than chance, so spread is that around the mean of each context.
_PART_SUMS = """
WITH rated AS (
    SELECT *, pass_j / nullif(avg(pass_j) OVER (PARTITION BY run_id, part, context_start_tokens), 0) - 1 AS deviation
    FROM windows
    WHERE NOT rejected
)
SELECT
    run_id, part,
    count(*) AS used_windows,
    count(DISTINCT context_start_tokens) AS contexts,
    avg(pass_j) AS mean_j, min(pass_j) AS least_j, max(pass_j) AS most_j,
    max(meters) AS meters,
    sqrt(sum(deviation * deviation) / nullif(count(*) - greatest(1, contexts), 0)) AS spread
FROM rated
GROUP BY run_id, part
"""

_RANK_IDLE = f"""
SELECT run_id, rank, sum(idle_w) AS rank_idle_w
FROM (
    SELECT run_id, rank, meter, avg(energy_j / nullif(duration_s, 0)) AS idle_w
    FROM readings
    WHERE part = '{Part.IDLE}'
    GROUP BY run_id, rank, meter
)
GROUP BY run_id, rank
"""  # noqa: S608

_RUN_IDLE = """
SELECT run_id, sum(rank_idle_w) AS read_idle_w, count(*) AS idle_ranks FROM rank_idle GROUP BY run_id
"""

# What a meter gets wrong in all of its readings it gets wrong in the windows of both phases alike: that part adds up,
# and nearly cancels in the difference to the run's own window. The rest varies from window to window.
_RUN_PHASES = f"""
SELECT
    run_id,
    count(*) AS phases,
    bool_or(phase = '{Phase.PREFILL}') AS has_prefill,
    bool_or(phase = '{Phase.DECODE}') AS has_decode,
    CASE WHEN count(energy_j) = count(*) THEN sum(energy_j) END AS phases_j,
    CASE WHEN count(duration_s) = count(*) THEN sum(duration_s) END AS phases_s,
    sum(coalesce(energy_systematic95_j, 0)) AS phases_systematic_j,
    CASE WHEN count(energy_ci95_j) = count(*)
        THEN sum(energy_ci95_j * energy_ci95_j - coalesce(energy_systematic95_j, 0) ** 2) END AS phases_varying_j2
FROM phases
GROUP BY run_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class FactTable:
    """A table that relations are made from."""

    name: str
    query: str


FACT_TABLES = tuple(
    FactTable(name=name, query=query)
    for name, query in (
        ("facts", _FACTS),
        ("rank_sums", _RANK_SUMS),
        ("phase_sums", _PHASE_SUMS),
        ("kernel_ranks", _KERNEL_RANKS),
        ("apportioned", _APPORTIONED),
        ("windows", _WINDOWS),
        ("part_sums", _PART_SUMS),
        ("rank_idle", _RANK_IDLE),
        ("run_idle", _RUN_IDLE),
        ("run_phases", _RUN_PHASES),
    )
)
