"""``python -m harness.submit``: what will be published is shown, and nothing is sent before somebody agrees."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import submit
from harness.dataset.contributions import inspecting, submitting
from harness.dataset.contributions.offering import Offer
from harness.dataset.contributions.pack import reference_pack
from harness.dataset.validation.findings import ValidationReport
from harness.errors import DatasetError
from harness.records import Measurement
from tests.commands import printed, refused
from tests.harness.dataset.contributions.bundles import tables_of
from tests.harness.dataset.contributions.measured import (
    OTHER,
    campaign_measurements,
    environment,
    measurement,
    pack_measurements,
    write_dataset,
)

ROOT = Path(__file__).resolve().parents[2]


class Hub:
    """Remembers what it is offered."""

    def __init__(self, error: DatasetError | None = None) -> None:
        self.offers: list[Offer] = []
        self._error = error

    def open_pull_request(self, offer: Offer) -> str:
        if self._error is not None:
            raise self._error
        self.offers.append(offer)
        return "https://hub.example/pr/1"


@pytest.fixture
def real_validation() -> None:
    """Ask for it, and folders are held against all rules, as they are for everybody; it takes seconds."""


@pytest.fixture(autouse=True)
def _validation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(folder: Path, reference: Path | None) -> ValidationReport:
        return ValidationReport(folder=folder, rows=(), findings=())

    if "real_validation" not in request.fixturenames:
        monkeypatch.setattr(inspecting, "validated", nothing_found)
        monkeypatch.setattr(submitting, "validated", nothing_found)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("campaign") / "data", campaign_measurements())


def run(hub: Hub, *arguments: str) -> int:
    return submit.main(arguments, hub=hub)


def bundles(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.zip"))


def test_without_a_repository_the_bundle_is_written_and_the_steps_are_told(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], real_validation: None
) -> None:
    text = printed(submit.main, capsys, str(campaign), "--lab", "green-lab", "--out", str(tmp_path))

    (bundle,) = bundles(tmp_path)
    assert str(bundle) in text
    assert "hf upload OWNER/NAME" in text
    assert "energies are measured" in text
    assert "NVIDIA A100-SXM4-80GB, Example CPU @ 2.00GHz, Linux 6.12, driver 580.65.06, torch 2.13.0" in text
    for table, arrow in tables_of(bundle).items():
        assert f"  {table.title:<16} {arrow.num_rows:>10,} rows\n" in text


def test_a_pull_request_is_opened_once_somebody_said_yes(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub()
    line = (str(campaign), "--lab", "green-lab", "--out", str(tmp_path), "--repository", "o/n", "--yes")

    assert run(hub, *line) == 0

    assert [offer.path for offer in hub.offers] == bundles(tmp_path)
    assert "pull request  https://hub.example/pr/1" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "sent"), [("y\n", 1), ("yes\n", 1), ("\n", 0), ("n\n", 0), ("", 0)])
def test_somebody_at_a_terminal_is_asked(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, sent: int
) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal(answer))
    hub = Hub()

    assert run(hub, str(campaign), "--lab", "green-lab", "--out", str(tmp_path), "--repository", "o/n") == 0

    assert len(hub.offers) == sent
    assert len(bundles(tmp_path)) == 1


class _Terminal:
    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


def test_where_nobody_can_be_asked_nothing_is_sent(campaign: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.submit", str(campaign), "--lab", "green-lab", "--repository", "o/n"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "HF_ENDPOINT": "http://127.0.0.1:9"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Nobody can be asked here" in done.stdout
    assert len(bundles(tmp_path)) == 1


def test_offline_nothing_is_sent_even_with_yes(campaign: Path, tmp_path: Path) -> None:
    hub = Hub()
    line = (str(campaign), "--lab", "green-lab", "--out", str(tmp_path), "--repository", "o/n", "--yes", "--offline")

    assert run(hub, *line) == 0
    assert hub.offers == []


def test_where_the_hub_refuses_the_steps_by_hand_are_told(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub(DatasetError("No pull request could be opened.\nOffer it by hand."))

    assert run(hub, str(campaign), "--lab", "green-lab", "--out", str(tmp_path), "--repository", "o/n", "--yes") == 1

    output = capsys.readouterr()
    assert "hf upload o/n" in output.out
    assert "No pull request could be opened" in output.err
    assert len(bundles(tmp_path)) == 1


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert submit.main(arguments) == 1
    return capsys.readouterr().err


def folder_of(tmp_path: Path, made: Sequence[Measurement], name: str = "data") -> str:
    return str(write_dataset(tmp_path / name, made))


def test_without_the_reference_pack_it_says_how_to_run_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, [measurement(OTHER), *pack_measurements()[:3]])

    error = complaint(capsys, folder, "--lab", "green-lab", "--out", str(tmp_path))

    assert "Qwen/Qwen2.5-1.5B 32x128x256 is missing" in error
    assert "python -m harness.run --reference-pack --out PACK" in error
    assert bundles(tmp_path) == []


def test_a_pack_of_its_own_folder_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = folder_of(tmp_path, [measurement(OTHER)], "campaign")
    pack = folder_of(tmp_path, pack_measurements(), "pack")

    printed(submit.main, capsys, campaign, "--pack", pack, "--lab", "green-lab", "--out", str(tmp_path))

    assert len(bundles(tmp_path)) == 1


def test_a_pack_of_another_set_up_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capped = environment(power_limit_w=310.0)
    campaign = folder_of(tmp_path, [measurement(OTHER, machine=capped)], "campaign")
    pack = folder_of(tmp_path, pack_measurements(), "pack")

    error = complaint(capsys, campaign, "--pack", pack, "--lab", "green-lab", "--out", str(tmp_path))

    assert "at 400 W with Example CPU @ 2.00GHz, not NVIDIA A100-SXM4-80GB at 310 W" in error


def test_a_folder_with_errors_is_refused_and_the_errors_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_validation: None
) -> None:
    made = measurement(OTHER)
    wrong = replace(made, run=replace(made.run, energy_j=(made.run.energy_j or 0.0) / 3600))

    error = complaint(
        capsys, folder_of(tmp_path, [wrong, *pack_measurements()]), "--lab", "green-lab", "--out", str(tmp_path)
    )

    assert "has errors and cannot be submitted" in error
    assert "python -m harness.validate" in error
    assert bundles(tmp_path) == []


def test_what_a_maintainer_would_refuse_is_refused_here_and_no_bundle_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = environment(gpu="NVIDIA A900", device_name="NVIDIA A900")
    made = [measurement(each, machine=machine) for each in (OTHER, *reference_pack().on_gpu.requests)]
    made = [replace(each, run=replace(each.run, gpu="NVIDIA A900")) for each in made]

    error = complaint(capsys, folder_of(tmp_path, made), "--lab", "green-lab", "--out", str(tmp_path))

    assert "NVIDIA A900 is not in the hardware table" in error
    assert bundles(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("DIR", "--lab"),
        ("DIR --lab Green_Lab", "2 to 40 of the characters"),
        ("DIR --lab green-lab --include all", "Write simulated, quick or both"),
        ("DIR --lab green-lab --out /nowhere/at/all.zip", "is in no folder"),
        ("DIR --lab green-lab --contact é", "ASCII"),
        ("DIR --lab green-lab --gpu A100", "There are runs on NVIDIA A100"),
        ("DIR --lab green-lab --lba x", "--lba"),
    ],
)
def test_a_bad_command_line_says_what_would_be_right(
    campaign: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    arguments = [str(campaign) if word == "DIR" else word for word in line.split()]

    assert words in refused(submit.main, capsys, *arguments)


def test_a_folder_that_is_no_dataset_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no dataset" in complaint(capsys, str(tmp_path), "--lab", "green-lab")


def test_words_to_hide_are_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = environment(os="Linux 6.12 codename")
    made = [
        replace(each, run=replace(each.run, environment_id=machine.environment_id), environment=machine)
        for each in campaign_measurements()
    ]

    text = printed(
        submit.main,
        capsys,
        folder_of(tmp_path, made),
        "--lab",
        "green-lab",
        "--hide",
        "codename",
        "--out",
        str(tmp_path),
    )

    assert "hidden: in 1 texts" in text
    assert "Linux 6.12 [hidden]" in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom harness import submit, accept\n"
        "for command in (submit, accept):\n"
        "    try:\n        command.main(['--help'])\n    except SystemExit as end:\n        assert not end.code\n"
        "assert not {'torch', 'numpy', 'pyarrow', 'duckdb', 'huggingface_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "--repository" in done.stdout
