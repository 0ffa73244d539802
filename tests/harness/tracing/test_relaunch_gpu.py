"""What only a GPU can check of kernels run again: cold inputs, CUDA graphs, and what cannot be captured."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from harness.kernels import KernelKind, Phase
from harness.tracing.relaunch import CacheState, LaunchCount, Launching, Relaunch
from harness.tracing.timeline import TracedKernel, trace

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here that torch can use"),
]


class Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What operators returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func(*args, **(kwargs or {})))
        return self.seen[-1]


class Asking(torch.nn.Module):
    """A layer whose second half depends on a value: it waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(512, 1024, bias=False, dtype=torch.bfloat16, device="cuda")
        self.state: torch.Tensor
        self.register_buffer("state", torch.ones(1024, dtype=torch.bfloat16, device="cuda"))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        wide: torch.Tensor = self.up(inputs)
        self.state.mul_(0.5)
        return wide[wide[:, 0] > 0]


def given() -> torch.Tensor:  # [64, 512]
    torch.manual_seed(0)
    return torch.randn(64, 512, dtype=torch.bfloat16, device="cuda")


def recorded() -> tuple[Asking, tuple[TracedKernel, ...], Relaunch]:
    model, inputs = Asking().requires_grad_(False), given()

    def work() -> None:
        model(inputs)
        torch.cuda.synchronize()

    work()
    rows = trace(model, Phase.PREFILL, work, dtype="bfloat16", device="cuda")
    return model, rows, Relaunch.record(model, Phase.PREFILL, work, kernels=rows, dtype="bfloat16", device="cuda")


def device_kernels(kernels: Relaunch, launches: Sequence[LaunchCount]) -> list[str]:
    """Names of the kernels that the device ran."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        kernels.run(launches)
        torch.cuda.synchronize()
    events: Any = profiler.events() or ()
    return [event.name for event in events if event.device_type == torch.autograd.DeviceType.CUDA]  # type: ignore[attr-defined]


def test_nearly_all_traced_time_can_be_run_again() -> None:
    _, _, kernels = recorded()

    assert kernels.coverage.time >= 0.99, kernels.skipped


def test_a_product_is_captured_with_cold_inputs_and_runs_as_often_as_told() -> None:
    _, rows, kernels = recorded()
    (gemm,) = (row.kernel_id for row in rows if row.kind is KernelKind.GEMM)
    kernels.ready([gemm], cold=True, graph=True)
    how = kernels.how(gemm)
    count = 2 * how.inputs * 32 + 7
    names = device_kernels(kernels, [LaunchCount(kernel_id=gemm, launches=count)])

    assert (how.launching, how.cache, how.notes) == (Launching.CUDA_GRAPH, CacheState.COLD, ())
    assert how.working_set_bytes > 2 * torch.cuda.get_device_properties(0).L2_cache_size
    assert len(names) >= count
    assert len(names) % count == 0  # one or more device kernels (split-k) per launch


def test_hot_inputs_fit_into_the_cache_and_give_what_the_model_gave() -> None:
    model, rows, kernels = recorded()
    (gemm,) = (row.kernel_id for row in rows if row.kind is KernelKind.GEMM)
    kernels.ready([gemm])
    results = Results()
    with results:
        kernels.run([LaunchCount(kernel_id=gemm, launches=3)])

    assert (kernels.how(gemm).launching, kernels.how(gemm).cache) == (Launching.EAGER, CacheState.HOT)
    assert len(results.seen) == 3
    assert all(torch.equal(result, model.up(given())) for result in results.seen)


def test_what_waits_for_the_device_is_launched_eagerly_and_says_why() -> None:
    model, rows, kernels = recorded()
    waiting = [row.kernel_id for row in rows if row.op in {"aten::nonzero", "aten::index"}]
    before = model.state.clone()
    kernels.ready(kernels.kernel_ids, graph=True)
    kernels.run([LaunchCount(kernel_id=each, launches=50) for each in kernels.kernel_ids])
    torch.cuda.synchronize()

    hows = [kernels.how(each) for each in waiting if each in kernels.kernel_ids]
    eager = [how for how in hows if how.launching is Launching.EAGER]
    assert eager
    assert all("capturing it failed" in how.notes[-1] for how in eager)
    assert torch.equal(model.state, before)


def test_the_null_kernel_is_captured_too() -> None:
    _, _, kernels = recorded()
    kernels.ready([], graph=True)
    kernels.null(1000)
    torch.cuda.synchronize()

    assert kernels.how(None).launching is Launching.CUDA_GRAPH
