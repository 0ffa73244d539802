"""kill -9 at random moments: the campaign ends in the same runs as an undisturbed one, and leaves no process."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.dataset.reading import read_rows
from harness.records import KernelRow, PhaseRow, RunRow, Status

KILLS = 6
CAMPAIGN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import FACTS, SOURCE
from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.launchers import LocalLauncher
from harness.campaign.plan import Plan
from harness.campaign.planning import Subject
from harness.campaign.site import Site
from harness.measuring.attribution import Ceilings
from harness.records import Provenance

plan = Plan.from_table({{"requests": [f"1x{{n}}x4" for n in range(1, 9)], "quality": "quick"}})
site = Site(device="cpu", gpu="cpu: Example CPU", gpu_counts=(0,), gpu_uuids=(), dtype="float32",
            ceilings=Ceilings(flop_per_s=1e11, bytes_per_s=1e10), memory_bytes=2**33, idle_power_w=10.0,
            load_power_w=30.0, provenance=Provenance.ESTIMATED, meter="example", why_meter="an example")

class Silent:
    def started(self, job): print("started", flush=True)
    def retried(self, job, reason): print("retried", flush=True)
    def recorded(self, measurement): print("recorded", flush=True)

look = lambda: Surroundings(site=site, subjects=(Subject(source=SOURCE, facts=FACTS),))
with Campaign.open(Path({out!r}), plan, look) as campaign:
    launcher = LocalLauncher(state=campaign.folder.state, module="busy_worker")
    for _ in campaign.carry_out(launcher, Silent()):
        pass
    campaign.store.close()
"""
WORKER = """
import sys, time
from pathlib import Path
from harness.campaign.parent import die_with_parent
from harness.campaign.task import Task
task = Task.from_json(sys.stdin.readline())
die_with_parent(sys.stdin.fileno())
from harness.campaign.rows import Outcome, run_row
from harness.dataset.transport import measurement_to_json
from harness.kernels import Phase
from harness.records import Measurement, PhaseRow, Status
until_s = time.monotonic() + 0.3  # long enough that most kills find it at work
while time.monotonic() < until_s:
    pass
outcome = Outcome(status=Status.OK, detail=None, started_at_utc="2026-01-01T00:00:00+00:00", environment_id=None,
                  gpu=task.gpu)
phase = PhaseRow(run_id=task.job.run_id, phase=Phase.PREFILL, graph_id=None, energy_j=1.0, energy_ci95_j=None,
                 idle_energy_j=None, host_gap_energy_j=None, duration_s=1.0, steps=1, context_start_tokens=0,
                 context_end_tokens=1, measured_contexts=None, trials=1, method="example")
result = Path(sys.argv[1])
part = result.with_suffix(".part")
part.write_text(measurement_to_json(Measurement(run=run_row(task, outcome), phases=(phase,))))
part.replace(result)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="kill -9 and process groups as on Linux")
def test_killed_at_random_moments_a_campaign_ends_in_the_runs_of_an_undisturbed_one(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    out = tmp_path / "campaign"
    (tmp_path / "busy_worker.py").write_text(WORKER)
    script = CAMPAIGN.format(tests=str(Path(__file__).parent), out=str(out))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    rng = random.Random(7)
    kills = orphaned = 0
    while kills < KILLS:
        campaign = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert campaign.stdout is not None
        for _ in range(rng.randint(1, 3)):  # its own events, so that the kill lands in its work and not in imports
            campaign.stdout.readline()
        try:
            campaign.wait(timeout=rng.uniform(0, 0.3))
            break
        except subprocess.TimeoutExpired:
            workers = psutil.Process(campaign.pid).children(recursive=True)
            campaign.send_signal(signal.SIGKILL)
            campaign.wait()
            kills += 1
            orphaned += len(workers)
            _, alive = psutil.wait_procs(workers, timeout=10)
            assert not alive, "a worker outlives its campaign"

    subprocess.run([sys.executable, "-c", script], env=environment, check=True, stdout=subprocess.DEVNULL)

    assert kills >= 2, "the campaign ended before it was killed twice"
    assert orphaned, "no kill found a worker at work"
    rows = list(read_rows(out, RunRow))
    assert sorted(row.prompt_tokens or 0 for row in rows) == list(range(1, 9))
    assert {row.status for row in rows} == {Status.OK}
    assert sorted(row.run_id for row in read_rows(out, PhaseRow)) == sorted(row.run_id for row in rows)
    assert list(read_rows(out, KernelRow)) == []
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if "busy_worker" in (process.info["cmdline"] or [])
    ]
