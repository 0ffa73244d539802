"""The ablations: nobody is scored on what they learned, pairs are compared as pairs, every variant can be fitted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.ablation_data import Lessons, shapes, splits
from benchmarks.ablation_models import Variant, drawn, fitted, fitted_figures
from benchmarks.ablation_page import page
from benchmarks.ablation_scores import Cell, cells, outcome, paired_interval
from benchmarks.ablations import fits
from harness.hardware import find
from predictor.assembly import Assembled, assemble
from predictor.graph_batches import graph_batch
from predictor.network import KernelNetwork
from predictor.pass_model import PassModel
from predictor.pass_training import run_batch
from predictor.passes import pass_tensors
from predictor.requests import PredictionRequest
from predictor.run_examples import Part, RunExample, Target

OPEN, CLOSED = "an-open-source", "a-closed-source"


def a_run(
    source: str,
    *,
    model: str = "a/model",
    gpu: str = "NVIDIA H100 80GB HBM3",
    tokens: int = 4,
    licence: str | None = "MIT",
) -> RunExample:
    """A run of so many tokens, a second each."""
    return RunExample(
        request=PredictionRequest(
            model="Qwen/Qwen3-0.6B",
            hardware=find(gpu),
            n_gpus=1,
            batch_size=1,
            prompt_tokens=32,
            output_tokens=tokens,
            dtype="bfloat16",
            runtime="vllm",
        ),
        targets=(Target(part=Part.WHOLE, duration_s=0.004 * tokens, energy_j=1.5 * tokens),),
        source=source,
        licence=licence,
        provenance="imported",
        model=model,
        run_id=f"{source}{model}{tokens}",
        host_bound=False,
    )


def lessons_from(runs: list[RunExample]) -> Lessons:
    """As lessons, kernels by untrained physics."""
    kernels = KernelNetwork(width=4, layers=1)
    assembled = [assemble(run.request) for run in runs]
    known = [entry for entry in assembled if isinstance(entry, Assembled)]
    assert len(known) == len(runs)
    return Lessons(
        runs=tuple(runs),
        shape=tuple(int(run.model[-1]) // 2 for run in runs),
        batch=run_batch(runs, pass_tensors(known, kernels, power=True)),
        graph=graph_batch(known, kernels),
    )


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    """Two open sources on two GPUs, and one without a licence."""
    gpus = ("NVIDIA H100 80GB HBM3", "NVIDIA B200")
    runs = [a_run(OPEN, model=f"m{place % 8}", gpu=gpus[place % 2], tokens=1 + place) for place in range(16)]
    runs += [a_run("another", model=f"m{place}", tokens=20 + place) for place in range(4)]
    runs += [a_run(CLOSED, model=f"m{place}", tokens=30 + place, licence=None) for place in range(3)]
    return lessons_from(runs)


@pytest.fixture(scope="module")
def figures(lessons: Lessons) -> PassModel:
    """Of the physics, fitted to all."""
    return fitted_figures(lessons)


def test_nobody_is_scored_on_what_was_learned(lessons: Lessons) -> None:
    models = [run.model for run in lessons.runs]
    for split in splits(lessons):
        assert not set(split.learned) & set(split.scored)
        learned, scored = ({models[place] for place in side} for side in (split.learned, split.scored))
        if split.task == "one model in five left out":
            assert not learned & scored
        if split.task == "one shape in five left out":
            assert not {lessons.shape[place] for place in split.learned} & {
                lessons.shape[place] for place in split.scored
            }


def test_what_has_no_licence_is_learned_from_for_its_own_models_only(lessons: Lessons) -> None:
    closed = {place for place, run in enumerate(lessons.runs) if run.source == CLOSED}
    used = [split for split in splits(lessons) if closed & set(split.learned)]
    assert used
    assert all(set(split.scored) <= closed and split.task == "one model in five left out" for split in used)
    scored = [
        split for split in splits(lessons) if split.task == "trained on none of it" and closed & set(split.scored)
    ]
    assert len(scored) == 1
    assert set(scored[0].scored) == closed


def test_every_label_is_scored_once_in_a_task(lessons: Lessons) -> None:
    by_task: dict[str, list[int]] = {}
    for split in splits(lessons):
        by_task.setdefault(split.task, []).extend(split.scored.tolist())
    assert all(len(places) == len(set(places)) for places in by_task.values())
    assert len(by_task["one model in five left out"]) == len(lessons.runs)
    assert len(by_task["one GPU left out"]) == 16


def test_some_runs_are_all_that_is_left(lessons: Lessons, figures: PassModel) -> None:
    chosen = lessons.some(np.array([2, 17]))
    whole = [lessons.runs[2].request.output_tokens, lessons.runs[17].request.output_tokens]
    assert [run.request.output_tokens for run in chosen.runs] == whole
    assert chosen.batch.duration_s.tolist() == pytest.approx([0.004 * tokens for tokens in whole])
    assert len(chosen.batch.passes.times) == chosen.graph.passes
    with torch.no_grad():
        alone = chosen.batch.sums(figures(chosen.batch.passes, corrected=False)).duration_s
        among = lessons.batch.sums(figures(lessons.batch.passes, corrected=False)).duration_s[[2, 17]]
    assert torch.allclose(alone, among)


@pytest.mark.parametrize("variant", Variant)
def test_every_variant_says_the_same_again_and_learns(lessons: Lessons, figures: PassModel, variant: Variant) -> None:
    pieces = drawn(lessons, 1)
    first, again, barely = (
        fitted(variant, lessons, pieces, figures, seed=1, steps=steps).sums(lessons) for steps in (40, 40, 1)
    )
    assert torch.equal(first.energy_j, again.energy_j)
    errors = [(found.energy_j / lessons.batch.energy_j).log().abs().mean() for found in (first, barely)]
    assert errors[0] < errors[1] or variant is Variant.PHYSICS


def test_twins_have_one_shape() -> None:
    requests = [
        replace(a_run(OPEN).request, model=name) for name in ("Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-8B")
    ]
    entries = [entry for entry in map(assemble, requests) if isinstance(entry, Assembled)]
    first, other, same = shapes([entry.graphs.sizes for entry in entries])
    assert first == same != other


def test_what_is_half_a_point_better_everywhere_is_better() -> None:
    rng = np.random.default_rng(0)
    base = rng.exponential(0.2, size=60)
    reference = np.stack([base, base])
    low, high = paired_interval(reference - 0.005, reference, np.arange(60) // 3)
    assert low == pytest.approx(-0.005)
    assert high == pytest.approx(-0.005)
    low, high = paired_interval(np.stack([rng.permutation(base)] * 2), reference, np.arange(60) // 3)
    assert low < 0 < high


def test_labels_of_one_deployment_count_as_one() -> None:
    rng = np.random.default_rng(0)
    shift = np.repeat(rng.normal(0.01, 0.03, size=6), 50)[None, :]  # differs by deployment, not by label
    few = paired_interval(shift, np.zeros_like(shift), np.arange(300) // 50)
    many = paired_interval(shift, np.zeros_like(shift), np.arange(300))
    assert few[1] - few[0] > 3 * (many[1] - many[0])


def test_scores_are_of_the_rows_that_were_left_out(lessons: Lessons, figures: PassModel) -> None:
    every = [split for split in splits(lessons) if split.task == "one GPU left out"]
    outcomes = []
    for number, split in enumerate(every):
        found = fitted(Variant.PHYSICS, lessons, (), figures, seed=0, steps=1).sums(lessons.some(split.scored))
        outcomes.append(outcome(lessons, found, split, number=number, variant=Variant.PHYSICS, seed=0))
    made = {cell.quantity: cell for cell in cells(lessons, every, outcomes)}
    with torch.no_grad():
        whole = lessons.batch.sums(figures(lessons.batch.passes, corrected=False)).energy_j / lessons.batch.energy_j - 1
    assert made["energy"].source == OPEN
    assert np.allclose(made["energy"].errors[Variant.PHYSICS][0], whole.abs().numpy()[:16], atol=1e-6)


def test_workers_bring_back_all_variants_and_seeds(lessons: Lessons) -> None:
    first, second = list(splits(lessons))[:2]
    found = list(fits(lessons, [first, second], seeds=2, steps=2, jobs=1))
    assert [{each.split for each in outcomes} for outcomes in found] == [{0}, {1}]
    wanted = {(variant, seed) for variant in Variant for seed in (0, 1)} - {(Variant.PHYSICS, 1)}
    assert all({(each.variant, each.seed) for each in outcomes} == wanted for outcomes in found)
    assert found[0][0].row.tolist() == first.scored.tolist()  # each run has one label here


def test_the_page_says_what_is_better_and_what_is_worse() -> None:
    base = np.random.default_rng(1).exponential(0.2, size=(2, 40))
    shift = {Variant.DIRECT: 0.05, Variant.POOLED: -0.02}
    cell = Cell(
        task="one GPU left out",
        source=OPEN,
        quantity="energy",
        cluster=np.arange(40) // 4,
        errors={variant: np.stack([base[0]] * 2) + shift.get(variant, 0.0) for variant in Variant},
    )
    text = page([cell], seeds=2, steps=10, kernels="`a.safetensors`")
    assert f"| {Variant.DIRECT} | **+5.0 … +5.0** |" in text
    assert f"| {Variant.POOLED} | **-2.0 … -2.0** |" in text
    first = next(line for line in text.splitlines() if line.startswith(f"| {Variant.DIRECT} |"))
    assert first.endswith("| 0 | 1 | 0 |")
