"""All ranks do the same work in step, and the time of each is known."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from harness.campaign.laps import Lap, RankPlace, rank_time_rows
from harness.campaign.ranks import Command, Place, Verb
from harness.campaign.ranks_work import LeadWork, StepWork, spec_from_json, spec_to_json
from harness.campaign.works import WorkSpec
from harness.kernels import KernelCount, Phase
from harness.records import Part
from tests.harness.measuring.made import session, taken

PLACE = Place(rank=0, ranks=3, local_rank=0, local_ranks=3, node=0)


class FakeTeam:
    """Two other ranks that answer at once; the order of everything is kept."""

    def __init__(self, answers: Sequence[list[float]] = ((1.5,), (2.5,))) -> None:  # type: ignore[assignment]
        self.place = PLACE
        self.events: list[str] = []
        self._answers = answers

    def tell(self, command: Command, ranks: Sequence[int] | None = None) -> None:
        self.events.append(f"tell {command.verb} {command.number} {command.count}")

    def answer_of(self, rank: int) -> str:
        return json.dumps(list(self._answers[rank - 1]))

    def meet(self) -> None:
        self.events.append("meet")


class FakeWork:
    part = Part.DECODE
    share = 0.25
    kernels = (KernelCount(phase=Phase.DECODE, kernel_id="k0003", launches=7),)
    context_start_tokens = 64
    mean_context_tokens = 66.5

    def __init__(self, events: list[str], error: Exception | None = None) -> None:
        self._events = events
        self._error = error

    def prepare(self, passes: int) -> None:
        self._events.append(f"prepare {passes}")

    def run(self, passes: int) -> None:
        self._events.append(f"run {passes}")
        if self._error is not None:
            raise self._error

    def release(self) -> None:
        self._events.append("release")


def lead(team: Any, laps: list[Lap], error: Exception | None = None) -> LeadWork:
    times = iter(range(100))
    return LeadWork(team, 7, FakeWork(team.events, error), lambda: float(next(times)), laps.append)


def test_ranks_are_told_before_rank_0_begins_and_meet_at_both_ends_of_the_work() -> None:
    team, laps = FakeTeam(), list[Lap]()
    work = lead(team, laps)

    work.prepare(4)
    work.run(4)
    work.release()

    assert team.events == [
        "tell prepare 7 4",
        "prepare 4",
        "tell run 7 4",
        "meet",
        "run 4",
        "meet",
        "tell release 7 0",
        "release",
    ]


def test_a_work_in_step_looks_like_the_work_itself() -> None:
    work = lead(FakeTeam(), [])

    assert (work.part, work.share, work.context_start_tokens, work.mean_context_tokens) == (
        Part.DECODE,
        0.25,
        64,
        66.5,
    )
    assert work.kernels == FakeWork.kernels


def test_the_time_of_every_rank_is_collected_for_every_call() -> None:
    team, laps = FakeTeam([[1.5, 1.6], [2.5, 2.6]]), list[Lap]()
    work = lead(team, laps)

    work.prepare(2)
    work.run(1)
    work.run(1)
    work.release()

    assert [lap.durations_s[1:] for lap in laps] == [(1.5, 2.5), (1.6, 2.6)]
    assert [(lap.begun_s, lap.ended_s) for lap in laps] == [(0.0, 1.0), (2.0, 3.0)]


def test_after_a_failure_nobody_is_asked_for_times_they_may_never_give() -> None:
    team, laps = FakeTeam(), list[Lap]()
    work = lead(team, laps, MemoryError("no room"))

    work.prepare(1)
    with pytest.raises(MemoryError):
        work.run(1)
    work.release()

    assert "tell release 7 0" not in team.events
    assert laps == []


def test_a_rank_counts_its_own_time_between_the_meetings() -> None:
    team = FakeTeam()
    step = StepWork(team, FakeWork(team.events))  # type: ignore[arg-type]

    step.prepare(1)
    step.run(1)
    step.run(1)

    assert len(step.release()) == 2
    assert step.release() == (), "times are handed over once"


@pytest.mark.parametrize(
    "spec",
    [
        WorkSpec(part=Part.RUN),
        WorkSpec(part=Part.DECODE, context_tokens=9, steps=3),
        WorkSpec(part=Part.WAITING, kernels=FakeWork.kernels, late_s=0.002),
        WorkSpec(
            part=Part.MIXTURE, kernels=(*FakeWork.kernels, KernelCount(phase=Phase.PREFILL, kernel_id="a", launches=1))
        ),
    ],
)
def test_a_work_described_as_text_is_the_same_work(spec: WorkSpec) -> None:
    assert spec_from_json(spec_to_json(spec)) == spec


def test_commands_read_back_the_same() -> None:
    command = Command(verb=Verb.RUN, number=3, count=17, text="x")

    assert Command.from_json(command.to_json()) == command


def test_the_first_rank_of_every_other_machine_reads_its_meters() -> None:
    place = Place(rank=0, ranks=6, local_rank=0, local_ranks=2, node=0)

    assert list(place.readers) == [2, 4]
    assert list(PLACE.readers) == [], "one machine: rank 0 reads itself"


def test_each_window_gets_the_lap_inside_it_and_warm_up_gets_none() -> None:
    windows = (
        taken(Part.PREFILL, 1.0, started_s=10.0, work_s=1.5, lead_s=0.2, tail_s=0.5),
        taken(Part.RUN, 1.0, started_s=20.0, work_s=3.0),
    )
    laps = [
        Lap(begun_s=5.0, ended_s=6.0, durations_s=(0.9, 0.9)),  # warm-up
        Lap(begun_s=10.1, ended_s=11.4, durations_s=(1.2, 1.0)),
        Lap(begun_s=20.1, ended_s=22.9, durations_s=(2.5, 2.7)),
    ]
    places = [RankPlace(node=0, device="cpu"), RankPlace(node=1, device="cpu")]

    rows = rank_time_rows("r", session(windows), laps, places)

    assert [(row.part, row.rank, row.node, row.duration_s) for row in rows] == [
        (Part.PREFILL, 0, 0, 1.2),
        (Part.PREFILL, 1, 1, 1.0),
        (Part.RUN, 0, 0, 2.5),
        (Part.RUN, 1, 1, 2.7),
    ]
    assert [row.wait_s for row in rows] == pytest.approx([0.0, 0.2, 0.2, 0.0])
