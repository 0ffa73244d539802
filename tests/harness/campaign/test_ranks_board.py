"""Why a run of several ranks ended, out of why its ranks did."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.campaign.ranks import RanksSilent
from harness.campaign.ranks_board import Board, Ending, Report, report_of, verdict
from harness.errors import CannotWrite, MeterFailed, OutOfMemory, UsageError

CLOSED = "[/x/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:49530"
WAITED = "[/x/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1000ms for recv operation to complete"


def report(rank: int, ending: Ending, reason: str = "r") -> Report:
    return Report(rank=rank, ending=ending, reason=reason)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (OutOfMemory("no memory left"), Ending.OUT_OF_MEMORY),
        (MeterFailed("the counter stood still"), Ending.MACHINE),
        (CannotWrite("no space"), Ending.DISK),
        (UsageError("9 heads"), Ending.FAILED),
        (IndexError("index 7"), Ending.FAILED),
        (RuntimeError(CLOSED), Ending.LOST),
        (RuntimeError(WAITED), Ending.LATE),
        (RuntimeError("Application timeout caused pair closure"), Ending.LATE),
        (RuntimeError("size mismatch, got 3, expected 4"), Ending.FAILED),
        (ValueError("timed out is just a word here"), Ending.FAILED),
    ],
)
def test_what_ends_a_rank_is_told_apart(error: Exception, ending: Ending) -> None:
    assert report_of(1, error).ending is ending


def test_the_first_reason_of_its_own_counts_and_not_the_connections_it_took_along() -> None:
    reports = [report(0, Ending.LOST), report(2, Ending.OUT_OF_MEMORY, "too much"), report(1, Ending.FAILED)]

    found = verdict(reports, ranks=3, timeout_s=60)

    assert found is not None
    assert (found.rank, found.ending, found.reason) == (2, Ending.OUT_OF_MEMORY, "too much")


def test_of_ranks_that_waited_in_vain_the_one_that_says_nothing_is_to_blame() -> None:
    found = verdict([report(0, Ending.LATE, WAITED), report(2, Ending.LATE, WAITED)], ranks=4, timeout_s=60)

    assert found is not None
    assert found.rank == 1
    assert "no sign of ranks 1, 3 while ranks 0, 2 waited 60 s in vain" in found.reason
    assert WAITED in found.reason


def test_a_rank_that_is_named_by_the_one_who_waited_is_to_blame_alone() -> None:
    waited = report_of(0, RanksSilent((2,), "it did not answer"))

    found = verdict([waited], ranks=4, timeout_s=60)

    assert found is not None
    assert "no sign of rank 2 while rank 0 waited" in found.reason


def test_where_all_waited_for_each_other_nobody_is_blamed() -> None:
    found = verdict([report(0, Ending.LATE, WAITED), report(1, Ending.LATE, WAITED)], ranks=2, timeout_s=5)

    assert found is not None
    assert found.reason.startswith("ranks 0, 1 waited 5 s in vain")


def test_without_a_report_there_is_no_verdict() -> None:
    assert verdict([], ranks=3, timeout_s=60) is None


@given(st.lists(st.builds(report, st.integers(0, 7), st.sampled_from(Ending)), min_size=1, max_size=8))
def test_any_reports_give_a_verdict_and_a_real_reason_comes_before_its_consequences(reports: list[Report]) -> None:
    found = verdict(reports, ranks=8, timeout_s=1)

    assert found is not None
    own = [each for each in reports if each.ending not in {Ending.LATE, Ending.LOST}]
    assert found == own[0] if own else found.ending in {Ending.LATE, Ending.LOST}


def test_reports_reach_the_board_in_order_from_anywhere() -> None:
    board = Board.opened()
    elsewhere = Board.at(board.address)

    elsewhere.report(report(3, Ending.LOST, "gone"))
    board.report(Report(rank=0, ending=Ending.LATE, reason="waited", silent=(3,)))

    assert board.reports() == elsewhere.reports()
    assert [(each.rank, each.silent) for each in board.reports()] == [(3, ()), (0, (3,))]
