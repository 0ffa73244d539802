"""The energy ledger: it closes where everything is known, and shows what is not."""

import math
import random
from dataclasses import dataclass, replace

import pytest

from harness.kernels import Phase
from harness.measuring.kernel_energy import ISOLATION95, NULL_IN_GRAPH, KernelEnergy, RankKernels, null_loop, replayed
from harness.measuring.ledger import Ledger, RankFindings, ledger_of
from harness.measuring.loops import RankCounter
from harness.measuring.precision import Precision
from harness.measuring.results import SessionResult, TakenWindow
from harness.measuring.statistics import Mean, mean_from
from harness.records import EnergyMethod, Part
from tests.harness.measuring.made import EXACT, IDLE_W, count, loops, session, split, taken, traced

US = 1e-6
GEMM_W, NORM_W, GAP_W = 320.0, 150.0, 90.0  # gross
GEMMS, NORMS = 400, 800  # launches of 10 and 3 µs in the phase
GAP_US = 5.0  # after each launch of the run, and of an eager loop
KERNELS_S = (GEMMS * 10 + NORMS * 3) * US
GAPS_S = (GEMMS + NORMS) * GAP_US * US
RUN_S = KERNELS_S + GAPS_S
KERNELS_J = (GEMMS * 10 * (GEMM_W - IDLE_W) + NORMS * 3 * (NORM_W - IDLE_W)) * US  # above idle
GAPS_J = GAPS_S * (GAP_W - IDLE_W)
RUN_J = IDLE_W * RUN_S + KERNELS_J + GAPS_J
PHASE = split(traced("gemm", GEMMS * 10 * US, launches=GEMMS), traced("norm", NORMS * 3 * US, launches=NORMS))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is different from a run in which everything is known and nothing varies."""

    spread: float = 0.0  # of windows, relative
    gap_spread: float = 0.0  # of the windows of empty kernels alone
    hidden: float = 0.0  # of the run's energy, used by nobody knows what
    alone: float = 1.0  # energy of a kernel alone, relative to that in the run
    gain: float = 1.0  # of every meter
    eager: bool = True  # loops have the run's gaps
    ranks: int = 1
    sharing: bool = False  # one counter for all ranks
    seed: int = 1

    @property
    def devices(self) -> int:
        """Counters."""
        return 1 if self.sharing else self.ranks

    def windows(self) -> list[TakenWindow]:
        """Of the run, of both kernels and of empty ones."""
        rng = random.Random(self.seed)
        many = self.ranks / self.devices

        def looped(part: Part, kernels: object, pass_j: float, pass_s: float, spread: float) -> list[TakenWindow]:
            each_j = [self.gain * pass_j * many] * self.devices
            return loops(part, kernels, each_j, pass_s, spread=spread, rng=rng)  # type: ignore[arg-type]

        gap_us = GAP_US if self.eager else 0.0
        gap_j = gap_us * GAP_W
        return [
            *looped(Part.RUN, (), RUN_J * (1 + self.hidden), RUN_S, self.spread),
            *looped(Part.REPLAY, null_loop(), (2 * 120 + 8 * GAP_W) * US, 10 * US, self.gap_spread),
            *looped(Part.REPLAY, null_loop(NULL_IN_GRAPH), 2 * 120 * US, 2 * US, 0.0),
            *looped(
                Part.REPLAY, [count("gemm")], (self.alone * 10 * GEMM_W + gap_j) * US, (10 + gap_us) * US, self.spread
            ),
            *looped(
                Part.REPLAY, [count("norm")], (self.alone * 3 * NORM_W + gap_j) * US, (3 + gap_us) * US, self.spread
            ),
        ]

    def ledger(self, precision: Precision = EXACT) -> Ledger:
        """Drawn up by replay."""
        idle_w = (IDLE_W * self.gain * self.ranks / self.devices,) * self.devices
        result = session(self.windows(), precision=precision, idle_w=idle_w)
        ledger = ledger_of(result, findings_of(result, self.ranks_kernels()), EnergyMethod.REPLAY)
        assert ledger is not None
        return ledger

    def ranks_kernels(self) -> list[RankKernels]:
        """Every rank has a counter, or an even part of one."""
        return [
            RankKernels(
                rank=rank,
                counter=RankCounter(devices=(0 if self.sharing else rank,), sharing=self.ranks if self.sharing else 1),
                phases={Phase.PREFILL: PHASE},
            )
            for rank in range(self.ranks)
        ]


def findings_of(result: SessionResult, ranks: list[RankKernels]) -> list[RankFindings]:
    findings = []
    for rank, found in zip(ranks, replayed(result, ranks), strict=True):
        assert found.gap_w is not None
        findings.append(RankFindings(rank=rank, kernels=found.kernels, gap_active_w=found.gap_w))
    return findings


def half(mean: Mean) -> float:
    assert mean.ci95 is not None
    return mean.ci95


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_of_which_everything_is_known_is_explained(eager: bool, ranks: int) -> None:
    ledger = Case(eager=eager, ranks=ranks).ledger()
    assert ledger.energy_j.value == pytest.approx(ranks * RUN_J)
    assert ledger.idle_j == pytest.approx(ranks * IDLE_W * RUN_S)
    assert ledger.kernels_j.value == pytest.approx(ranks * KERNELS_J)
    assert ledger.gaps_j.value == pytest.approx(ranks * GAPS_J)
    assert ledger.residual_j.value == pytest.approx(0, abs=1e-9 * RUN_J)
    assert ledger.closes
    assert ledger.method is EnergyMethod.REPLAY


def test_the_terms_add_up_to_the_run_whatever_they_are() -> None:
    ledger = Case(spread=0.05, hidden=0.1, ranks=2).ledger()
    terms_j = ledger.idle_j + ledger.kernels_j.value + ledger.gaps_j.value + ledger.residual_j.value
    assert terms_j == pytest.approx(ledger.energy_j.value)
    assert ledger.residual_j.value != 0


def test_a_hidden_load_shows_in_the_residual_and_the_ledger_does_not_close() -> None:
    ledger = Case(hidden=0.04).ledger()
    assert ledger.residual_j.value == pytest.approx(0.04 * RUN_J)
    assert not ledger.closes


def test_a_small_hidden_load_drowns_in_what_windows_differ_by() -> None:
    assert Case(hidden=0.004).ledger().closes
    assert not Case(hidden=0.03).ledger().closes
    assert Case(hidden=0.03, spread=0.03).ledger().closes


def test_a_kernel_that_differs_alone_by_what_is_allowed_does_not_open_the_ledger() -> None:
    explained_j = KERNELS_J + GAPS_J
    ledger = Case(alone=1.004).ledger()
    assert half(ledger.residual_j) == pytest.approx(
        ISOLATION95 * (explained_j + 0.004 * (RUN_J - GAPS_S * GAP_W)), rel=1e-3
    )
    assert ledger.closes
    assert not Case(alone=1.05).ledger().closes


def test_a_gain_is_on_both_sides_and_cancels() -> None:
    known, wrong = Case().ledger(), Case(gain=1.05).ledger(Precision(gain95=0.05, tail95=0.0))
    assert wrong.energy_j.value == pytest.approx(1.05 * RUN_J)
    assert wrong.energy_j.systematic95 == pytest.approx(0.05 * wrong.energy_j.value)
    assert wrong.residual_j.value == pytest.approx(0, abs=1e-9 * RUN_J)
    assert half(wrong.residual_j) == pytest.approx(1.05 * half(known.residual_j)), "not wider by 5 % of the run"


def test_of_a_residual_that_is_there_a_gain_leaves_its_share() -> None:
    ledger = Case(hidden=0.2).ledger(Precision(gain95=0.05, tail95=0.0))
    assert ledger.residual_j.systematic95 == pytest.approx(0.05 * 0.2 * RUN_J)


def with_tail(taken: TakenWindow) -> TakenWindow:
    """The same window with a tail of 2 % of its work, idle."""
    work_s = taken.window.work_s
    spans = tuple(
        replace(span, tail_s=0.02 * work_s, energy_j=span.energy_j + 0.02 * work_s * IDLE_W)
        for span in taken.window.spans
    )
    return replace(taken, window=replace(taken.window, spans=spans))


def test_power_that_lingers_is_on_both_sides_too() -> None:
    windows = [with_tail(each) for each in Case(eager=False).windows()]
    result = session(windows, precision=Precision(tail95=0.25))
    ledger = ledger_of(result, findings_of(result, Case().ranks_kernels()), EnergyMethod.REPLAY)
    assert ledger is not None
    assert ledger.energy_j.common95 == pytest.approx(0.25 * 0.02 * (KERNELS_J + GAPS_J), rel=0.03)
    assert ledger.residual_j.common95 < 0.05 * ledger.energy_j.common95


def test_an_error_of_the_gap_power_is_in_kernels_and_gaps_and_not_in_the_residual() -> None:
    """The loops have the run's gaps: what is taken off the kernels too much is given to the gaps too much."""
    ledger = Case(gap_spread=0.05).ledger()
    wrong_j = abs(ledger.gaps_j.value - GAPS_J)
    assert wrong_j > 0.005 * GAPS_J
    assert half(ledger.gaps_j) > wrong_j
    assert half(ledger.kernels_j) == pytest.approx(half(ledger.gaps_j), rel=1e-6)
    assert ledger.residual_j.value == pytest.approx(0, abs=1e-9 * RUN_J)
    assert half(ledger.residual_j) == pytest.approx(ISOLATION95 * (KERNELS_J + GAPS_J))


