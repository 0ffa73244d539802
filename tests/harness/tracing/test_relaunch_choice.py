"""Which calls stand for which kernel: known answers on passes made by hand."""

import pytest

from harness.kernels import KernelKind
from harness.tracing.relaunch_calls import KernelKey, SeenCall, SeenLaunch, SeenPass
from harness.tracing.relaunch_choice import Choice, choose
from harness.tracing.timeline import TracedKernel


def row(kernel_id: str, op: str, *, duration_s: float = 1e-3, launches: int = 4) -> TracedKernel:
    return TracedKernel(
        kernel_id=kernel_id,
        kind=KernelKind.OTHER,
        op=op,
        module="layers.*",
        dtype="float32",
        shape="{}",
        launches=launches,
        flop=None,
        read_bytes=None,
        write_bytes=None,
        traced_duration_s=duration_s,
    )


def made_by(*calls: tuple[str, ...], size_bytes: int = 100) -> SeenPass:
    """A pass in which each call launched these operators."""
    launches = [
        SeenLaunch(key=KernelKey(op, "layers.*", "float32", "{}"), call=number)
        for number, ops in enumerate(calls)
        for op in ops
    ]
    return SeenPass(
        calls=tuple(SeenCall(op=f"{ops[0] if ops else 'aten::view'}.default", held_bytes=size_bytes) for ops in calls),
        launches=tuple(launches),
    )


def chosen(seen: SeenPass, *rows: TracedKernel, instances: int = 8, limit_bytes: int = 10**9) -> Choice:
    return choose(seen, rows, {each.kernel_id for each in rows}, instances=instances, limit_bytes=limit_bytes)


def test_calls_are_spread_over_all_launches_with_the_first_among_them() -> None:
    (only,) = chosen(made_by(*[("aten::mm",)] * 30), row("k0", "aten::mm"), instances=8).chosen

    assert only.calls == (0, 3, 7, 11, 15, 18, 22, 26)


def test_kernels_come_in_the_order_of_the_pass() -> None:
    seen = made_by(("aten::silu",), (), ("aten::mm",), ("aten::silu",))
    found = chosen(seen, row("k0", "aten::mm"), row("k1", "aten::silu"))

    assert [(each.kernel_id, each.calls) for each in found.chosen] == [("k1", (0, 3)), ("k0", (2,))]
    assert found.skipped == ()


def test_an_operator_made_of_two_kernels_stands_for_the_longer_one_and_names_the_other() -> None:
    seen = made_by(("aten::topk", "aten::copy_"), ("aten::topk", "aten::copy_"))
    found = chosen(seen, row("k0", "aten::copy_", duration_s=1e-3), row("k1", "aten::topk", duration_s=5e-3))

    (only,) = found.chosen
    assert (only.kernel_id, only.calls, only.companions) == ("k1", (0, 1), ("k0",))
    (skipped,) = found.skipped
    assert skipped.kernel_id == "k0"
    assert "aten::topk.default launches it together with aten::topk" in skipped.reason


def test_a_call_of_its_own_is_preferred_to_a_shared_one() -> None:
    seen = made_by(("aten::topk", "aten::copy_"), ("aten::copy_",))
    found = chosen(seen, row("k0", "aten::copy_", duration_s=9e-3), row("k1", "aten::topk", duration_s=1e-3))

    assert {each.kernel_id: (each.calls, each.companions) for each in found.chosen} == {"k0": ((1,), ())}
    assert [each.kernel_id for each in found.skipped] == ["k1"]


def test_launches_that_come_together_are_counted() -> None:
    (only,) = chosen(made_by(("aten::sort", "aten::sort")), row("k0", "aten::sort")).chosen

    assert only.launches_per_call == 2


def test_an_operator_in_place_in_the_trace_is_found_where_the_mode_had_torch_prefer_the_other() -> None:
    (only,) = chosen(made_by(("aten::add",)), row("k0", "aten::add_")).chosen

    assert only.in_place
    assert not chosen(made_by(("aten::add_",)), row("k0", "aten::add_")).chosen[0].in_place


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (made_by(("aten::mm",)), "it was not launched when the calls were recorded"),
        (
            SeenPass(
                calls=(), launches=(SeenLaunch(key=KernelKey("triton_moe", "layers.*", "float32", "{}"), call=None),)
            ),
            "no one operator call launches it",
        ),
    ],
)
def test_what_cannot_be_had_has_a_reason(seen: SeenPass, reason: str) -> None:
    (skipped,) = chosen(seen, row("k0", "triton_moe")).skipped

    assert skipped.reason == reason


def test_every_kernel_gets_one_call_before_any_gets_two() -> None:
    seen = made_by(*[("aten::mm",)] * 3, *[("aten::silu",)] * 3, ("aten::cat",))
    rows = row("k0", "aten::silu"), row("k1", "aten::mm"), row("k2", "aten::cat")

    counts = {each.kernel_id: len(each.calls) for each in chosen(seen, *rows, limit_bytes=450).chosen}
    assert counts == {"k0": 2, "k1": 1, "k2": 1}

    short = chosen(seen, *rows, limit_bytes=200)
    assert {each.kernel_id for each in short.chosen} == {"k0", "k1"}
    assert [each.kernel_id for each in short.skipped] == ["k2"]
    assert short.skipped[0].reason.startswith("its inputs take")


def test_what_is_not_wanted_is_neither_chosen_nor_skipped() -> None:
    rows = [row("k0", "aten::mm"), row("k1", "aten::silu")]
    found = choose(made_by(("aten::mm",)), rows, {"k0"}, instances=1, limit_bytes=10**9)

    assert [each.kernel_id for each in found.chosen] == ["k0"]
    assert found.skipped == ()
