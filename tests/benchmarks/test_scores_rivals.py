"""Rivals learn what there is to learn, and the whole way from kernels to scores works on made-up ones."""

import numpy as np
import pytest

pytest.importorskip("lightgbm", reason="the rivals of the predictor need lightgbm and scikit-learn")
pytest.importorskip("sklearn", reason="the rivals of the predictor need lightgbm and scikit-learn")

from benchmarks.rivals_kernels import RIVALS, KernelCase, joules_per_flop
from benchmarks.rivals_learners import LEARNERS, Sample, grouped_watch
from benchmarks.scores_kernels import half_widths, score_kernels
from benchmarks.scores_networks import Shelf, unfamiliar
from benchmarks.scores_records import OURS
from benchmarks.scores_splits import KernelSplit, unseen_shapes
from harness.hardware import find
from predictor import deployments
from predictor.deployments import Deployment
from predictor.features import FEATURES, NAMES, Described
from predictor.kernel_examples import KernelExamples
from predictor.kernel_training import KernelSettings, kernel_batches

GPUS = ("NVIDIA B200", "NVIDIA H200")


def some_kernels(shapes: int = 700) -> KernelExamples:
    """GEMMs on two GPUs that take 1.5 times their Roofline and 2 pJ per FLOP above a third of board power."""
    rng = np.random.default_rng(0)
    shape = np.repeat(np.arange(shapes), len(GPUS))
    gpu = np.tile(np.array(GPUS, dtype=object), shapes)
    unique = deployments.columns([Deployment(hardware=find(name), runtime="vllm", alone=True) for name in GPUS])
    on = deployments.take(unique, np.tile(np.arange(len(GPUS)), shapes))
    flop = 10 ** rng.uniform(10, 13, shapes)[shape]
    compute_s = flop / on.peak_flop_per_s.max(axis=1)
    duration_s = 1.5 * compute_s + 4e-6
    features = rng.normal(size=(len(shape), len(FEATURES))).astype(np.float32) * 0.1
    features[:, NAMES.index("flop")] = np.log(flop) / 20
    zeros = np.zeros(len(shape))
    return KernelExamples(
        described=Described(
            features=features,
            family=np.zeros(len(shape), dtype=np.int64),
            launches=zeros + 1,
            compute_s=compute_s,
            memory_s=compute_s / 10,
            link_s=zeros,
            ranks=zeros + 1,
        ),
        on=on,
        duration_s=duration_s,
        power_w=np.minimum(on.board_power_w / 3 + 2e-12 * flop / duration_s, on.board_power_w),
        gpu=gpu,
        runtime=np.full(len(shape), "vllm", dtype=object),
        shape_key=(shape.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15),
        provenances=frozenset({"imported"}),
        sources=frozenset({"made up"}),
        licences=frozenset({"MIT"}),
    )


@pytest.fixture(scope="module")
def kernels() -> KernelExamples:
    return some_kernels()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_learns_a_step_and_the_same_seed_learns_the_same(name: str) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (1200, 3)).astype(np.float32)
    target = np.where(inputs[:, 0] > 0, 2.0, -1.0) + 0.2 * inputs[:, 1]
    sample = Sample(inputs=inputs, target=target, weight=np.ones(1200))
    train, watched = sample.take(np.arange(1000)), sample.take(np.arange(1000, 1200))

    once, again = (LEARNERS[name](train, watched, 1) for _ in range(2))

    asked = np.array([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]], dtype=np.float32)
    assert once(asked) == pytest.approx([2.0, -1.0], abs=0.4)
    assert once(asked).tolist() == again(asked).tolist()


def test_whole_groups_are_watched() -> None:
    watched = grouped_watch(["a", "b", "a", "c", "d", "e", "f"])

    assert watched.tolist() == [True, False, True, False, False, False, True]
    assert not grouped_watch(["a", "a"]).any()


def test_joules_per_flop_is_the_median_of_the_training_rows(kernels: KernelExamples) -> None:
    case = KernelCase(examples=kernels, data=kernel_batches(kernels), split=unseen_shapes(kernels))

    answer = joules_per_flop(case)

    train, test = case.split.train, case.split.test
    flop = np.exp(20 * kernels.described.features[:, NAMES.index("flop")].astype(np.float64))
    assert case.flop(test) == pytest.approx(flop[test], rel=1e-4)
    assert answer.duration_s == pytest.approx(np.median(kernels.duration_s[train] / flop[train]) * flop[test], rel=1e-3)


def test_half_widths_are_those_of_a_family_where_there_is_enough_of_it() -> None:
    family = np.array([0] * 200 + [1] * 5 + [0, 1])
    split = KernelSplit(
        held_out="x",
        train=np.array([], dtype=np.int64),
        watched=np.array([], dtype=np.int64),
        calibration=np.arange(205),
        test=np.array([205, 206]),
    )
    errors = np.concatenate((np.full(200, 0.1), np.full(5, np.nan)))

    assert half_widths(errors, family, split).tolist() == [0.1, 0.1]
    errors[200:] = 9.0  # five of 205: beyond the 90th percentile of all
    assert half_widths(errors, family, split).tolist() == [0.1, 0.1]
    errors[:200] = np.linspace(0, 1, 200)
    assert half_widths(errors, family, split)[0] == pytest.approx(0.9, abs=0.01)


def test_a_gpu_is_unfamiliar_unless_its_chip_was_seen() -> None:
    assert unfamiliar("NVIDIA B200", ["NVIDIA A100-SXM4-80GB"])
    assert not unfamiliar("NVIDIA GB200", ["NVIDIA B200"])


def test_kernels_are_scored_by_shape_and_by_gpu_beside_every_rival(kernels: KernelExamples) -> None:
    shelf = Shelf(
        examples=kernels,
        data=kernel_batches(kernels),
        settings=KernelSettings(epochs=2, batch=256, width=16, layers=1, physics_steps=100),
        left_out_epochs=1,
        told=lambda _text: None,
    )

    names = [name for name in RIVALS if name not in {"gradient-boosted trees", "random forest"}]  # they take a minute

    found = score_kernels(shelf, names)

    ours = {(score.task, score.quantity): score for score in found.scores if score.predictor == OURS}
    assert ours["kernel-gemm", "time"].median_ape < 0.1  # 1.5 × Roofline is what the physics can say
    assert ours["kernel-gemm", "time"].n == len(shelf.shapes_case().split.test)
    assert {f"kernel-gpu-out/{gpu}" for gpu in GPUS} < {task for task, _ in ours}
    assert {score.predictor for score in found.scores} == {OURS, *names}
    assert {fold.held_out for fold in found.folds} == {"shapes", *GPUS}
    assert all(score.coverage is not None for score in ours.values())
