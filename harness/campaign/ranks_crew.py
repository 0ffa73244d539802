"""The crew of a run that spans several ranks: rank 0 leads, the others follow its commands.

What goes wrong on any rank is raised there; the process then reports it and ends, and the elastic agent ends the
others. Only a trace that fails is answered instead: it costs the kernels, not the energies.
"""

import json
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict

import psutil

from harness.campaign.kernel_loops import Replayable
from harness.campaign.kernel_rows import Counted, counted_by
from harness.campaign.laps import Lap, RankPlace, rank_time_rows
from harness.campaign.prepared import Prepared
from harness.campaign.ranks import Command, Team, Verb
from harness.campaign.ranks_meters import Reader, bank_of_all_machines
from harness.campaign.ranks_work import LeadWork, StepWork, spec_from_json, spec_to_json
from harness.campaign.rows import Loaded
from harness.campaign.task import Task
from harness.campaign.works import WorkSpec
from harness.errors import RunError
from harness.kernels import KernelKind, Phase
from harness.measuring.precision import Precision, precision_of
from harness.measuring.results import SessionResult, Work
from harness.measuring.windows import PausingClock, SteadyClock
from harness.meters.selection import MeterBank, meters_for
from harness.models.memory import translate_out_of_memory
from harness.records import RankTimeRow
from harness.tracing.alignment import align
from harness.tracing.timeline import TracedKernel


class Lead:
    """Rank 0: a crew whose every work is done by all ranks in step."""

    def __init__(self, task: Task, team: Team) -> None:
        self._task = task
        self._team = team
        self._laps: list[Lap] = []
        self._works = 0
        self._ids: dict[Phase, list[list[str]]] = {}  # of the kernels of each rank, in the order of its trace
        self.clock: PausingClock = SteadyClock()

    def precision(self, bank: MeterBank) -> Precision:
        """What is known of the method, and what a calibration of this machine adds."""
        return precision_of(bank.method)

    def how_replayed(self) -> str:
        """As this rank's prepared model launches them."""
        return self._prepared.how_replayed

    def meters(self) -> MeterBank:
        """Open the meters of all machines, one reader on each."""
        return bank_of_all_machines(self._team, open_bank(self._task, self._team))

    def counted(self, bank: MeterBank) -> Counted:
        """A meter counts for one rank (a GPU), or for all ranks of its machine (a CPU)."""
        place, meters = self._team.place, len(bank.meters)
        each = place.ranks // meters if meters <= place.ranks else 1
        return counted_by(bank, [number * each for number in range(meters)])

    def load(self) -> None:
        """Load this rank's part while the others load theirs."""
        self._team.tell(Command(verb=Verb.LOAD))
        self._prepared = Prepared(self._task)
        self._places = [_place_of(self._team, self._task)]
        self._places += [RankPlace(**json.loads(self._team.answer_of(rank))) for rank in self._team.place.others]

    def work(self, spec: WorkSpec) -> Work:
        """A work that all ranks do in step."""
        number, self._works = self._works, self._works + 1
        self._team.tell(Command(verb=Verb.WORK, number=number, text=spec_to_json(spec)))
        return LeadWork(self._team, number, self._prepared.work(spec), time.perf_counter, self._laps.append)

    def traced(self, phase: Phase) -> tuple[tuple[TracedKernel, ...], ...]:
        """Kernels of every rank, traced at the same time; raises ``RunError`` where a rank could not."""
        self._team.tell(Command(verb=Verb.TRACE, text=phase.value))
        try:
            mine = self._prepared.traced(phase, self._team.meet)
        finally:  # whatever became of it here: an answer that is not taken would be taken for the next one
            answers = [(rank, self._team.answer_of(rank)) for rank in self._team.place.others]
        aligned = align([mine, *(_kernels_of(rank, answer) for rank, answer in answers)])
        self._ids[phase] = [[kernel.kernel_id for kernel in kernels] for kernels in aligned]
        return aligned

    def replayable(self, phase: Phase) -> Replayable:
        """The kernels that every rank can run alone."""
        ids = self._ids[phase]
        self._team.tell(Command(verb=Verb.KERNELS, text=json.dumps([phase.value, ids])))
        mine = self._prepared.replayable(phase, ids[0])
        found = mine.kernel_ids.intersection(
            *(json.loads(self._team.answer_of(rank)) for rank in self._team.place.others)
        )
        return Replayable(kernel_ids=found, note=mine.note)

    def found(self) -> Loaded:
        """What was found on loading, with the memory of the rank that used most."""
        self._team.tell(Command(verb=Verb.FOUND))
        peaks = [json.loads(self._team.answer_of(rank)) for rank in self._team.place.others]
        found = self._prepared.found()
        known = [peak for peak in (found.peak_memory_bytes, *peaks) if peak is not None]
        return Loaded(
            config_sha256=found.config_sha256,
            quantization=found.quantization,
            prompts=found.prompts,
            peak_memory_bytes=max(known, default=None),
        )

    def rank_times(self, session: SessionResult) -> tuple[RankTimeRow, ...]:
        """How long each rank worked in each window."""
        return rank_time_rows(self._task.job.run_id, session, self._laps, self._places)

    def dismiss(self) -> None:
        """Let the others go; the run is over. Raises where they are not there any more."""
        self._team.tell(Command(verb=Verb.END))
        self._prepared.release()
        self._team.meet()


