import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import MeterFailed
from harness.measuring.protocol import QUICK, STANDARD, Protocol
from harness.measuring.results import PartResult, SessionResult, TakenWindow, results
from harness.measuring.session import Session
from harness.measuring.statistics import Mean
from harness.meters.base import Conditions
from harness.records import Part

IDLE_W = 60.0
PREFILL_J = 0.07 * 400  # of one pass of the machine's prefill


def decode_at(machine: Any, fake_work: Callable[..., Any], context: int, *, steps: int, all_steps: int) -> Any:
    """Decode steps from one context, whose energy per step is 2 + 0.01 × context joules."""
    work = fake_work(machine, Part.DECODE, pass_s=0.0, power_w=0.0)
    work.share = steps / all_steps
    work.context_start_tokens = context
    work.mean_context_tokens = context + (steps + 1) / 2
    energy_j = sum(2 + 0.01 * (context + step) for step in range(1, steps + 1))
    work.pass_s = 0.01 * steps
    work.power_w = energy_j / work.pass_s
    return work


def energy(result: SessionResult, part: Part) -> Mean:
    found = result.part(part)
    assert found is not None
    assert found.energy_j is not None
    return found.energy_j


def used(result: SessionResult, part: Part) -> list[TakenWindow]:
    return [taken for taken in result.windows if taken.part is part and taken.rejected is None]


def test_energies_and_times_of_all_parts_are_the_true_ones(
    make_machine: Callable[..., Any], truth: dict[Part, tuple[float, float]]
) -> None:
    machine = make_machine(idle_w=IDLE_W)
    machine.pause(0.0137)

    result = machine.session().measure(machine.works())

    for part, (pass_s, power_w) in truth.items():
        found = energy(result, part)
        assert found.value == pytest.approx(pass_s * power_w, rel=1e-3)
        assert found.ci95 is not None
        assert abs(found.value - pass_s * power_w) <= found.ci95 <= 0.02 * found.value
        duration = next(each.duration_s for each in result.parts if each.part is part)
        assert duration is not None
        assert duration.value == pytest.approx(pass_s, rel=1e-3)
    assert result.idle.mean_power_w == pytest.approx(IDLE_W, rel=1e-3)
    assert result.part(Part.IDLE) is None


