import pytest

from harness.meters.base import ManualClock, MonotonicClock
from harness.meters.period import measure_step_s, measure_steps_s
from harness.meters.replay import Profile, ReplayMeter


@pytest.mark.parametrize("step_s", [0.02, 0.1])
def test_the_step_of_a_counter_is_found(step_s: float) -> None:
    clock = ManualClock(per_read_s=0.0005)
    meter = ReplayMeter(Profile.constant(250.0), clock, step_s=step_s)

    assert measure_step_s(meter, clock) == pytest.approx(step_s, abs=0.003)
    assert clock.now_s() > 7 * step_s, "one gap alone could be an odd one"


def test_counters_are_watched_together_and_each_gets_its_own_step() -> None:
    clock = ManualClock(per_read_s=0.0005)
    meters = [ReplayMeter(Profile.constant(250.0), clock, step_s=step_s) for step_s in (0.02, 0.1)]

    assert measure_steps_s(meters, clock) == pytest.approx((0.02, 0.1), abs=0.004)
    assert clock.now_s() < 1.0


def test_one_move_within_the_wait_is_no_step() -> None:
    clock = ManualClock(per_read_s=0.001)
    meter = ReplayMeter(Profile.constant(250.0), clock, step_s=0.4)

    assert measure_step_s(meter, clock, max_wait_s=0.6) is None


def test_the_real_clock_goes_forward() -> None:
    clock = MonotonicClock()

    assert clock.now_s() <= clock.now_s()
