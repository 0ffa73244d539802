"""A slice of the bench of ``docs/joules.md``: the first machines once more, and the bars on a few others."""

import re
from pathlib import Path
from statistics import median

import pytest

from benchmarks.joules_case import CaseResult, score
from benchmarks.joules_machines import Case, bench_of
from benchmarks.joules_table import FIRST, first_lines

PAGE = Path(__file__).resolve().parents[2] / "docs" / "joules.md"


@pytest.fixture(scope="module")
def results() -> list[CaseResult]:
    return [score(Case(number=number, seed=0, exact=True)) for number in range(FIRST)]


def test_the_published_page_shows_what_the_first_machines_give_today(results: list[CaseResult]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    heading, _, *today = first_lines(results)
    published = page.split(heading, 1)[1].strip().splitlines()[1 : 1 + FIRST]

    for line, shown in zip(today, published, strict=True):
        # Processors differ in the last digits, and a digit may tip a rounding.
        assert numbers(line) == pytest.approx(numbers(shown), abs=0.01), (
            f"{PAGE.name} is stale: python -m benchmarks.joules --write docs/joules.md"
        )


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", line)]


def test_every_phase_of_the_slice_is_within_two_percent_and_half_of_them_within_a_half(
    results: list[CaseResult],
) -> None:
    errors = [abs(score.error) for result in results for score in result.phases]

    assert max(errors) < 0.02
    assert median(errors) <= 0.005


def test_replay_and_regression_find_the_kernels_of_the_slice(results: list[CaseResult]) -> None:
    errors = {
        what: [abs(score.error) for result in results for score in result.kernels if score.what == what]
        for what in ("replay", "regressed")
    }

    assert median(errors["replay"]) <= 0.02
    assert sorted(errors["replay"])[int(0.95 * len(errors["replay"]))] <= 0.06
    assert median(errors["regressed"]) <= 0.05


def test_ledgers_of_the_slice_close_and_are_not_zero_by_construction(results: list[CaseResult]) -> None:
    assert all(result.residual_held for result in results)
    assert all(result.residual_share != 0 and abs(result.residual_share or 1.0) < 0.02 for result in results)


def test_naive_readings_at_their_defaults_are_five_times_worse(results: list[CaseResult]) -> None:
    ours = median(abs(score.error) for result in results for score in result.phases)
    for method in ("counter", "polled"):
        theirs = [
            abs(reading.energy_j / truth_j - 1)
            for result in results
            for reading, truth_j in result.naive
            if reading.method == method and not reading.equal_window
        ]
        assert median(theirs) >= 5 * ours, method


def test_the_same_case_is_the_same_machine() -> None:
    one, other = (bench_of(Case(number=7, seed=3, exact=True)) for _ in range(2))

    assert one.task == other.task
    assert one.machine.gpu == other.machine.gpu
    assert bench_of(Case(number=8, seed=3, exact=True)).machine.gpu != one.machine.gpu
