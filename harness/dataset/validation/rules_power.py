"""Rules about power: energy over time is below what the device may draw, and above what it draws at rest."""

from harness.dataset.validation.findings import Severity
from harness.dataset.validation.relations import KERNEL_ENERGIES, PHASES, POWER_TRACES, READINGS, RUNS
from harness.dataset.validation.rules import Relation, Rule, Test
from harness.records import Part, Workload

ABOVE_LIMIT = 1.1
TRANSIENT = 1.5  # of single samples and kernels
IMPOSSIBLE = 3.0  # of a kernel by itself
LEAST_SHARE = 0.02
CPU_LEAST_W, CPU_MOST_W = 0.5, 3000.0
BELOW_IDLE, FAR_BELOW_IDLE = 0.02, 0.2
IDLE_AGREES = 1e-3

_UNITS = "Are these joules and seconds, not mJ, Wh, ms or minutes?"
_POWER = "(energy_j / nullif(duration_s, 0))"
_READ_LIMIT = "CASE WHEN imported THEN all_limit_w ELSE limit_w END"
_ONE_BATCH = f"workload = '{Workload.BATCH}'"  # a server's energy is of one of many sequences at once


def _above(of: Relation, column: str, power: str, limit: str, factor: float, where: str = "true") -> Test:
    return Test(
        of=of,
        column=column,
        broken=f"{where} AND {power} > {factor} * ({limit})",
        reason=f"concat(format('{{:.4g}} W, and the limit is {{:.4g}} W', {power}, {limit}), "
        f"CASE WHEN {power} > 20 * ({limit}) THEN '. {_UNITS}' ELSE '' END)",
    )


def _below(of: Relation, limit: str, where: str = "true") -> Test:
    return Test(
        of=of,
        column="energy_j",
        broken=f"{where} AND {_POWER} < {LEAST_SHARE} * ({limit})",
        reason=f"format('{{:.3g}} W, and the limit is {{:.4g}} W. {_UNITS}', {_POWER}, {limit})",
    )


def _cpu(of: Relation, where: str = "true") -> Test:
    return Test(
        of=of,
        column="energy_j",
        broken=f"{where} AND n_gpus = 0 AND {_POWER} / nodes NOT BETWEEN {CPU_LEAST_W} AND {CPU_MOST_W}",
        reason=f"format('{{:.4g}} W over {{}} machine(s). {_UNITS}', {_POWER}, nodes)",
    )


def _idle(of: Relation, share: float, where: str = "true") -> Test:
    return Test(
        of=of,
        column="energy_j",
        broken=f"{where} AND energy_j + coalesce(energy_ci95_j, 0) < {1 - share} * idle_power_w * duration_s",
        reason="format('{:.4g} J, and at rest the devices take {:.4g} J in {:.4g} s', energy_j, "
        "idle_power_w * duration_s, duration_s)",
    )


