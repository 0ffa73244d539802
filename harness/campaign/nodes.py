"""A campaign whose runs span several machines: machine 0 drives it, the others run the same command and serve.

    machine 0   hub ── run 1 ── run 2 ── … ── end
    others      join ──┴────────┴──────────────┴─   each starts an agent for its ranks of the run

The hub is a key-value store at the address that every machine was given. Each run meets at ports of its own that
machine 0 gives out. Whoever loses the hub ends: the campaign is over, or the machine that drove it is gone.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError, DistNetworkError

from harness import __version__
from harness.campaign.campaign import Surroundings
from harness.campaign.launchers import LocalLauncher, run_worker
from harness.campaign.plan import Plan
from harness.campaign.rendezvous import Meeting, free_port, split_address
from harness.campaign.task import Task
from harness.errors import CannotMeasure, RunError, UsageError
from harness.records import Measurement

_JOIN = timedelta(minutes=30)  # to start the command on every machine
_LOOK = timedelta(seconds=5)  # at most so late is an interrupt noticed
_FINISH = timedelta(seconds=60)  # for the other machines to end a run after machine 0 has
_LEAVE = timedelta(seconds=10)
_END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a machine says of itself; all machines of a campaign must say the same."""

    campaign_id: str
    harness: str
    gpu: str
    dtype: str
    models: tuple[str, ...]  # each with what tells models of one name apart

    @classmethod
    def here(cls, plan: Plan, surroundings: Surroundings) -> "Member":
        """What the machine that asks says."""
        return cls(
            campaign_id=plan.campaign_id,
            harness=__version__,
            gpu=surroundings.site.gpu,
            dtype=surroundings.site.dtype,
            models=tuple(f"{subject.source.name} {subject.version}" for subject in surroundings.subjects),
        )


@dataclass(slots=True, kw_only=True)
class Hub:
    """Machine 0's side: waits for the others, tells them of each run, and lets them go."""

    host: str
    nodes: int
    store: TCPStore
    runs: int = 0
    unfinished: int | None = field(default=None)  # a run that another machine has not been seen to end

    @classmethod
    def opened(cls, address: str, nodes: int) -> "Hub":
        """Listen at an address of this machine; raises ``UsageError`` where that cannot be done."""
        host, port = split_address(address)
        try:
            store = TCPStore(host, port, is_master=True, wait_for_workers=False)
        except DistError as error:
            raise UsageError(
                f"--rendezvous {address}: this machine cannot listen there: {_reason(error)}\n"
                "Name this machine, as the others can reach it, and a port that is free."
            ) from error
        return cls(host=host, nodes=nodes, store=store)

    def wait_for_others(self, own: Member) -> None:
        """Wait until every machine is there; raises ``UsageError`` for one that is missing or not like this one."""
        for node in range(1, self.nodes):
            try:
                other = json.loads(_awaited(self.store, f"node/{node}", _JOIN))
            except DistError as error:
                raise UsageError(
                    f"Machine {node} of {self.nodes} did not come to the rendezvous within {_JOIN}.\n"
                    f"Run the same command there with --node-rank {node}."
                ) from error
            mine = json.loads(json.dumps(asdict(own)))
            different = [name for name, value in mine.items() if other.get(name) != value]
            self.store.set(f"answer/{node}", ", ".join(different))
            if different:
                name = different[0]
                raise UsageError(
                    f"Machine {node} differs from machine 0 in {name}: {other.get(name)!r}, not {mine[name]!r}.\n"
                    "Run the same command, of the same version and on the same kind of device, on every machine."
                )

    def announce(self, task: Task, limit_s: float) -> Meeting:
        """Tell the others of a run; returns where its agents meet. Raises ``CannotMeasure`` where one has gone."""
        self._wait_for_last_run()
        meeting = Meeting(
            node=0,
            nodes=self.nodes,
            endpoint=f"{self.host}:{free_port()}",
            board=f"{self.host}:{free_port()}",
        )
        self.runs += 1
        values = {"task": task.to_json(), "meeting": meeting.to_json(), "limit_s": limit_s}
        self.store.set(f"run/{self.runs}", json.dumps(values))
        self.unfinished = self.runs
        return meeting

    def close(self) -> None:
        """Let the others go."""
        self.store.set(f"run/{self.runs + 1}", _END)
        for node in range(1, self.nodes):
            try:
                self.store.wait([f"gone/{node}"], _LEAVE)
            except DistError:
                continue  # it finds the hub closed

    def _wait_for_last_run(self) -> None:
        if self.unfinished is None:
            return
        for node in range(1, self.nodes):
            try:
                self.store.wait([f"done/{self.unfinished}/{node}"], _FINISH)
            except DistError as error:
                raise CannotMeasure(
                    f"Machine {node} has not ended its part of the last run within {_FINISH}: it is gone or hangs.\n"
                    "Once it is mended, the same command on every machine goes on."
                ) from error
        self.unfinished = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesLauncher:
    """Launches each run on this machine and, through the hub, on all others."""

    local: LocalLauncher
    hub: Hub

    def launch(self, task: Task, *, limit_s: float) -> Measurement:
        """Run the task to its end; raises what ``LocalLauncher`` raises, and ``CannotMeasure``."""
        return self.local.launch(task, limit_s=limit_s, meeting=self.hub.announce(task, limit_s))


