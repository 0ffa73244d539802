"""Kernels from the torch profiler's timeline.

On a GPU a kernel is an operator that launched device work, and its time is that of the device kernels. On the CPU
operators are the kernels: those with a cost formula or a CPU implementation of their own, with all they call inside;
an operator composed of others is looked into. Views and allocations move nothing, so their time belongs to the host
gaps, as does everything between operators.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from harness.errors import RunError
from harness.kernels import KernelKind, Phase, shape_text
from harness.tracing.costs import KNOWN, cost_of
from harness.tracing.operands import DTYPES, PROFILER_NAMES, Cost, OpCall, Tensor, total
from harness.tracing.ranges import MODULE_PREFIX, marked, module_ranges

_HOUSEKEEPING = frozenset(
    {"view", "_unsafe_view", "as_strided", "transpose", "t", "permute", "slice", "select", "narrow", "expand"}
    | {"expand_as", "unsqueeze", "squeeze", "unflatten", "flatten", "chunk", "split", "split_with_sizes", "unbind"}
    | {"as_strided_", "transpose_", "unsqueeze_", "squeeze_", "t_", "swapaxes", "movedim", "numpy_T", "mT", "mH"}
    | {"detach", "detach_", "alias", "lift_fresh", "_reshape_alias", "view_as", "diagonal", "unfold", "real", "imag"}
    | {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "result_type"}
    | {"resolve_conj", "resolve_neg", "conj", "_conj", "is_nonzero", "item", "can_cast", "broadcast_tensors"}
    | {"tensor_split", "unsafe_split", "is_floating_point", "scalar_tensor", "is_pinned"}
    | {"_nnpack_available", "_has_compatible_shallow_copy_type"}
)
# Composites that may do nothing at all; what they do, if anything, is below them.
_WRAPPERS = frozenset(
    {"to", "_to_copy", "reshape", "contiguous", "matmul", "linear", "dropout", "type_as", "clone"}
    | {"zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
)
_NORM_MODULE = re.compile(r"(norm|^ln)[^.]*$|(^|\.)ln_[^.]*$", re.IGNORECASE)
_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_S_PER_US = 1e-6


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


def trace(
    model: torch.nn.Module, phase: Phase, work: Callable[[], None], *, dtype: str, device: str
) -> tuple[TracedKernel, ...]:
    """Run ``work`` once under the profiler and return its kernels, the most time-consuming first.

    ``dtype`` is that of the model: the profiler does not say what the members of a tensor list (``cat``) are.
    Slows the work by up to 2–3×, so no energy may be read meanwhile. Raises ``RunError`` where the device is a GPU and
    the profiler saw nothing run on it: times of the host would pass for the device's.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with (
        torch.inference_mode(),
        module_ranges(model),
        profile(activities=activities, record_shapes=True) as profiler,
        marked(f"trace:{phase}"),
    ):
        work()
    return kernels_of(profiler.events() or (), dtype=dtype, device=device)