def test_on_several_devices_the_energies_add_up(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine(idle_w=IDLE_W)
    taker = machine.taker(0.02, 0.03, 0.017, phases_s=(0.0, 0.004, 0.009))
    works = [fake_work(machine, Part.PREFILL, pass_s=0.07, power_w=400.0)]

    result = Session(taker, machine, QUICK, window_s=1.0, rng=random.Random(1)).measure(works)

    found = energy(result, Part.PREFILL)
    assert found.ci95 is not None
    assert abs(found.value - 3 * PREFILL_J) <= found.ci95 < 0.06 * found.value
    assert result.idle.mean_power_w == pytest.approx(3 * IDLE_W, rel=0.04)


def test_an_estimating_meter_needs_no_alignment(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(idle_w=IDLE_W)
    result = machine.session(estimating=True).measure(machine.works())
    assert energy(result, Part.PREFILL).value == pytest.approx(PREFILL_J, rel=1e-9)
    assert all(span.idle_s == 0 for taken in result.windows for span in taken.window.spans)


def test_windows_of_all_parts_alternate_in_random_order(make_machine: Callable[..., Any]) -> None:
    orders = []
    for seed in (1, 2):
        machine = make_machine(idle_w=IDLE_W)
        result = machine.session(seed=seed).measure(machine.works())
        order = [taken.part for taken in result.windows]
        assert all(set(order[at : at + 3]) == {Part.PREFILL, Part.DECODE, Part.RUN} for at in (0, 3, 6))
        assert [taken.window.started_s for taken in result.windows] == sorted(
            taken.window.started_s for taken in result.windows
        )
        orders.append(order)
    assert orders[0] != orders[1]


def test_windows_are_numbered_in_the_order_taken_within_their_part(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    works = [decode_at(machine, fake_work, context, steps=50, all_steps=400) for context in (100, 275, 450)]
    result = machine.session().measure(works)
    assert [taken.trial for taken in result.windows] == list(range(9))


def test_every_run_is_prepared_for_and_released(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    works = machine.works()
    machine.session().measure(works)
    for work in works:
        for prepared, run, released in zip(*(work.calls[first::3] for first in range(3)), strict=True):
            assert prepared.split()[1] == run.split()[1]
            assert released == "release"


def test_a_failing_run_gives_its_memory_back(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    works = machine.works()
    failing = works[0]
    failing.on_run = lambda passes: 1 // 0
    with pytest.raises(ZeroDivisionError):
        machine.session().measure(works)
    assert failing.calls[-1] == "release"


def noisy(work: Any, spread: float, seed: int = 4) -> None:
    """Let the power of a work differ from window to window."""
    rng = random.Random(seed)
    usual_w = work.power_w

    def vary(passes: int) -> None:
        work.power_w = usual_w * rng.gauss(1, spread)

    work.on_run = vary


@pytest.mark.parametrize(("spread", "trials"), [(0.0, 5), (0.3, 20)])
def test_trials_stop_at_the_wanted_half_width_and_in_any_case_at_the_most(
    make_machine: Callable[..., Any], spread: float, trials: int
) -> None:
    machine = make_machine()
    works = machine.works()
    noisy(works[0], spread)

    result = machine.session(replace(STANDARD, warm_up_s=0.0)).measure(works)

    assert {part: len(used(result, part)) for part in (Part.PREFILL, Part.RUN)} == {
        Part.PREFILL: trials,
        Part.RUN: trials,
    }
    assert energy(result, Part.PREFILL).samples == trials


def test_trials_go_on_until_the_half_width_is_reached(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    works = machine.works()
    noisy(works[0], 0.025)
    result = machine.session(replace(STANDARD, warm_up_s=0.0)).measure(works)
    found = energy(result, Part.PREFILL)
    assert 5 < found.samples < 20
    assert found.relative <= 0.02


def test_windows_that_are_not_used_do_not_count_as_trials(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    works = machine.works()
    slowed = iter([True, True, False] + [False] * 100)

    def on_run(passes: int) -> None:
        machine.conditions = Conditions(throttle_reasons=0x40 if passes > 1 and next(slowed) else 0x4)

    works[0].on_run = on_run
    result = machine.session(replace(STANDARD, warm_up_s=0.0)).measure(works)

    assert len(used(result, Part.PREFILL)) >= 5
    assert len([taken for taken in result.windows if taken.part is Part.PREFILL]) > 5


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(throttle_reasons=0x48), "slowed down .*0x48"),
        (Conditions(throttle_reasons=0x80), "slowed down"),
        (Conditions(other_processes=2), r"2 other process\(es\)"),
    ],
)
def test_rejected_windows_are_kept_but_not_used_and_leave_no_number(
    make_machine: Callable[..., Any], conditions: Conditions, reason: str
) -> None:
    machine = make_machine()
    works = machine.works()
    works[0].on_run = lambda passes: setattr(machine, "conditions", conditions)
    for work in works[1:]:
        work.on_run = lambda passes: setattr(machine, "conditions", Conditions())
    machine.conditions = Conditions()

    result = machine.session(replace(QUICK, trials_max=4, trials_min=3)).measure(works)

    prefill = [taken for taken in result.windows if taken.part is Part.PREFILL]
    assert len(prefill) == 4
    assert result.part(Part.PREFILL) == PartResult(part=Part.PREFILL, energy_j=None, duration_s=None)
    for taken in prefill:
        assert taken.rejected is not None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(prefill[0].rejected)


def test_a_power_cap_is_normal_load(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    machine.conditions = Conditions(throttle_reasons=0x4 | 0x1)
    result = machine.session().measure(machine.works())
    assert all(taken.rejected is None for taken in result.windows)


def test_decode_at_three_contexts_integrates_a_linear_law_exactly(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    prompt, all_steps, steps = 100, 401, 50
    last = prompt + all_steps - steps
    machine = make_machine(idle_w=IDLE_W)
    works = [
        decode_at(machine, fake_work, context, steps=steps, all_steps=all_steps)
        for context in (prompt, (prompt + last) // 2, last)
    ]

    result = machine.session(estimating=True).measure(works)

    whole_j = sum(2 + 0.01 * (prompt + step) for step in range(1, all_steps + 1))
    found = result.part(Part.DECODE)
    assert found is not None
    assert found.energy_j is not None
    assert found.duration_s is not None
    assert found.energy_j.value == pytest.approx(whole_j, rel=1e-9)
    assert found.duration_s.value == pytest.approx(0.01 * all_steps, rel=1e-9)
    assert found.energy_j.samples == 9


def test_a_decode_that_lost_all_windows_of_one_context_has_no_number(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    works = [decode_at(machine, fake_work, context, steps=50, all_steps=400) for context in (100, 275, 450)]
    result = machine.session().measure(works)
    lost = [replace(taken, rejected="lost") if taken.context_start_tokens == 450 else taken for taken in result.windows]
    assert results(works, lost, result.idle) == (PartResult(part=Part.DECODE, energy_j=None, duration_s=None),)


def test_a_dead_counter_ends_the_session(make_machine: Callable[..., Any], fake_work: Callable[..., Any]) -> None:
    machine = make_machine(idle_w=0.0, load_w=0.0)
    works = [fake_work(machine, Part.PREFILL, pass_s=0.1, power_w=0.0)]
    with pytest.raises(MeterFailed, match="has not moved"):
        machine.session().measure(works)


@pytest.mark.parametrize("protocol", [QUICK, replace(STANDARD, warm_up_s=0.0)])
def test_the_stated_interval_holds_the_true_energy_nineteen_times_in_twenty(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any], protocol: Protocol
) -> None:
    held, widths = 0, []
    for seed in range(200):
        machine = make_machine(idle_w=IDLE_W)
        machine.pause(random.Random(seed).random())
        work = fake_work(machine, Part.PREFILL, pass_s=0.07, power_w=400.0)
        noisy(work, 0.02, seed=1000 + seed)
        found = energy(machine.session(protocol, seed=seed).measure([work]), Part.PREFILL)
        held += abs(found.value - PREFILL_J) <= (found.ci95 or 0)
        widths.append(found.relative)
    assert held >= 186  # 93 %
    assert sorted(widths)[100] < 0.06  # of three windows that differ by 2 %: t(2) · 2 % / √3 = 5 %
