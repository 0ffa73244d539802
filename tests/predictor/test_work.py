import numpy as np
import pytest

from harness.kernels import KernelKind
from predictor.families import Family
from predictor.work import work
from tests.predictor.example_kernels import kernels


def test_a_product_counts_two_operations_for_each_multiply_add_and_every_matrix_once() -> None:
    done = work(kernels({"m": 64, "n": 128, "k": 32}))

    assert done.flop[0] == 2 * 64 * 128 * 32
    assert done.read_bytes[0] == 2 * (64 * 32 + 128 * 32)
    assert done.write_bytes[0] == 2 * 64 * 128


def test_causal_attention_does_half_the_square_and_its_diagonal() -> None:
    sizes = {"batch": 2, "query_tokens": 100, "context_tokens": 100, "heads": 4, "kv_heads": 2, "head_dim": 64}
    done = work(kernels(sizes, kind=KernelKind.ATTENTION))

    assert done.keys[0] == 100 * 101 / 2
    assert done.flop[0] == 4 * 2 * 4 * 64 * 5050
    assert done.of(Family.CONTEXT_ATTENTION).all()


def test_a_step_reads_the_whole_cache_and_a_window_only_its_width() -> None:
    step = {"batch": 1, "query_tokens": 1, "context_tokens": 1000, "heads": 8, "kv_heads": 8, "head_dim": 64}
    done = work(kernels(step, step | {"window_tokens": 128}, kind=KernelKind.ATTENTION))

    assert done.keys.tolist() == [1000, 128]
    assert done.of(Family.GENERATION_ATTENTION).all()
    assert done.read_bytes[1] < done.read_bytes[0] / 7


def test_a_mixture_reads_the_experts_that_its_tokens_touch() -> None:
    sizes = {"tokens": 1, "experts": 8, "top_k": 2, "hidden": 1024, "intermediate": 512}
    done = work(kernels(sizes, sizes | {"tokens": 10_000}, kind=KernelKind.MOE_GEMM))

    one_expert = 3 * 1024 * 512 * 2
    assert done.read_bytes[0] == pytest.approx(2 * one_expert + 1024 * 2)
    assert done.read_bytes[1] == pytest.approx(8 * one_expert + 10_000 * 1024 * 2)
    assert done.flop[0] == 6 * 2 * 1024 * 512


def test_counts_are_of_one_launch() -> None:
    table = kernels({"elements": 10.0}, kind=KernelKind.NORM, launches=4.0)

    assert np.allclose(work(table).read_bytes, 0.25)
