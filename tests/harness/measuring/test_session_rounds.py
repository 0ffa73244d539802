"""What is due in which round: parts of the run, loops of kernels, mixtures, idle floors; and where windows start."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from harness.measuring.protocol import QUICK, STANDARD
from harness.measuring.results import SessionResult, TakenWindow
from harness.records import Part
from tests.harness.measuring.made import count

STEP_S = 0.02  # of the machine's counter


def kernel_works(machine: Any, fake_work: Callable[..., Any], part: Part, number: int) -> list[Any]:
    """Loops, each of a kernel of its own."""
    works = []
    for index in range(number):
        work = fake_work(machine, part, pass_s=0.003, power_w=200.0 + index)
        work.kernels = (count(f"k{index}"),)
        works.append(work)
    return works


def noisy(work: Any) -> None:
    """Power that differs from window to window, so that trials go on to the last."""
    powers_w = iter([300.0, 500.0] * 100)
    work.on_run = lambda passes: setattr(work, "power_w", next(powers_w))


def of(result: SessionResult, part: Part) -> list[TakenWindow]:
    return [taken for taken in result.windows if taken.part is part]


def test_loops_are_taken_in_the_rounds_that_every_run_has_and_mixtures_once(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    parts = machine.works()
    noisy(parts[0])
    loops = [
        *kernel_works(machine, fake_work, Part.REPLAY, 3),
        *kernel_works(machine, fake_work, Part.WAITING, 1),
        *kernel_works(machine, fake_work, Part.MIXTURE, 12),
    ]

    result = machine.session(replace(STANDARD, warm_up_s=0.0, trials_max=9)).measure([*parts, *loops])

    assert len(of(result, Part.PREFILL)) == 9
    assert set(Counter(taken.kernels for taken in of(result, Part.REPLAY)).values()) == {5}
    assert len(of(result, Part.WAITING)) == 5
    mixtures = Counter(taken.kernels for taken in of(result, Part.MIXTURE))
    assert len(mixtures) == 12
    assert set(mixtures.values()) == {1}


def test_mixtures_are_dealt_out_evenly_over_the_rounds(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    prefill = machine.works()[0]
    mixtures = kernel_works(machine, fake_work, Part.MIXTURE, 11)

    result = machine.session(QUICK).measure([prefill, *mixtures])

    rounds: list[int] = []
    order = [taken.part for taken in sorted(result.windows, key=lambda taken: taken.window.started_s)]
    seen = 0
    for part in order:  # a prefill in each round, anywhere in it
        seen += part is Part.MIXTURE
        if part is Part.PREFILL:
            rounds.append(seen)
    assert len(rounds) == 3
    assert len(of(result, Part.MIXTURE)) == 11
    by_round = Counter(int(taken.kernels[0].kernel_id[1:]) % 3 for taken in of(result, Part.MIXTURE))
    assert sorted(by_round.values()) == [3, 4, 4]
    starts = {taken.kernels[0].kernel_id: taken.window.started_s for taken in of(result, Part.MIXTURE)}
    latest_s = [max(starts[f"k{index}"] for index in range(first, 11, 3)) for first in range(3)]
    earliest_s = [min(starts[f"k{index}"] for index in range(first, 11, 3)) for first in range(3)]
    assert latest_s[0] < earliest_s[1] < latest_s[1] < earliest_s[2], "one third after the other"


def test_kernels_make_do_with_shorter_windows(make_machine: Callable[..., Any], fake_work: Callable[..., Any]) -> None:
    machine = make_machine()
    works = [*machine.works(), *kernel_works(machine, fake_work, Part.REPLAY, 2)]
    result = machine.session(replace(STANDARD, warm_up_s=0.0), window_s=2.0).measure(works)
    assert all(1.0 <= taken.window.work_s < 1.3 for taken in of(result, Part.REPLAY))
    assert all(taken.window.work_s >= 2.0 for taken in of(result, Part.PREFILL))


def test_what_a_pass_launches_is_recorded_with_its_window(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    result = machine.session().measure([*machine.works(), *kernel_works(machine, fake_work, Part.REPLAY, 2)])
    assert {taken.kernels for taken in of(result, Part.REPLAY)} == {(count("k0"),), (count("k1"),)}
    assert {taken.kernels for taken in of(result, Part.RUN)} == {()}


def test_kernels_have_no_say_in_when_trials_end(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    loops = kernel_works(machine, fake_work, Part.REPLAY, 2)
    noisy(loops[0])
    result = machine.session(replace(STANDARD, warm_up_s=0.0)).measure([*machine.works(), *loops])
    assert len(of(result, Part.PREFILL)) == 5
    assert {part.part for part in result.parts} == {Part.PREFILL, Part.DECODE, Part.RUN}
    assert result.planned == 5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_works_start_in_all_eighths_of_a_step_and_the_first_few_trials_are_spread_too(
    make_machine: Callable[..., Any], seed: int
) -> None:
    machine = make_machine()
    parts = machine.works()
    noisy(parts[0])
    result = machine.session(replace(STANDARD, warm_up_s=0.0, trials_max=8), seed=seed).measure(parts)

    for part in (Part.PREFILL, Part.RUN):
        leads = [taken.window.spans[0].lead_s / STEP_S for taken in of(result, part)]
        assert len({int(8 * (lead - 0.02) % 8) for lead in leads}) >= 7, "looks a millisecond apart blur an eighth"
        for first, last in ((0, 4), (4, 8)):
            apart = sorted(leads[first:last])
            assert all(later - sooner > 0.1 for sooner, later in pairwise(apart))


def test_the_eighth_that_comes_first_differs_from_run_to_run(make_machine: Callable[..., Any]) -> None:
    first = set()
    for seed in range(12):
        machine = make_machine()
        result = machine.session(seed=seed).measure(machine.works()[:1])
        first.add(int(8 * result.windows[0].window.spans[0].lead_s / STEP_S))
    assert len(first) >= 4


def test_the_idle_floor_is_looked_at_again_in_blocks_of_the_longest_time(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(idle_w=60.0)
    works = machine.works()
    noisy(works[0])

    def heat(passes: int) -> None:
        machine.idle_w = 60.0 + machine.at_s / 100  # watts more every 100 s

    works[1].on_run = heat
    protocol = replace(STANDARD, warm_up_s=0.0, trials_max=12, idle_every_s=60.0)

    result = machine.session(protocol, window_s=5.0).measure(works)

    middles_s = [window.middle_s for window in result.idle.windows]
    assert len(middles_s) > 4
    longest_s = max(later - sooner for sooner, later in pairwise(middles_s))
    assert longest_s <= 60 + 5.5 + 10.5, "one more window and half an idle one at either end"
    for at_s in (100.0, 150.0, 200.0):
        assert result.idle.power_w(at_s) == pytest.approx(60 + at_s / 100, abs=0.2)
