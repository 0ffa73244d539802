"""The coverage page: every wanted cell is there, filled by measurement or not, and provenances are never mixed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.coverage import Cell, coverage_text, fillings, wanted
from harness.dataset.reading import open_dataset
from harness.hardware import known
from harness.models.shipped import shipped_ids
from harness.records import Measurement, Provenance, Quality, RunRow, Status, Weights, Workload
from tests.harness.dataset.contributions.measured import GPU, OTHER, measurement, pack_measurements, write_dataset

CELL = Cell(gpu=GPU, model="Qwen/Qwen3-8B", batch_size=8)


def run(**other: object) -> RunRow:
    return replace(measurement(OTHER, weights=Weights.PRETRAINED).run, **other)  # type: ignore[arg-type]


def page(folder: Path, made: Sequence[Measurement]) -> str:
    return coverage_text(open_dataset(write_dataset(folder / "data", made)))


def test_a_wanted_cell_that_was_measured_is_ticked(tmp_path: Path) -> None:
    text = page(tmp_path, [measurement(OTHER, weights=Weights.PRETRAINED)])

    line = next(line for line in text.splitlines() if line.startswith(f"| {GPU} | 1, 8, 32, 128 |"))
    assert line.split(" | ")[2] == "1, 8 ✓, 32, 128"
    assert "1 of 214 wanted cells filled by measurement." in text
    assert f"| {GPU} | Qwen/Qwen3-8B | 8 (1) | 1 | 5 | 1 |" in text


def test_runs_of_random_weights_fill_no_wanted_cell(tmp_path: Path) -> None:
    text = page(tmp_path, pack_measurements())

    assert "0 of 214 wanted cells" in text
    assert f"| {GPU} | Qwen/Qwen2.5-1.5B (random weights) | 1 (2), 32 (2) | 4 | 20 | 1 |" in text


def test_what_was_not_measured_fills_nothing_and_is_listed_apart(tmp_path: Path) -> None:
    made = measurement(OTHER, weights=Weights.PRETRAINED)
    made = replace(made, run=replace(made.run, provenance=Provenance.ESTIMATED))

    text = page(tmp_path, [made])

    assert "0 of 214 wanted cells" in text
    assert "## Measured" not in text
    assert "## Estimated by a power model; nothing was measured\n" in text


@pytest.mark.parametrize(
    "bad",
    [
        run(status=Status.FAILED),
        run(quality=Quality.QUICK),
        run(superseded_by="0" * 20),
        run(workload=Workload.KERNELS),
        run(energy_j=None),
        run(batch_size=None),
        run(model=None),
    ],
    ids=["failed", "quick", "superseded", "kernels", "no energy", "no batch", "no model"],
)
def test_a_run_that_cannot_be_compared_fills_nothing(bad: RunRow) -> None:
    assert CELL not in fillings([bad])[Provenance.MEASURED]
    assert CELL in fillings([run()])[Provenance.MEASURED]


def test_labs_are_counted_once_and_trials_added() -> None:
    found = fillings([run(lab="a"), run(lab="b", prompt_tokens=7), run(lab="b"), run(lab=None, trials=None)])

    filling = found[Provenance.MEASURED][CELL]
    assert (filling.runs, filling.trials) == (4, 15)
    assert set(filling.labs or ()) == {"a", "b", "joulegraph 0.1.0"}


def test_names_of_others_are_only_text(tmp_path: Path) -> None:
    made = measurement(OTHER, weights=Weights.PRETRAINED)
    made = replace(made, run=replace(made.run, model="<b>|[x](javascript:alert(1))"))

    text = page(tmp_path, [made])

    assert "<b>" not in text
    assert "[x](" not in text.replace("\\[x\\](", "")


def test_everything_that_is_wanted_is_known_and_wanted_once() -> None:
    gpus, models = {hardware.name for hardware in known()}, set(shipped_ids())
    for want in wanted():
        assert set(want.gpus) <= gpus
        assert set(want.models) <= models
        assert list(want.batches) == sorted(set(want.batches))
    cells = [
        Cell(gpu=gpu, model=model, batch_size=batch)
        for want in wanted()
        for gpu in want.gpus
        for model in want.models
        for batch in want.batches
    ]
    assert len(set(cells)) == len(cells)
