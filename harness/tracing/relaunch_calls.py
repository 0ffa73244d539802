"""Which operator call launches which kernel of a trace.

A profiler names kernels but keeps no arguments; a dispatch mode has the arguments but sees operators above, at or
below those that the timeline calls kernels. So one pass runs under both: every call that the mode lets through has a
number, and a range of that number around it. The profiler's events, without what the mode put between them, are read
by the rules of ``harness.tracing.timeline``: kernels have the very operator, module, dtype and shape of a trace, and
the range says which call each was.

Composite operators are taken apart where the timeline looks into them, so that calls are kernels: ``mm``, not
``linear``.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._C import DispatchKey
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from harness.kernels import KernelKind, shape_text
from harness.tracing.collectives import CpuCollectives, cpu_collectives
from harness.tracing.costs import KNOWN
from harness.tracing.names import any_layer
from harness.tracing.operands import PROFILER_NAMES
from harness.tracing.ranges import module_ranges
from harness.tracing.timeline import SUBCLASS, WRAPPERS, Launch, TracedKernel, Walk, computes

_CALL_PREFIX = "relaunch:"
_MODE = "PythonDispatchMode"  # torch's name for the event of a dispatch mode
_RANGES = "profiler"  # opening and closing one is an operator too
_TAKEN_APART = frozenset({"aten", "_c10d_functional"})  # a library's own operators stay whole
_COMPOSITES = (DispatchKey.CompositeImplicitAutograd, DispatchKey.CompositeExplicitAutograd)


@dataclass(frozen=True, slots=True)
class KernelKey:
    """What makes two launches one kernel, as in a trace; ids are numbered anew in every trace."""

    op: str
    module: str | None
    dtype: str
    shape: str

    @classmethod
    def of(cls, kernel: TracedKernel) -> "KernelKey":
        """The key of a row of a trace."""
        return cls(kernel.op, kernel.module, kernel.dtype, kernel.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCall:
    """One operator call of a pass."""

    op: str  # with its overload: aten::mm.default
    held_bytes: int  # memory that keeping its arguments would hold, weights aside


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLaunch:
    """One launch of a kernel, and the number of the call that it came from; None where there was none, or several."""

    key: KernelKey
    call: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPass:
    """One pass of a phase, in order; a call's number is its place."""

    calls: tuple[SeenCall, ...]
    launches: tuple[SeenLaunch, ...]


Make = Callable[[int, Any, Any, Any], Any]  # number, operator, arguments, keyword arguments -> result


class CallMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Numbers the operator calls of a pass, composite ones taken apart, and has ``make`` make each of them."""

    def __init__(self, make: Make, *, device: str, whole: Collection[str] = ()) -> None:
        """``whole`` names composite operators that a trace shows as kernels."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._make = make
        self._device = device
        self._whole = frozenset(whole)
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make a call; what a tensor subclass is in comes by again in its parts."""
        if types:
            return NotImplemented
        kwargs = kwargs or {}
        key = None if func._schema.name in self._whole else composite_key(func, self._device)
        if key is not None:
            with self:
                return func._op_dk(key, *args, **kwargs)
        if func.namespace == _RANGES:
            return func(*args, **kwargs)
        number, self.calls = self.calls, self.calls + 1
        return self._make(number, func, args, kwargs)


def composite_key(func: Any, device: str) -> Any:
    """The dispatch key by which an operator is taken apart; None for one that is a kernel, or moves no data.

    As in the timeline a cost formula, or an implementation of its own for the device, makes a kernel.
    """
    namespace, _, op = func._schema.name.partition("::")
    if namespace not in _TAKEN_APART or op in KNOWN:
        return None
    if op not in WRAPPERS and _implemented(func, device):
        return None
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return next((key for key in _COMPOSITES if has(func.name(), key)), None)


def _implemented(func: Any, device: str) -> bool:
    if device == "cuda":
        return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CUDA")
    return computes(func._schema.name)


def seen_pass(
    model: torch.nn.Module,
    work: Callable[[], None],
    *,
    held_bytes: Callable[[Any, Any, Any], int],
    dtype: str,
    device: str,
    ranks: int,
    whole: Collection[str] = (),
) -> SeenPass:
    """Run ``work`` once and tell its calls and launches apart, several times slower than it is.

    ``held_bytes(func, args, kwargs)`` is what keeping a call would hold in memory; ``whole`` is as in ``CallMode``, the
    rest as in ``trace``.
    """
    calls: list[SeenCall] = []

    def make(number: int, func: Any, args: Any, kwargs: Any) -> Any:
        calls.append(SeenCall(op=func.name(), held_bytes=held_bytes(func, args, kwargs)))
        with record_function(f"{_CALL_PREFIX}{number}"):
            return func(*args, **kwargs)

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with (
        torch.inference_mode(),
        module_ranges(model),
        profile(activities=activities, record_shapes=True) as profiler,
        CallMode(make, device=device, whole=whole),
    ):
        work()
    launches = _launches(profiler.events() or (), dtype=dtype, device=device, ranks=ranks)
    return SeenPass(calls=tuple(calls), launches=tuple(launches))


def _launches(events: Any, *, dtype: str, device: str, ranks: int) -> Iterator[SeenLaunch]:
    of_host = [event for event in events if event.device_type == DeviceType.CPU]
    numbers = _Numbers()
    for root in of_host:
        if root.cpu_parent is None:
            numbers.simplify(root)
    kept = [event for event in of_host if id(event) not in numbers.dropped]
    on_device = device == "cuda"
    collectives = CpuCollectives(callers={}, threads=frozenset()) if on_device else cpu_collectives(kept)
    walk = _EventWalk(on_device=on_device, list_dtype=PROFILER_NAMES[dtype], ranks=ranks, collectives=collectives)
    for root in kept:
        if root.cpu_parent is not None or collectives.inside(root):
            continue
        for launch in walk.launches(root, None):
            module = None if launch.module is None else any_layer(launch.module)
            key = KernelKey(launch.op, module, launch.dtype, shape_text(launch.cost.shape))
            yield SeenLaunch(key=key, call=numbers.of(walk.events.pop()))


class _Numbers:
    """Takes the mode out of a tree of profiler events, and remembers the numbers of calls.

    A call is ``aten::mm`` around the mode's event around a range around ``aten::mm`` again. One of the two is left.
    """

    def __init__(self) -> None:
        self.dropped: set[int] = set()  # ids of events
        self._numbers: dict[int, int] = {}  # by id of event

    def simplify(self, event: Any) -> None:
        """Do so at and below an event, in place."""
        inner = self._called(event)
        if inner is not None:
            event.kernels = [*event.kernels, *inner.kernels]
            event.cpu_children = inner.cpu_children
            for child in inner.cpu_children:
                child.cpu_parent = event
        for child in event.cpu_children:
            if child.name == _MODE:  # what was taken apart is no kernel, even with a cost formula
                child.name = SUBCLASS
            self.simplify(child)

    def _called(self, event: Any) -> Any:
        """The event inside the mode's range, where ``event`` is a call; the events between are dropped."""
        for mode in event.cpu_children:
            for span in mode.cpu_children if mode.name == _MODE else ():
                if not span.name.startswith(_CALL_PREFIX):
                    continue
                inner = next((child for child in span.cpu_children if child.name == event.name), None)
                if inner is None:
                    continue
                self._numbers[id(event)] = int(span.name.removeprefix(_CALL_PREFIX))
                self.dropped.update(map(id, (mode, span, inner)))
                return inner
        return None

    def of(self, event: Any) -> int | None:
        """The number of the call that an event is, or is part of."""
        while event is not None and id(event) not in self._numbers:
            event = event.cpu_parent
        return None if event is None else self._numbers[id(event)]


@dataclass(frozen=True, kw_only=True)  # no slots: they would break super()
class _EventWalk(Walk):
    """The walk of the timeline, which leaves the event of each launch it yields."""

    events: list[Any] = field(default_factory=list)

    def launch(self, event: Any, module: str | None, duration_s: float) -> Launch:
        self.events.append(event)
        return super().launch(event, module, duration_s)

    def collective(self, event: Any, kind: KernelKind, module: str | None) -> Launch | None:
        found = super().collective(event, kind, module)
        if found is not None:
            self.events.append(event)
        return found