class Follower:
    """Every other rank: does what rank 0 says until it says that the run is over."""

    def __init__(self, task: Task, team: Team) -> None:
        self._task = task
        self._team = team
        self._reader = Reader(team, lambda: open_bank(task, team))
        self._works: dict[int, StepWork] = {}

    def follow(self) -> None:
        """Obey commands; raises what the work raises."""
        with translate_out_of_memory(f"running {self._task.job.request.model}"):
            while (command := self._team.hear()).verb is not Verb.END:
                self._obey(command)
        self._reader.close()
        self._prepared.release()
        self._team.meet()

    def _obey(self, command: Command) -> None:
        match command.verb:
            case Verb.LOAD:
                place = self._team.place
                self._prepared = Prepared(self._task, late=place.rank == place.ranks - 1)
                self._team.answer(json.dumps(asdict(_place_of(self._team, self._task))))
            case Verb.WORK:
                own = self._prepared.work(spec_from_json(command.text))
                self._works[command.number] = StepWork(self._team, own)
            case Verb.PREPARE:
                self._works[command.number].prepare(command.count)
            case Verb.RUN:
                self._works[command.number].run(command.count)
            case Verb.RELEASE:
                self._team.answer(json.dumps(self._works[command.number].release()))
            case Verb.TRACE:
                self._team.answer(self._traced(Phase(command.text)))
            case Verb.KERNELS:
                phase, ids = json.loads(command.text)
                found = self._prepared.replayable(Phase(phase), ids[self._team.place.rank])
                self._team.answer(json.dumps(sorted(found.kernel_ids)))
            case Verb.FOUND:
                self._team.answer(json.dumps(self._prepared.found().peak_memory_bytes))
            case _:
                self._reader.obey(command)

    def _traced(self, phase: Phase) -> str:
        try:
            return json.dumps([asdict(kernel) for kernel in self._prepared.traced(phase, self._team.meet)])
        except Exception as error:  # noqa: BLE001  the profiler may fail in any way; rank 0 has the energies already
            traceback.print_exc()
            return json.dumps(f"{type(error).__name__}: {error}")


def open_bank(task: Task, team: Team) -> MeterBank:
    """The meters of this machine, which its first rank reads for all of its ranks."""
    deployment = task.job.deployment
    on_gpu = range(team.place.local_ranks) if deployment.n_gpus else ()
    return meters_for(deployment.device, gpu_indices=on_gpu, own_pids=_pids_of_machine())


def _pids_of_machine() -> frozenset[int]:
    """Processes of this run on this machine: all children of the agent that started this one."""
    return frozenset(child.pid for child in psutil.Process(os.getppid()).children()) | {os.getpid()}


def _place_of(team: Team, task: Task) -> RankPlace:
    device = task.job.deployment.device
    return RankPlace(node=team.place.node, device=device if device == "cpu" else f"{device}:{team.place.local_rank}")


def _kernels_of(rank: int, answer: str) -> Sequence[TracedKernel]:
    """The kernels another rank traced, out of the JSON it answered; raises ``RunError`` where it says why not."""
    values = json.loads(answer)
    if isinstance(values, str):
        raise RunError(f"rank {rank}: {values}")
    return [
        TracedKernel(
            **each | {"kind": KernelKind(each["kind"]), "launch_durations_s": tuple(each["launch_durations_s"])}
        )
        for each in values
    ]
