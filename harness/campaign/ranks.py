"""The ranks of one run: where each computes, how rank 0 commands the others, and how they keep in step.

    rank 0    reads meters, decides          ──command──►  others  wait, do the same, answer
              └── meet ── work ── meet ──┘                 └── meet ── work ── meet ──┘

Commands and answers are JSON in plain tensors over groups of their own (gloo, also where the model uses NCCL): waiting
for a command costs no CPU time that a meter could see, and no command can be mistaken for a collective of the model.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Self

import torch
import torch.distributed as dist

from harness.errors import RunError

_PATIENCE = timedelta(days=1)  # for commands: the campaign's own limit ends a run that hangs


_TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)
_NAMED = re.compile(r"Ranks? ([\d, ]+) failed to pass monitoredBarrier")  # gloo's words


class RanksSilent(RunError):
    """Ranks that others waited for in vain."""

    def __init__(self, ranks: tuple[int, ...], problem: str) -> None:
        super().__init__(f"no answer from rank {', '.join(map(str, ranks))}: {problem.splitlines()[0]}")
        self.ranks = ranks


class Verb(StrEnum):
    """What rank 0 may tell the others."""

    METERS = "meters"  # open the meters of your machine and describe them
    READ = "read"
    CONDITIONS = "conditions"
    LOAD = "load"  # the model, and say what was found
    WORK = "work"  # make one
    PREPARE = "prepare"
    RUN = "run"
    RELEASE = "release"
    TRACE = "trace"
    KERNELS = "kernels"  # record those of a phase, under the names that all ranks use
    FOUND = "found"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command. What the numbers mean depends on the verb."""

    verb: Verb
    number: int = 0  # of a work or a meter
    count: int = 0  # of passes
    text: str = ""

    def to_json(self) -> str:
        """The command on one line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote."""
        values = json.loads(text)
        return cls(**values | {"verb": Verb(values["verb"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank is among the others, as torchrun's environment says."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    node: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read what the elastic agent set."""
        return cls(
            rank=int(environ["RANK"]),
            ranks=int(environ["WORLD_SIZE"]),
            local_rank=int(environ["LOCAL_RANK"]),
            local_ranks=int(environ["LOCAL_WORLD_SIZE"]),
            node=int(environ["GROUP_RANK"]),
        )

    @property
    def others(self) -> range:
        """The ranks that rank 0 commands."""
        return range(1, self.ranks)

    @property
    def readers(self) -> range:
        """The first rank of every other machine: it reads that machine's meters."""
        return range(self.local_ranks, self.ranks, self.local_ranks)


class Team:
    """One rank's connection to the others."""

    def __init__(self, place: Place, *, timeout_s: float) -> None:
        """Make the groups; the default process group exists, and every rank does this at the same time.

        What waits for another rank's work gives up after ``timeout_s``.
        """
        self.place = place
        self._timeout = timedelta(seconds=timeout_s)
        self._orders = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._answers = dist.new_group(backend="gloo", timeout=self._timeout)

    @classmethod
    def join(cls, place: Place, *, device: str, timeout_s: float) -> Self:
        """Meet the other ranks, as torchrun's environment says where."""
        timeout = timedelta(seconds=timeout_s)
        if device == "cuda":
            torch.cuda.set_device(place.local_rank)
            mine = torch.device("cuda", place.local_rank)
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=timeout, device_id=mine)
        else:
            dist.init_process_group("gloo", timeout=timeout)
        return cls(place, timeout_s=timeout_s)

    def tell(self, command: Command, ranks: Sequence[int] | None = None) -> None:
        """Rank 0: send a command, to all others unless told to whom."""
        data = torch.frombuffer(bytearray(command.to_json().encode()), dtype=torch.uint8)
        for rank in self.place.others if ranks is None else ranks:
            dist.send(torch.tensor([data.numel()]), rank, group=self._orders)
            dist.send(data, rank, group=self._orders)

    def hear(self) -> Command:
        """Other ranks: wait for a command."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, 0, group=self._orders)
        message = torch.zeros(int(size.item()), dtype=torch.uint8)
        dist.recv(message, 0, group=self._orders)
        return Command.from_json(bytes(message.numpy()).decode())

    def answer(self, text: str) -> None:
        """Other ranks: send text of any length to rank 0."""
        data = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
        dist.send(torch.tensor([data.numel()]), 0, group=self._answers)
        dist.send(data, 0, group=self._answers)

    def ask(self, command: Command, rank: int) -> str:
        """Rank 0: send a command to one rank and wait for its answer."""
        self.tell(command, [rank])
        return self.answer_of(rank)

    def answer_of(self, rank: int) -> str:
        """Rank 0: wait for the answer of a rank."""
        size = torch.zeros(1, dtype=torch.int64)
        try:
            dist.recv(size, rank, group=self._answers)
        except RuntimeError as error:
            if _TIMED_OUT.search(str(error)) is None:
                raise
            raise RanksSilent((rank,), str(error)) from error
        data = torch.zeros(int(size.item()), dtype=torch.uint8)
        dist.recv(data, rank, group=self._answers)
        return bytes(data.numpy()).decode()

    def meet(self) -> None:
        """Wait until every rank is here; raises ``RanksSilent`` where some did not come in time."""
        try:
            dist.monitored_barrier(self._answers, timeout=self._timeout, wait_all_ranks=True)
        except RuntimeError as error:
            named = _NAMED.search(str(error))
            if named is None:
                raise
            raise RanksSilent(tuple(int(rank) for rank in re.findall(r"\d+", named[1])), str(error)) from error

    def leave(self) -> None:
        """Let go of the groups."""
        dist.destroy_process_group()
