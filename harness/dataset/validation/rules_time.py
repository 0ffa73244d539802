"""Rules about time, ranks and memory: nothing is faster than physics, and every GPU in use is in the rows."""

from harness.dataset.schema import Table
from harness.dataset.validation.facts import ATTENTION_FACTOR, LINK_FACTOR
from harness.dataset.validation.findings import Severity
from harness.dataset.validation.relations import KERNEL_ENERGIES, KERNELS, PHASES, RANK_TIMES, READINGS, RUNS
from harness.dataset.validation.rules import Relation, Rule, Test
from harness.records import Status

FASTER = 1.1
LONGER = 1.01
_ROOFS = f"{FASTER} ×: boards boost above the clock that peaks are stated for. Peaks: the hardware table, or the \
environment's where they are higher, at the locked clock. Attention may take 1/{ATTENTION_FACTOR:g} of its FLOP's time \
(a causal kernel skips half of the square), a collective 1/{LINK_FACTOR:g} of its bytes' (a switch may add up); bytes \
that fit in the L2 cache take none. CPUs are not held to it: their peaks are probed, not known"

_DEVICES = Relation(
    name="readings with a device",
    table=Table.READINGS,
    query="""
    SELECT *, row_number() OVER (PARTITION BY run_id, part, trial, device_sha256 ORDER BY file, row) > 1 AS again
    FROM readings
    WHERE device_sha256 IS NOT NULL
    """,
)


def _bound(roof: str, what: str) -> Test:
    return Test(
        of=KERNELS,
        column="duration_s",
        broken=f"duration_s * {FASTER} < {roof}",
        reason=f"format('{what} {{:.4g}} s at least, and it took {{:.4g}} s', {roof}, duration_s)",
    )


TIME_RULES = (
    Rule(
        name="faster-than-roofline",
        severity=Severity.ERROR,
        checks="A kernel, and all kernels of a phase on a rank together, take at least the time that their FLOP, bytes "
        "and link bytes take at the device's peaks.",
        tolerance=_ROOFS,
        remedy="Check units, launches and dtype; a phase may have been timed without waiting for the device.",
        softer_for_imports=True,
        tests=(
            _bound("compute_s", "its FLOP take"),
            _bound("memory_s", "its bytes take"),
            _bound("link_s", "its link bytes take"),
            Test(
                of=PHASES,
                column="duration_s",
                broken=f"duration_s * {FASTER} < bound_s",
                reason="format('its kernels take {:.4g} s at least, and it took {:.4g} s', bound_s, duration_s)",
            ),
        ),
    ),
    Rule(
        name="kernels-longer-than-phase",
        severity=Severity.ERROR,
        checks="The kernels of a rank take no longer than their phase.",
        tolerance=f"{LONGER} ×, for rounding",
        remedy="Scale traced times to an untraced pass; check launches and steps.",
        softer_for_imports=True,
        tests=(
            Test(
                of=PHASES,
                column="duration_s",
                broken=f"longest_rank_s > {LONGER} * duration_s",
                reason="format('the kernels of one rank take {:.4g} s', longest_rank_s)",
            ),
            Test(
                of=KERNELS,
                column="wait_s",
                broken=f"wait_s > {LONGER} * duration_s",
                reason="format('the whole kernel takes {:.4g} s', duration_s)",
            ),
            Test(
                of=RANK_TIMES,
                column="duration_s",
                broken=f"duration_s > {LONGER} * window_s",
                reason="format('the window it worked in lasted {:.4g} s', window_s)",
            ),
            Test(
                of=READINGS,
                column="duration_s",
                broken="lead_s + tail_s > duration_s",
                reason="format('it idled for {:.4g} s of that', lead_s + tail_s)",
            ),
        ),
    ),
    Rule(
        name="ranks-differ-from-gpus",
        severity=Severity.ERROR,
        checks="A run has as many ranks as GPUs (on a CPU, as its degree), each with kernels where any has, "
        "and as many meters; a rank is one of them.",
        remedy="Add the rows of the ranks that are missing; energies are sums over all GPUs in use.",
        tests=(
            Test(
                of=RUNS,
                column="n_gpus",
                broken=f"NOT imported AND status = '{Status.OK}' AND kernel_ranks <> ranks",
                reason="format('kernels of {} rank(s), and the run has {}', kernel_ranks, ranks)",
            ),
            Test(
                of=RUNS,
                column="n_gpus",
                broken=f"NOT imported AND status = '{Status.OK}' AND n_gpus > 0 AND meters <> n_gpus",
                reason="format('its own window was read by {} meter(s)', meters)",
            ),
            Test(
                of=RUNS,
                column="tensor_parallel",
                broken="NOT imported AND n_gpus > 0 AND tensor_parallel NOT IN (1, n_gpus)",
                reason="format('{} GPUs', n_gpus)",
            ),
            *(
                Test(
                    of=relation,
                    column="rank",
                    broken="NOT imported AND rank >= greatest(ranks, n_gpus)",
                    reason="format('the run has {} rank(s), counted from 0', greatest(ranks, n_gpus))",
                )
                for relation in (KERNELS, KERNEL_ENERGIES, READINGS, RANK_TIMES)
            ),
        ),
    ),
    Rule(
        name="device-read-twice",
        severity=Severity.ERROR,
        checks="The meters of a window are of different devices.",
        remedy="Read each device once; an energy that is counted twice is not twice the energy.",
        tests=(
            Test(
                of=_DEVICES,
                column="device_sha256",
                broken="again",
                reason="format('another meter of window {} of {} is of the same device', trial, part)",
            ),
        ),
    ),
    Rule(
        name="memory-above-device",
        severity=Severity.ERROR,
        checks="Peak memory of a run fits into the device (GPU) or the machine (CPU).",
        tolerance="2 %: what drivers report as total differs",
        remedy="Check units (bytes) and the device's name.",
        tests=(
            Test(
                of=RUNS,
                column="peak_memory_bytes",
                broken="peak_memory_bytes > 1.02 * CASE WHEN n_gpus > 0 THEN device_bytes ELSE machine_bytes END",
                reason="format('the device has {:.4g} bytes', "
                "CASE WHEN n_gpus > 0 THEN device_bytes ELSE machine_bytes END::DOUBLE)",
            ),
        ),
    ),
    Rule(
        name="gpu-not-in-table",
        severity=Severity.NOTE,
        checks="The GPU is in the hardware table, so that rules about its limits can be asked.",
        remedy="Add it to harness/data/hardware.toml with the document its figures come from.",
        tests=(
            Test(
                of=RUNS,
                column="gpu",
                broken="n_gpus > 0 AND NOT in_hardware_table",
                reason="'nothing is known of its peaks'",
            ),
        ),
    ),
)
