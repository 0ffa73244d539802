import pytest

from harness.measuring.protocol import QUICK, STANDARD, Protocol, protocol_of
from harness.records import Quality


def test_qualities_have_their_protocols() -> None:
    assert protocol_of(Quality.STANDARD) is STANDARD
    assert protocol_of(Quality.QUICK) is QUICK


@pytest.mark.parametrize(("step_s", "window_s"), [(0.001, 5.0), (0.1, 5.0), (0.2, 10.0)])
def test_a_window_has_fifty_steps_of_a_slow_counter_and_five_seconds_of_a_fast_one(
    step_s: float, window_s: float
) -> None:
    assert STANDARD.shortest_window_s(step_s) == pytest.approx(window_s)


@pytest.mark.parametrize("protocol", [STANDARD, QUICK])
def test_every_protocol_asks_for_enough_trials_to_know_their_spread(protocol: Protocol) -> None:
    assert protocol.trials_max >= protocol.trials_min >= 3
