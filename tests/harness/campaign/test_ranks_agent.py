"""Runs of several processes: what comes back, how they fail, and that none outlives what it belongs to.

The ranks are real: torchrun's launcher starts them, and they meet over gloo. Only what they compute is a stand-in.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.launchers import LocalLauncher
from harness.campaign.plan import Plan
from harness.campaign.task import Task
from harness.errors import CannotMeasure, RunError
from harness.records import Status
from harness.requests import Deployment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes as on Linux")

ROOT = Path(__file__).resolve().parents[3]
AGENT = """
import sys
from pathlib import Path
from harness.campaign.parent import die_with_parent
from harness.campaign.task import Task
task = Task.from_json(sys.stdin.readline())
die_with_parent(sys.stdin.fileno())
from harness.campaign.ranks_agent import conduct
sys.exit(conduct(task, Path(sys.argv[1]), None, module="standin_rank"))
"""
RANK = """
import os, sys, threading
import torch
import torch.distributed as dist
from harness.campaign.ranks_main import main
from harness.campaign.rows import Outcome, run_row
from harness.campaign.worker import write_result
from harness.errors import MeterFailed, OutOfMemory
from harness.records import Measurement, Status

def hang():
    threading.Event().wait()

def ready(fifo):
    fd = os.open(fifo, os.O_WRONLY)
    os.write(fd, f"{{os.getpid()}} {{os.getppid()}}\\n".encode())
    os.close(fd)

def finish(detail):
    outcome = Outcome(status=Status.OK, detail=detail, started_at_utc="2026-01-01T00:00:00+00:00",
                      environment_id=None, gpu=task.gpu)
    write_result(Measurement(run=run_row(task, outcome)), result)

def take_part(given, the_team, the_result):
    global task, team, rank, result
    task, team, rank, result = given, the_team, the_team.place.rank, the_result
    part()

def part():
{body}

code = main(sys.argv[1:], take_part)
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


@pytest.fixture
def task(tmp_path: Path, plan: Plan, look: Callable[[], Surroundings]) -> Task:
    """A run on three ranks that give each other two seconds."""
    with Campaign.open(tmp_path / "campaign", plan, look) as campaign:
        job = campaign.queue.next()
        assert job is not None
        alone = campaign._task(job)
    deployment = Deployment(device="cpu", n_gpus=0, ranks=3, parallelism="tensor")
    return replace(alone, job=replace(job, deployment=deployment), collective_timeout_s=2.0, cpu_threads=6)


@pytest.fixture
def launcher_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LocalLauncher]:
    """A launcher whose ranks do what the given code says."""

    def make(body: str) -> LocalLauncher:
        (tmp_path / "standin_agent.py").write_text(AGENT)
        (tmp_path / "standin_rank.py").write_text(RANK.format(body=textwrap.indent(textwrap.dedent(body), "    ")))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
        return LocalLauncher(state=tmp_path, module="standin_agent")

    return make


Launch = Callable[[str], LocalLauncher]


def no_rank_is_left() -> bool:
    """No process of these tests runs a stand-in any more; one that was just killed gets the time to go."""
    left = [
        process for process in psutil.process_iter(["cmdline"]) if "standin_rank" in (process.info["cmdline"] or ())
    ]
    return not psutil.wait_procs(left, timeout=10)[1]


