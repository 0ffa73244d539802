"""Kernels run again alone: the same ones, on the same inputs, as often as told, and without a trace in the model."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import StaticCache

from harness.errors import RunError
from harness.kernels import KernelKind, Phase
from harness.tracing import relaunch_loops
from harness.tracing.relaunch import CacheState, LaunchCount, Launching, Relaunch
from harness.tracing.timeline import TracedKernel, kernels_of, trace


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator call with its result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[str] = []
        self.results: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.ops.append(func._schema.name)
        self.results.append(result)
        return result


@dataclass(frozen=True, kw_only=True)
class Recorded:
    model: Any
    work: Callable[[], None]
    rows: tuple[TracedKernel, ...]
    kernels: Relaunch

    def id_of(self, op: str, module: str | None) -> str:
        (row,) = (row for row in self.rows if (row.op, row.module) == (op, module))
        return row.kernel_id

    def launch(self, kernel_id: str, launches: int) -> Calls:
        calls = Calls()
        with calls:
            self.kernels.run([LaunchCount(kernel_id=kernel_id, launches=launches)])
        return calls

    def again(self, rows: Sequence[TracedKernel] | None = None, **options: Any) -> Relaunch:
        """Record once more, for the same trace."""
        rows = self.rows if rows is None else rows
        phase = Phase.PREFILL
        return Relaunch.record(self.model, phase, self.work, kernels=rows, dtype="float32", device="cpu", **options)


def record(model: Any, phase: Phase, work: Callable[[], None], dtype: str = "float32", **options: Any) -> Recorded:
    model.requires_grad_(False)  # as loaded models are
    work()
    rows = trace(model, phase, work, dtype=dtype, device="cpu")
    kernels = Relaunch.record(model, phase, work, kernels=rows, dtype=dtype, device="cpu", **options)
    return Recorded(model=model, work=work, rows=rows, kernels=kernels)


def prefill(tiny: Any, **options: Any) -> Recorded:
    return record(tiny.model, Phase.PREFILL, lambda: tiny._forward(tiny.tokens), tiny.dtype, **options)


def decode(tiny: Any, **options: Any) -> Recorded:
    cache = tiny._forward(tiny.tokens).past_key_values

    def step() -> None:
        tiny._forward(tiny.tokens[:, :1], past_key_values=cache)
        cache.crop(-1)

    return record(tiny.model, Phase.DECODE, step, tiny.dtype, **options)


@pytest.fixture(scope="module")
def llama(traced: Callable[..., Any]) -> Recorded:
    return prefill(traced("llama"))


def sha256(tensors: Sequence[torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


@pytest.mark.parametrize(
    ("architecture", "dtype", "phase"),
    [
        ("llama", "float32", prefill),
        ("llama", "bfloat16", decode),
        ("mixtral", "float32", decode),
        ("gpt2", "float32", prefill),
    ],
)
def test_every_kernel_of_a_trace_is_launched_again_and_is_the_same_to_the_profiler(
    traced: Callable[..., Any], architecture: str, dtype: str, phase: Callable[..., Recorded]
) -> None:
    recorded = phase(traced(architecture, dtype=dtype))
    assert set(recorded.kernels.kernel_ids) == {row.kernel_id for row in recorded.rows}
    assert (recorded.kernels.skipped, recorded.kernels.coverage.time, recorded.kernels.coverage.launches) == ((), 1, 1)

    launches = [LaunchCount(kernel_id=row.kernel_id, launches=row.launches) for row in recorded.rows]
    recorded.kernels.run(launches)  # fills scratch copies
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        recorded.kernels.run(launches)
    again: Counter[tuple[str, str, str]] = Counter()
    for row in kernels_of(profiler.events() or (), dtype=dtype, device="cpu"):
        again[row.op, row.dtype, row.shape] += row.launches
    expected: Counter[tuple[str, str, str]] = Counter()
    for row in recorded.rows:
        expected[row.op, row.dtype, row.shape] += row.launches

    assert again == expected


@pytest.mark.parametrize(
    ("op", "module", "layer"),
    [
        ("aten::embedding", "model.embed_tokens", "model.embed_tokens"),
        ("aten::mm", "model.layers.*.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
        ("aten::silu", "model.layers.*.mlp.act_fn", "model.layers.0.mlp.act_fn"),
        ("aten::mm", "model.layers.*.mlp.down_proj", "model.layers.0.mlp.down_proj"),
        ("aten::bmm", "lm_head", "lm_head"),
    ],
)
def test_the_first_launch_gives_what_the_model_gave(llama: Recorded, op: str, module: str, layer: str) -> None:
    given: list[torch.Tensor] = []
    hook = llama.model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: given.append(output))
    llama.work()
    hook.remove()

    (result,) = llama.launch(llama.id_of(op, module), 1).results

    assert torch.equal(result.flatten(), given[0].flatten())


def test_launches_take_the_layers_in_turn(llama: Recorded) -> None:
    layers: list[torch.Tensor] = []
    hooks = [
        layer.mlp.up_proj.register_forward_hook(lambda _module, _inputs, output: layers.append(output))
        for layer in llama.model.model.layers
    ]
    llama.work()
    for hook in hooks:
        hook.remove()

    results = llama.launch(llama.id_of("aten::mm", "model.layers.*.mlp.up_proj"), 5).results

    for place, result in enumerate(results):
        assert torch.equal(result.flatten(), layers[place % len(layers)].flatten())


def test_kernels_run_in_the_order_of_the_model_each_as_often_as_told(llama: Recorded) -> None:
    counts = {
        llama.id_of("aten::bmm", "lm_head"): 3,
        llama.id_of("aten::embedding", "model.embed_tokens"): 2,
        llama.id_of("aten::silu", "model.layers.*.mlp.act_fn"): 7,
        llama.id_of("aten::rsqrt", "model.norm"): 0,
    }
    with Calls() as calls:
        llama.kernels.run([LaunchCount(kernel_id=each, launches=launches) for each, launches in counts.items()])

    assert calls.ops == ["aten::embedding"] * 2 + ["aten::silu"] * 7 + ["aten::bmm"] * 3


def test_the_null_kernel_is_one_number(llama: Recorded) -> None:
    with Calls() as calls:
        llama.kernels.null(11)

    assert Counter(calls.ops) == {"aten::neg": 11}
    assert {result.numel() for result in calls.results} == {1}


def test_neither_weights_nor_caches_change_not_even_one_that_is_written_in_place(traced: Callable[..., Any]) -> None:
    tiny = traced("llama")
    cache: Any = StaticCache(config=tiny.model.config, max_cache_len=32)
    tiny._forward(tiny.tokens, past_key_values=cache)
    places: Any = [layer.cumulative_length for layer in cache.layers]
    filled = [place.clone() for place in places]

    def step() -> None:
        for place, value in zip(places, filled, strict=True):
            place.copy_(value)
        tiny._forward(tiny.tokens[:, :1], past_key_values=cache)

    recorded = record(tiny.model, Phase.DECODE, step)
    held = [*tiny.model.parameters(), *tiny.model.buffers()]
    held += [tensor for layer in cache.layers for tensor in (layer.keys, layer.values, layer.cumulative_length)]
    before = sha256(held)
    recorded.kernels.run([LaunchCount(kernel_id=each, launches=40) for each in recorded.kernels.kernel_ids])

    assert {row.op for row in recorded.rows if row.kernel_id in recorded.kernels.kernel_ids} >= {"aten::index_copy_"}
    assert sha256(held) == before
    assert recorded.kernels.coverage.time == 1


class Writer(torch.nn.Module):
    """Writes to its own state in every way that matters, and to what it read before."""

    def __init__(self) -> None:
        super().__init__()
        self.state: torch.Tensor
        self.register_buffer("state", torch.arange(12.0).reshape(3, 4))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        self.state.mul_(0.25)
        self.state.add_(given)
        self.state.index_add_(0, torch.tensor([1]), given[:1])
        double = given * 2
        tripled = torch.exp(double)
        double.zero_()
        self.state.copy_(given)
        return tripled


def test_operators_that_build_on_what_they_find_stay_in_range_and_change_nothing() -> None:
    writer, given = Writer(), torch.ones(3, 4)
    recorded = record(writer, Phase.PREFILL, lambda: writer(given))
    before = sha256([writer.state, given])

    for op in ("aten::mul_", "aten::add_", "aten::index_add_"):
        kernel_id = recorded.id_of(op, None)
        results = recorded.launch(kernel_id, 400).results
        assert max(float(result.abs().max()) for result in results) < 100
        assert min(float(result.abs()[0, 1]) for result in results) > 1e-12
        assert recorded.kernels.how(kernel_id).notes == (
            f"what {op}{_OVERLOADS.get(op, '')} writes to is copied back every 16 launches",
        )
    (copied,) = (row.kernel_id for row in recorded.rows if row.op == "aten::copy_")
    assert recorded.kernels.how(copied).notes == ()
    assert sha256([writer.state, given]) == before


_OVERLOADS = {"aten::mul_": ".Tensor", "aten::add_": ".Tensor"}


def test_what_is_overwritten_later_is_kept_as_it_was() -> None:
    writer, given = Writer(), torch.ones(3, 4)
    recorded = record(writer, Phase.PREFILL, lambda: writer(given))

    (result,) = recorded.launch(recorded.id_of("aten::exp", None), 1).results

    assert torch.equal(result, torch.exp(torch.full((3, 4), 2.0)))


def test_where_memory_is_short_kernels_are_skipped_with_the_reason(llama: Recorded) -> None:
    limit_bytes = llama.kernels.held_bytes // 8
    short = llama.again(limit_bytes=limit_bytes)
    assert 0 < short.held_bytes <= limit_bytes
    assert 0 < short.coverage.launches < 1
    assert all("GiB may be held" in each.reason for each in short.skipped)
    assert set(short.kernel_ids).isdisjoint(each.kernel_id for each in short.skipped)

    with pytest.raises(RunError, match=f"{short.skipped[0].kernel_id} of prefill cannot be run alone: its inputs take"):
        short.run([LaunchCount(kernel_id=short.skipped[0].kernel_id, launches=1)])


def test_only_what_is_wanted_is_kept(llama: Recorded) -> None:
    wanted = {row.kernel_id for row in llama.rows if row.kind is KernelKind.GEMM}
    kernels = llama.again(wanted=wanted, instances=2)

    assert set(kernels.kernel_ids) == wanted
    assert (kernels.coverage.time, kernels.coverage.launches) == (1, 1)
    assert {kernels.how(each).inputs for each in wanted} == {1, 2}
    with pytest.raises(RunError, match="it was not recorded"):
        kernels.run([LaunchCount(kernel_id=llama.id_of("aten::silu", "model.layers.*.mlp.act_fn"), launches=1)])


def test_ids_are_checked_and_nothing_runs_after_release(llama: Recorded) -> None:
    kernels = llama.again()
    first = kernels.kernel_ids[0]
    with pytest.raises(RunError, match="k9999 of prefill cannot be run alone: it was not recorded"):
        kernels.run([LaunchCount(kernel_id="k9999", launches=1)])
    with pytest.raises(RunError, match="The trace has no kernel k9999"):
        llama.again(wanted=["k9999"])
    with pytest.raises(ValueError, match="-1 times"):
        kernels.run([LaunchCount(kernel_id=first, launches=-1)])
    kernels.release()
    with pytest.raises(RunError, match="were released"):
        kernels.run([LaunchCount(kernel_id=first, launches=1)])


def test_work_that_is_not_the_same_twice_is_refused() -> None:
    module, runs = torch.nn.Linear(4, 4), iter(range(9))

    def work() -> None:
        value = module(torch.ones(2, 4))
        (torch.exp if next(runs) < 3 else torch.sin)(value)

    with torch.inference_mode(), pytest.raises(RunError, match=r"operator call \d+ is now aten::sin"):
        record(module, Phase.PREFILL, work)


def test_a_kernel_that_was_not_launched_when_recorded_is_told(llama: Recorded) -> None:
    other = replace(llama.rows[0], kernel_id="k0099", shape='{"m":1}')
    kernels = llama.again([*llama.rows, other])

    (skipped,) = kernels.skipped
    assert (skipped.kernel_id, skipped.reason) == ("k0099", "it was not launched when the calls were recorded")
    total_s = sum(row.traced_duration_s for row in [*llama.rows, other])
    assert kernels.coverage.time == pytest.approx(1 - other.traced_duration_s / total_s)


def test_on_a_cpu_launches_are_eager_and_the_cache_is_not_known(llama: Recorded) -> None:
    kernel_id = llama.id_of("aten::mm", "model.layers.*.mlp.up_proj")
    llama.kernels.ready([kernel_id], cold=True, graph=True)
    how = llama.kernels.how(kernel_id)

    assert (how.launching, how.cache, how.inputs) == (Launching.EAGER, CacheState.ROTATED, 3)
    assert how.working_set_bytes == 3 * 4 * (64 * 96 + 2 * 12 * 64)  # weights and activations of three layers
    assert how.notes == (
        "cold inputs were wanted; the size of this device's cache is not known",
        "a CUDA graph was wanted; the inputs are not on one GPU",
    )


def test_cold_inputs_are_copies_until_a_round_exceeds_the_cache_twice(
    llama: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_bytes = 100_000
    monkeypatch.setattr(relaunch_loops, "_cache_bytes", lambda _device: cache_bytes)
    kernel_id = llama.id_of("aten::mm", "model.layers.*.mlp.up_proj")
    one_bytes = 4 * (64 * 96 + 2 * 12 * 64)
    llama.kernels.ready([kernel_id], cold=True)
    how = llama.kernels.how(kernel_id)
    results = llama.launch(kernel_id, how.inputs).results

    assert how.inputs == 2 * cache_bytes // one_bytes + 1
    assert (how.cache, how.notes) == (CacheState.COLD, ())
    for place, result in enumerate(results):
        assert torch.equal(result, results[place % 3])
    llama.kernels.ready([kernel_id], cold=False)
    assert (llama.kernels.how(kernel_id).inputs, llama.kernels.how(kernel_id).cache) == (3, CacheState.HOT)
