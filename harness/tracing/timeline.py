"""Kernels from the torch profiler's timeline.

On a GPU a kernel is the operator that launched device work, and its time is that of the device kernels below it. On
the CPU operators are the kernels: the deepest operator that touches data. Views and allocations move nothing, so
their time belongs to the host gaps, as does everything between operators.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from harness.kernels import KernelKind, Phase, shape_text
from harness.tracing.costs import DTYPE_NAMES, FUSED, Cost, OpCall, Tensor, cost_of
from harness.tracing.ranges import MODULE_PREFIX, marked, module_ranges

_HOUSEKEEPING = frozenset(
    {"view", "_unsafe_view", "as_strided", "transpose", "t", "permute", "slice", "select", "narrow", "expand"}
    | {"expand_as", "unsqueeze", "squeeze", "unflatten", "flatten", "chunk", "split", "split_with_sizes", "unbind"}
    | {"detach", "detach_", "alias", "lift_fresh", "_reshape_alias", "view_as", "numpy_T", "movedim", "swapaxes"}
    | {"empty", "empty_like", "empty_strided", "new_empty", "resize_", "set_", "result_type", "resolve_conj"}
    | {"resolve_neg", "is_nonzero", "item", "can_cast", "broadcast_tensors", "diagonal", "unfold", "real", "imag"}
    | {"_to_cpu", "fill_", "zero_", "conj", "_conj", "tensor_split", "unsafe_split", "is_floating_point"}
)
# Wrappers that move no data themselves: what they do, if anything, is below them.
_WRAPPERS = frozenset({"to", "_to_copy", "reshape", "contiguous", "matmul", "linear", "dropout", "type_as", "float"})
_NORM_MODULE = re.compile(r"(norm|^ln)[^.]*$|(^|\.)ln_[^.]*$", re.IGNORECASE)
_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_S_PER_US = 1e-6
_PROFILER_DTYPES = {name: spelt for spelt, name in DTYPE_NAMES.items() if spelt != "long"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedKernel:
    """One class of kernels in one pass of a phase: counts and time are totals over ``launches``."""

    kernel_id: str
    kind: KernelKind
    op: str
    module: str | None
    dtype: str
    shape: str
    launches: int
    flop: int | None
    read_bytes: int | None
    write_bytes: int | None
    traced_duration_s: float

    def scaled(self, factor: float) -> "TracedKernel":
        """The same kernels over ``factor`` times as many passes."""

        def times(count: int | None) -> int | None:
            return None if count is None else round(count * factor)

        return replace(
            self,
            launches=round(self.launches * factor),
            flop=times(self.flop),
            read_bytes=times(self.read_bytes),
            write_bytes=times(self.write_bytes),
            traced_duration_s=self.traced_duration_s * factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    op: str
    module: str | None
    dtype: str
    cost: Cost
    duration_s: float


def trace(model: torch.nn.Module, phase: Phase, work: Callable[[], None], *, dtype: str) -> tuple[TracedKernel, ...]:
    """Run ``work`` once under the profiler and return its kernels, the most time-consuming first.

    ``dtype`` is that of the model: the profiler does not say what the members of a tensor list (``cat``) are.
    Slows the work by up to 2–3×, so no energy may be read meanwhile.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with (
        torch.inference_mode(),
        module_ranges(model),
        profile(activities=activities, record_shapes=True) as profiler,
        marked(f"phase:{phase}", traced=True),
    ):
        work()
    events = profiler.events() or []
    roots = [event for event in events if event.cpu_parent is None]
    walk = _Walk(on_device=any(event.kernels for event in events), list_dtype=_PROFILER_DTYPES[dtype])
    return _grouped(launch for root in roots for launch in walk.launches(root, None))