def test_without_gaps_in_the_loops_it_is_in_the_residual() -> None:
    ledger = Case(gap_spread=0.05, eager=False).ledger()
    assert ledger.residual_j.value == pytest.approx(GAPS_J - ledger.gaps_j.value)
    assert half(ledger.residual_j) > half(ledger.gaps_j)


@pytest.mark.parametrize("sharing", [True, False])
def test_ranks_are_read_in_the_same_windows_and_know_no_more_than_one(sharing: bool) -> None:
    """Here all devices vary alike from window to window, whether they share a counter or have their own."""
    one, four = Case(spread=0.02).ledger(), Case(spread=0.02, ranks=4, sharing=sharing).ledger()
    for term in ("energy_j", "kernels_j", "gaps_j", "residual_j"):
        assert half(getattr(four, term)) == pytest.approx(4 * half(getattr(one, term)))


@pytest.mark.parametrize("sharing", [True, False])
def test_meters_of_one_kind_may_have_one_gain(sharing: bool) -> None:
    ledger = Case(ranks=4, sharing=sharing, hidden=0.1).ledger(Precision(gain95=0.05, tail95=0.0))
    assert ledger.residual_j.systematic95 == pytest.approx(0.05 * 0.4 * RUN_J)
    assert ledger.energy_j.systematic95 == pytest.approx(0.05 * 4.4 * RUN_J)


