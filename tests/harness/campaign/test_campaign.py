"""A campaign makes every run once, whatever its workers do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign.campaign import Campaign, Surroundings, finished_runs
from harness.campaign.jobs import Job
from harness.campaign.plan import Plan
from harness.campaign.rows import Outcome, run_row
from harness.campaign.task import Task
from harness.dataset.reading import read_rows
from harness.errors import FolderBusy, OtherCampaign, OutOfMemory, RunError, WorkerDied
from harness.records import Measurement, RunRow, Status

Look = Callable[[], Surroundings]


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, job: Job) -> None:
        self.events.append(f"started {job.request.batch_size}x{job.request.prompt_tokens}")

    def retried(self, job: Job, reason: str) -> None:
        self.events.append(f"retried {reason}")

    def recorded(self, measurement: Measurement) -> None:
        self.events.append(f"recorded {measurement.run.status}")


class FakeLauncher:
    """Answers each task as ``outcomes`` says by batch and prompt, in order; otherwise with an ok run."""

    def __init__(self, outcomes: dict[tuple[int, int], list[Exception]] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.launched: list[Task] = []

    def launch(self, task: Task, *, limit_s: float) -> Measurement:
        self.launched.append(task)
        request = task.job.request
        errors = self.outcomes.get((request.batch_size, request.prompt_tokens), [])
        if errors:
            raise errors.pop(0)
        outcome = Outcome(
            status=Status.OK, detail=None, started_at_utc="2026-01-01T00:00:00+00:00", environment_id=None, gpu=task.gpu
        )
        return Measurement(run=run_row(task, outcome))


def carry_out(folder: Path, plan: Plan, look: Look, launcher: FakeLauncher) -> tuple[list[RunRow], list[str]]:
    recorder = Recorder()
    with Campaign.open(folder, plan, look) as campaign:
        rows = list(campaign.carry_out(launcher, recorder))
        campaign.store.close()
    return rows, recorder.events


def statuses(folder: Path) -> dict[str, Status]:
    return {f"{row.batch_size}x{row.prompt_tokens}": row.status for row in read_rows(folder, RunRow)}


def test_every_run_of_the_plan_is_recorded_once_and_in_order(tmp_path: Path, plan: Plan, look: Look) -> None:
    rows, events = carry_out(tmp_path, plan, look, FakeLauncher())

    assert [(row.batch_size, row.prompt_tokens, row.output_tokens) for row in rows] == [
        (1, 8, 4),
        (2, 8, 4),
        (1, 16, 4),
        (4, 32, 8),
    ]
    assert events[:2] == ["started 1x8", "recorded ok"]
    assert set(statuses(tmp_path).values()) == {Status.OK}


def test_a_finished_campaign_makes_nothing_again_and_looks_for_nothing(tmp_path: Path, plan: Plan, look: Look) -> None:
    carry_out(tmp_path, plan, look, FakeLauncher())
    launcher = FakeLauncher()

    def never() -> Surroundings:
        raise AssertionError("a finished campaign needs no devices")

    rows, _ = carry_out(tmp_path, plan, never, launcher)

    assert rows == []
    assert launcher.launched == []


def test_a_campaign_that_was_stopped_goes_on_with_the_runs_that_are_missing(
    tmp_path: Path, plan: Plan, look: Look
) -> None:
    with Campaign.open(tmp_path, plan, look) as campaign:
        made = campaign.carry_out(FakeLauncher(), Recorder())
        first = next(made)
    launcher = FakeLauncher()

    rows, _ = carry_out(tmp_path, plan, look, launcher)

    assert first.run_id not in {row.run_id for row in rows}
    assert len(rows) == 3
    assert len(finished_runs(tmp_path)) == 4


def test_a_run_out_of_memory_skips_what_needs_at_least_as_much_and_nothing_else(
    tmp_path: Path, plan: Plan, look: Look
) -> None:
    launcher = FakeLauncher({(2, 8): [OutOfMemory("too big")]})

    carry_out(tmp_path, plan, look, launcher)

    assert statuses(tmp_path) == {
        "1x8": Status.OK,
        "2x8": Status.OOM,
        "1x16": Status.OK,
        "4x32": Status.SKIPPED,
    }
    skipped = next(row for row in read_rows(tmp_path, RunRow) if row.status is Status.SKIPPED)
    assert skipped.status_detail is not None
    assert "ran out of memory" in skipped.status_detail
    assert skipped.energy_j is None


def test_a_worker_that_died_once_is_tried_again(tmp_path: Path, plan: Plan, look: Look) -> None:
    launcher = FakeLauncher({(1, 8): [WorkerDied("signal 9")]})

    rows, events = carry_out(tmp_path, plan, look, launcher)

    assert [row.status for row in rows] == [Status.OK] * 4
    assert "retried signal 9" in events
    assert len(launcher.launched) == 5


def test_a_worker_that_dies_every_time_fails_its_run_and_not_the_campaign(
    tmp_path: Path, plan: Plan, look: Look
) -> None:
    launcher = FakeLauncher({(1, 8): [WorkerDied("signal 11"), WorkerDied("signal 11")]})

    rows, _ = carry_out(tmp_path, plan, look, launcher)

    assert [row.status for row in rows] == [Status.FAILED, Status.OK, Status.OK, Status.OK]
    assert rows[0].status_detail is not None
    assert "signal 11" in rows[0].status_detail


def test_a_run_that_hangs_is_not_tried_again(tmp_path: Path, plan: Plan, look: Look) -> None:
    launcher = FakeLauncher({(1, 8): [RunError("took too long")]})

    rows, _ = carry_out(tmp_path, plan, look, launcher)

    assert rows[0].status is Status.FAILED
    assert len(launcher.launched) == 4


def test_what_the_plan_itself_rules_out_is_a_row_with_its_reason(tmp_path: Path, look: Look) -> None:
    plan = Plan.from_table({"requests": ["1x8x4", "5000000x8x4"]})

    carry_out(tmp_path, plan, look, FakeLauncher())

    skipped = next(row for row in read_rows(tmp_path, RunRow) if row.batch_size == 5_000_000)
    assert skipped.status is Status.SKIPPED
    assert "memory" in (skipped.status_detail or "")


def test_another_plan_in_the_same_folder_is_refused_and_what_differs_is_named(
    tmp_path: Path, plan: Plan, look: Look
) -> None:
    carry_out(tmp_path, plan, look, FakeLauncher())
    other = Plan.from_table({"requests": ["1x8x4"], "quality": "quick"})

    with pytest.raises(OtherCampaign, match="requests"):
        Campaign.open(tmp_path, other, look)


def test_a_folder_without_its_queue_still_refuses_another_plan(tmp_path: Path, plan: Plan, look: Look) -> None:
    carry_out(tmp_path, plan, look, FakeLauncher())
    (tmp_path / ".campaign" / "queue.sqlite").unlink()

    with pytest.raises(OtherCampaign):
        Campaign.open(tmp_path, Plan.from_table({"requests": ["1x8x4"]}), look)


def test_two_campaigns_cannot_work_in_one_folder(tmp_path: Path, plan: Plan, look: Look) -> None:
    with Campaign.open(tmp_path, plan, look), pytest.raises(FolderBusy, match="Another campaign"):
        Campaign.open(tmp_path, plan, look)


def test_a_folder_is_free_again_after_an_error_while_opening(tmp_path: Path, plan: Plan, look: Look) -> None:
    def broken() -> Surroundings:
        raise OutOfMemory("no")

    with pytest.raises(OutOfMemory):
        Campaign.open(tmp_path, plan, broken)

    with Campaign.open(tmp_path, plan, look):
        pass


def test_a_campaign_begun_on_another_device_is_not_continued_here(tmp_path: Path, plan: Plan, look: Look) -> None:
    with Campaign.open(tmp_path, plan, look):
        pass
    here = look()
    from dataclasses import replace

    moved = replace(here, site=replace(here.site, gpu="cpu: Another CPU"))

    with Campaign.open(tmp_path, plan, lambda: moved) as campaign, pytest.raises(OtherCampaign, match="another device"):
        list(campaign.carry_out(FakeLauncher(), Recorder()))


def test_a_task_survives_its_way_to_the_worker(tmp_path: Path, plan: Plan, look: Look) -> None:
    launcher = FakeLauncher()
    carry_out(tmp_path, plan, look, launcher)

    assert all(Task.from_json(task.to_json()) == task for task in launcher.launched)
