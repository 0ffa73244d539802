import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MeterCause, MeterFailed
from harness.meters.counter import IMPLAUSIBLE, STALE_S, STILL_S, UNKNOWN_LIMIT_W, CounterWatch

LIMIT_W = 500.0


def watch(first_mj: int, limit_w: float | None = LIMIT_W) -> CounterWatch:
    return CounterWatch("gpu", first_mj, 100.0, limit_w=limit_w)


def cause_of(seen: CounterWatch, now_mj: int, now_s: float) -> MeterCause | None:
    with pytest.raises(MeterFailed) as failure:
        seen.energy_j(now_mj, now_s)
    return failure.value.cause


def most_mj(span_s: float, limit_w: float = LIMIT_W) -> int:
    return int(IMPLAUSIBLE * limit_w * (span_s + STALE_S) * 1e3)


def test_an_honest_counter_is_in_joules() -> None:
    seen = watch(1_000)

    assert seen.energy_j(1_000, 100.05) == 1.0
    assert seen.energy_j(61_500, 100.2) == 61.5


@settings(deadline=None)
@given(
    first_mj=st.integers(0, 2**63),
    steps=st.lists(st.tuples(st.floats(0.001, 600), st.floats(0.02, 1.5)), max_size=20),
)
def test_any_load_up_to_half_above_the_limit_is_believed(first_mj: int, steps: list[tuple[float, float]]) -> None:
    seen, now_s, now_mj = watch(first_mj), 100.0, first_mj
    for span_s, share in steps:
        now_s += span_s
        now_mj += max(1, round(span_s * share * LIMIT_W * 1e3))
        assert seen.energy_j(now_mj, now_s) == pytest.approx(now_mj * 1e-3)


@pytest.mark.parametrize("span_s", [0.0, 0.125, 3.0, 4000.0])
def test_a_counter_may_move_by_what_four_times_the_limit_gives_and_no_more(span_s: float) -> None:
    assert watch(7).energy_j(7 + most_mj(span_s), 100.0 + span_s) > 0
    assert cause_of(watch(7), 8 + most_mj(span_s), 100.0 + span_s) is MeterCause.COUNTER_JUMPED


def test_without_a_known_limit_no_gpu_draws_more_than_any_that_is_made() -> None:
    assert watch(0, None).energy_j(most_mj(1.0, UNKNOWN_LIMIT_W), 101.0) > 0
    assert cause_of(watch(0, None), most_mj(1.0, UNKNOWN_LIMIT_W) + 1, 101.0) is MeterCause.COUNTER_JUMPED


@pytest.mark.parametrize(
    ("before_mj", "now_mj", "cause"),
    [
        (5_000_000_000, 0, MeterCause.COUNTER_RESET),
        (90_000_000, 200_000, MeterCause.COUNTER_RESET),
        (90_000_000, most_mj(1.0) + 1, MeterCause.COUNTER_WENT_BACK),
        (90_000_000, 89_999_999, MeterCause.COUNTER_WENT_BACK),
        (2**32 - 1, 0, MeterCause.COUNTER_WRAPPED),
        (2**32 - 200_000, 200_000, MeterCause.COUNTER_WRAPPED),
        (2**32 - most_mj(1.0), 0, MeterCause.COUNTER_WRAPPED),
        (2**32 - most_mj(1.0), 1, MeterCause.COUNTER_RESET),
        (2**64 - 5, 5, MeterCause.COUNTER_WRAPPED),
    ],
)
def test_a_step_back_is_told_by_where_it_leads(before_mj: int, now_mj: int, cause: MeterCause) -> None:
    assert cause_of(watch(before_mj), now_mj, 101.0) is cause


def test_a_value_may_stay_for_a_while_and_then_it_stands_still() -> None:
    seen = watch(10)
    seen.energy_j(20, 101.0)

    assert seen.energy_j(20, 101.0 + STILL_S) == 0.02
    assert cause_of(seen, 20, 101.001 + STILL_S) is MeterCause.COUNTER_STOOD_STILL


def test_moving_restarts_the_wait_for_a_move() -> None:
    seen = watch(10)
    for i in range(1, 20):
        assert seen.energy_j(10 + i, 100.0 + 4.9 * i) > 0


def test_a_fault_is_final_and_keeps_its_cause() -> None:
    seen = watch(90_000_000)
    cause_of(seen, 0, 101.0)

    assert cause_of(seen, 90_000_100, 102.0) is MeterCause.COUNTER_RESET


def test_a_clock_that_goes_back_makes_no_counter_jump() -> None:
    seen = watch(0)
    seen.energy_j(400_000, 101.0)

    assert seen.energy_j(450_000, 90.0) == 450.0
    assert seen.energy_j(900_000, 101.5) == 900.0
