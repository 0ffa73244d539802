"""The whole loop on data of our own: measured (on a virtual GPU), trained on, predicted, scored."""

import json
from pathlib import Path

import pytest

from harness.run import main as run
from predictor.predict import main as predict
from predictor.train import main as train

REQUEST = "--model meta-llama/Llama-3.2-1B --gpu H100-SXM --batch 4 --prompt 256 --output 32 --json"
SIZES = "--batch-sizes 1 4 --prompt-tokens 64 256 --output-tokens 2 32"
CAMPAIGN = "--device virtual:h100-sxm --models meta-llama/Llama-3.2-1B --quality quick --sampling grid"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    sizes = SIZES.split()
    assert run([*CAMPAIGN.split(), *sizes, "--out", str(folder)]) == 0
    return folder


def test_rows_nobody_measured_are_refused_until_asked_for_by_name(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train(["--data", str(dataset), "--out", str(tmp_path / "own.safetensors")])

    assert code == 2
    assert "--allow simulated" in capsys.readouterr().err


def test_a_predictor_learns_a_virtual_gpu_and_answers_for_it(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "own.safetensors"
    assert train(["--data", str(dataset), "--allow", "simulated,estimated", "--out", str(checkpoint)]) == 0
    card = json.loads(checkpoint.with_suffix(".json").read_text())
    assert card["allowed"] == ["simulated", "estimated"]
    capsys.readouterr()

    code = predict([*REQUEST.split(), "--checkpoint", str(checkpoint)])

    answer = json.loads(capsys.readouterr().out)
    measured = _measured(dataset, batch=4, prompt=256, output=32)
    assert code == 0
    assert answer["energy_j"] == pytest.approx(measured, rel=0.25)


def _measured(folder: Path, *, batch: int, prompt: int, output: int) -> float:
    from harness.dataset.reading import read_rows
    from harness.records import RunRow

    sizes = (batch, prompt, output)
    rows = [r for r in read_rows(folder, RunRow) if (r.batch_size, r.prompt_tokens, r.output_tokens) == sizes]
    energy = rows[0].energy_j
    assert energy is not None
    return energy
