"""A focused campaign chooses by what it has measured, and never by what is held out."""

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from harness import run
from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.fields import RequestSpec
from harness.campaign.focused import Candidate, FocusedRuns, Learner, Measured, Scorer, held_out_sha256
from harness.campaign.jobs import Job
from harness.campaign.options import parse
from harness.campaign.plan import Plan
from harness.campaign.rows import Outcome, run_row
from harness.campaign.sampling import sample_requests, spec_of, with_held_out
from harness.campaign.task import Task
from harness.dataset.reading import read_rows
from harness.errors import OtherCampaign, OutOfMemory, UsageError
from harness.records import Measurement, RunRow, Status

Look = Callable[[], Surroundings]
Energy = Callable[[Job], float]


class Silent:
    """An observer that does not look."""

    def started(self, job: Job) -> None: ...

    def retried(self, job: Job, reason: str) -> None: ...

    def recorded(self, measurement: Measurement) -> None: ...


class Stopped(Exception):
    """The campaign is killed."""


class Meter:
    """A launcher that says of each run what ``energy`` says; killed after ``lives`` runs."""

    def __init__(
        self, energy: Energy, *, lives: float = math.inf, too_large: Callable[[Job], bool] | None = None
    ) -> None:
        self.energy, self.lives = energy, lives
        self.too_large = too_large or (lambda job: False)
        self.jobs: list[Job] = []

    def launch(self, task: Task, *, limit_s: float) -> Measurement:
        if len(self.jobs) >= self.lives:
            raise Stopped
        self.jobs.append(task.job)
        if self.too_large(task.job):
            raise OutOfMemory("no memory")
        outcome = Outcome(
            status=Status.OK, detail=None, started_at_utc="2026-01-01T00:00:00+00:00", environment_id=None, gpu=task.gpu
        )
        return Measurement(run=replace(run_row(task, outcome), energy_j=self.energy(task.job)))


class Pupil:
    """A learner that remembers what it is shown; it doubts what is far from all that it has seen."""

    def __init__(self) -> None:
        self.measured: list[Measured] = []
        self.candidates: list[Candidate] = []

    def __call__(self, measured: Sequence[Measured]) -> Scorer:
        self.measured += measured

        def doubt(candidate: Candidate) -> float:
            self.candidates.append(candidate)
            near = [
                abs(math.log(candidate.request.prompt_tokens / each.candidate.request.prompt_tokens)) * each.energy_j
                for each in measured
            ]
            return min([1.0, *near])

        return lambda candidates: [doubt(candidate) for candidate in candidates]


def of_tokens(job: Job) -> float:
    return 1.0 + job.request.context_tokens / 4096


def a_plan(**changes: object) -> Plan:
    table = {"sampling": "focused", "samples": 6, "held_out_samples": 5, "quality": "quick", "seed": 3, **changes}
    return with_held_out(Plan.from_table(table))


def carry_out(folder: Path, plan: Plan, look: Look, meter: Meter, learner: Learner | None = None) -> list[RunRow]:
    with Campaign.open(folder, plan, look) as campaign:
        rows = list(campaign.carry_out(meter, Silent(), FocusedRuns(campaign, learner or Pupil())))
        campaign.store.close()
    return rows


def lengths(job: Job) -> tuple[int, int]:
    return job.request.prompt_tokens, job.request.output_tokens


# ---- the held-out requests ----


def test_held_out_requests_are_part_of_the_plan_and_of_its_identity() -> None:
    plan = a_plan()

    assert len(plan.held_out) == 5
    assert a_plan().held_out == plan.held_out
    assert a_plan(seed=4).held_out != plan.held_out
    assert with_held_out(plan) is plan
    assert all(str(spec) in plan.configuration for spec in plan.held_out)
    other = replace(plan, held_out=(*plan.held_out[:-1], RequestSpec(batch_size=1, prompt_tokens=7, output_tokens=7)))
    assert other.campaign_id != plan.campaign_id
    assert held_out_sha256(other) != held_out_sha256(plan)
    assert held_out_sha256(replace(plan, held_out=plan.held_out[::-1])) == held_out_sha256(plan)


def test_a_focused_plan_reads_back_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(a_plan().to_toml(), encoding="utf-8")

    assert Plan.read(tmp_path / "plan.toml") == a_plan()