def test_kernels_differ_alone_on_all_ranks_alike() -> None:
    assert half(Case(ranks=4).ledger().residual_j) == pytest.approx(4 * half(Case().ledger().residual_j))


def test_a_missing_kernel_phase_or_run_leaves_no_ledger() -> None:
    case = Case()
    result = session(case.windows())
    (finding,) = findings_of(result, case.ranks_kernels())

    def drawn(result: SessionResult, finding: RankFindings) -> Ledger | None:
        return ledger_of(result, [finding], EnergyMethod.REPLAY)

    assert drawn(result, finding) is not None
    assert drawn(result, replace(finding, kernels=finding.kernels[:1])) is None
    with_decode = session(case.windows(), parts=(Part.PREFILL, Part.DECODE, Part.RUN))
    assert drawn(with_decode, finding) is None, "the decode's kernels are not known"
    lost = [each for each in case.windows() if each.part is not Part.RUN]
    assert drawn(session([*lost, taken(Part.RUN, 1.0, rejected="slow")]), finding) is None
    assert ledger_of(result, [], EnergyMethod.REPLAY) is None


def test_a_kernel_without_an_interval_leaves_the_residual_without_one_and_the_ledger_open() -> None:
    case = Case()
    result = session(case.windows())
    (finding,) = findings_of(result, case.ranks_kernels())
    once = replace(finding.kernels[0], alone_j=mean_from(finding.kernels[0].alone_j.value, repeat95=None, samples=1))
    ledger = ledger_of(result, [replace(finding, kernels=(once, *finding.kernels[1:]))], EnergyMethod.REPLAY)
    assert ledger is not None
    assert ledger.residual_j.ci95 is None
    assert not ledger.closes


