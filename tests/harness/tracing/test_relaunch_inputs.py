"""Kept calls: copies with the same strides, and loops of launches through graphs."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.tracing.relaunch_inputs import KeptCall, copy_of, held_bytes, weight_storages, written_tensors
from harness.tracing.relaunch_loops import Graph, Loop
from harness.tracing.sizes import storage_of

aten = torch.ops.aten


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Any view: gaps, overlaps, expanded and empty dimensions, an offset."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    strides = [draw(st.integers(0, 5)) for _ in shape]
    offset = draw(st.integers(0, 7))
    return torch.arange(200).as_strided(shape, strides, offset)


@given(views())
def test_a_copy_has_the_values_and_strides_of_the_original_and_memory_of_its_own(tensor: torch.Tensor) -> None:
    copy = copy_of(tensor)

    assert torch.equal(copy, tensor)
    assert storage_of(copy) != storage_of(tensor)
    if tensor.numel():
        assert copy.stride() == tensor.stride()


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "refilled"),
    [
        (aten.mm.default, (torch.ones(2, 2), torch.ones(2, 2)), {}, None),
        (aten.copy_.default, (torch.ones(2), torch.ones(2)), {}, None),
        (aten.add_.Tensor, (torch.ones(2), torch.ones(2)), {}, 16),
        (aten.add_.Tensor, (torch.ones(2, dtype=torch.float16), torch.ones(2)), {}, 4),
        (aten.add.out, (torch.ones(2), torch.ones(2)), {"out": torch.ones(2)}, None),
        (aten.index_put_.default, (torch.ones(2), [torch.tensor([0])], torch.ones(1)), {}, None),
        (aten.index_put_.default, (torch.ones(2), [torch.tensor([0])], torch.ones(1), True), {}, 16),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_only_what_builds_on_what_it_finds_is_refilled(func: Any, args: Any, kwargs: Any, refilled: int | None) -> None:
    kept = KeptCall.keep(func, args, kwargs, copied=lambda _: False)

    assert kept.refill_calls == refilled


def test_a_call_writes_to_a_scratch_copy_and_reads_the_original() -> None:
    target, source = torch.zeros(3), torch.ones(3)
    kept = KeptCall.keep(aten.add_.Tensor, (target, source), {}, copied=lambda _: False)
    results = [kept.launcher()() for _ in range(2)]

    assert isinstance(results[-1], torch.Tensor)
    assert results[-1].tolist() == [1, 1, 1]  # each launcher fills its scratch before its first call
    assert target.tolist() == [0, 0, 0]
    assert any(tensor is source for tensor in kept.tensors())
    assert not any(tensor is target for tensor in kept.tensors())


def test_a_copied_call_shares_nothing_and_does_the_same() -> None:
    args = (torch.ones(3), [torch.tensor([0, 2])], torch.full((2,), 5.0), True)
    kept = KeptCall.keep(aten.index_put_.default, args, {}, copied=lambda _: False)
    copied = kept.copied()

    assert {storage_of(tensor) for tensor in kept.tensors()}.isdisjoint(map(storage_of, copied.tensors()))
    assert torch.equal(copied.launcher()(), kept.launcher()())  # type: ignore[arg-type]


def test_an_operator_gets_its_twin_in_place() -> None:
    given = torch.ones(2, 3)
    kept = KeptCall.keep(aten.add.Tensor, (given, torch.ones(3)), {}, copied=lambda _: False).in_place()

    assert kept.op == "aten::add_.Tensor"
    assert torch.equal(kept.launcher()(), torch.full((2, 3), 2.0))  # type: ignore[arg-type]
    assert torch.equal(given, torch.ones(2, 3))


def test_what_keeping_a_call_holds_are_whole_storages_once_without_weights() -> None:
    weight, table = torch.ones(8, 8), torch.ones(100)
    weights = {storage_of(weight)}

    assert held_bytes(aten.mm.default, (weight, weight), {}, weights) == 0
    assert held_bytes(aten.add.Tensor, (table[:2], table[2:4]), {}, weights) == 400
    assert held_bytes(aten.add_.Tensor, (table[:2], table[2:4]), {}, weights) == 3 * 400


def test_written_tensors_are_found_in_place_by_name_and_in_lists() -> None:
    one, two = torch.ones(1), torch.ones(1)

    assert written_tensors(aten.add.Tensor, (one, two), {}) == []
    assert written_tensors(aten.add_.Tensor, (one, two), {})[0] is one
    assert written_tensors(aten.add.out, (one, one), {"out": two})[0] is two
    assert written_tensors(aten._foreach_add_.Scalar, ([one, two], 1), {})[1] is two


def test_weights_are_parameters_and_buffers() -> None:
    model = torch.nn.BatchNorm1d(3)
    held = [model.weight, model.bias, model.running_mean, model.running_var, model.num_batches_tracked]

    assert weight_storages(model) == {storage_of(tensor) for tensor in held if tensor is not None}


@pytest.mark.parametrize(("calls", "replays", "eager"), [(0, 0, ""), (5, 0, "ababa"), (13, 2, "a"), (24, 4, "")])
def test_a_loop_replays_whole_graphs_and_makes_the_rest_of_the_calls(calls: int, replays: int, eager: str) -> None:
    made: list[str] = []
    replayed: list[None] = []
    graph = Graph(replay=lambda: replayed.append(None), calls=6)
    Loop([lambda: made.append("a"), lambda: made.append("b")], graph).run(calls)

    assert (len(replayed), "".join(made)) == (replays, eager)