def test_plans_without_focused_sampling_are_left_as_they_are() -> None:
    plan = Plan(samples=5)
    assert with_held_out(plan) is plan
    assert Plan().campaign_id == "19a0f9d6761fd597"  # as before there was focused sampling


def test_held_out_requests_carry_the_weights_of_their_sample_and_those_given_by_hand_none() -> None:
    weights = [wanted.sampling_weight or 0.0 for wanted in sample_requests(a_plan())]
    assert sum(weights) == pytest.approx(5)
    by_hand = a_plan(held_out=["1x16x4", "2x8x2"])
    assert [str(spec_of(wanted)) for wanted in sample_requests(by_hand)] == ["1x16x4", "2x8x2"]
    assert all(wanted.sampling_weight is None for wanted in sample_requests(by_hand))


def test_nothing_of_the_held_out_requests_reaches_what_chooses(tmp_path: Path, look: Look) -> None:
    plan, pupil = a_plan(), Pupil()
    carry_out(tmp_path, plan, look, meter := Meter(of_tokens), pupil)

    held = {(spec.prompt_tokens, spec.output_tokens) for spec in plan.held_out} | set(map(lengths, meter.jobs[:5]))
    assert len(meter.jobs) == 11
    assert not held & set(map(lengths, meter.jobs[5:]))
    assert not held & {(c.request.prompt_tokens, c.request.output_tokens) for c in pupil.candidates}
    assert not held & {(m.candidate.request.prompt_tokens, m.candidate.request.output_tokens) for m in pupil.measured}
    assert pupil.measured


def test_other_energies_of_the_held_out_requests_change_no_choice(tmp_path: Path, look: Look) -> None:
    plan = a_plan()
    held = {(spec.prompt_tokens, spec.output_tokens) for spec in plan.held_out}
    dice = count(1)

    def strange(job: Job) -> float:
        return 1e6 * next(dice) if lengths(job) in held else of_tokens(job)

    carry_out(tmp_path / "one", plan, look, one := Meter(of_tokens))
    carry_out(tmp_path / "other", plan, look, other := Meter(strange))

    assert [job.run_id for job in one.jobs] == [job.run_id for job in other.jobs]


def test_other_energies_of_chosen_requests_do_change_what_is_chosen(tmp_path: Path, look: Look) -> None:
    plan = a_plan()
    carry_out(tmp_path / "one", plan, look, one := Meter(of_tokens))
    carry_out(tmp_path / "other", plan, look, other := Meter(lambda job: 1e-3))

    assert [job.run_id for job in one.jobs[:7]] == [job.run_id for job in other.jobs[:7]]
    assert [job.run_id for job in one.jobs[7:]] != [job.run_id for job in other.jobs[7:]]


def test_a_folder_with_other_held_out_requests_is_another_campaign(tmp_path: Path, look: Look) -> None:
    carry_out(tmp_path, a_plan(samples=1), look, Meter(of_tokens))

    with pytest.raises(OtherCampaign, match="held_out"):
        carry_out(tmp_path, a_plan(samples=1, held_out=["1x16x4"]), look, Meter(of_tokens))


# ---- the loop ----


def test_chosen_runs_have_no_weight_and_no_request_is_made_twice(tmp_path: Path, look: Look) -> None:
    carry_out(tmp_path, a_plan(), look, Meter(of_tokens))

    rows = sorted(read_rows(tmp_path, RunRow), key=lambda row: row.sampling_weight is None)
    assert sum(row.sampling_weight or 0.0 for row in rows[:5]) == pytest.approx(5)
    assert [row.sampling_weight for row in rows[5:]] == [None] * 6
    assert len({(row.batch_size, row.prompt_tokens, row.output_tokens) for row in rows}) == 11


def test_requests_are_chosen_where_the_scorer_is_uncertain(tmp_path: Path, look: Look) -> None:
    def learner(measured: Sequence[Measured]) -> Scorer:
        return lambda candidates: [1.0 if each.request.output_tokens > 300 else 1e-6 for each in candidates]

    carry_out(tmp_path, a_plan(), look, meter := Meter(of_tokens), learner)

    assert all(job.request.output_tokens > 200 for job in meter.jobs[5:])  # shortened to a context of 2048