POWER_RULES = (
    Rule(
        name="power-above-limit",
        severity=Severity.ERROR,
        checks="Energy / time of a run, a phase or a window is at most the power limit of the GPUs in use, and so is "
        "every sample of power.",
        tolerance=f"{ABOVE_LIMIT} × the enforced limit (environments), else the board's (hardware table): sensors "
        f"err by 5 %; {TRANSIENT} × for single samples, since boards overshoot for milliseconds",
        remedy="Check units, n_gpus and power_limit_w, and that no other device's energy is in it.",
        softer_for_imports=True,
        tests=(
            _above(RUNS, "energy_j", _POWER, "all_limit_w", ABOVE_LIMIT, _ONE_BATCH),
            _above(RUNS, "mean_power_w", "mean_power_w", "all_limit_w", ABOVE_LIMIT),
            _above(PHASES, "energy_j", _POWER, "all_limit_w", ABOVE_LIMIT),
            _above(READINGS, "energy_j", _POWER, _READ_LIMIT, ABOVE_LIMIT),
            _above(POWER_TRACES, "power_w", "power_w", "limit_w", TRANSIENT),
        ),
    ),
    Rule(
        name="power-implausibly-low",
        severity=Severity.ERROR,
        checks="Energy / time of a GPU is more than any of them draws at rest.",
        tolerance=f"{LEAST_SHARE} × the power limit; with a context resident GPUs rest at about 0.17 ×",
        remedy="Check units and n_gpus.",
        softer_for_imports=True,
        tests=(
            _below(RUNS, "all_limit_w", _ONE_BATCH),
            _below(PHASES, "all_limit_w"),
            _below(READINGS, _READ_LIMIT),
        ),
    ),
    Rule(
        name="cpu-power-implausible",
        severity=Severity.ERROR,
        checks="Energy / time of a run on the CPU is what a machine can draw.",
        tolerance=f"{CPU_LEAST_W:g} to {CPU_MOST_W:g} W for each machine, from a small board to eight sockets",
        remedy="Check units; a GPU's run needs n_gpus.",
        softer_for_imports=True,
        tests=(_cpu(RUNS, _ONE_BATCH), _cpu(PHASES)),
    ),
    Rule(
        name="below-idle",
        severity=Severity.WARNING,
        checks="A run and its phases use at least idle power × time.",
        tolerance=f"their 95 % interval, and {BELOW_IDLE:.0%} for an idle power that drifts",
        remedy="Measure the idle floor again, with nothing else on the devices.",
        tests=(_idle(RUNS, BELOW_IDLE, _ONE_BATCH), _idle(PHASES, BELOW_IDLE)),
    ),
    Rule(
        name="far-below-idle",
        severity=Severity.ERROR,
        checks="A run and its phases use at least idle power × time, roughly.",
        tolerance=f"their 95 % interval, and {FAR_BELOW_IDLE:.0%}: no drift of an idle power explains more",
        remedy="Check units, and that energy and time are of the same passes and devices.",
        softer_for_imports=True,
        tests=(_idle(RUNS, FAR_BELOW_IDLE, _ONE_BATCH), _idle(PHASES, FAR_BELOW_IDLE)),
    ),
    Rule(
        name="mean-power-contradicts-energy",
        severity=Severity.WARNING,
        checks="mean_power_w of a batch is its energy / time.",
        tolerance="10 %: the two may be read by different means",
        remedy="Check which of the three the source measured, and leave the others null.",
        tests=(
            Test(
                of=RUNS,
                column="mean_power_w",
                broken=f"{_ONE_BATCH} AND abs(mean_power_w / {_POWER} - 1) > 0.1",
                reason=f"format('energy / time is {{:.4g}} W', {_POWER})",
            ),
        ),
    ),
    Rule(
        name="idle-power-contradicts-readings",
        severity=Severity.ERROR,
        checks="idle_power_w is the mean power of the idle windows, added up over the meters.",
        tolerance=f"{IDLE_AGREES:.1%}, for rounding",
        remedy="Compute it anew from readings of part idle.",
        softer_for_imports=True,
        tests=(
            Test(
                of=RUNS,
                column="idle_power_w",
                broken=f"abs(idle_power_w / read_idle_w - 1) > {IDLE_AGREES}",
                reason="format('the idle windows say {:.4g} W', read_idle_w)",
            ),
        ),
    ),
    Rule(
        name="kernel-power-above-limit",
        severity=Severity.WARNING,
        checks="Energy / time of a kernel by an independent method is at most the power limit of its rank's GPUs.",
        tolerance=f"{TRANSIENT} × the limit, which is kept on average over many kernels, and its 95 % interval",
        remedy="Look at how long its loops were: power of short ones is that of what ran before.",
        tests=(
            _above(
                KERNEL_ENERGIES,
                "energy_j",
                "((energy_j - coalesce(energy_ci95_j, 0)) / nullif(duration_s, 0))",
                "rank_limit_w",
                TRANSIENT,
                "independent AND NOT flagged",
            ),
        ),
    ),
    Rule(
        name="kernel-power-impossible",
        severity=Severity.ERROR,
        checks="Energy / time of a kernel by an independent method is what a GPU can draw.",
        tolerance=f"{IMPOSSIBLE:g} × the limit, and its 95 % interval; apportioned shares are bookkeeping and may be "
        "any part of their phase",
        remedy="Check units, and that energy and time count the same launches.",
        softer_for_imports=True,
        tests=(
            _above(
                KERNEL_ENERGIES,
                "energy_j",
                "((energy_j - coalesce(energy_ci95_j, 0)) / nullif(duration_s, 0))",
                "rank_limit_w",
                IMPOSSIBLE,
                "independent",
            ),
        ),
    ),
    Rule(
        name="kernel-energy-not-positive",
        severity=Severity.ERROR,
        checks="A kernel's gross energy is above 0.",
        tolerance="its 95 % interval: replay of a kernel that is nearly nothing may fall below",
        remedy="Leave it null where the method cannot tell it.",
        softer_for_imports=True,
        tests=(
            Test(
                of=KERNEL_ENERGIES,
                column="energy_j",
                broken="energy_j + coalesce(energy_ci95_j, 0) <= 0 AND duration_s > 0",
                reason="format('{:.3g} J in {:.3g} s', energy_j, duration_s)",
            ),
        ),
    ),
    Rule(
        name="counter-contradicts-energy",
        severity=Severity.ERROR,
        checks="The energy of a window is what its counter moved by.",
        tolerance="1e-6 of the counter, for rounding",
        remedy="Correct whichever was copied from elsewhere; a counter that started again spoils the window.",
        tests=(
            Test(
                of=READINGS,
                column="energy_j",
                broken="abs(counter_end_j - counter_start_j - energy_j) "
                "> 1e-6 * greatest(abs(counter_end_j), abs(counter_start_j), energy_j)",
                reason="format('the counter moved by {:.6g} J', counter_end_j - counter_start_j)",
            ),
            Test(
                of=READINGS,
                column="passes",
                broken=f"passes = 0 AND part <> '{Part.IDLE}'",
                reason="format('a window of {} without a pass', part)",
            ),
        ),
    ),
)
