"""A quicker call is taken only where it comes to the same operator with the same arguments."""

from typing import Any

import pytest
import torch

from harness.tracing.relaunch_quick import quickest

aten = torch.ops.aten
ONE, TWO = torch.ones(2, 3), torch.full((2, 3), 2.0)


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "quick"),
    [
        (aten.neg.default, (ONE,), {}, torch.neg),
        (aten.mul.Tensor, (ONE, 0.5), {}, torch.mul),
        (aten.mean.dim, (ONE, [-1], True), {}, torch.mean),
        (aten.cat.default, ([ONE, TWO], 1), {}, torch.cat),
        (aten.add.out, (ONE, TWO), {"out": torch.empty(2, 3)}, torch.add),
        (aten.silu.default, (ONE,), {}, torch._C._nn.silu),
    ],
    ids=["neg", "mul", "mean", "cat", "add.out", "silu"],
)
def test_the_same_operator_is_found_and_gives_the_same(func: Any, args: Any, kwargs: Any, quick: Any) -> None:
    found = quickest(func, args, kwargs)

    assert found is quick
    assert torch.equal(found(*args, **kwargs), func(*args, **kwargs))


def test_an_operator_in_place_is_found_and_looking_for_it_computes_nothing() -> None:
    target = torch.zeros(3)
    found = quickest(aten.add_.Tensor, (target, torch.ones(3)), {})

    assert found is torch.Tensor.add_
    assert target.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.linear.default, (ONE, TWO, None, 3)),  # arguments nobody takes
        (aten.mul.Scalar, (ONE, 2.0)),  # the function of this name takes another overload
        (torch.ops._c10d_functional.wait_tensor.default, (ONE,)),
    ],
    ids=["linear", "mul.Scalar", "wait_tensor"],
)
def test_without_a_quicker_way_it_is_the_operator_itself(func: Any, args: Any) -> None:
    assert quickest(func, args, {}) is func
