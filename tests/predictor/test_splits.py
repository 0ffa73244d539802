import dataclasses

import numpy as np

from predictor.kernel_examples import KernelExamples
from predictor.kernel_training import KernelSettings
from predictor.training import TEST_SHAPES, held_out, shape_place
from tests.predictor.example_kernels import kernels, on, seen


def examples(shapes: int, repeats: int) -> KernelExamples:
    """So many shapes, each measured several times."""
    keys = np.random.default_rng(0).integers(0, 2**63, size=shapes, dtype=np.uint64)
    table = kernels(*({"m": 8.0, "n": 8.0, "k": 8.0} for _ in range(shapes * repeats)))
    return KernelExamples(
        described=seen(table),
        on=on(table.passes),
        duration_s=np.ones(table.passes),
        power_w=np.ones(table.passes),
        gpu=np.full(table.passes, "a", dtype=object),
        runtime=np.full(table.passes, "vllm", dtype=object),
        shape_key=np.tile(keys, repeats),
        provenances=frozenset({"imported"}),
        sources=frozenset({"example"}),
        licences=frozenset({"MIT"}),
    )


def test_no_shape_is_on_two_sides_and_test_shapes_are_on_none() -> None:
    given = examples(shapes=2000, repeats=3)
    rows, watched = held_out(given, dataclasses.replace(KernelSettings(), held_out=0.05))

    learned, stopped_by = set(given.shape_key[rows].tolist()), set(given.shape_key[watched].tolist())
    tested = set(given.shape_key[shape_place(given.shape_key) < TEST_SHAPES].tolist())
    assert not learned & tested
    assert not stopped_by & (tested | learned)
    assert learned | stopped_by | tested == set(given.shape_key.tolist())
    assert 0.15 < len(tested) / 2000 < 0.25
