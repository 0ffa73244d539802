"""The works of a run that all ranks do in step: rank 0 commands each call, and all meet at both ends of ``run``."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict

from harness.campaign.laps import Lap
from harness.campaign.ranks import Command, Team, Verb
from harness.campaign.works import WorkSpec
from harness.kernels import KernelCount, Phase
from harness.measuring.results import Work
from harness.records import Part


def spec_to_json(spec: WorkSpec) -> str:
    """A work's description on one line."""
    return json.dumps(asdict(spec), separators=(",", ":"))


def spec_from_json(text: str) -> WorkSpec:
    """Read what ``spec_to_json`` wrote."""
    values = json.loads(text)
    kernels = tuple(KernelCount(**each | {"phase": Phase(each["phase"])}) for each in values["kernels"])
    return WorkSpec(**values | {"part": Part(values["part"]), "kernels": kernels})


class StepWork:
    """One rank's part of a work: between two meetings, with the time it took by itself."""

    def __init__(self, team: Team, own: Work) -> None:
        self._team = team
        self._own = own
        self._durations_s: list[float] = []

    def prepare(self, passes: int) -> None:
        """Set up this rank's part."""
        self._own.prepare(passes)

    def run(self, passes: int) -> None:
        """Start with the others, work, and wait for the others."""
        self._team.meet()
        begun_s = time.perf_counter()
        self._own.run(passes)
        self._durations_s.append(time.perf_counter() - begun_s)
        self._team.meet()

    def release(self) -> tuple[float, ...]:
        """Give back the memory; returns how long this rank worked in each call of ``run`` since the last release."""
        self._own.release()
        durations_s, self._durations_s = tuple(self._durations_s), []
        return durations_s


class LeadWork:
    """A work as rank 0 sees it: what it does, all others do too. Looks like any other work to a session."""

    def __init__(self, team: Team, number: int, own: Work, clock: Callable[[], float], note: Callable[[Lap], None]):
        self._team = team
        self._number = number
        self._clock = clock
        self._note = note
        self._step = StepWork(team, own)
        self._ends_s: list[tuple[float, float]] = []
        self._in_step = True
        self.part = own.part
        self.kernels = own.kernels
        self.share = own.share
        self.context_start_tokens = own.context_start_tokens
        self.mean_context_tokens = own.mean_context_tokens

    def prepare(self, passes: int) -> None:
        """Set up all ranks."""
        self._team.tell(Command(verb=Verb.PREPARE, number=self._number, count=passes))
        self._step.prepare(passes)

    def run(self, passes: int) -> None:
        """Run on all ranks, from a common start to the end of the last."""
        self._in_step = False  # until all have met again; after a failure they never will
        begun_s = self._clock()
        self._team.tell(Command(verb=Verb.RUN, number=self._number, count=passes))
        self._step.run(passes)
        self._ends_s.append((begun_s, self._clock()))
        self._in_step = True

    def release(self) -> None:
        """Give back the memory on all ranks, and collect how long each worked."""
        if not self._in_step:
            return
        self._team.tell(Command(verb=Verb.RELEASE, number=self._number))
        mine = self._step.release()
        answers: list[list[float]] = [json.loads(self._team.answer_of(rank)) for rank in self._team.place.others]
        ends_s, self._ends_s = self._ends_s, []
        for (begun_s, ended_s), durations_s in zip(ends_s, zip(mine, *answers, strict=True), strict=True):
            self._note(Lap(begun_s=begun_s, ended_s=ended_s, durations_s=tuple(durations_s)))
