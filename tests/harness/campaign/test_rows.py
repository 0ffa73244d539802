"""Rows of the dataset from what a session measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.kernel_rows import Counted
from harness.campaign.plan import Plan
from harness.campaign.rows import Outcome, reading_rows, run_row, without_numbers
from harness.campaign.task import Task
from harness.measuring.ledger import Ledger
from harness.measuring.precision import Precision
from harness.measuring.results import IdleFloor, PartResult, SessionResult
from harness.measuring.statistics import mean_from
from harness.records import EnergyMethod, Part, Provenance, Status
from tests.harness.measuring.made import IDLE_W, count, session, taken, window

OUTCOME = Outcome(status=Status.OK, detail=None, started_at_utc="2026-01-01", environment_id="e", gpu="a GPU")
COUNTED = Counted(
    names=("meter:0", "meter:1"),
    device_sha256=("a", "b"),
    ranks=(0, 1),
    method="replay",
    provenance=Provenance.SIMULATED,
)


@pytest.fixture
def task(tmp_path: Path, plan: Plan, look: Callable[[], Surroundings]) -> Task:
    with Campaign.open(tmp_path / "campaign", plan, look) as campaign:
        job = campaign.queue.next()
        assert job is not None
        return campaign._task(job)


def measured() -> SessionResult:
    """A run, a loop and three idle windows, on two devices."""
    run = taken(Part.RUN, 400.0, 300.0, work_s=2.0, started_s=30.0, lead_s=0.1, tail_s=0.2, timing95_s=0.01)
    loop = taken(Part.REPLAY, 90.0, 80.0, passes=50, kernels=[count("a", 3)], started_s=40.0)
    idle = [window(10 * IDLE_W, 10 * IDLE_W, work_s=10.0, started_s=at_s) for at_s in (10.0, 35.0, 60.0)]
    energy_j = mean_from(700.0, repeat95=3.0, samples=5, systematic95=4.0)
    duration_s = mean_from(2.0, repeat95=0.01, samples=5)
    return replace(
        session([loop, run], precision=Precision(gain95=0.05, tail95=0.25)),
        idle=IdleFloor(windows=tuple(idle)),
        parts=(PartResult(part=Part.RUN, energy_j=energy_j, duration_s=duration_s),),
    )


def test_readings_are_in_order_of_time_with_their_lead_and_tail_and_what_was_launched() -> None:
    rows = reading_rows("r", measured(), COUNTED)

    assert [(row.part, row.trial, row.rank) for row in rows] == [
        (part, trial, rank)
        for part, trial in ((Part.IDLE, 0), (Part.RUN, 0), (Part.IDLE, 1), (Part.REPLAY, 0), (Part.IDLE, 2))
        for rank in (0, 1)
    ]
    run, loop = rows[3], rows[7]
    assert (run.energy_j, run.duration_s, run.lead_s, run.tail_s) == pytest.approx((300.0, 2.3, 0.1, 0.2))
    assert run.started_s == pytest.approx(30 - 0.1 - 10)
    assert (run.counter_start_j, run.counter_end_j) == (100.0, 400.0)
    assert (run.meter, run.device_sha256, run.kernels) == ("meter:1", "b", None)
    assert loop.kernels is not None
    assert json.loads(loop.kernels) == {"prefill": {"a": 3}}
    assert loop.passes == 50


def test_the_uncertainty_of_a_reading_is_that_of_its_counter_alone() -> None:
    run = reading_rows("r", measured(), COUNTED)[2]
    active_w = (400 - 2.3 * IDLE_W) / 2
    assert run.uncertainty_j == pytest.approx(((0.01 * IDLE_W) ** 2 + (0.25 * active_w * 0.2) ** 2) ** 0.5)


def test_a_run_has_its_interval_with_the_meters_part_of_it_and_its_ledger(task: Task) -> None:
    term = mean_from(100.0, repeat95=1.0, samples=5)
    ledger = Ledger(
        method=EnergyMethod.REGRESSED,
        energy_j=term.times(7),
        idle_j=200.0,
        kernels_j=term.times(4),
        gaps_j=term,
        residual_j=mean_from(-5.0, repeat95=8.0, samples=5),
    )

    row = run_row(task, OUTCOME, counted=COUNTED, session=measured(), ledger=ledger)

    assert (row.energy_j, row.energy_ci95_j, row.energy_systematic95_j) == pytest.approx((700, 5, 4))
    assert (row.duration_s, row.duration_ci95_s, row.trials) == pytest.approx((2.0, 0.01, 5))
    assert row.idle_power_w == pytest.approx(2 * IDLE_W)
    assert (row.ledger_idle_j, row.ledger_kernels_j, row.ledger_gaps_j) == (200.0, 400.0, 100.0)
    assert (row.residual_j, row.residual_ci95_j, row.ledger_method) == (-5.0, 8.0, EnergyMethod.REGRESSED)


def test_without_a_ledger_its_columns_are_null_and_not_zero(task: Task) -> None:
    row = run_row(task, OUTCOME, counted=COUNTED, session=measured())
    assert row.residual_j is row.residual_ci95_j is None
    assert row.ledger_method is None
    assert row.ledger_idle_j is row.ledger_kernels_j is row.ledger_gaps_j is None


def test_a_run_that_was_not_measured_has_no_numbers(task: Task) -> None:
    row = without_numbers(task, Status.FAILED, "why", "2026-01-01").run
    assert row.energy_j is row.energy_ci95_j is row.energy_systematic95_j is row.duration_ci95_s is None
    assert (row.status, row.status_detail) == (Status.FAILED, "why")
