"""What is chosen is uncertain, asked for, and not twice the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.campaign.focused_choice import Pool, choose, root_mean_square

SIZES = st.tuples(st.integers(1, 64), st.integers(1, 8000), st.integers(1, 2000))
MEMBERS = st.lists(
    st.tuples(SIZES, st.floats(0, 2), st.integers(1, 5), st.booleans()),
    min_size=0,
    max_size=12,
    unique_by=lambda m: m[0],
)


def pool(*members: tuple[tuple[int, int, int], float, float, bool]) -> Pool:
    return Pool(
        sizes=np.array([member[0] for member in members], dtype=np.float64).reshape(-1, 3),
        uncertainty=np.array([member[1] for member in members], dtype=np.float64),
        weight=np.array([member[2] for member in members], dtype=np.float64),
        eligible=np.array([member[3] for member in members], dtype=np.bool_),
    )


def test_the_most_uncertain_of_requests_far_apart_comes_first() -> None:
    far = pool(((1, 10, 10), 0.1, 1, True), ((1, 5000, 10), 0.3, 1, True), ((1, 10, 2000), 0.2, 1, True))
    assert choose(far, 3) == (1, 2, 0)


def test_what_real_requests_ask_for_more_often_comes_first() -> None:
    rare = pool(((1, 10, 10), 0.2, 1, True), ((1, 5000, 10), 0.2, 9, True))
    assert choose(rare, 1) == (1,)


def test_requests_that_are_asked_for_count_without_being_eligible() -> None:
    near = pool(((1, 100, 10), 0.2, 1, True), ((1, 5000, 10), 0.2, 1, True), ((1, 5500, 10), 0.2, 5, False))
    assert choose(near, 1) == (1,)


def test_a_round_is_spread_and_not_ten_copies_of_one_request() -> None:
    copies = [((1, 4000 + step, 10), 0.3, 5.0, True) for step in range(10)]
    others = [((1, 20, 10), 0.25, 1.0, True), ((8, 500, 300), 0.25, 1.0, True)]
    chosen = choose(pool(*copies, *others), 3)

    assert chosen[0] < 10
    assert set(chosen[1:]) == {10, 11}


def test_what_is_certain_is_not_measured() -> None:
    assert choose(pool(((1, 10, 10), 0.0, 1, True)), 2) == ()
    assert choose(pool(), 2) == ()


@given(members=MEMBERS, count=st.integers(0, 15))
def test_any_choice_is_of_eligible_requests_each_once(
    members: list[tuple[tuple[int, int, int], float, float, bool]], count: int
) -> None:
    chosen = choose(pool(*members), count)

    assert len(chosen) == len(set(chosen)) <= count
    assert all(members[place][3] for place in chosen)
    if len(chosen) < count:
        left = [m for place, m in enumerate(members) if m[3] and place not in chosen]
        assert all(m[1] < 0.01 or len(chosen) for m in left)


def test_scores_of_deployments_are_taken_together_without_those_that_have_none() -> None:
    assert root_mean_square([0.3, 0.4, math.nan]) == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert root_mean_square([math.nan]) == 0.0
