"""Rules about sums: kernels and gaps fill their phase, the ledger adds up, phases agree with the run's own window."""

from harness.dataset.validation.findings import Severity
from harness.dataset.validation.relations import KERNEL_ENERGIES, PHASES, RUNS
from harness.dataset.validation.rules import Rule, Test
from harness.records import EnergyMethod

ROUNDING = 1e-6  # relative; sums of 10⁷ doubles are good to 1e-9, and who writes single precision has 1e-7
AGREES = 0.02  # the protocol's own target for half widths
FAR, FAR_INTERVALS = 0.05, 3.0
_LEDGER = ("ledger_idle_j", "ledger_kernels_j", "ledger_gaps_j", "ledger_method", "residual_j")
_DIFFERENCE_J = "abs(energy_j - phases_j)"
_DIFFERENCE_S = "abs(duration_s - phases_s)"

LEDGER_RULES = (
    Rule(
        name="phase-not-filled",
        severity=Severity.ERROR,
        checks="Apportioned kernels of all ranks and the host gaps add up to the energy of their phase.",
        tolerance=f"{ROUNDING:g}, for rounding: this is bookkeeping",
        remedy="Apportion the phase anew; a kernel row may be missing or doubled.",
        tests=(
            Test(
                of=PHASES,
                column="energy_j",
                broken=f"apportioned_kernels = kernels AND abs(apportioned_j + host_gap_energy_j - energy_j) "
                f"> {ROUNDING} * energy_j",
                reason="format('kernels {:.6g} J + gaps {:.6g} J', apportioned_j, host_gap_energy_j)",
            ),
            Test(
                of=PHASES,
                column="host_gap_energy_j",
                broken=f"host_gap_energy_j > energy_j * (1 + {ROUNDING})",
                reason="format('the whole phase has {:.6g} J', energy_j)",
            ),
            Test(
                of=PHASES,
                column="energy_j",
                broken="NOT imported AND apportioned_kernels <> kernels",
                reason="format('{} of {} kernels have an apportioned energy', apportioned_kernels, kernels)",
            ),
        ),
    ),
    Rule(
        name="idle-energy-wrong",
        severity=Severity.ERROR,
        checks="idle_energy_j of a phase and ledger_idle_j of a run are idle power × time.",
        tolerance=f"{ROUNDING:g}, for rounding",
        remedy="Compute it anew.",
        tests=(
            Test(
                of=PHASES,
                column="idle_energy_j",
                broken=f"abs(idle_energy_j - idle_power_w * duration_s) > {ROUNDING} * idle_energy_j",
                reason="format('{:.6g} W × {:.6g} s', idle_power_w, duration_s)",
            ),
            Test(
                of=RUNS,
                column="ledger_idle_j",
                broken=f"abs(ledger_idle_j - idle_power_w * duration_s) > {ROUNDING} * ledger_idle_j",
                reason="format('{:.6g} W × {:.6g} s', idle_power_w, duration_s)",
            ),
        ),
    ),
    Rule(
        name="kernel-energy-not-split",
        severity=Severity.ERROR,
        checks="A kernel's energy is its active energy + idle power of its rank × its time.",
        tolerance=f"{ROUNDING:g} of the larger, for rounding",
        remedy="Compute the active energy anew.",
        softer_for_imports=True,
        tests=(
            Test(
                of=KERNEL_ENERGIES,
                column="active_energy_j",
                broken="abs(energy_j - active_energy_j - rank_idle_w * duration_s) "
                f"> {ROUNDING} * greatest(abs(energy_j), rank_idle_w * duration_s)",
                reason="format('{:.6g} J gross, less {:.6g} W × {:.6g} s', energy_j, rank_idle_w, duration_s)",
            ),
        ),
    ),
    Rule(
        name="ledger-does-not-add-up",
        severity=Severity.ERROR,
        checks="Energy of a run = ledger_idle_j + ledger_kernels_j + ledger_gaps_j + residual_j.",
        tolerance=f"{ROUNDING:g}, for rounding: the residual is what is left",
        remedy="Draw the ledger up anew from the run's own window.",
        tests=(
            Test(
                of=RUNS,
                column="residual_j",
                broken="abs(ledger_idle_j + ledger_kernels_j + ledger_gaps_j + residual_j - energy_j) "
                f"> {ROUNDING} * energy_j",
                reason="format('{:.6g} + {:.6g} + {:.6g} + {:.6g} J, and the run has {:.6g} J', ledger_idle_j, "
                "ledger_kernels_j, ledger_gaps_j, residual_j, energy_j)",
            ),
        ),
    ),
    Rule(
        name="ledger-incomplete",
        severity=Severity.ERROR,
        checks="A ledger has all its entries, by a method that does not use the phases' energy, or none.",
        remedy="Write all of it, or null in all of its columns where no independent method ran.",
        tests=(
            *(
                Test(
                    of=RUNS,
                    column=column,
                    broken=f"{column} IS NULL AND coalesce(ledger_kernels_j, ledger_gaps_j) IS NOT NULL",
                    reason="'it is null, and other entries of the ledger are known'",
                )
                for column in _LEDGER
            ),
            Test(
                of=RUNS,
                column="ledger_method",
                broken=f"ledger_method NOT IN ('{EnergyMethod.REPLAY}', '{EnergyMethod.REGRESSED}')",
                reason="'a ledger by this method would close by construction'",
            ),
        ),
    ),
    Rule(
        name="ledger-open",
        severity=Severity.WARNING,
        checks="What the ledger does not explain lies inside its own interval.",
        tolerance="residual_ci95_j",
        remedy="Look at the kernels that were not replayed, and at clocks and temperature of their windows; keep the "
        "row.",
        tests=(
            Test(
                of=RUNS,
                column="residual_j",
                broken="abs(residual_j) > residual_ci95_j",
                reason="format('{:.4g} J, and its interval is ± {:.3g} J', residual_j, residual_ci95_j)",
            ),
        ),
    ),
    Rule(
        name="phases-differ-from-run",
        severity=Severity.WARNING,
        checks="Phases add up to the run's own window, in energy and time.",
        tolerance=f"the combined 95 % interval, and {AGREES:.0%}; gain and offset are common to both and cancel; "
        "unknown intervals: 10 %",
        remedy="Look at the windows: warm-up, other processes, contexts of the decode. Keep both numbers.",
        tests=(
            Test(
                of=RUNS,
                column="energy_j",
                broken=f"all_phases AND {_DIFFERENCE_J} > coalesce(difference95_j, 0.1 * energy_j) "
                f"+ {AGREES} * energy_j",
                reason="format('phases {:.5g} J, interval of the difference ± {:.3g} J', phases_j, difference95_j)",
            ),
            Test(
                of=RUNS,
                column="duration_s",
                broken=f"all_phases AND {_DIFFERENCE_S} > coalesce(duration_ci95_s, 0) + 0.1 * duration_s",
                reason="format('phases {:.5g} s', phases_s)",
            ),
        ),
    ),
    Rule(
        name="phases-contradict-run",
        severity=Severity.ERROR,
        checks="Phases add up to the run's own window, in energy and time, roughly.",
        tolerance=f"{FAR_INTERVALS:g} × the combined 95 % interval, and {FAR:.0%} (times: 50 %); unknown: 30 %",
        remedy="Check units, and that phases are scaled to one pass; one of the energies may be copied.",
        softer_for_imports=True,
        tests=(
            Test(
                of=RUNS,
                column="energy_j",
                broken=f"all_phases AND {_DIFFERENCE_J} > {FAR_INTERVALS} * coalesce(difference95_j, 0.1 * energy_j) "
                f"+ {FAR} * energy_j",
                reason="format('phases {:.5g} J, interval of the difference ± {:.3g} J', phases_j, difference95_j)",
            ),
            Test(
                of=RUNS,
                column="duration_s",
                broken=f"all_phases AND {_DIFFERENCE_S} > {FAR_INTERVALS} * coalesce(duration_ci95_s, 0) "
                "+ 0.5 * duration_s",
                reason="format('phases {:.5g} s', phases_s)",
            ),
        ),
    ),
)
