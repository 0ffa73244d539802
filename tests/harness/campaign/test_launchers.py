"""The local launcher: results come back, deaths are told apart, and no worker outlives its campaign."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.launchers import LocalLauncher
from harness.campaign.plan import Plan
from harness.campaign.task import Task
from harness.errors import CannotWrite, RunError, WorkerDied
from harness.records import Status

Look = Callable[[], Surroundings]

ANSWERING = """
from harness.campaign.rows import Outcome, run_row
from harness.dataset.transport import measurement_to_json
from harness.records import Measurement, Status
outcome = Outcome(status=Status.OK, detail="from the worker", started_at_utc="2026-01-01T00:00:00+00:00",
                  environment_id=None, gpu=task.gpu)
Path(sys.argv[1]).write_text(measurement_to_json(Measurement(run=run_row(task, outcome))))
"""
PREAMBLE = """
import os, sys, signal, threading
from pathlib import Path
from harness.campaign.parent import die_with_parent
from harness.campaign.task import Task
task = Task.from_json(sys.stdin.readline())
die_with_parent(sys.stdin.fileno())
"""


@pytest.fixture
def task(tmp_path: Path, plan: Plan, look: Look) -> Task:
    with Campaign.open(tmp_path / "campaign", plan, look) as campaign:
        job = campaign.queue.next()
        assert job is not None
        return campaign._task(job)


@pytest.fixture
def launcher_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LocalLauncher]:
    """A launcher whose worker does what the given code says with its ``task``."""

    def make(body: str) -> LocalLauncher:
        (tmp_path / "standin_worker.py").write_text(PREAMBLE + textwrap.dedent(body))
        root = Path(__file__).resolve().parents[3]
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")
        return LocalLauncher(state=tmp_path, module="standin_worker")

    return make


def test_the_measurement_of_the_worker_comes_back_and_leaves_no_files(
    launcher_of: Callable[[str], LocalLauncher], task: Task, tmp_path: Path
) -> None:
    measurement = launcher_of(ANSWERING).launch(task, limit_s=60)

    assert measurement.run.run_id == task.job.run_id
    assert measurement.run.status is Status.OK
    assert not list(tmp_path.glob(f"{task.job.run_id}*"))


def test_a_worker_that_fails_is_quoted(launcher_of: Callable[[str], LocalLauncher], task: Task) -> None:
    with pytest.raises(WorkerDied, match=r"exit code 3.*the disk is on fire"):
        launcher_of("print('the disk is on fire', file=sys.stderr); sys.exit(3)").launch(task, limit_s=60)


def test_a_worker_that_cannot_write_its_result_stops_the_campaign_and_not_the_run(
    launcher_of: Callable[[str], LocalLauncher], task: Task
) -> None:
    with pytest.raises(CannotWrite, match="No space left"):
        launcher_of("print('No space left on device', file=sys.stderr); sys.exit(74)").launch(task, limit_s=60)


@pytest.mark.parametrize("result", [b"{}", b"not json", b"\xff\xfe", b""])
def test_a_result_that_is_no_measurement_counts_as_a_death(
    launcher_of: Callable[[str], LocalLauncher], task: Task, result: bytes, tmp_path: Path
) -> None:
    with pytest.raises(WorkerDied, match="no measurement"):
        launcher_of(f"Path(sys.argv[1]).write_bytes({result!r})").launch(task, limit_s=60)

    assert not list(tmp_path.glob("*.json"))


def test_a_worker_that_is_killed_is_named_by_its_signal(
    launcher_of: Callable[[str], LocalLauncher], task: Task
) -> None:
    with pytest.raises(WorkerDied, match="signal 11"):
        launcher_of("os.kill(os.getpid(), signal.SIGSEGV)").launch(task, limit_s=60)


def test_a_worker_that_hangs_is_stopped_at_its_limit(launcher_of: Callable[[str], LocalLauncher], task: Task) -> None:
    before = set(psutil.Process().children(recursive=True))  # of other tests, a resource tracker perhaps

    with pytest.raises(RunError, match="longer than"):
        launcher_of("threading.Event().wait()").launch(task, limit_s=1.0)

    left = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in left if process.is_running()]


def test_what_a_worker_started_ends_with_it(
    launcher_of: Callable[[str], LocalLauncher], task: Task, tmp_path: Path
) -> None:
    child = tmp_path / "child.pid"
    body = f"""
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        Path({str(child)!r}).write_text(str(child.pid))
        sys.exit(1)
    """
    with pytest.raises(WorkerDied):
        launcher_of(body).launch(task, limit_s=60)

    process = _process(int(child.read_text()))
    assert process is None or process.wait(timeout=10) is not False


def test_a_worker_dies_with_a_campaign_that_is_killed(
    launcher_of: Callable[[str], LocalLauncher], task: Task, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    launcher_of(f"fd = os.open({str(ready)!r}, os.O_WRONLY); os.write(fd, str(os.getpid()).encode()); os.close(fd)\n"
                "while True: pass")  # fmt: skip
    campaign = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from harness.campaign.launchers import LocalLauncher; from harness.campaign.task import Task\n"
            f"LocalLauncher(state=Path({str(tmp_path)!r}), module='standin_worker')"
            ".launch(Task.from_json(sys.stdin.read()), limit_s=600)",
        ],
        stdin=subprocess.PIPE,
    )
    assert campaign.stdin is not None
    campaign.stdin.write(task.to_json().encode())
    campaign.stdin.close()
    with ready.open() as fifo:
        worker = _process(int(fifo.read()))

    campaign.send_signal(signal.SIGKILL)
    campaign.wait()

    assert worker is None or worker.wait(timeout=10) is not False


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
