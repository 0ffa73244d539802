"""Kill the real command at random moments: ``python -m benchmarks.kill_study [KILLS]``.

Measures the default CPU model on a few short requests. The campaign is killed with ``kill -9`` at random moments,
however far its worker is, and started again with the same command until it ends by itself. Its runs must then be those
of an undisturbed campaign, each once, and no process may be left behind. Takes about half a minute per kill.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psutil

from harness.dataset.reading import read_rows
from harness.records import PhaseRow, RunRow

REQUESTS = ("1x16x4", "2x16x4", "1x32x2", "2x32x1")
LONGEST_LIFE_S = 40.0  # about two runs with their start
SEED = 11


def command(out: Path) -> list[str]:
    """The campaign, as a user types it."""
    flags = ["--device", "cpu", "--quality", "quick", "--requests", *REQUESTS, "--out", str(out)]
    return [sys.executable, "-m", "harness.run", *flags]


def left_behind(out: Path) -> list[int]:
    """Processes that still work for the campaign."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(out) in word for word in process.info["cmdline"] or [])
    ]


def disturbed(out: Path, kills: int, rng: random.Random) -> int:
    """Carry the campaign out, killing it up to ``kills`` times; returns how often a worker was at work."""
    workers_killed = 0
    for kill in range(kills):
        campaign = subprocess.Popen(command(out), stdout=subprocess.DEVNULL)
        try:
            campaign.wait(timeout=rng.uniform(0, LONGEST_LIFE_S))
            print(f"ended by itself after {kill} kills")
            shutil.rmtree(out)  # begin anew, so that every kill hits something
        except subprocess.TimeoutExpired:
            workers = psutil.Process(campaign.pid).children(recursive=True)
            campaign.send_signal(signal.SIGKILL)
            campaign.wait()
            _, alive = psutil.wait_procs(workers, timeout=10)
            workers_killed += bool(workers)
            print(f"kill {kill + 1}: {len(workers)} workers, {len(alive)} left behind", flush=True)
    subprocess.run(command(out), check=True, stdout=subprocess.DEVNULL)
    return workers_killed


def runs_of(folder: Path) -> Counter[str]:
    """How often each run is in the dataset."""
    return Counter(row.run_id for row in read_rows(folder, RunRow))


def main(arguments: list[str]) -> int:
    """Print the verdict; 0 if nothing was lost, doubled or left behind."""
    kills = int(arguments[0]) if arguments else 20
    with tempfile.TemporaryDirectory() as place:
        calm, harsh = Path(place) / "undisturbed", Path(place) / "killed"
        subprocess.run(command(calm), check=True, stdout=subprocess.DEVNULL)
        workers_killed = disturbed(harsh, kills, random.Random(SEED))  # noqa: S311  moments, no secrets
        same = runs_of(harsh) == runs_of(calm)
        phases = Counter(row.run_id for row in read_rows(harsh, PhaseRow))
        same_phases = phases == Counter(row.run_id for row in read_rows(calm, PhaseRow))
        left = left_behind(harsh)
    print(f"{kills} kills, {workers_killed} of them with a worker at work")
    print(f"same runs, each once: {same}; same phases: {same_phases}; processes left behind: {len(left)}")
    return 0 if same and same_phases and not left else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
