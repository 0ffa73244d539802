"""Kernels from the torch profiler's timeline.

On a GPU a kernel is an operator that launched device work, and its time is that of the device kernels. On the CPU
operators are the kernels: those with a cost formula or a CPU implementation of their own, with all they call inside;
an operator composed of others is looked into. Views and allocations move nothing, so their time belongs to the host
gaps, as does everything between operators. Collectives have rules of their own (``harness.tracing.collectives``).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from harness.errors import RunError
from harness.kernels import KernelKind, Phase, shape_text
from harness.tracing.collectives import (
    CpuCollectives,
    collective_kind,
    cost_of_collective,
    cpu_collectives,
    given_to,
    is_plumbing,
)
from harness.tracing.costs import KNOWN, cost_of
from harness.tracing.names import HOUSEKEEPING, NORM_MODULE, any_layer
from harness.tracing.operands import DTYPES, PROFILER_NAMES, Cost, OpCall, Tensor, total
from harness.tracing.ranges import MODULE_PREFIX, marked, module_ranges

# Composites that may do nothing at all; what they do, if anything, is below them.
WRAPPERS = frozenset(
    {"to", "_to_copy", "reshape", "contiguous", "matmul", "linear", "dropout", "type_as", "clone"}
    | {"zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
)
SUBCLASS = "PythonSubclass"  # a tensor that waits for a collective before the operator itself is called again below
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
    link_bytes: int | None = 0  # sent to other ranks; 0 for all but collectives
    wait_s: float | None = None  # of traced_duration_s, waiting for the last rank; None: no collective, or not known
    launch_durations_s: tuple[float, ...] = ()  # of a collective, in the order of the trace, never scaled

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
            link_bytes=times(self.link_bytes),
            wait_s=None if self.wait_s is None else self.wait_s * factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One kernel as it was launched once."""

    op: str
    module: str | None
    dtype: str
    cost: Cost
    duration_s: float
    link_bytes: int | None = 0
    collective: bool = False


