"""The beat of counters and power fields, as seen by looking now and then."""

import random

import numpy as np
import pytest

from harness.measuring.calibration_beats import Moves, beat_of, quantum_j


def looks_of(
    period_s: float, *, poll_s: float, length_s: float = 6.0, jitter_s: float = 0.0, every: tuple[int, ...] = (1,)
) -> Moves:
    """Looks at a value that moves on a beat; ``every`` gives the periods between moves, in turn."""
    draw = random.Random(1)
    moves_s, number, turn = [], 0, 0
    while number * period_s < length_s:
        moves_s.append(0.37 * period_s + number * period_s + draw.uniform(-jitter_s, jitter_s))
        number += every[turn % len(every)]
        turn += 1
    at_s = np.arange(0.0, length_s, poll_s)
    return Moves.of(at_s.tolist(), np.searchsorted(moves_s, at_s, side="right").astype(float).tolist())


@pytest.mark.parametrize("period_s", [0.0103, 0.0207, 0.0501, 0.1, 0.1999])
def test_the_period_of_a_counter_is_found_far_finer_than_it_is_looked_at(period_s: float) -> None:
    beat = beat_of(looks_of(period_s, poll_s=min(0.002, period_s / 8)))

    assert beat is not None
    assert beat.period_s == pytest.approx(period_s, rel=5e-4)


def test_jitter_is_found_without_what_the_looks_blur() -> None:
    beat = beat_of(looks_of(0.1, poll_s=0.002, length_s=30.0, jitter_s=0.004))

    assert beat is not None
    assert beat.jitter_s == pytest.approx(0.004 / 3**0.5, rel=0.2)


def test_jitter_that_is_lost_in_the_looks_is_not_claimed_to_be_none() -> None:
    beat = beat_of(looks_of(0.1, poll_s=0.01))

    assert beat is not None
    assert beat.jitter_s is None or beat.jitter_s < 0.002


@pytest.mark.parametrize("every", [(3, 4, 3, 2), (5, 4, 6, 5, 7), (1, 25)])
def test_a_field_that_moves_only_now_and_then_keeps_its_beat(every: tuple[int, ...]) -> None:
    beat = beat_of(looks_of(0.1, poll_s=0.002, length_s=60.0, every=every))

    assert beat is not None
    assert beat.period_s == pytest.approx(0.1, rel=1e-3)


def test_long_pauses_are_not_miscounted_where_looks_are_coarse() -> None:
    beat = beat_of(looks_of(0.05, poll_s=0.004, length_s=40.0, every=(1, 1, 1, 1, 1, 60)))

    assert beat is not None
    assert beat.period_s == pytest.approx(0.05, rel=1e-3)


def test_moves_at_random_have_no_beat() -> None:
    draw = random.Random(3)
    at_s = sorted(draw.uniform(0.0, 10.0) for _ in range(60))

    assert beat_of(Moves.of(at_s, [float(number) for number in range(60)])) is None


def test_a_few_moves_have_no_beat() -> None:
    assert beat_of(looks_of(0.1, poll_s=0.002, length_s=0.4)) is None


def test_a_value_that_is_not_given_is_no_move() -> None:
    moves = Moves.of([0.0, 1.0, 2.0, 3.0, 4.0], [5.0, None, 5.0, 6.0, None])

    assert moves.at_s.tolist() == [2.5]
    assert moves.half_s.tolist() == [0.5]
    assert moves.value.tolist() == [6.0]


def test_no_looks_are_no_moves() -> None:
    moves = Moves.of([], [])

    assert moves.at_s.size == 0
    assert moves.blur_s == 0.0
    assert beat_of(moves) is None


@pytest.mark.parametrize("quantum", [1e-3, 2.5e-4, 1.0])
def test_what_a_counter_counts_in_is_found_from_large_values(quantum: float) -> None:
    steps = np.cumsum([7, 12, 5, 11, 13, 9])
    energies_j = 8_000_000.0 + quantum * steps

    assert quantum_j(energies_j) == pytest.approx(quantum)


def test_a_counter_that_stands_still_counts_in_nothing_known() -> None:
    assert quantum_j(np.full(5, 3.0)) is None