def _name(event: Any) -> str | None:
    """Operator name without its namespace; None for ranges and runtime calls."""
    namespace, _, op = str(event.name).partition("::")
    return op if op and namespace not in {"", "cuda"} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """Reads the tree of profiler events."""

    on_device: bool
    list_dtype: str

    def launches(self, event: Any, module: str | None) -> Iterator[_Launch]:
        """Yield each kernel at or below an event, with the module it ran in."""
        if event.name.startswith(MODULE_PREFIX):
            module = event.name.removeprefix(MODULE_PREFIX)
        if _is_kernel(event):
            duration_s = _device_s(event) if self.on_device else event.time_range.elapsed_us() * _S_PER_US
            if duration_s > 0:
                yield self.launch(event, module, duration_s)
            return
        for child in event.cpu_children:
            yield from self.launches(child, module)

    def launch(self, event: Any, module: str | None, duration_s: float) -> _Launch:
        """One kernel with its cost."""
        op = _name(event) or event.name
        tensors = self.operands(event)
        axes = next((value for value in event.concrete_inputs or () if isinstance(value, list)), ())
        cost = cost_of(OpCall(op=op, tensors=tensors, dims=tuple(axis for axis in axes if isinstance(axis, int))))
        if module is not None and cost.kind is KernelKind.ELEMENTWISE and _NORM_MODULE.search(module):
            cost = replace(cost, kind=KernelKind.NORM)
        dtype = DTYPE_NAMES.get(tensors[0].dtype, "unknown") if tensors else "none"
        return _Launch(op=event.name, module=module, dtype=dtype, cost=cost, duration_s=duration_s)

    def operands(self, event: Any) -> tuple[Tensor, ...]:
        """Tensor operands in order; the members of a tensor list in their place."""
        operands: list[Tensor] = []
        shapes = event.structured_input_shapes or event.input_shapes
        for shape, dtype in zip(shapes, event.input_dtypes or (), strict=False):
            if dtype in DTYPE_NAMES:
                operands.append(Tensor(shape=tuple(shape), dtype=dtype))
            elif dtype == "TensorList":
                operands.extend(Tensor(shape=tuple(member), dtype=self.list_dtype) for member in shape)
        return tuple(operands)


def _is_kernel(event: Any) -> bool:
    op = _name(event)
    if op is None or op in _HOUSEKEEPING or op in _WRAPPERS:
        return False
    return op in FUSED or not any(_touches_data(child) for child in event.cpu_children)


def _touches_data(event: Any) -> bool:
    """Whether an operator below a composite one is a kernel of its own; converting a scalar is not."""
    return (_is_kernel(event) and any(shape for shape in event.input_shapes)) or any(
        _touches_data(child) for child in event.cpu_children
    )


def _device_s(event: Any) -> float:
    own: float = sum(kernel.duration for kernel in event.kernels) * _S_PER_US
    return own + sum(_device_s(child) for child in event.cpu_children)


def _grouped(launches: Iterator[_Launch]) -> tuple[TracedKernel, ...]:
    groups: dict[tuple[str, str | None, str, str], list[_Launch]] = {}
    for launch in launches:
        module = None if launch.module is None else _LAYER_NUMBER.sub("*", launch.module)
        groups.setdefault((launch.op, module, launch.dtype, shape_text(launch.cost.shape)), []).append(launch)
    ordered = sorted(groups.items(), key=lambda item: -sum(launch.duration_s for launch in item[1]))
    return tuple(
        _kernel(f"k{index:04d}", module, shape, members)
        for index, ((_, module, _, shape), members) in enumerate(ordered)
    )


def _kernel(kernel_id: str, module: str | None, shape: str, launches: list[_Launch]) -> TracedKernel:
    def total(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    first = launches[0]
    return TracedKernel(
        kernel_id=kernel_id,
        kind=first.cost.kind,
        op=first.op,
        module=module,
        dtype=first.dtype,
        shape=shape,
        launches=len(launches),
        flop=total([launch.cost.flop for launch in launches]),
        read_bytes=total([launch.cost.read_bytes for launch in launches]),
        write_bytes=total([launch.cost.write_bytes for launch in launches]),
        traced_duration_s=sum(launch.duration_s for launch in launches),
    )