def trace(
    model: torch.nn.Module, phase: Phase, work: Callable[[], None], *, dtype: str, device: str, ranks: int = 1
) -> tuple[TracedKernel, ...]:
    """Run ``work`` once under the profiler and return its kernels, the most time-consuming first.

    ``dtype`` is that of the model: the profiler does not say what the members of a tensor list (``cat``) are.
    ``ranks`` is how many take part in each collective; all of them trace at the same time.
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
    return kernels_of(profiler.events() or (), dtype=dtype, device=device, ranks=ranks)


def kernels_of(events: Iterable[Any], *, dtype: str, device: str, ranks: int = 1) -> tuple[TracedKernel, ...]:
    """The kernels in a list of ``torch.autograd.profiler_util.FunctionEvent``, as ``trace`` returns them."""
    # The device's own events have no parent either: their time is on the operators that launched them.
    of_host = [event for event in events if event.device_type == DeviceType.CPU]
    on_device = device == "cuda"
    collectives = CpuCollectives(callers={}, threads=frozenset()) if on_device else cpu_collectives(of_host)
    roots = [event for event in of_host if event.cpu_parent is None and not collectives.inside(event)]
    if on_device and not any(map(_uses_device, roots)):
        raise RunError(
            "The profiler recorded no kernel on the GPU, so there is no timeline.\n"
            "Often another profiler holds the GPU's counters, or this user may not use them."
        )
    walk = Walk(on_device=on_device, list_dtype=PROFILER_NAMES[dtype], ranks=ranks, collectives=collectives)
    return _grouped(launch for root in roots for launch in walk.launches(root, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Reads the tree of profiler events."""

    on_device: bool
    list_dtype: str
    ranks: int
    collectives: CpuCollectives

    def launches(self, event: Any, module: str | None) -> Iterator[Launch]:
        """Yield each kernel at or below an event, with the module it ran in."""
        if event.name.startswith(MODULE_PREFIX):
            module = event.name.removeprefix(MODULE_PREFIX)
        kind = collective_kind(event.name)
        if kind is not None and (collective := self.collective(event, kind, module)) is not None:
            yield collective
            return
        whole = _name(event) in KNOWN and not _is_called_again(event) if self.on_device else _is_kernel(event)
        duration_s = self.duration_s(event, whole=whole)
        if duration_s is not None:
            yield self.launch(event, module, duration_s)
        if not whole:
            for child in event.cpu_children:
                yield from self.launches(child, module)

    def collective(self, event: Any, kind: KernelKind, module: str | None) -> Launch | None:
        """A collective with what it moves; None where the event only hands it on to one below."""
        work = event if self.on_device else self.collectives.callers.get(id(event))
        duration_s = 0.0 if work is None else self.duration_s(work, whole=True) or 0.0
        given = given_to(kind, self.operands_below(work)) if duration_s > 0 else None
        if given is None:
            return None
        moved = cost_of_collective(kind, given, self.ranks)
        return Launch(
            op=event.name,
            module=module,
            dtype=DTYPES[given.dtype].name,
            cost=moved.cost,
            duration_s=duration_s,
            link_bytes=moved.link_bytes,
            collective=True,
        )

    def duration_s(self, event: Any, *, whole: bool) -> float | None:
        """Time of the kernel that the event itself is; None where it is none."""
        if not self.on_device:
            return event.time_range.elapsed_us() * _S_PER_US if whole else None
        device_us = _below_us(event) if whole else _own_us(event)
        return device_us * _S_PER_US if device_us > 0 else None

    def launch(self, event: Any, module: str | None, duration_s: float) -> Launch:
        """One kernel with its cost."""
        op = _name(event)
        tensors = self.operands(event)
        cost = cost_of(OpCall(op=op or "", tensors=tensors, dims=_dims(event)))
        if module is not None and cost.kind is KernelKind.ELEMENTWISE and NORM_MODULE.search(module):
            cost = replace(cost, kind=KernelKind.NORM)
        # A kernel that no operator launched (a compiled one, say) goes by its own name.
        name = event.name if op is not None else event.kernels[0].name
        dtype = DTYPES[tensors[0].dtype].name if tensors else "none"
        return Launch(op=name, module=module, dtype=dtype, cost=cost, duration_s=duration_s)

    def operands_below(self, event: Any) -> tuple[Tensor, ...]:
        """Operands of the event, or of the first below it that has any."""
        below = (self.operands_below(child) for child in event.cpu_children)
        return self.operands(event) or next((found for found in below if found), ())

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
    if op is None or op in HOUSEKEEPING or op in WRAPPERS or is_plumbing(event.name) or _on_scalars(event):
        return False
    if _is_called_again(event):
        return False
    return op in KNOWN or computes(event.name) or not any(map(_holds_kernel, event.cpu_children))


def _is_called_again(event: Any) -> bool:
    """Whether a tensor subclass takes the call and makes it anew below."""
    return any(child.name == SUBCLASS for child in event.cpu_children)


def _holds_kernel(event: Any) -> bool:
    return _is_kernel(event) or any(map(_holds_kernel, event.cpu_children))


def _on_scalars(event: Any) -> bool:
    """Converting one number is not a kernel."""
    dtypes = event.input_dtypes or ()
    shapes = [shape for shape, dtype in zip(event.input_shapes, dtypes, strict=False) if dtype in DTYPES]
    return bool(shapes) and not any(shapes) and "TensorList" not in dtypes


@cache
def computes(name: str) -> bool:
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


def _grouped(launches: Iterator[Launch]) -> tuple[TracedKernel, ...]:
    groups: dict[tuple[str, str | None, str, str], list[Launch]] = {}
    for launch in launches:
        module = None if launch.module is None else any_layer(launch.module)
        groups.setdefault((launch.op, module, launch.dtype, shape_text(launch.cost.shape)), []).append(launch)
    ordered = sorted(groups.items(), key=lambda item: -sum(launch.duration_s for launch in item[1]))
    return tuple(
        _kernel(f"k{index:04d}", module, shape, members)
        for index, ((_, module, _, shape), members) in enumerate(ordered)
    )


def _kernel(kernel_id: str, module: str | None, shape: str, launches: list[Launch]) -> TracedKernel:
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
        link_bytes=total(launch.link_bytes for launch in launches),
        launch_durations_s=tuple(launch.duration_s for launch in launches) if first.collective else (),
    )
