from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import WindowTooShort
from harness.measuring.protocol import QUICK, Protocol
from harness.measuring.results import SessionResult, TakenWindow
from harness.measuring.statistics import Mean
from harness.meters.base import Conditions
from harness.records import Part

IDLE_W = 60.0
PREFILL_J = 0.07 * 400  # of one pass of the machine's prefill


def energy(result: SessionResult, part: Part) -> Mean:
    found = result.part(part)
    assert found is not None
    assert found.energy_j is not None
    return found.energy_j


def used(result: SessionResult, part: Part) -> list[TakenWindow]:
    return [taken for taken in result.windows if taken.part is part and taken.rejected is None]


def test_slow_first_passes_do_not_leave_windows_short(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    works = machine.works()
    works[0].slow_passes = iter([40.0, 5.0, 1.3])
    result = machine.session().measure(works)
    assert all(taken.window.work_s >= 1.0 for taken in result.windows)
    assert all(taken.rejected is None for taken in result.windows)


@pytest.mark.parametrize("slow", [[20.0, 19.0], [20.0, 19.0, 6.0], [500.0]])
def test_windows_fill_up_even_if_the_warm_up_was_slow_throughout(
    make_machine: Callable[..., Any], slow: list[float]
) -> None:
    machine = make_machine()
    works = machine.works()
    works[0].slow_passes = iter(slow)
    result = machine.session().measure(works)
    assert len(used(result, Part.PREFILL)) == 3
    assert all(taken.window.work_s >= 0.5 for taken in used(result, Part.PREFILL))
    assert energy(result, Part.PREFILL).value == pytest.approx(PREFILL_J, rel=1e-2)


def test_a_window_far_too_short_is_kept_but_not_used(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    work = fake_work(machine, Part.PREFILL, pass_s=0.3, power_w=400.0)
    work.slow_passes = iter([14.0])

    result = machine.session().measure([work])

    assert [taken.rejected is None for taken in result.windows] == [False, True, True, True]
    assert result.windows[0].rejected == "lasted 0.3 s of the 1 s wanted"


def test_work_that_takes_no_time_is_an_error(make_machine: Callable[..., Any], fake_work: Callable[..., Any]) -> None:
    machine = make_machine()
    work = fake_work(machine, Part.PREFILL, pass_s=0.0, power_w=400.0)
    work.run = lambda passes: None
    with pytest.raises(WindowTooShort):
        machine.session().measure([work])


def warm_up_s(machine: Any, work: Any, protocol: Protocol) -> float:
    """Time until the first idle window."""
    result = machine.session(protocol).measure([work])
    return float(result.idle.windows[0].started_s)


def test_a_warm_up_ends_when_its_time_is_up(make_machine: Callable[..., Any], fake_work: Callable[..., Any]) -> None:
    machine = make_machine()
    work = fake_work(machine, Part.PREFILL, pass_s=0.5, power_w=400.0)
    assert warm_up_s(machine, work, replace(QUICK, warm_up_s=30.0)) == pytest.approx(30, abs=1.5)


def test_a_warm_up_ends_early_when_the_temperature_stands(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    work = fake_work(machine, Part.PREFILL, pass_s=0.5, power_w=400.0)

    def warm(passes: int) -> None:
        machine.conditions = Conditions(temperature_c=min(70.0, 40 + 3 * machine.at_s))  # steady after 10 s

    work.on_run = warm
    assert warm_up_s(machine, work, replace(QUICK, warm_up_s=30.0)) == pytest.approx(15, abs=1.5)


def test_a_temperature_that_drifts_slowly_is_steady_only_after_a_look_of_five_seconds(
    make_machine: Callable[..., Any], fake_work: Callable[..., Any]
) -> None:
    machine = make_machine()
    work = fake_work(machine, Part.PREFILL, pass_s=7.0, power_w=400.0)
    machine.conditions = Conditions(temperature_c=60.0)
    # Passes longer than the span of the slope: two looks are enough.
    assert warm_up_s(machine, work, replace(QUICK, warm_up_s=60.0)) == pytest.approx(14, abs=0.1)


def test_without_a_warm_up_every_work_still_runs_once(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    works = machine.works()
    machine.session().measure(works)
    assert all(work.calls[:3] == ["prepare 1", "run 1", "release"] for work in works)