def test_the_ranks_know_their_places_share_the_threads_and_compute_together(
    launcher_of: Launch, task: Task, tmp_path: Path
) -> None:
    body = """
        total = torch.tensor([float(rank + 1)])
        dist.all_reduce(total)
        place = team.place
        if rank == 0:
            finish(f"{total.item():g} {place.ranks} {place.local_ranks} {place.node} {torch.get_num_threads()}")
    """
    measurement = launcher_of(body).launch(task, limit_s=120)

    assert measurement.run.status_detail == "6 3 3 0 2", "sum of ranks, ranks, of them here, machine, threads"
    assert (measurement.run.n_gpus, measurement.run.tensor_parallel, measurement.run.nodes) == (0, 3, 1)
    assert measurement.run.parallelism == "tensor"
    assert not list(tmp_path.glob(f"{task.job.run_id}*")), "neither logs nor the ranks' folder are left"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (
            "if rank == 1: raise IndexError('index 7 is out of bounds')\ndist.all_reduce(torch.ones(4))",
            Status.FAILED,
            ("rank 1 of 3", "IndexError: index 7 is out of bounds"),
        ),
        (
            "if rank == 2: raise OutOfMemory('no room for 9 GiB')\nteam.meet()",
            Status.OOM,
            ("rank 2 of 3", "no room for 9 GiB"),
        ),
        (
            "if rank == 1: hang()\ndist.all_reduce(torch.ones(4))",
            Status.FAILED,
            ("no sign of rank 1 while ranks 0, 2 waited 2 s in vain", "Timed out"),
        ),
        (
            "if rank == 2: hang()\nteam.meet()",
            Status.FAILED,
            ("no sign of rank 2", "failed to pass monitoredBarrier"),
        ),
    ],
    ids=["an error", "out of memory", "hangs before a collective", "hangs before a meeting"],
)
def test_a_rank_that_fails_ends_the_run_with_its_name_and_reason(
    body: str, status: Status, words: tuple[str, ...], launcher_of: Launch, task: Task
) -> None:
    run = launcher_of(body).launch(task, limit_s=120).run

    assert run.status is status
    assert run.energy_j is None
    for word in words:
        assert word in (run.status_detail or "")
    assert no_rank_is_left()


def test_a_meter_that_fails_on_any_rank_is_the_machines_fault(launcher_of: Launch, task: Task) -> None:
    with pytest.raises(CannotMeasure, match="rank 1 of 3: the counter stood still"):
        launcher_of("if rank == 1: raise MeterFailed('the counter stood still')\nteam.meet()").launch(task, limit_s=120)

    assert no_rank_is_left()


def test_ranks_that_never_end_are_stopped_with_their_run(launcher_of: Launch, task: Task) -> None:
    with pytest.raises(RunError, match="longer than"):
        launcher_of("hang()").launch(task, limit_s=12.0)

    assert no_rank_is_left()


@pytest.mark.parametrize("victim", ["rank", "agent", "campaign"])
def test_killing_any_process_of_a_run_leaves_none_of_the_others(
    victim: str, launcher_of: Launch, task: Task, tmp_path: Path
) -> None:
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    launcher_of(f"team.meet()\nready({str(fifo)!r})\nwhile True: pass")
    campaign = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from harness.campaign.launchers import LocalLauncher; from harness.campaign.task import Task\n"
            "from harness.errors import WorkerDied\n"
            "try:\n"
            f"    LocalLauncher(state=Path({str(tmp_path)!r}), module='standin_agent')"
            ".launch(Task.from_json(sys.stdin.read()), limit_s=600)\n"
            "except WorkerDied as error:\n"
            "    print(error)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert campaign.stdin is not None
    campaign.stdin.write(task.to_json().encode())
    campaign.stdin.close()
    lines: list[str] = []
    while len(lines) < 3:  # opened anew while ranks come one by one
        lines += fifo.read_text().splitlines()
    ranks = [psutil.Process(int(line.split()[0])) for line in lines]
    agent = psutil.Process(int(lines[0].split()[1]))

    {"rank": ranks[1], "agent": agent, "campaign": psutil.Process(campaign.pid)}[victim].kill()

    _, alive = psutil.wait_procs([*ranks, agent], timeout=30)
    assert not alive
    assert campaign.stdout is not None
    said = campaign.stdout.read()
    campaign.wait(timeout=30)
    if victim != "campaign":
        assert b"signal 9" in said
    if victim == "rank":
        assert b"of 3: signal 9 ended it" in said