def test_kernels_that_ran_at_another_clock_alone_widen_the_residual() -> None:
    case = Case()
    result = session(case.windows())
    (finding,) = findings_of(result, case.ranks_kernels())
    kernels = tuple(replace(kernel, clock95_j=0.1) for kernel in finding.kernels)
    plain, wider = (
        ledger_of(result, [replace(finding, kernels=each)], EnergyMethod.REPLAY) for each in (finding.kernels, kernels)
    )
    assert plain is not None
    assert wider is not None
    assert half(wider.residual_j) == pytest.approx(half(plain.residual_j) + 0.2)


def test_time_waited_counts_at_the_power_of_waiting() -> None:
    wait_w = mean_from(80.0, repeat95=5.0, samples=5)
    kernel = KernelEnergy(
        phase=Phase.PREFILL,
        rank=0,
        kernel_ids=("gemm", "norm"),
        method=EnergyMethod.REPLAY,
        active_j=mean_from(1.0, repeat95=0.0, samples=5),
        alone_j=mean_from(1.0, repeat95=0.0, samples=5),
        duration_s=1.0,
        wait_s=0.004,
    )
    finding = RankFindings(
        rank=Case().ranks_kernels()[0],
        kernels=(kernel,),
        gap_active_w=mean_from(0.0, repeat95=0.0, samples=5),
        wait_active_w=wait_w,
    )
    ledger = ledger_of(session(Case().windows()), [finding], EnergyMethod.REGRESSED)
    assert ledger is not None
    assert ledger.kernels_j.value == pytest.approx(1 + 80 * 0.004)
    assert half(ledger.kernels_j) == pytest.approx(5 * 0.004)


def test_the_residual_lies_inside_its_interval_in_nineteen_runs_of_twenty() -> None:
    """Windows vary by 1 %, and kernels alone are off by as much as is allowed for in 95 % of cases."""
    rng = random.Random(9)
    closed = 0
    for seed in range(300):
        eager = bool(seed % 2)
        case = Case(
            spread=0.01,
            gap_spread=0.02,
            alone=rng.gauss(1, ISOLATION95 / 2),
            ranks=1 + seed % 3,
            seed=seed,
            eager=eager,
        )
        ledger = case.ledger()
        closed += ledger.closes
        assert abs(ledger.residual_j.value) < 0.04 * ledger.energy_j.value
        assert half(ledger.residual_j) < 0.05 * ledger.energy_j.value
    assert 0.93 <= closed / 300 <= 0.995


def test_the_interval_is_that_of_independent_terms() -> None:
    ledger = Case(spread=0.02, eager=False).ledger()
    expected = math.hypot(
        half(ledger.energy_j), half(ledger.kernels_j), ISOLATION95 * (ledger.kernels_j.value + ledger.gaps_j.value)
    )
    assert half(ledger.residual_j) == pytest.approx(expected)
