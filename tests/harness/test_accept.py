"""``python -m harness.accept``: taken or refused, told to people and to programs."""

import json
import shutil
from pathlib import Path

import pytest

from harness import accept
from harness.dataset.reading import open_dataset
from harness.dataset.schema import Table
from tests.commands import printed, refused
from tests.harness.dataset.contributions.bundles import bundle_of, each, rebuilt, with_column
from tests.harness.dataset.contributions.measured import campaign_measurements, pack_measurements
from tests.harness.dataset.contributions.releases import release_of


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release_of(tmp_path_factory.mktemp("original") / "release", pack_measurements(seed=7, factor=1.02))


@pytest.fixture
def release(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "release"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tmp_path_factory.mktemp("bundle"), campaign_measurements())


def runs(release: Path) -> int:
    return int(open_dataset(release).table(Table.RUNS).num_rows)


def test_a_bundle_is_taken_and_what_is_new_is_listed(
    release: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(accept.main, capsys, str(bundle), "--into", str(release))

    assert "from    green-lab" in text
    assert "holds   5 runs on NVIDIA A100-SXM4-80GB" in text
    assert "beside  4 of them have comparable runs" in text
    assert f"Taken. {release} is now version 1.1.0; new files:" in text
    assert "data/runs/data-nvidia-a100-sxm4-80gb-00001.parquet  5 rows" in text
    assert runs(release) == 9
    assert "in the release already" in printed(accept.main, capsys, str(bundle), "--into", str(release))


def test_a_dry_run_says_that_nothing_was_written(
    release: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(accept.main, capsys, str(bundle), "--into", str(release), "--dry-run")

    assert text.endswith("It would be taken. Nothing was written.\n")
    assert runs(release) == 4


def test_a_refusal_names_rule_row_and_remedy_and_ends_with_1(
    release: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.zip"
    wrong.write_bytes(rebuilt(bundle, {Table.RUNS: with_column("energy_j", each(lambda joules: joules / 3600))}))

    assert accept.main([str(wrong), "--into", str(release)]) == 1

    output = capsys.readouterr()
    assert "Refused\n  power: run " in output.out
    assert "energies are joules" in output.out
    assert runs(release) == 4


def test_what_is_no_bundle_is_an_error(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.main([str(release / "README.md"), "--into", str(release)]) == 1

    assert "README.md is no bundle" in capsys.readouterr().err


def test_the_same_for_programs(release: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = json.loads(printed(accept.main, capsys, str(bundle), "--into", str(release), "--json"))

    assert (done["taken"], done["already"], done["version"], done["lab"]) == (True, False, "1.1.0", "green-lab")
    assert done["rows"]["runs"] == 5
    assert len(done["files"]) == 6
    assert done["refused"] == []
    assert len(done["comparisons"]) == 4
    assert all(0.9 < ratio["energy_ratio"] < 1.1 for ratio in done["comparisons"])


def test_a_version_can_be_given(release: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(accept.main, capsys, str(bundle), "--into", str(release), "--version", "2.0.0")

    assert json.loads((release / "release.json").read_text())["version"] == "2.0.0"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("BUNDLE", "--into"),
        ("BUNDLE --into REL --override short", "needs the reason"),
        ("BUNDLE --into REL --override a\x07bell-that-rings", "needs the reason"),
        ("BUNDLE --into REL --include estimated", "Write simulated, quick or both"),
        ("BUNDLE --into REL --version 1.0", "is no version"),
        ("BUNDLE --into REL --version 0.9.0", "does not follow 1.0.0"),
    ],
)
def test_a_bad_command_line_says_what_would_be_right(
    release: Path, bundle: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    places = {"BUNDLE": str(bundle), "REL": str(release)}

    assert words in refused(accept.main, capsys, *(places.get(word, word) for word in line.split(" ")))


def test_text_of_a_stranger_does_nothing_to_a_terminal(
    release: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "\x1b[31mred.zip"
    shutil.copy(bundle, odd)

    text = printed(accept.main, capsys, str(odd), "--into", str(release), "--dry-run")

    assert "\x1b" not in text
