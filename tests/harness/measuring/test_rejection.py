from dataclasses import replace

import pytest

from harness.measuring.rejection import reason_to_reject, reject_changed_limits, reject_drifting_clocks
from harness.measuring.results import TakenWindow
from harness.meters.base import Conditions
from harness.records import Part
from tests.harness.measuring.made import count, taken


def taken_at(
    part: Part, *clocks_mhz: float | None, rejected: str | None = None, kernel: str | None = None
) -> TakenWindow:
    """A window at whose end the devices ran at these clocks."""
    each = taken(part, *(100.0 for _ in clocks_mhz), rejected=rejected, kernels=[count(kernel)] if kernel else [])
    after = tuple(Conditions(sm_clock_mhz=clock) for clock in clocks_mhz)
    return replace(each, window=replace(each.window, after=after))


def limited(before_w: float | None, after_w: float | None, second_w: float | None = None) -> TakenWindow:
    """A window with these power limits before and after; the second device's never changes."""
    each = taken(Part.RUN, 100.0, 100.0)
    second = Conditions(power_limit_w=second_w)
    before, after = Conditions(power_limit_w=before_w), Conditions(power_limit_w=after_w)
    return replace(each, window=replace(each.window, before=(before, second), after=(after, second)))


def test_a_window_at_another_clock_than_its_part_is_rejected() -> None:
    windows = [taken_at(Part.PREFILL, clock) for clock in (1980, 1980, 1965, 1800)]
    windows += [taken_at(Part.DECODE, 1400), taken_at(Part.RUN, None)]
    rejected = [taken.rejected for taken in reject_drifting_clocks(windows, 0.03)]
    assert rejected == [None, None, None, "SM clock 1800 MHz, usually 1972 MHz", None, None]


def test_each_device_has_a_clock_of_its_own() -> None:
    windows = [taken_at(Part.PREFILL, 1980, 1700)] * 3
    assert all(taken.rejected is None for taken in reject_drifting_clocks(windows, 0.03))
    drifting = reject_drifting_clocks([*windows, taken_at(Part.PREFILL, 1980, 1500)], 0.03)
    assert [taken.rejected is None for taken in drifting] == [True, True, True, False]


def test_every_loop_of_a_kernel_has_a_usual_clock_of_its_own() -> None:
    """A power cap lowers the clock of a large product and not that of a copy."""
    product = [taken_at(Part.REPLAY, clock, kernel="product") for clock in (1400, 1410, 1410, 1700)]
    copy = [taken_at(Part.REPLAY, clock, kernel="copy") for clock in (1980, 1980, 1980)]
    waiting = [taken_at(Part.WAITING, 1700, kernel="product")]
    checked = reject_drifting_clocks([*product, *copy, *waiting], 0.03)
    assert [each.rejected is None for each in checked] == [True, True, True, False, True, True, True, True]


def test_clocks_of_rejected_windows_do_not_set_what_is_usual() -> None:
    windows = [taken_at(Part.PREFILL, 900, rejected="slow")] * 5 + [taken_at(Part.PREFILL, 1980)] * 2
    checked = reject_drifting_clocks(windows, 0.03)
    assert [taken.rejected for taken in checked] == ["slow"] * 5 + [None] * 2


def test_reasons_at_either_end_count() -> None:
    calm = taken_at(Part.PREFILL, 1980).window
    assert reason_to_reject(calm) is None
    slow = (Conditions(throttle_reasons=0x20),)
    assert reason_to_reject(replace(calm, before=slow)) is not None
    assert reason_to_reject(replace(calm, after=slow)) is not None
    assert reason_to_reject(replace(calm, after=(Conditions(other_processes=0),))) is None
    assert reason_to_reject(replace(calm, before=(Conditions(other_processes=1),))) == "1 other process(es) on the GPU"


def test_windows_in_which_or_since_which_a_power_limit_is_another_are_spoilt() -> None:
    windows = [limited(400, 400, 400), limited(400, 300, 400), limited(300, 300, 400), limited(400, 400, 400)]
    rejected = [taken.rejected for taken in reject_changed_limits(windows)]
    assert rejected == [None, "power limit 300 W, at first 400 W", "power limit 300 W, at first 400 W", None]


def test_devices_may_have_different_limits_and_limits_may_be_unknown() -> None:
    assert all(each.rejected is None for each in reject_changed_limits([limited(400, 400, 350)] * 2))
    assert all(each.rejected is None for each in reject_changed_limits([limited(None, 400), limited(300, None)]))
    assert reject_changed_limits([]) == ()


def test_a_reason_that_is_known_already_stays() -> None:
    spoiled = replace(limited(400, 300), rejected="slow")
    assert reject_changed_limits([spoiled])[0].rejected == "slow"


@pytest.mark.parametrize("bits", [0x08, 0x20, 0x40, 0x80])
def test_every_kind_of_slowdown_is_a_reason(bits: int) -> None:
    slow = taken(Part.RUN, 1.0, conditions=Conditions(throttle_reasons=bits | 0x4)).window
    assert reason_to_reject(slow) == f"the device slowed down (clocks-event reasons 0x{bits | 4:x})"