def serve(plan: Plan, address: str, node: int, surroundings: Surroundings, say: Callable[[str], None]) -> int:
    """Take part in every run of machine 0's campaign until it ends; returns how many there were.

    Raises ``UsageError`` where machine 0 cannot be reached or is unlike this machine, ``CannotMeasure`` where it goes.
    """
    host, port = split_address(address)
    try:
        store = _connected(host, port)
        store.set(f"node/{node}", json.dumps(asdict(Member.here(plan, surroundings))))
        different = _awaited(store, f"answer/{node}", _JOIN)
    except DistError as error:
        raise UsageError(
            f"--rendezvous {address}: machine 0 cannot be reached there: {_reason(error)}\n"
            "Run the same command there with --node-rank 0, and see that its port can be reached from here."
        ) from error
    if different:
        raise UsageError(
            f"This machine differs from machine 0 in {different}.\n"
            "Run the same command, of the same version and on the same kind of device, on every machine."
        )
    runs = 0
    while (announced := _next_run(store, runs + 1)) is not None:
        runs += 1
        say(f"run {runs}: taking part as machine {node} of {plan.nodes}")
        _take_part(announced, node, surroundings, say)
        store.set(f"done/{runs}/{node}", "")
    store.set(f"gone/{node}", "")
    return runs


def _next_run(store: TCPStore, number: int) -> dict[str, Any] | None:
    """What machine 0 says of its next run, once it does; None: it was the last."""
    try:
        text = _awaited(store, f"run/{number}", timedelta.max)
    except DistError as error:
        raise CannotMeasure(
            f"Machine 0 has gone before its campaign ended: {_reason(error)}\n"
            "Run the same command on every machine to go on: no finished run is lost."
        ) from error
    values: dict[str, Any] | None = None if text == _END else json.loads(text)
    return values


def _connected(host: str, port: int) -> TCPStore:
    """The hub, once it is there; raises ``DistError`` where it does not come."""
    until_s = time.monotonic() + _JOIN.total_seconds()
    while True:
        try:
            return TCPStore(host, port, is_master=False, timeout=_LOOK)
        except DistError:
            if time.monotonic() > until_s:
                raise


def _awaited(store: TCPStore, key: str, patience: timedelta) -> str:
    """The value of a key, once it has one; raises ``DistError`` where it gets none, or the hub is gone."""
    until_s = time.monotonic() + patience.total_seconds()
    while True:
        try:
            store.wait([key], _LOOK)
            return store.get(key).decode()
        except DistNetworkError:
            raise
        except DistError:  # no news yet
            if time.monotonic() > until_s:
                raise


def _take_part(announced: dict[str, Any], node: int, surroundings: Surroundings, say: Callable[[str], None]) -> None:
    """Run this machine's agent of one run to its end. How the run went is machine 0's to say."""
    task = Task.from_json(announced["task"])
    source = next(each.source for each in surroundings.subjects if each.source.name == task.source.name)
    task = replace(task, source=source, gpu_uuids=surroundings.site.gpu_uuids)
    meeting = replace(Meeting.from_json(announced["meeting"]), node=node)
    with tempfile.TemporaryDirectory(prefix="joulegraph-") as folder, (Path(folder) / "log").open("w+b") as log:
        try:
            code = run_worker(task, Path(folder) / "none.json", log, announced["limit_s"], meeting=meeting)
        except RunError as error:
            say(str(error))
            return
        if code:
            log.seek(0)
            tail = log.read().decode("utf-8", "replace").strip().splitlines()[-3:]
            say("\n".join([f"this machine's ranks ended with exit code {code}", *tail]))


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
