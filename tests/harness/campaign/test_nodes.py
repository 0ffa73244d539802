"""Two machines, played by two agents on this one: they meet, and each machine's energy is counted once."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.launchers import LocalLauncher, run_worker
from harness.campaign.nodes import Hub, Member, NodesLauncher, serve
from harness.campaign.options import parse
from harness.campaign.plan import Plan
from harness.campaign.rendezvous import Meeting, free_port, split_address
from harness.campaign.task import Task
from harness.dataset.reading import read_rows
from harness.errors import UsageError
from harness.models.source import resolve
from harness.records import Measurement, Part, RankTimeRow, ReadingRow, RunRow, Status
from harness.requests import Deployment

Look = Callable[[], Surroundings]

ROOT = Path(__file__).resolve().parents[3]
POWERS_W = (50.0, 80.0)  # of machine 0 and machine 1
TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 256,
}
AGENT = """
import sys
from pathlib import Path
from harness.campaign.parent import die_with_parent
from harness.campaign.rendezvous import Meeting
from harness.campaign.task import Task
task = Task.from_json(sys.stdin.readline())
die_with_parent(sys.stdin.fileno())
from harness.campaign.ranks_agent import conduct
sys.exit(conduct(task, Path(sys.argv[1]), Meeting.from_json(sys.argv[2]), module="metered_rank"))
"""
# A rank as it is, but for the meters: each machine has one of known power, and windows are short.
RANK = f"""
import os, sys
from dataclasses import replace
from harness.campaign import ranks_main

def take_part(task, team, result):
    from harness.campaign import execution, ranks_crew
    from harness.measuring.protocol import QUICK
    from harness.meters.base import MonotonicClock
    from harness.meters.replay import Profile, ReplayMeter
    from harness.meters.selection import MeterBank

    def bank(*_, **__):
        meter = ReplayMeter(Profile.constant({POWERS_W}[team.place.node]), MonotonicClock(), step_s=0.01)
        return MeterBank([meter], MonotonicClock(), why="a test")

    ranks_crew.meters_for = bank
    execution.protocol_of = lambda _: replace(QUICK, window_s=0.1, idle_s=0.1, window_steps=2)
    ranks_main._take_part(task, team, result)

code = ranks_main.main(sys.argv[1:], take_part)
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


