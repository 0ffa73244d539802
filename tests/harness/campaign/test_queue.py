"""The queue survives everything that ends a campaign, and loses and repeats nothing."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.jobs import Job
from harness.campaign.plan import Plan
from harness.campaign.queue import QUEUE_FILE, Counts, RunQueue, State
from harness.errors import CannotWrite, FolderBusy, NewerSchema, OtherCampaign
from harness.records import Status
from harness.requests import Deployment, Request

CPU = Deployment(device="cpu", n_gpus=0)


def job(name: str, batch: int = 1, prompt: int = 8, output: int = 4, skipped: str | None = None) -> Job:
    request = Request(model="m", batch_size=batch, prompt_tokens=prompt, output_tokens=output, dtype="float32")
    return Job(
        run_id=name,
        request=request,
        deployment=CPU,
        sampling_weight=None,
        clipped=None,
        skipped=skipped,
        estimate_s=1.0,
    )


JOBS = [job("a"), job("b"), job("c")]


def open_queue(
    folder: Path, jobs: Sequence[Job] = JOBS, finished: Mapping[str, Status] | None = None, plan: Plan | None = None
) -> RunQueue:
    plan = plan or Plan()
    return RunQueue.open(
        folder,
        campaign_id=plan.campaign_id,
        configuration=plan.configuration,
        jobs=lambda: jobs,
        finished=finished or {},
    )


def states(queue: RunQueue) -> dict[str, str]:
    return {run.job.run_id: str(run.status or run.state) for run in queue.runs()}


def corrupted(folder: Path, how: Callable[[bytes], bytes]) -> Path:
    file = folder / QUEUE_FILE
    file.write_bytes(how(file.read_bytes()))
    return file


def test_runs_are_handed_out_in_order_until_none_waits(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue:
        taken = []
        while (one := queue.next()) is not None:
            taken.append(one)
            assert states(queue)[one.run_id] == "running"
            queue.done(one.run_id, Status.OK)
        assert taken == JOBS
        assert queue.counts() == Counts(waiting=0, running=0, ok=3, oom=0, failed=0, skipped=0)


def test_a_campaign_goes_on_where_it_was_and_keeps_its_runs(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue:
        queue.next()
        queue.done("a", Status.OK)
        queue.next()
    with open_queue(tmp_path, jobs=[job("other")], finished={"a": Status.OK}) as queue:
        assert states(queue) == {"a": "ok", "b": "waiting", "c": "waiting"}
        assert queue.next() == JOBS[1], "the interrupted run comes next"
        assert not queue.unrecorded
        assert not queue.notes


@pytest.mark.parametrize("status", list(Status))
def test_a_run_in_the_dataset_is_done_even_if_the_queue_was_not_told(tmp_path: Path, status: Status) -> None:
    with open_queue(tmp_path, jobs=[job("a"), job("b", batch=2, prompt=1)]) as queue:
        queue.next()
    with open_queue(tmp_path, finished={"a": status}) as queue:
        assert states(queue) == {"a": str(status), "b": "waiting"}


def test_a_measured_run_whose_rows_are_lost_is_made_again(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue:
        queue.next()
        queue.done("a", Status.OK)
    with open_queue(tmp_path, finished={}) as queue:
        assert states(queue)["a"] == "waiting"


def test_ends_without_a_measurement_are_remembered_until_the_dataset_has_their_rows(tmp_path: Path) -> None:
    jobs = [job("a"), job("b"), job("c", skipped="weights do not fit")]
    with open_queue(tmp_path, jobs) as queue:
        assert [run.job.run_id for run in queue.unrecorded] == ["c"]
        assert queue.unrecorded[0].reason == "weights do not fit"
        queue.next()
        queue.done("a", Status.FAILED, "it broke")
    with open_queue(tmp_path, jobs, finished={"c": Status.SKIPPED}) as queue:
        assert [(run.job.run_id, run.status, run.reason) for run in queue.unrecorded] == [
            ("a", Status.FAILED, "it broke")
        ]
    with open_queue(tmp_path, jobs, finished={"a": Status.FAILED, "c": Status.SKIPPED}) as queue:
        assert queue.unrecorded == ()


def test_a_run_whose_worker_keeps_dying_is_tried_twice(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue:
        queue.next()
        assert queue.crashed("a", "signal 11")
        assert queue.next() == JOBS[0]
        assert not queue.crashed("a", "signal 11")
        assert states(queue)["a"] == "failed"
        assert queue.runs()[0].reason == "its worker died 2 times: signal 11"
        assert queue.next() == JOBS[1]


def test_killing_the_campaign_is_not_held_against_the_run(tmp_path: Path) -> None:
    for _ in range(5):
        with open_queue(tmp_path) as queue:
            assert queue.next() == JOBS[0]
    with open_queue(tmp_path) as queue:
        assert queue.runs()[0].crashes == 0


def test_after_a_run_out_of_memory_larger_ones_are_skipped_with_the_reason(tmp_path: Path) -> None:
    jobs = [
        job("done", batch=9, prompt=99),
        job("oom", batch=4, prompt=8),
        job("longer", batch=4, prompt=9),
        job("wider", batch=8, prompt=8),
        job("shorter", batch=4, prompt=7),
        job("narrower", batch=1, prompt=500),
    ]
    with open_queue(tmp_path, jobs) as queue:
        queue.next()
        queue.done("done", Status.OK)
        queue.next()
        queue.done("oom", Status.OOM, "not enough memory")
        skipped = queue.skip_larger_after_oom(jobs[1])
        assert [run.job.run_id for run in skipped] == ["longer", "wider"]
        assert "run oom ran out of memory" in str(skipped[0].reason)
        assert states(queue) == {
            "done": "ok",
            "oom": "oom",
            "longer": "skipped",
            "wider": "skipped",
            "shorter": "waiting",
            "narrower": "waiting",
        }


def test_larger_runs_are_skipped_even_if_the_campaign_was_killed_before_it_could_say_so(tmp_path: Path) -> None:
    jobs = [job("oom", batch=4), job("wider", batch=8), job("narrower", batch=2)]
    with open_queue(tmp_path, jobs) as queue:
        queue.next()
    with open_queue(tmp_path, finished={"oom": Status.OOM}) as queue:
        assert states(queue) == {"oom": "oom", "wider": "skipped", "narrower": "waiting"}
        assert [run.job.run_id for run in queue.unrecorded] == ["wider"]


def test_another_plan_is_refused_with_what_differs(tmp_path: Path) -> None:
    open_queue(tmp_path).close()
    with pytest.raises(OtherCampaign) as caught:
        open_queue(tmp_path, plan=Plan(seed=5, models=("x",)))
    assert "seed: 0 there, 5 here" in str(caught.value)
    assert 'models: [] there, ["x"] here' in str(caught.value)
    assert "samples" not in str(caught.value)
    with open_queue(tmp_path) as queue:
        assert len(queue.runs()) == 3


def test_a_queue_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    open_queue(tmp_path).close()
    with sqlite3.connect(tmp_path / QUEUE_FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (tmp_path / QUEUE_FILE).read_bytes()
    with pytest.raises(NewerSchema, match="version 99"):
        open_queue(tmp_path)
    assert (tmp_path / QUEUE_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "how",
    [
        lambda content: b"not a database at all, but long enough to be looked at" * 40,
        lambda content: content[: len(content) // 2],
        lambda content: content[:4096] + b"\0" * (len(content) - 4096),
        lambda content: content.replace(b'"batch_size"', b'"patch_size"'),
        lambda content: content.replace(b"CREATE TABLE runs", b"CREATE TABLE ruin"),
        lambda content: content.replace(b"waiting", b"wailing"),
    ],
    ids=["text", "cut", "zeros", "job", "tables", "state"],
)
def test_a_corrupt_queue_is_kept_aside_and_built_again_from_plan_and_dataset(
    tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    with open_queue(tmp_path) as queue:
        queue.next()
        queue.done("a", Status.OK)
    content = corrupted(tmp_path, how).read_bytes()
    with open_queue(tmp_path, finished={"a": Status.OK}) as queue:
        assert states(queue) == {"a": "ok", "b": "waiting", "c": "waiting"}
        assert "corrupt" in queue.notes[0]
        assert "1 runs in the dataset" in queue.notes[0]
    assert (tmp_path / f"{QUEUE_FILE}.corrupt-1").read_bytes() == content
    with open_queue(tmp_path, finished={"a": Status.OK}) as queue:
        assert queue.notes == ()


def test_each_corrupt_queue_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / QUEUE_FILE).write_bytes(b"junk" * 300)
        (tmp_path / f"{QUEUE_FILE}-journal").write_bytes(b"stale")
        open_queue(tmp_path).close()
        assert (tmp_path / f"{QUEUE_FILE}.corrupt-{number}").exists()
    assert not (tmp_path / f"{QUEUE_FILE}-journal").exists()


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=3000))
def test_whatever_is_in_the_file_a_queue_comes_out(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("queue")
    (folder / QUEUE_FILE).write_bytes(content)
    with open_queue(folder) as queue:
        assert len(queue.runs()) == 3


def test_an_empty_file_is_a_new_queue(tmp_path: Path) -> None:
    (tmp_path / QUEUE_FILE).touch()
    with open_queue(tmp_path) as queue:
        assert len(queue.runs()) == 3
        assert queue.notes == ()


def test_a_file_held_by_another_process_is_a_busy_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_queue(tmp_path).close()
    other = sqlite3.connect(tmp_path / QUEUE_FILE, isolation_level=None)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **_: connect(path, isolation_level=None, timeout=0))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(FolderBusy, match="Another process"):
        open_queue(tmp_path)
    other.close()


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="no finished run is lost"):
        open_queue(tmp_path / "missing")


def test_a_full_disk_is_an_error_and_the_queue_stays_as_it_was(tmp_path: Path) -> None:
    jobs = [job(f"run-{number}") for number in range(200)]
    with open_queue(tmp_path, jobs) as queue:
        pages = queue._connection.execute("PRAGMA page_count").fetchone()[0]
        queue._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(CannotWrite, match="free space"):
            queue.done("run-0", Status.FAILED, "x" * 100_000)
        assert states(queue)["run-0"] == "waiting"


def test_a_run_that_is_not_in_the_queue_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue, pytest.raises(KeyError):
        queue.done("unknown", Status.OK)


CAMPAIGN = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_queue import CRASH_JOBS, finished_in, open_queue
from harness.records import Status

folder = Path(sys.argv[1])
with open_queue(folder, CRASH_JOBS, finished_in(folder)) as queue, (folder / "dataset").open("a") as dataset:
    while (job := queue.next()) is not None:
        print("claimed", flush=True)
        status = Status.OOM if job.request.batch_size == 7 else Status.OK
        print(job.run_id, status, file=dataset, flush=True)
        print("stored", flush=True)
        queue.done(job.run_id, status)
        print("done", flush=True)
        if status is Status.OOM:
            queue.skip_larger_after_oom(job)
"""
CRASH_JOBS = [job(f"run-{number}", batch=number % 10 + 1) for number in range(40)]


