"""From the windows of a session to rows of kernel energies and a ledger."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.campaign.kernel_findings import KernelFindings, kernel_findings, rank_kernels
from harness.campaign.kernel_rows import Counted, PhaseSplit
from harness.campaign.works import kernel_works
from harness.kernels import KernelCount, KernelKind, Phase
from harness.measuring.attribution import Ceilings
from harness.measuring.results import TakenWindow
from harness.records import EnergyMethod, KernelEnergyRow, Part, Provenance
from harness.tracing.timeline import TracedKernel
from tests.harness.measuring.made import IDLE_W, loops, session, split, traced

LAUNCH_S = {"gemm": 1e-3, "attention": 2.5e-4, "norm": 2e-6, "copy": 3e-6, "reduce": 3e-5}
POWERS_W = {"gemm": 320.0, "attention": 210.0, "norm": 120.0, "copy": 95.0, "reduce": 140.0}  # above idle
LAUNCHES = {"gemm": 80, "attention": 40, "norm": 160, "copy": 40, "reduce": 80}
GAP_S, GAP_W = 0.01, 30.0
WAIT_S, WAIT_W = 80 * 2e-5, 75.0
UNKNOWN = Ceilings(flop_per_s=None, bytes_per_s=None)  # every kernel is as large as its time
GEMM, ATTENTION, NORM, COPY = (
    traced(name, LAUNCHES[name] * LAUNCH_S[name], launches=LAUNCHES[name])
    for name in ("gemm", "attention", "norm", "copy")
)
REDUCE = replace(
    traced("reduce", LAUNCHES["reduce"] * LAUNCH_S["reduce"] + WAIT_S, launches=80, kind=KernelKind.ALL_REDUCE),
    wait_s=WAIT_S,
)


def counted(*ranks: int) -> Counted:
    return Counted(
        names=tuple(f"meter:{device}" for device in range(len(ranks))),
        device_sha256=(None,) * len(ranks),
        ranks=ranks,
        method="replay",
        provenance=Provenance.SIMULATED,
    )


def pass_of(kernels: Sequence[KernelCount]) -> tuple[float, float]:
    """Gross energy and time of a pass of a loop without gaps; empty kernels draw what gaps do."""
    if kernels[0].kernel_id.startswith("null"):
        return 1e-5 * (GAP_W + IDLE_W), 1e-5
    pass_s = sum(each.launches * LAUNCH_S[each.kernel_id] for each in kernels)
    active_j = sum(each.launches * LAUNCH_S[each.kernel_id] * POWERS_W[each.kernel_id] for each in kernels)
    return active_j + IDLE_W * pass_s, pass_s


def windows(
    kernels: Sequence[TracedKernel], *, methods: Sequence[EnergyMethod], devices: int = 1, hidden_w: float = 0.0
) -> list[TakenWindow]:
    """What a session would take, of the run and of every loop that the methods ask for."""
    kernels_s = sum(each.traced_duration_s for each in kernels)
    active_j = sum(LAUNCHES[each.kernel_id] * LAUNCH_S[each.kernel_id] * POWERS_W[each.kernel_id] for each in kernels)
    active_j += sum((each.wait_s or 0.0) * WAIT_W for each in kernels)
    run_s = kernels_s + GAP_S
    run_j = active_j + GAP_S * GAP_W + run_s * (IDLE_W + hidden_w)
    found = loops(Part.RUN, (), [run_j] * devices, run_s)
    for spec in kernel_works({Phase.PREFILL: kernels}, methods, UNKNOWN, random.Random(1)):
        pass_j, pass_s = pass_of(spec.kernels)
        if spec.part is Part.WAITING:
            pass_j, pass_s = pass_j + spec.late_s * (WAIT_W + IDLE_W), pass_s + spec.late_s
        trials = 1 if spec.part is Part.MIXTURE else 5
        found += loops(spec.part, spec.kernels, [pass_j] * devices, pass_s, trials=trials)
    return found


def findings(
    taken: Sequence[TakenWindow], *kernels: TracedKernel, ranks: int = 1, meters: Counted | None = None
) -> KernelFindings:
    splits = {Phase.PREFILL: PhaseSplit(phase=Phase.PREFILL, ranks=(split(*kernels),) * ranks)}
    own = counted(*range(ranks)) if meters is None else meters
    idle_w = (IDLE_W,) * len(own.ranks)
    return kernel_findings("r", session(taken, idle_w=idle_w), own, splits, how="eager")


def rows_of(found: KernelFindings, method: EnergyMethod, rank: int = 0) -> dict[str, KernelEnergyRow]:
    return {row.kernel_id: row for row in found.rows if row.method is method and row.rank == rank}


BOTH = (EnergyMethod.REPLAY, EnergyMethod.REGRESSED)


def active_j(name: str) -> float:
    return LAUNCHES[name] * LAUNCH_S[name] * POWERS_W[name]


def test_both_methods_give_rows_that_agree_and_a_ledger_that_closes() -> None:
    found = findings(windows([GEMM, ATTENTION], methods=BOTH), GEMM, ATTENTION)

    for method, how in ((EnergyMethod.REPLAY, "eager"), (EnergyMethod.REGRESSED, "9 mixtures")):
        rows = rows_of(found, method)
        assert rows.keys() == {"gemm", "attention"}
        for name, row in rows.items():
            assert row.active_energy_j == pytest.approx(active_j(name))
            assert row.energy_j == pytest.approx(active_j(name) + IDLE_W * LAUNCHES[name] * LAUNCH_S[name])
            assert row.disagreement == pytest.approx(0, abs=1e-9)
            assert row.energy_ci95_j is not None
            assert (row.run_id, row.phase, row.how, row.wait_energy_j) == ("r", Phase.PREFILL, how, None)
    assert found.ledger is not None
    assert found.ledger.method is EnergyMethod.REPLAY
    assert found.ledger.residual_j.value == pytest.approx(0, abs=1e-9)
    assert found.notes == ()


def test_small_kernels_are_in_the_ledger_and_have_no_row() -> None:
    found = findings(windows([GEMM, ATTENTION, NORM], methods=BOTH), GEMM, ATTENTION, NORM)
    assert rows_of(found, EnergyMethod.REPLAY).keys() == {"gemm", "attention", "norm"}, "one small kernel has a loop"
    found = findings(windows([GEMM, ATTENTION, NORM, COPY], methods=BOTH), GEMM, ATTENTION, NORM, COPY)
    assert rows_of(found, EnergyMethod.REPLAY).keys() == {"gemm", "attention"}
    assert found.ledger is not None
    assert found.ledger.kernels_j.value == pytest.approx(sum(map(active_j, ("gemm", "attention", "norm", "copy"))))
    assert found.ledger.closes


def hotter(taken: TakenWindow) -> TakenWindow:
    """The same window with a tenth more energy."""
    spans = tuple(replace(span, energy_j=1.1 * span.energy_j) for span in taken.window.spans)
    return replace(taken, window=replace(taken.window, spans=spans))


def test_how_far_the_methods_disagree_is_on_both_rows() -> None:
    taken = windows([GEMM, ATTENTION], methods=BOTH)
    hot = [hotter(each) if each.part is Part.REPLAY and each.kernels[0].kernel_id == "gemm" else each for each in taken]
    found = findings(hot, GEMM, ATTENTION)
    more = 0.1 * (320 + IDLE_W) / 320
    assert rows_of(found, EnergyMethod.REPLAY)["gemm"].disagreement == pytest.approx(more)
    assert rows_of(found, EnergyMethod.REGRESSED)["gemm"].disagreement == pytest.approx(1 / (1 + more) - 1)


def test_a_hidden_load_is_said() -> None:
    found = findings(windows([GEMM, ATTENTION], methods=BOTH, hidden_w=40.0), GEMM, ATTENTION)
    assert found.ledger is not None
    assert not found.ledger.closes
    assert found.ledger.residual_j.value == pytest.approx(40 * (0.08 + 0.01 + GAP_S))
    assert any("the ledger does not close: residual 4 J" in note for note in found.notes)


def test_where_a_kernel_cannot_be_replayed_the_ledger_is_by_regression_and_it_is_said() -> None:
    """The mixtures have no gaps, so the power of gaps is that of the loops of empty kernels."""
    taken = [
        replace(each, rejected="slow") if each.part is Part.REPLAY and each.kernels[0].kernel_id == "gemm" else each
        for each in windows([GEMM, ATTENTION], methods=BOTH)
    ]
    found = findings(taken, GEMM, ATTENTION)
    assert rows_of(found, EnergyMethod.REPLAY).keys() == {"attention"}
    assert rows_of(found, EnergyMethod.REGRESSED)["gemm"].disagreement is None
    assert found.ledger is not None
    assert found.ledger.method is EnergyMethod.REGRESSED
    assert found.ledger.closes
    assert found.notes == ("1 kernel(s) could not be replayed, gemm among them",)


def test_without_either_method_for_all_kernels_there_is_no_ledger() -> None:
    taken = [
        replace(each, rejected="slow") if each.kernels != () and each.part is not Part.MIXTURE else each
        for each in windows([GEMM, ATTENTION], methods=(EnergyMethod.REPLAY,))
    ]
    assert findings(taken, GEMM, ATTENTION).ledger is None


def test_without_loops_or_without_a_known_phase_there_is_nothing_to_find() -> None:
    run = windows([GEMM], methods=())
    assert findings(run, GEMM) == KernelFindings()
    loop = windows([GEMM], methods=(EnergyMethod.REPLAY,))
    assert kernel_findings("r", session(loop), counted(0), {}, how="eager") == KernelFindings()


def test_on_several_ranks_waiting_is_a_part_of_a_collective() -> None:
    taken = windows([GEMM, REDUCE], methods=(EnergyMethod.REPLAY,), devices=2)
    found = findings(taken, GEMM, REDUCE, ranks=2)
    for rank in (0, 1):
        row = rows_of(found, EnergyMethod.REPLAY, rank)["reduce"]
        assert row.wait_energy_j == pytest.approx(WAIT_S * (WAIT_W + IDLE_W))
        assert row.active_energy_j == pytest.approx(active_j("reduce") + WAIT_S * WAIT_W)
    assert found.ledger is not None
    assert found.ledger.residual_j.value == pytest.approx(0, abs=1e-9)
    kernels_j = active_j("gemm") + active_j("reduce") + WAIT_S * WAIT_W
    assert found.ledger.kernels_j.value == pytest.approx(2 * kernels_j)


@pytest.mark.parametrize(
    ("ranks", "meters", "counters"),
    [
        (1, (0,), [((0,), 1)]),
        (2, (0, 1), [((0,), 1), ((1,), 1)]),
        (3, (0,), [((0,), 3)] * 3),  # a CPU
        (4, (0, 2), [((0,), 2), ((0,), 2), ((1,), 2), ((1,), 2)]),  # two machines
        (1, (0, 0, 0), [((0, 1, 2), 1)]),  # layers over GPUs that take turns
    ],
)
def test_every_rank_knows_its_counters(
    ranks: int, meters: tuple[int, ...], counters: list[tuple[tuple[int, ...], int]]
) -> None:
    splits = {Phase.PREFILL: PhaseSplit(phase=Phase.PREFILL, ranks=(split(GEMM),) * ranks)}
    found = rank_kernels(counted(*meters), splits)
    assert [(each.counter.devices, each.counter.sharing) for each in found] == counters
    assert [each.late for each in found] == [ranks > 1 and rank == ranks - 1 for rank in range(ranks)]


def test_gpus_that_take_turns_have_one_ledger_over_all_of_them() -> None:
    """One of two devices works at a time, and both idle beside it."""
    taken = []
    for each in windows([GEMM, ATTENTION], methods=BOTH):
        (span,) = each.window.spans
        idle_j = IDLE_W * each.window.work_s
        spans = (span, replace(span, energy_j=idle_j, counter_end_j=span.counter_start_j + idle_j))
        seen = each.window.before * 2
        taken.append(replace(each, window=replace(each.window, spans=spans, before=seen, after=seen)))
    found = findings(taken, GEMM, ATTENTION, meters=counted(0, 0))
    assert rows_of(found, EnergyMethod.REPLAY)["gemm"].active_energy_j == pytest.approx(active_j("gemm"))
    assert found.ledger is not None
    assert found.ledger.idle_j == pytest.approx(2 * IDLE_W * (0.08 + 0.01 + GAP_S))
    assert found.ledger.residual_j.value == pytest.approx(0, abs=1e-9)
