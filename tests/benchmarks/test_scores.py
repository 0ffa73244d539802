"""Scores: figures known beforehand, splits that leak nothing, and pages that say what the scores say."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.scores_records import OURS, Fold, Score, Scores, read_json, scored, write_json
from benchmarks.scores_splits import Leak, apart, families, gpu_out, models_out, siblings, source_out, unseen_shapes
from benchmarks.scores_summary import best_rival, lines
from benchmarks.scores_tasks import TASKS, task_named
from harness.errors import UsageError
from harness.hardware import find
from predictor.assembly import Assembled
from predictor.kernel_examples import KernelExamples
from predictor.requests import PredictionRequest
from predictor.run_examples import Part, RunExample, Target
from predictor.score_table import BEGIN, END, Line, placed, read_lines, table

ROOT = Path(__file__).resolve().parents[2]
needs_rivals = pytest.mark.skipif(
    importlib.util.find_spec("lightgbm") is None or importlib.util.find_spec("sklearn") is None,
    reason="the rivals of the predictor need lightgbm and scikit-learn",
)


def a_score(**changes: Any) -> Score:
    base = Score(
        task="kernel-gemm",
        quantity="time",
        predictor=OURS,
        seed=0,
        n=100,
        mape=0.06,
        median_ape=0.04,
        eba5=0.6,
        eba10=0.8,
        eba30=0.99,
        bias=0.01,
        coverage=0.9,
    )
    return replace(base, **changes)


def a_run(
    model: str = "meta-llama/Llama-3.1-8B", gpu: str = "NVIDIA B200", source: str = "one", **changes: Any
) -> RunExample:
    request = PredictionRequest(
        model=model, hardware=find(gpu), prompt_tokens=changes.pop("prompt_tokens", 100), output_tokens=10
    )
    base = RunExample(
        request=request,
        targets=(Target(part=Part.WHOLE, duration_s=1.0, energy_j=100.0),),
        source=source,
        licence="MIT",
        provenance="imported",
        model=model,
        run_id=f"{model} {gpu} {source}",
        host_bound=False,
    )
    return replace(base, **changes)


def of_sizes(*sizes: tuple[int, int]) -> list[Assembled]:
    """Stand-ins that only have the layers and widths of their model."""
    return [
        cast(
            "Assembled",
            SimpleNamespace(
                graphs=SimpleNamespace(
                    sizes=SimpleNamespace(layers=layers, hidden_size=hidden, heads=8, kv_heads=8, experts=0, top_k=0)
                )
            ),
        )
        for layers, hidden in sizes
    ]


# ---- figures ----


def test_errors_are_shares_of_the_measurement_and_unmeasured_rows_do_not_count() -> None:
    predicted = np.array([104.0, 92.0, 50.0, 130.0, 7.0])
    measured = np.array([100.0, 100.0, 100.0, 100.0, np.nan])

    found = scored(predicted, measured, task="t", quantity="time", predictor=OURS, seed=0, half=None)

    assert found is not None
    assert found.n == 4
    assert found.mape == pytest.approx((0.04 + 0.08 + 0.50 + 0.30) / 4)
    assert found.median_ape == pytest.approx((0.08 + 0.30) / 2)
    assert (found.eba5, found.eba10) == (0.25, 0.5)
    assert found.bias == pytest.approx((1.04 + 0.92) / 2 - 1)
    assert found.coverage is None


def test_an_interval_covers_what_lies_within_its_half_width_either_way() -> None:
    predicted, measured = np.array([1.0, 1.0, 1.0]), np.exp([0.19, -0.19, 0.21])

    found = scored(predicted, measured, task="t", quantity="time", predictor=OURS, seed=0, half=np.full(3, 0.2))

    assert found is not None
    assert found.coverage == pytest.approx(2 / 3)


def test_nothing_measured_is_no_score() -> None:
    assert scored(np.ones(2), np.full(2, np.nan), task="t", quantity="time", predictor=OURS, seed=0, half=None) is None


# ---- splits ----


def test_what_is_on_both_sides_is_a_leak() -> None:
    apart([1, 2], [3])
    with pytest.raises(Leak, match="1 are trained on and predicted, among them 2"):
        apart([1, 2], [2, 3])


def test_a_shape_is_on_one_side_whatever_it_ran_on() -> None:
    keys = np.repeat(np.arange(4000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), 3)  # three GPUs each
    split = unseen_shapes(cast("KernelExamples", SimpleNamespace(shape_key=keys)))

    parts = [set(keys[rows]) for rows in (split.train, split.watched, split.calibration, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4000
    assert 0.17 < len(parts[3]) / 4000 < 0.23


def test_models_of_one_shape_are_one_family_and_leave_together_from_every_source() -> None:
    runs = [
        a_run("meta-llama/Llama-3.1-70B-Instruct"),
        a_run("meta-llama/Llama-3.3-70B-Instruct"),
        a_run("meta-llama/Llama-3.1-70B", source="other"),
        a_run("Qwen/Qwen3-8B"),
    ]
    of = families(runs, of_sizes((80, 8192), (80, 8192), (80, 8192), (36, 4096)))

    splits = models_out(runs, of, source="one", folds=0)

    assert of == ["meta-llama/Llama-3.1-70B"] * 3 + ["Qwen/Qwen3-8B"]
    assert [(split.held_out, split.train.tolist(), split.test.tolist()) for split in splits] == [
        ("Qwen/Qwen3-8B", [0, 1, 2], [3]),
        ("meta-llama/Llama-3.1-70B", [3], [0, 1]),
    ]


def test_a_source_leaves_with_what_others_repeat_of_it() -> None:
    runs = [a_run(source="one"), a_run(source="repeats"), a_run(source="other", prompt_tokens=7)]
    # The request is made from the arguments: the second run repeats the first.
    split = source_out(runs, "one")

    assert split.test.tolist() == [0]
    assert split.train.tolist() == [2]


def test_a_gpu_leaves_with_those_that_are_the_same_chip() -> None:
    runs = [a_run(gpu="NVIDIA B200"), a_run(gpu="NVIDIA GB200"), a_run(gpu="NVIDIA H100 80GB HBM3")]

    split = gpu_out(runs, "NVIDIA B200", source="one")

    assert siblings("NVIDIA B200", [run.request.hardware for run in runs]) == ("NVIDIA B200", "NVIDIA GB200")
    assert (split.train.tolist(), split.test.tolist()) == ([2], [0])


# ---- records ----


def test_scores_come_back_from_their_file_and_later_ones_replace_earlier_ones(tmp_path: Path) -> None:
    fold = Fold(task="kernel-gemm", held_out="shapes", train=4, test=1, train_sha256="a", test_sha256="b")
    first = Scores(settings={"a": "1"}, folds=(fold,), scores=(a_score(), a_score(seed=1)), notes=("n",))
    again = Scores(settings={"b": "2"}, folds=(fold,), scores=(a_score(mape=0.07),))

    write_json(first.joined(again), tmp_path / "scores.json", lines(first))
    found = read_json(tmp_path / "scores.json")

    assert [score.mape for score in found.scores] == [0.07, 0.06]
    assert found.folds == (fold,)
    assert found.settings == {"a": "1", "b": "2"}


def test_a_file_that_is_no_scores_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    for text in ("", "{}", json.dumps({"format": 99}), json.dumps({"format": 1, "settings": {}, "scores": [{"x": 1}]})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="cannot be read"):
            read_json(path)


# ---- tables ----


def some_scores() -> Scores:
    ours = [a_score(seed=seed, median_ape=value) for seed, value in enumerate((0.04, 0.05))]
    trees = [a_score(predictor="trees", median_ape=0.03, coverage=None)]
    plain = [a_score(predictor="plain", median_ape=0.2, coverage=None)]
    return Scores(settings={}, folds=(), scores=(*ours, *trees, *plain))


def test_a_line_has_mean_spread_bar_and_the_best_rival() -> None:
    line, coverage = lines(some_scores())

    assert line.mean == pytest.approx(0.045)
    assert line.seeds == 2
    assert line.spread == pytest.approx(0.00707, abs=1e-5)
    assert (line.limit, line.met, line.ahead) == (0.05, True, False)
    assert (line.rival, line.rival_mean) == ("trees", 0.03)
    assert coverage.met is True


@pytest.mark.parametrize(("value", "met"), [(0.85, False), (0.86, True), (0.94, True), (0.95, False)])
def test_an_interval_that_covers_too_much_is_missed_as_one_that_covers_too_little(value: float, met: bool) -> None:
    found = Scores(settings={}, folds=(), scores=(a_score(coverage=value),))

    assert lines(found)[1].met is met


def test_of_shares_within_an_error_the_highest_is_best() -> None:
    scores = tuple(a_score(predictor=name, eba10=value) for name, value in ((OURS, 0.9), ("a", 0.2), ("b", 0.4)))
    best = best_rival(Scores(settings={}, folds=(), scores=scores), "kernel-gemm", "time", "eba10")

    assert best is not None
    assert best.predictor == "b"


def test_a_rival_that_is_ahead_is_bold_and_a_missed_bar_says_so() -> None:
    line = lines(some_scores())[0]

    text = table([line, replace(line, met=False, limit=0.01), replace(line, limit=None, met=None)])

    assert table(lines(some_scores())).endswith(
        "\n1 of 1 intervals of 90 % hold between 86 and 94 % of what was measured.\n"
    )
    assert text.splitlines()[2:] == [
        "| kernel time, GEMM | unseen shapes | time, median APE | ≤ 5.0 % | 4.5 % ± 0.7 | met | **3.0 % (trees)** |",
        "| kernel time, GEMM | unseen shapes | time, median APE | ≤ 1.0 % | 4.5 % ± 0.7 | MISSED | **3.0 % (trees)** |",
    ]


def test_every_bar_of_every_task_is_a_metric_that_a_score_has() -> None:
    for task in TASKS:
        for bar in task.bars:
            assert bar.quantity in task.quantities
            assert 0 < getattr(a_score(), bar.metric) < 1
        assert task_named(task.key) is task


def test_a_table_goes_between_its_markers_and_nowhere_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    assert placed(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert placed(placed(page, "new\n"), "new\n") == placed(page, "new\n")
    with pytest.raises(UsageError, match="no place for scores"):
        placed("nothing", "new\n")


# ---- the pages of this repository ----

SCORES = ROOT / "docs" / "scores.json"
needs_scores = pytest.mark.skipif(not SCORES.is_file(), reason="docs/scores.json has not been written yet")


@needs_scores
def test_the_page_of_scores_says_what_the_scores_say() -> None:
    from benchmarks.scores_page import page

    assert (ROOT / "docs" / "scores.md").read_text(encoding="utf-8") == page(read_json(SCORES))


@needs_scores
def test_the_tables_of_readme_and_model_card_say_what_the_scores_say() -> None:
    pages = [path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if BEGIN in path.read_text("utf-8")]

    assert ROOT / "README.md" in pages
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert placed(text, table(read_lines(SCORES))) == text, (
            f"{path.name} is stale: python -m benchmarks.scores --into"
        )


@needs_scores
def test_the_lines_in_the_file_are_those_of_its_scores() -> None:
    def rounded(found: tuple[Line, ...]) -> list[tuple[str, str, float]]:
        return [(line.task, line.metric, round(line.mean, 3)) for line in found]

    assert rounded(read_lines(SCORES)) == rounded(lines(read_json(SCORES)))


@needs_rivals
def test_sources_that_are_only_trained_on_are_thinned_and_predicted_ones_are_not() -> None:
    from benchmarks.scores_requests import pool_of
    from predictor.training import Lessons

    runs = tuple(
        replace(a_run(source=source), run_id=f"{source} {place}")
        for source in ("ml-energy", "aiconfigurator")
        for place in range(5)
    )
    lessons = Lessons(kernels=None, runs=runs, assembled=tuple(of_sizes(*[(2, 8)] * 10)), learned_from=())

    kept = [run.run_id for run in pool_of(lessons, most=2).runs]

    assert kept[:5] == [f"ml-energy {place}" for place in range(5)]
    assert len(kept) == 7
    assert kept == [run.run_id for run in pool_of(lessons, most=2).runs]


@needs_rivals
def test_a_part_of_a_run_finds_its_row_by_what_was_measured() -> None:
    from benchmarks.rivals_requests import row_targets
    from predictor.pass_training import RunBatch

    nan = float("nan")
    parts = (
        Target(part=Part.PREFILL, duration_s=0.5, energy_j=nan),
        Target(part=Part.DECODE, duration_s=1.5, energy_j=nan),  # of a request without steps: it has no row
        Target(part=Part.WHOLE, duration_s=2.0, energy_j=7.0),
    )
    batch = SimpleNamespace(
        duration_s=torch.tensor([0.5, 2.0]), energy_j=torch.tensor([nan, 7.0]), example=np.array([0, 0])
    )

    found = row_targets([replace(a_run(), targets=parts)], cast("RunBatch", batch))

    assert [target.part for target in found] == [Part.PREFILL, Part.WHOLE]
