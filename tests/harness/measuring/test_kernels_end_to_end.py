"""A run, its kernels looped alone and in mixtures, all measured on the miniature machine: the ledger closes, or not."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.kernels import NULL_KERNEL, KernelCount, Phase
from harness.measuring.kernel_energy import NULL_IN_GRAPH, RankKernels, null_loop, replayed
from harness.measuring.ledger import Ledger, RankFindings, ledger_of
from harness.measuring.loops import RankCounter
from harness.measuring.protocol import STANDARD
from harness.measuring.regression import regressed
from harness.measuring.results import SessionResult
from harness.records import EnergyMethod, Part
from tests.harness.measuring.made import count, split, traced

IDLE_W, GAP_W = 60.0, 95.0
# Per launch in µs, gross power in W, launches in the phase.
KERNELS = {
    "gemm": (400.0, 420.0, 50),
    "attention": (150.0, 260.0, 30),
    "norm": (12.0, 180.0, 120),
    "copy": (9.0, 140.0, 60),
}
NULL_US, NULL_W = 2.0, 130.0
HOST_US = 14.0  # a launch takes the host so long
PHASE = split(*(traced(name, us * many * 1e-6, launches=many) for name, (us, _, many) in KERNELS.items()))
RANK = RankKernels(rank=0, counter=RankCounter(devices=(0,)), phases={Phase.PREFILL: PHASE})


def loop(
    machine: Any, fake_work: Callable[..., Any], part: Part, kernels: tuple[KernelCount, ...], *, hidden: float = 0.0
) -> Any:
    """Launches by the host, one after the other: a kernel shorter than a launch leaves a gap."""
    pass_s = pass_j = 0.0
    for each in kernels:
        known = (NULL_US, NULL_W, 0) if each.kernel_id.startswith(NULL_KERNEL) else KERNELS[each.kernel_id]
        gap_us = 0.0 if each.kernel_id == NULL_IN_GRAPH else max(0.0, HOST_US - known[0])
        pass_s += each.launches * (known[0] + gap_us) * 1e-6
        pass_j += each.launches * (known[0] * known[1] + gap_us * GAP_W) * 1e-6
    work = fake_work(machine, part, pass_s=pass_s, power_w=pass_j * (1 + hidden) / pass_s)
    work.kernels = kernels if part in {Part.REPLAY, Part.MIXTURE} else ()
    work.run = lambda passes: machine.busy(passes * work.pass_s, work.power_w)  # many passes at once
    return work


def measured(make_machine: Callable[..., Any], fake_work: Callable[..., Any], *, hidden: float = 0.0) -> SessionResult:
    """Prefill, the whole request, which is a prefill too, and every loop."""
    machine = make_machine(idle_w=IDLE_W)
    machine.pause(0.0137)
    whole = tuple(count(name, many) for name, (_, _, many) in KERNELS.items())
    rng = random.Random(2)
    mixtures: list[tuple[KernelCount, ...]] = []
    while len(mixtures) < 16:
        some = tuple(count(name, rng.randint(1, 9)) for name in KERNELS if rng.random() < 0.5)
        mixtures += [some] if some else []
    works = [
        loop(machine, fake_work, Part.PREFILL, whole),
        loop(machine, fake_work, Part.RUN, whole, hidden=hidden),
        *(loop(machine, fake_work, Part.REPLAY, (count(name),)) for name in KERNELS),
        *(loop(machine, fake_work, Part.REPLAY, null_loop(name)) for name in (NULL_KERNEL, NULL_IN_GRAPH)),
        *(loop(machine, fake_work, Part.MIXTURE, some) for some in mixtures),
    ]
    return machine.session(replace(STANDARD, warm_up_s=0.0), window_s=5.0).measure(works)  # type: ignore[no-any-return]


def ledger_by(result: SessionResult, method: EnergyMethod) -> Ledger:
    found: Any = (replayed if method is EnergyMethod.REPLAY else regressed)(result, [RANK])[0]
    assert found.gap_w is not None
    ledger = ledger_of(result, [RankFindings(rank=RANK, kernels=found.kernels, gap_active_w=found.gap_w)], method)
    assert ledger is not None
    return ledger


def true_active_j(name: str) -> float:
    duration_us, power_w, many = KERNELS[name]
    return duration_us * (power_w - IDLE_W) * many * 1e-6


@pytest.mark.parametrize("method", [EnergyMethod.REPLAY, EnergyMethod.REGRESSED])
def test_kernels_gaps_and_ledger_are_the_true_ones(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any], method: EnergyMethod
) -> None:
    result = measured(make_machine, fake_work)
    (found,) = (replayed if method is EnergyMethod.REPLAY else regressed)(result, [RANK])

    assert found.gap_w is not None
    assert found.gap_w.value == pytest.approx(GAP_W - IDLE_W, rel=0.05)
    for kernel in found.kernels:
        true_j = true_active_j(kernel.kernel_ids[0])
        assert kernel.active_j.value == pytest.approx(true_j, rel=0.05)
        assert abs(kernel.active_j.value - true_j) <= (kernel.active_j.ci95 or 0)
    ledger = ledger_by(result, method)
    assert 0 < abs(ledger.residual_j.value) < 0.005 * ledger.energy_j.value
    assert ledger.closes
    assert (ledger.residual_j.ci95 or 1) < 0.05 * ledger.energy_j.value


def test_what_nobody_knows_of_is_in_the_residual(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    result = measured(make_machine, fake_work, hidden=0.05)
    ledger = ledger_by(result, EnergyMethod.REPLAY)
    assert ledger.residual_j.value == pytest.approx(0.05 / 1.05 * ledger.energy_j.value, rel=0.1)
    assert not ledger.closes