def kernels_of(events: Iterable[Any], *, dtype: str, device: str) -> tuple[TracedKernel, ...]:
    """The kernels in a list of ``torch.autograd.profiler_util.FunctionEvent``, as ``trace`` returns them."""
    # The device's own events have no parent either: their time is on the operators that launched them.
    roots = [event for event in events if event.cpu_parent is None and event.device_type == DeviceType.CPU]
    on_device = device == "cuda"
    if on_device and not any(map(_uses_device, roots)):
        raise RunError(
            "The profiler recorded no kernel on the GPU, so there is no timeline.\n"
            "Often another profiler holds the GPU's counters, or this user may not use them."
        )
    walk = _Walk(on_device=on_device, list_dtype=PROFILER_NAMES[dtype])
    return _grouped(launch for root in roots for launch in walk.launches(root, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """Reads the tree of profiler events."""

    on_device: bool
    list_dtype: str

    def launches(self, event: Any, module: str | None) -> Iterator[_Launch]:
        """Yield each kernel at or below an event, with the module it ran in."""
        if event.name.startswith(MODULE_PREFIX):
            module = event.name.removeprefix(MODULE_PREFIX)
        whole = _name(event) in KNOWN if self.on_device else _is_kernel(event)
        duration_s = self.duration_s(event, whole=whole)
        if duration_s is not None:
            yield self.launch(event, module, duration_s)
        if not whole:
            for child in event.cpu_children:
                yield from self.launches(child, module)

    def duration_s(self, event: Any, *, whole: bool) -> float | None:
        """Time of the kernel that the event itself is; None where it is none."""
        if not self.on_device:
            return event.time_range.elapsed_us() * _S_PER_US if whole else None
        device_us = _below_us(event) if whole else _own_us(event)
        return device_us * _S_PER_US if device_us > 0 else None

    def launch(self, event: Any, module: str | None, duration_s: float) -> _Launch:
        """One kernel with its cost."""
        op = _name(event)
        tensors = self.operands(event)
        cost = cost_of(OpCall(op=op or "", tensors=tensors, dims=_dims(event)))
        if module is not None and cost.kind is KernelKind.ELEMENTWISE and _NORM_MODULE.search(module):
            cost = replace(cost, kind=KernelKind.NORM)
        # A kernel that no operator launched (a compiled one, say) goes by its own name.
        name = event.name if op is not None else event.kernels[0].name
        dtype = DTYPES[tensors[0].dtype].name if tensors else "none"
        return _Launch(op=name, module=module, dtype=dtype, cost=cost, duration_s=duration_s)

    def operands(self, event: Any) -> tuple[Tensor, ...]:
        """Tensor operands in order; the members of a tensor list in their place."""
        operands: list[Tensor] = []
        shapes = event.structured_input_shapes or event.input_shapes or ()
        for shape, dtype in zip(shapes, event.input_dtypes or (), strict=False):
            if dtype in DTYPES:
                operands.append(Tensor(shape=tuple(shape), dtype=dtype))
            elif dtype == "TensorList":
                operands.extend(Tensor(shape=tuple(member), dtype=self.list_dtype) for member in shape)
        return tuple(operands)


def _name(event: Any) -> str | None:
    """Operator name without its namespace; None for ranges and runtime calls."""
    namespace, _, op = str(event.name).partition("::")
    return op if op and namespace.isidentifier() else None


def _dims(event: Any) -> tuple[int, ...]:
    """The axes a call states: the first list among its arguments, or a number in second place."""
    arguments = event.concrete_inputs or ()
    listed = next((value for value in arguments if isinstance(value, list)), None)
    if listed is None:
        listed = [value for value in arguments[1:2] if type(value) is int]
    return tuple(axis for axis in listed if type(axis) is int)


def _is_kernel(event: Any) -> bool:
    """Whether an event is a kernel of the CPU."""
    op = _name(event)
    if op is None or op in _HOUSEKEEPING or op in _WRAPPERS or _on_scalars(event):
        return False
    return op in KNOWN or _computes(event.name) or not any(map(_holds_kernel, event.cpu_children))


def _holds_kernel(event: Any) -> bool:
    return _is_kernel(event) or any(map(_holds_kernel, event.cpu_children))


def _on_scalars(event: Any) -> bool:
    """Converting one number is not a kernel."""
    dtypes = event.input_dtypes or ()
    shapes = [shape for shape, dtype in zip(event.input_shapes, dtypes, strict=False) if dtype in DTYPES]
    return bool(shapes) and not any(shapes) and "TensorList" not in dtypes


@cache
def _computes(name: str) -> bool:
    """Whether torch's dispatcher has a CPU implementation of an operator; a composite one is made of others."""
    namespace, _, op = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), op, None)
    if packet is None:
        return False
    overloads = (name if overload == "default" else f"{name}.{overload}" for overload in packet.overloads())
    return any(map(_has_cpu_kernel, overloads))


def _has_cpu_kernel(overload: str) -> bool:
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(overload, "CPU")
    except RuntimeError:  # an overload that exists in TorchScript only
        return False


def _own_us(event: Any) -> float:
    """Time of the device kernels that the event launched itself; ranges are mirrored on the device by their name."""
    return float(sum(kernel.duration for kernel in event.kernels if kernel.name != event.name))


def _below_us(event: Any) -> float:
    return _own_us(event) + sum(map(_below_us, event.cpu_children))


def _uses_device(event: Any) -> bool:
    return _below_us(event) > 0


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
    first = launches[0]
    return TracedKernel(
        kernel_id=kernel_id,
        kind=first.cost.kind,
        op=first.op,
        module=module,
        dtype=first.dtype,
        shape=shape,
        launches=len(launches),
        flop=total(launch.cost.flop for launch in launches),
        read_bytes=total(launch.cost.read_bytes for launch in launches),
        write_bytes=total(launch.cost.write_bytes for launch in launches),
        traced_duration_s=sum(launch.duration_s for launch in launches),
    )