def test_a_request_that_the_scorer_cannot_judge_is_never_chosen(tmp_path: Path, look: Look) -> None:
    def learner(measured: Sequence[Measured]) -> Scorer:
        return lambda candidates: [math.nan if each.request.batch_size > 1 else 0.5 for each in candidates]

    carry_out(tmp_path, a_plan(), look, meter := Meter(of_tokens), learner)

    assert {job.request.batch_size for job in meter.jobs[5:]} == {1}
    assert len(meter.jobs) == 11


def test_a_scorer_that_judges_nothing_ends_the_campaign_after_the_held_out_requests(tmp_path: Path, look: Look) -> None:
    carry_out(tmp_path, a_plan(), look, meter := Meter(of_tokens), lambda m: lambda c: [math.nan] * len(c))

    assert len(meter.jobs) == 5


def test_a_killed_campaign_goes_on_with_the_same_choices(tmp_path: Path, look: Look) -> None:
    plan = a_plan()
    carry_out(tmp_path / "whole", plan, look, whole := Meter(of_tokens))
    made: list[str] = []
    for lives in (3, 5, 1, math.inf):  # within the held-out requests, within a round, …
        meter = Meter(of_tokens, lives=lives)
        with suppress(Stopped):
            carry_out(tmp_path / "killed", plan, look, meter)
        made += [job.run_id for job in meter.jobs]

    assert made == [job.run_id for job in whole.jobs]


def test_a_finished_campaign_chooses_nothing_more(tmp_path: Path, look: Look) -> None:
    carry_out(tmp_path, a_plan(), look, Meter(of_tokens))
    carry_out(tmp_path, a_plan(), look, again := Meter(of_tokens))

    assert again.jobs == []


def test_what_needs_the_memory_that_ran_out_is_not_chosen(tmp_path: Path, look: Look) -> None:
    def too_large(job: Job) -> bool:
        return job.request.batch_size > 2

    carry_out(tmp_path, a_plan(samples=12), look, meter := Meter(of_tokens, too_large=too_large))

    failed: list[Job] = []
    for job in meter.jobs:
        assert not any(job.needs_at_least(other) for other in failed)
        failed += [job] if too_large(job) else []
    assert failed


def test_a_request_is_made_on_every_deployment_of_the_plan(tmp_path: Path, look: Look) -> None:
    around = look()
    two = replace(around, site=replace(around.site, rank_counts=(1, 2)))
    plan = a_plan(samples=2, device="cpu", gpus=[1, 2])
    carry_out(tmp_path, plan, lambda: two, meter := Meter(of_tokens))

    assert [job.deployment.ranks for job in meter.jobs] == [1, 2] * 7
    assert all(one.request == other.request for one, other in zip(meter.jobs[::2], meter.jobs[1::2], strict=True))


def test_a_predictor_that_knows_nothing_is_found_out_before_anything_is_measured(tmp_path: Path, look: Look) -> None:
    def learner(measured: Sequence[Measured]) -> Scorer:
        raise UsageError("no such device")

    with Campaign.open(tmp_path, a_plan(), look) as campaign, pytest.raises(UsageError, match="no such device"):
        FocusedRuns(campaign, learner).check()


# ---- the command ----


def test_a_time_budget_is_refused() -> None:
    with pytest.raises(UsageError, match="not known before"):
        Plan(sampling="focused", time_budget_s=60)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--predictor-checkpoint a.bin", "does nothing.*--sampling focused"),
        ("--sampling focused --predictor-checkpoint nowhere.bin", "nowhere.bin.*is no file"),
        ("--round-size 3", "round_size .* does nothing"),
        ("--sampling focused --prompt-tokens 8", "prompt_tokens .* does nothing"),
    ],
)
def test_a_command_line_that_cannot_be_says_what_would_be_right(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        parse(line.split())


def test_without_a_predictor_the_command_says_so_and_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "predictor.reference", None)
    out = tmp_path / "campaign"

    assert run.main(["--sampling", "focused", "--device", "cpu", "--out", str(out)]) == 2

    assert "--sampling trace" in capsys.readouterr().err
    assert not out.exists()