@pytest.fixture
def task(tmp_path: Path, plan: Plan, look: Look) -> Task:
    """A tiny model on four ranks of two machines."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY))
    with Campaign.open(tmp_path / "campaign", plan, look) as campaign:
        job = campaign.queue.next()
        assert job is not None
        alone = campaign._task(job)
    deployment = Deployment(device="cpu", n_gpus=0, ranks=4, nodes=2, parallelism="tensor")
    return replace(
        alone,
        job=replace(job, deployment=deployment),
        source=resolve(str(config), random_weights=True),
        trace_kernels=False,
        cpu_threads=2,
    )


def test_the_energy_of_every_machine_is_read_by_one_of_its_ranks_and_counted_once(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metered_agent.py").write_text(AGENT)
    (tmp_path / "metered_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    meeting = Meeting(node=0, nodes=2, endpoint=f"localhost:{free_port()}", board=f"localhost:{free_port()}")
    (tmp_path / "second").mkdir()

    def second() -> None:
        with (tmp_path / "second" / "log").open("wb") as log:
            run_worker(task, tmp_path / "second" / "none.json", log, 300.0, module="metered_agent",
                       meeting=replace(meeting, node=1))  # fmt: skip

    other = threading.Thread(target=second)
    other.start()
    measurement = LocalLauncher(state=tmp_path, module="metered_agent").launch(task, limit_s=300.0, meeting=meeting)
    other.join()

    run = measurement.run
    assert (run.status, run.nodes, run.tensor_parallel, run.n_gpus) == (Status.OK, 2, 4, 0), run.status_detail
    assert run.energy_j == pytest.approx(sum(POWERS_W) * (run.duration_s or 0), rel=0.15)
    assert run.idle_power_w == pytest.approx(sum(POWERS_W), rel=0.2)
    _check_readings(measurement)
    times = [row for row in measurement.rank_times if row.part is Part.RUN and row.trial == 0]
    assert [(row.rank, row.node) for row in times] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert min(row.wait_s for row in times) == 0


def _check_readings(measurement: Measurement) -> None:
    """Two counters, one on each machine, each with the power of its own."""
    assert {(row.rank, row.meter) for row in measurement.readings} == {(0, "replay"), (2, "node 1: replay")}
    for row in measurement.readings:
        power_w = POWERS_W[0] if row.rank == 0 else POWERS_W[1]
        assert row.energy_j == pytest.approx(power_w * (row.duration_s or 0.0), rel=0.25)


def test_two_machines_make_a_campaign_together_and_only_machine_0_has_a_folder(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY))
    words = [sys.executable, "-m", "harness.run", "--device", "cpu", "--gpus", "2", "--nodes", "2", "--rendezvous"]
    words += [f"localhost:{free_port()}", "--models", str(config), "--random-weights", "--quality", "quick"]
    words += ["--requests", "1x16x2", "--no-trace-kernels"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    commands = [
        subprocess.Popen(
            [*words, "--node-rank", str(node), "--out", str(tmp_path / f"out-{node}")],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    said = [command.communicate()[0] for command in commands]

    assert [command.returncode for command in commands] == [0, 0], said
    assert "took part in 1 run(s)" in said[1]
    assert not (tmp_path / "out-1").exists()
    (run,) = read_rows(tmp_path / "out-0", RunRow)
    assert (run.status, run.nodes, run.tensor_parallel) == (Status.OK, 2, 2)
    assert {row.node for row in read_rows(tmp_path / "out-0", RankTimeRow)} == {0, 1}
    readings = list(read_rows(tmp_path / "out-0", ReadingRow))
    assert {row.rank for row in readings} == {0, 1}, "one reader per machine"


def test_machines_that_differ_are_told_apart_before_anything_runs(plan: Plan, look: Look) -> None:
    here = Member.here(plan, look())
    hub = Hub.opened("localhost:0", nodes=2)
    problems: list[str] = []

    def other() -> None:
        try:
            serve(replace(plan, seed=7), f"localhost:{hub.store.port}", 1, look(), lambda _: None)
        except UsageError as error:
            problems.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    with pytest.raises(UsageError, match="Machine 1 differs from machine 0 in campaign_id"):
        hub.wait_for_others(here)
    thread.join()

    assert len(problems) == 1
    assert "differs from machine 0 in campaign_id" in problems[0]


def test_a_machine_serves_until_the_campaign_ends(plan: Plan, look: Look) -> None:
    hub = Hub.opened("localhost:0", nodes=2)
    served: list[int] = []
    thread = threading.Thread(
        target=lambda: served.append(serve(plan, f"localhost:{hub.store.port}", 1, look(), lambda _: None))
    )
    thread.start()

    hub.wait_for_others(Member.here(plan, look()))
    hub.close()
    thread.join()

    assert served == [0]


def test_each_run_meets_at_ports_of_its_own(task: Task, tmp_path: Path) -> None:
    hub = Hub.opened("localhost:0", nodes=2)
    launched: list[Meeting | None] = []

    class Local(LocalLauncher):
        def launch(self, task: Task, *, limit_s: float, meeting: Meeting | None = None) -> Measurement:
            launched.append(meeting)
            hub.store.set(f"done/{hub.runs}/1", "")  # machine 1 has ended its part
            raise NotImplementedError

    launcher = NodesLauncher(local=Local(state=tmp_path), hub=hub)
    for _ in range(2):
        with pytest.raises(NotImplementedError):
            launcher.launch(task, limit_s=60)

    addresses = [address for each in launched if each for address in (each.endpoint, each.board)]
    assert len(set(addresses)) == 4
    announced = json.loads(hub.store.get("run/2"))
    assert Task.from_json(announced["task"]) == task
    assert Meeting.from_json(announced["meeting"]) == launched[1]


def test_a_machine_says_what_has_to_be_equal(plan: Plan, look: Look) -> None:
    member = asdict(Member.here(plan, look()))

    assert set(member) == {"campaign_id", "harness", "gpu", "dtype", "models"}
    assert member["campaign_id"] == plan.campaign_id


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--nodes 2 --gpus 2", "--rendezvous is missing"),
        ("--nodes 2 --gpus 2 --rendezvous node0", "is no HOST:PORT"),
        ("--nodes 2 --gpus 2 --rendezvous node0:99999", "is no HOST:PORT"),
        ("--nodes 2 --gpus 2 --rendezvous node0:1 --node-rank 2", "0 to 1"),
        ("--nodes 2 --gpus 2 --rendezvous node0:1 --node-rank x", "0 to 1"),
        ("--node-rank 1", "none of the plan's 1 machine"),
        ("--rendezvous node0:29400", "for runs on several machines"),
        ("--nodes 2", "cannot be spread evenly"),
        ("--nodes 2 --gpus 4 3 --rendezvous node0:1", "3 .--gpus. cannot be spread evenly"),
        ("--nodes 2 --gpus 2 --parallelism layers --rendezvous node0:1", "one process"),
    ],
)
def test_a_command_line_that_does_not_fit_several_machines_says_what_would(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(line.split())


def test_where_the_machines_meet_is_not_part_of_the_plan() -> None:
    first = parse(["--nodes", "2", "--gpus", "2", "--rendezvous", "node0:29400"])
    second = parse(["--nodes", "2", "--gpus", "2", "--rendezvous", "[::1]:7", "--node-rank", "1"])

    assert first.plan.campaign_id == second.plan.campaign_id
    assert (second.node_rank, second.rendezvous) == (1, "[::1]:7")
    assert split_address("[::1]:7") == ("::1", 7)
    assert parse(["--nodes", "2", "--gpus", "2", "--dry-run"]).rendezvous is None, "a dry run meets nobody"
