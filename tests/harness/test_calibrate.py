"""The command, in process, on virtual GPUs and on machines that are said to have no counter."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import calibrate
from harness.calibrate import Options, parse
from harness.errors import MeterUnavailable, UsageError
from harness.measuring.calibration import Calibration
from harness.measuring.calibration_lengths import QUICK_LENGTHS
from harness.measuring.protocol import STANDARD
from harness.meters import selection
from harness.meters.base import Conditions
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank
from harness.records import Provenance
from tests import commands
from tests.harness.measuring.calibration_machines import SHORT, PausingManualClock

VIRTUAL = ("--device", "virtual:h100-sxm", "--quick")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measuring.calibration_making.QUICK_LENGTHS", SHORT)


printed, refused = partial(commands.printed, calibrate.main), partial(commands.refused, calibrate.main)


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['calibrate', '--help']\n"
        "try: runpy.run_module('harness.calibrate', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, {'torch', 'numpy', 'scipy', 'pynvml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 set()"
    assert "--quick" in done.stdout


def test_nothing_needs_to_be_said() -> None:
    assert parse([]) == Options(device="auto", gpus=None, json=False, out=None, quick=False, seed=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "tpu"), "not known"),
        (("--device", "cpu", "--gpus", "2"), "has none"),
        (("--device", "virtual:h100-sxm", "--gpus", "9"), "1 to 8"),
        (("--gpus", "0"), "too few"),
        (("--gpus", "two"), "whole number"),
        (("--device", "virtual:h1000"), "no virtual GPU"),
        (("--devise", "cpu"), "unrecognized"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, *arguments)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "calibration.json"):
        with pytest.raises(UsageError, match="--out"):
            parse([*VIRTUAL, "--out", str(path)])


def test_a_virtual_gpu_is_calibrated_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *VIRTUAL)

    assert "simulated, never measured" in text
    assert "VIRTUAL NVIDIA H100" in text
    assert "counter moves every              100 ms" in text
    assert "reported power" in text
    assert "For the standard protocol" in text
    assert "window" in text
    assert "nan" not in text.lower()


def test_the_calibration_is_printed_and_written_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"

    text = printed(capsys, *VIRTUAL, "--gpus", "2", "--json", "--out", str(path))

    found = Calibration.read(path)
    assert text == path.read_text()
    assert Calibration.from_json(text.strip()) == found
    assert [device.meter for device in found.devices] == ["virtual:0", "virtual:1"]
    assert found.provenance is Provenance.SIMULATED
    assert found.quick
    assert found.protocol(STANDARD).window_s >= 5.0
    assert json.loads(text)["version"] == 1


def test_without_a_driver_cuda_is_an_error_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any, **__: Any) -> MeterBank:
        raise MeterUnavailable("no driver here.\nInstall one.")

    monkeypatch.setattr(selection, "meters_for", nothing)
    monkeypatch.setattr(selection, "find_gpus", lambda: selection.GpuSearch(gpus=(), why_none="no driver here."))

    assert calibrate.main(["--device", "cuda"]) == 1
    assert "no driver here" in capsys.readouterr().err


class _Estimating(ReplayMeter):
    provenance = Provenance.ESTIMATED


def test_where_energy_is_estimated_the_command_says_what_cannot_be_calibrated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = PausingManualClock(per_read_s=1e-6)
    meter = _Estimating(Profile.constant(30.0), clock, conditions=Conditions, name="a model")
    bank = MeterBank((meter,), clock, why="estimated, because no counter can be read.")
    monkeypatch.setattr(selection, "meters_for", lambda *_, **__: bank)

    text = printed(capsys, "--device", "cpu")

    assert "There is no sensor to calibrate" in text
    assert "read takes" in text
    assert "idle" not in text.split("The energy of this machine")[0]
    assert "For the standard protocol" not in text


def test_the_quick_stages_are_shorter_than_half_a_minute_each() -> None:
    assert max(QUICK_LENGTHS.idle_s, QUICK_LENGTHS.load_s, QUICK_LENGTHS.cool_s) < 30