def finished_in(folder: Path) -> dict[str, Status]:
    """What the crash test's stand-in for a dataset holds: one line per run."""
    file = folder / "dataset"
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: Status(status) for name, status in (line.split() for line in lines)}


def run_campaign(folder: Path, kill_after_lines: int | None) -> int:
    """Run a campaign in a process of its own; kill it once it has said so much."""
    code = CAMPAIGN.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        for number, _ in enumerate(process.stdout):
            if number == kill_after_lines:
                process.send_signal(signal.SIGKILL)
    return process.returncode


def test_killing_a_campaign_again_and_again_ends_in_the_runs_of_an_undisturbed_one(tmp_path: Path) -> None:
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    disturbed.mkdir()
    calm.mkdir()
    rng = random.Random(7)
    kills = 0
    for _ in range(6):
        kills += run_campaign(disturbed, kill_after_lines=rng.randrange(25)) == -signal.SIGKILL
    assert kills >= 3
    assert run_campaign(disturbed, kill_after_lines=None) == 0
    assert run_campaign(calm, kill_after_lines=None) == 0

    lines = (disturbed / "dataset").read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == len(lines), "no run was made twice"
    assert lines == (calm / "dataset").read_text().splitlines()
    with (
        open_queue(disturbed, CRASH_JOBS, finished_in(disturbed)) as one,
        open_queue(calm, CRASH_JOBS, finished_in(calm)) as other,
    ):
        assert states(one) == states(other)
        assert State.WAITING not in states(one).values()
        assert one.counts().skipped == 3 + 3 * 4, "batches above 7 in the first round, from 7 on in the other three"
