"""A timeline of a GPU, by hand: an operator knows the device kernels it launched itself."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch re-exports it without saying so

from harness.errors import RunError
from harness.kernels import KernelKind
from harness.tracing.timeline import TracedKernel, kernels_of


@dataclass(frozen=True)
class DeviceKernel:
    name: str
    duration: float  # µs


@dataclass(frozen=True)
class Span:
    elapsed: float = 5.0

    def elapsed_us(self) -> float:
        return self.elapsed


@dataclass
class Event:
    name: str
    kernels: list[DeviceKernel] = field(default_factory=list)
    cpu_children: list["Event"] = field(default_factory=list)
    input_shapes: list[Any] = field(default_factory=list)
    input_dtypes: list[str] = field(default_factory=list)
    concrete_inputs: list[Any] = field(default_factory=list)
    structured_input_shapes: list[Any] = field(default_factory=list)
    time_range: Span = field(default_factory=Span)
    device_type: Any = DeviceType.CPU
    cpu_parent: Any = None

    def all(self) -> list["Event"]:
        """The event and all below it, as the profiler lists them."""
        for child in self.cpu_children:
            child.cpu_parent = self
        return [self, *(event for child in self.cpu_children for event in child.all())]


def op(
    name: str, *children: Event, gpu_us: dict[str, float] | None = None, shapes: Any = (), dtype: str = "float"
) -> Event:
    return Event(
        name=name,
        kernels=[DeviceKernel(kernel, us) for kernel, us in (gpu_us or {}).items()],
        cpu_children=list(children),
        input_shapes=[list(shape) for shape in shapes],
        input_dtypes=[dtype] * len(shapes),
    )


def on_gpu(*roots: Event) -> dict[str, TracedKernel]:
    found = kernels_of([event for root in roots for event in root.all()], dtype="bfloat16", device="cuda")
    assert len({kernel.op for kernel in found}) == len(found)
    return {kernel.op: kernel for kernel in found}


def test_on_a_gpu_a_kernels_time_is_the_devices() -> None:
    mm = op(
        "aten::mm", op("cudaLaunchKernel"), gpu_us={"sm90_gemm": 40.0}, shapes=[(24, 64), (64, 96)], dtype="c10::Half"
    )
    found = on_gpu(op("module:model.layers.7.mlp", op("aten::linear", op("aten::t", op("aten::transpose")), mm)))
    assert list(found) == ["aten::mm"]
    kernel = found["aten::mm"]
    assert (kernel.module, kernel.dtype, kernel.launches) == ("model.layers.*.mlp", "float16", 1)
    assert kernel.traced_duration_s == pytest.approx(40e-6)
    assert kernel.flop == 2 * 24 * 64 * 96


def test_device_kernels_below_an_operator_with_a_formula_are_its_own() -> None:
    split_k = op("aten::addmm", op("aten::copy_", gpu_us={"copy": 3.0}), gpu_us={"gemm": 30.0, "reduce": 5.0})
    mean = op("aten::mean", op("aten::sum", gpu_us={"reduce": 4.0}), op("aten::div_", gpu_us={"div": 2.0}))
    found = on_gpu(split_k, mean)
    assert {name: kernel.traced_duration_s for name, kernel in found.items()} == pytest.approx(
        {"aten::addmm": 38e-6, "aten::mean": 6e-6}
    )


def test_a_composite_operator_and_what_it_calls_share_the_time_and_lose_none() -> None:
    topk = op(
        "aten::topk", op("aten::sort", op("aten::copy_", gpu_us={"Memcpy DtoD": 2.0})), gpu_us={"gatherTopK": 7.0}
    )
    found = on_gpu(topk)
    assert {name: kernel.traced_duration_s for name, kernel in found.items()} == pytest.approx(
        {"aten::topk": 7e-6, "aten::copy_": 2e-6}
    )


def test_a_copy_to_the_device_is_a_kernel() -> None:
    copy = op("aten::copy_", gpu_us={"Memcpy HtoD (Pageable -> Device)": 9.0}, shapes=[(2, 12), (2, 12)])
    found = on_gpu(op("aten::to", op("aten::_to_copy", op("aten::empty_strided"), copy)))
    assert list(found) == ["aten::copy_"]
    assert (found["aten::copy_"].kind, found["aten::copy_"].write_bytes) == (KernelKind.COPY, 96)


def test_an_operator_without_device_work_is_no_kernel_of_a_gpu() -> None:
    fill = op("aten::fill_", gpu_us={"fill": 1.0}, shapes=[(4,)])
    assert list(on_gpu(op("aten::add", shapes=[(3,), (3,)]), op("aten::arange"), fill)) == ["aten::fill_"]


def test_the_devices_own_events_are_not_counted_again() -> None:
    mm = op("aten::mm", gpu_us={"void at::native::gemm": 10.0}, shapes=[(2, 2), (2, 2)])
    mirrored = Event(name="void at::native::gemm", device_type=DeviceType.CUDA, time_range=Span(10.0))
    assert list(on_gpu(mm, mirrored)) == ["aten::mm"]


def test_times_of_the_host_never_pass_for_those_of_the_device() -> None:
    unlinked = Event(name="cutlass::Kernel", device_type=DeviceType.CUDA)
    with pytest.raises(RunError, match="no kernel on the GPU"):
        on_gpu(op("aten::mm", shapes=[(2, 2), (2, 2)]), unlinked)


def test_a_kernel_that_no_operator_launched_goes_by_its_own_name() -> None:
    span = op("module:model.layers.0.mlp", gpu_us={"triton_moe": 12.0, "module:model.layers.0.mlp": 400.0})
    found = on_gpu(span)
    assert list(found) == ["triton_moe"]
    kernel = found["triton_moe"]
    assert kernel.traced_duration_s == pytest.approx(12e-6)
    assert (kernel.kind, kernel.flop, kernel.dtype) == (KernelKind.OTHER, None, "none")
    assert kernel.module == "model.layers.*.mlp"
