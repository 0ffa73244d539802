"""The events of a trace that matter here, with types: what ran on a device, what launched it, and what was around that.

The format is Chrome's trace event JSON as Kineto's ``output_json.cpp`` writes it. Spellings of older versions (torch
1.8: categories ``Kernel`` and ``Operator``, ``external id``) are read too. Times in the file are microseconds; they are
kept as whole nanoseconds, because as floating-point numbers those of some versions lose a quarter of a microsecond
(pytorch#122425), enough to move a launch out of its operator.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto

from harness.errors import CorruptFile
from harness.tracing.kineto_file import RECORD_AGAIN
from harness.tracing.kineto_records import Message, Operand, Work
from harness.tracing.kineto_values import (
    NEVER_NS,
    ThreadId,
    WrongEvent,
    count,
    counts,
    identity,
    is_shape,
    nanoseconds,
    number_in,
    object_in,
    thread_of,
)

_SCALARS = {  # c10's names of dtypes → the profiler's
    "Float": "float",
    "Double": "double",
    "Half": "c10::Half",
    "BFloat16": "c10::BFloat16",
    "Float8_e4m3fn": "c10::Float8_e4m3fn",
    "Float8_e5m2": "c10::Float8_e5m2",
    "Int": "int",
    "Long": "long int",
    "Short": "short",
    "Char": "signed char",
    "Byte": "unsigned char",
    "Bool": "bool",
}
_WORKS = {
    "kernel": Work.KERNEL,
    "gpu_memcpy": Work.MEMCPY,
    "memcpy": Work.MEMCPY,
    "gpu_memset": Work.MEMSET,
    "memset": Work.MEMSET,
}
_PYTHON_MODULE = "nn.Module: "
_MODULE_RANGE = "module:"  # as harness.tracing.ranges names them; importing it would load torch
_NCCL_RANGE = "nccl:"
_HOST_CATEGORIES = frozenset({"cpu_op", "operator", "user_annotation"})
# Names under which torch records spans that are no operators, although it files some of them with the operators.
_NO_OPERATOR = re.compile(
    r"##|ProfilerStep#|Optimizer\.\w+#|enumerate\(|(Distributed)?DataParallel\.|TorchDynamo |Torch-Compiled Region|"
    r"Pregraph bytecode|trace:|phase:|step:|run:"
)
_BACKWARD = re.compile(r"\w+Backward\d*$")
_AXES = re.compile(r"\[?(-?\d{1,9}(?:, -?\d{1,9})*)\]?")
_MEMBERS = re.compile(r"\[\d{1,9}(?:, ?\d{1,9})*\]")


class SpanKind(Enum):
    """What a span on a host thread is."""

    OPERATOR = auto()
    NCCL = auto()  # torch's own range around the launch of a collective
    RANGE = auto()  # record_function and the like
    MODULE = auto()  # our own range of a module, named after its path
    PYTHON_MODULE = auto()  # torch's, named after its class


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An operator or a range on a thread."""

    kind: SpanKind
    name: str
    where: ThreadId
    start_ns: int
    end_ns: int  # NEVER_NS: it was open when recording stopped
    external_id: int | None
    operands: tuple[Operand, ...] | None
    axes: tuple[int, ...]
    message: Message | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of the CUDA (or HIP) runtime or driver."""

    name: str
    where: ThreadId
    start_ns: int
    end_ns: int
    correlation: int | None
    external_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """A kernel, copy or fill on a device."""

    name: str
    work: Work
    device: int | None
    stream: int | None
    start_ns: int
    end_ns: int
    correlation: int | None
    external_id: int | None
    grid: tuple[int, ...] | None
    block: tuple[int, ...] | None
    size_bytes: int | None
    graph_node: int | None
    message: Message | None
    capture: int | None = None  # correlation of the call that put it into a CUDA graph; traces of torch have none


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvents:
    """All of a trace that matters here, in the order of the file."""

    spans: tuple[Span, ...]
    calls: tuple[Call, ...]
    device: tuple[DeviceEvent, ...]
    rank: int | None
    world_size: int | None


_SKIPPED = object()


def parse(text: bytes, name: str) -> TraceEvents:
    """Read the JSON of a trace, called ``name``. Raises CorruptFile for anything that is none, naming the event."""
    trace = _json(text, name)
    events = trace.get("traceEvents") if isinstance(trace, dict) else trace
    if not isinstance(events, list):
        raise CorruptFile(f"{name} is no trace: it has no list of traceEvents.\n{RECORD_AGAIN}")
    found = [_event(event, index, name) for index, event in enumerate(events) if event is not _SKIPPED]
    try:
        group = object_in(trace, "distributedInfo") if isinstance(trace, dict) else {}
        rank, world_size = count(group, "rank"), count(group, "world_size") or None
    except WrongEvent as error:
        raise CorruptFile(f"{name} is damaged: {error}, in its distributedInfo.\n{RECORD_AGAIN}") from error
    return TraceEvents(
        spans=tuple(event for event in found if isinstance(event, Span)),
        calls=tuple(event for event in found if isinstance(event, Call)),
        device=tuple(event for event in found if isinstance(event, DeviceEvent)),
        rank=rank,
        world_size=world_size,
    )


def _json(text: bytes, name: str) -> object:
    try:
        return json.loads(text.decode("utf-8"), object_hook=_slimmed, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise CorruptFile(f"{name} is no trace: not valid JSON ({error}).\n{RECORD_AGAIN}") from error


def _slimmed(value: dict[str, object]) -> object:
    """Let go of what is not needed while reading: arrows, metadata and Python functions are most of a trace."""
    phase = value.get("ph")
    if phase is None or (phase == "X" and not _python_function(value)):
        return value
    return _SKIPPED


def _python_function(event: Mapping[str, object]) -> bool:
    return event.get("cat") == "python_function" and not str(event.get("name")).startswith(_PYTHON_MODULE)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no number")


def _event(event: object, index: int, file: str) -> Span | Call | DeviceEvent | None:
    try:
        return _typed(event)
    except WrongEvent as error:
        name = event.get("name") if isinstance(event, dict) else None
        raise CorruptFile(
            f"{file} is damaged: {error}, in event {index} ({str(name)[:80]!r}).\n{RECORD_AGAIN}"
        ) from error


def _typed(event: object) -> Span | Call | DeviceEvent | None:
    if not isinstance(event, dict) or "ph" not in event:
        raise WrongEvent("it holds something that is no event")
    category = str(event.get("cat", "")).lower()
    name = event.get("name")
    if not isinstance(name, str):
        raise WrongEvent("its name is no text")
    if category in _WORKS:
        return _device_event(event, name, _WORKS[category])
    if category.endswith(("runtime", "driver")):
        return _call(event, name)
    kind = _span_kind(category, name)
    return None if kind is None else _span(event, name, kind)


def _device_event(event: Mapping[str, object], name: str, work: Work) -> DeviceEvent:
    arguments = object_in(event, "args")
    start_ns, duration_ns = nanoseconds(event, "ts"), nanoseconds(event, "dur")
    if duration_ns < 0:
        raise WrongEvent("its duration is negative")
    return DeviceEvent(
        name=name,
        work=work,
        device=number_in(arguments.get("device"), event.get("pid")),
        stream=number_in(arguments.get("stream"), event.get("tid")),
        start_ns=start_ns,
        end_ns=start_ns + duration_ns,
        correlation=identity(arguments, "correlation"),
        external_id=identity(arguments, "External id", "external id"),
        grid=counts(arguments, "grid"),
        block=counts(arguments, "block"),
        size_bytes=count(arguments, "bytes"),
        graph_node=identity(arguments, "graph node id"),
        message=_message(arguments),
    )


def _call(event: Mapping[str, object], name: str) -> Call:
    arguments = object_in(event, "args")
    start_ns = nanoseconds(event, "ts")
    return Call(
        name=name,
        where=thread_of(event),
        start_ns=start_ns,
        end_ns=start_ns + max(0, nanoseconds(event, "dur")),
        correlation=identity(arguments, "correlation"),
        external_id=identity(arguments, "External id", "external id"),
    )


def _span_kind(category: str, name: str) -> SpanKind | None:
    if category == "python_function":
        return SpanKind.PYTHON_MODULE
    if category not in _HOST_CATEGORIES:
        return None
    if name.startswith(_NCCL_RANGE):
        return SpanKind.NCCL
    if name.startswith(_MODULE_RANGE):
        return SpanKind.MODULE
    if category == "cpu_op" and not _NO_OPERATOR.match(name):
        return SpanKind.OPERATOR
    if category == "operator" and ("::" in name or _BACKWARD.match(name)):  # old versions filed ranges there too
        return SpanKind.OPERATOR
    return SpanKind.RANGE


def _span(event: Mapping[str, object], name: str, kind: SpanKind) -> Span:
    arguments = object_in(event, "args")
    start_ns, duration_ns = nanoseconds(event, "ts"), nanoseconds(event, "dur")
    if kind is SpanKind.MODULE:
        name = name.removeprefix(_MODULE_RANGE)
    if kind is SpanKind.PYTHON_MODULE:
        name = re.sub(r"_\d+$", "", name.removeprefix(_PYTHON_MODULE))  # the number tells instances apart, not layers
    return Span(
        kind=kind,
        name=name,
        where=thread_of(event),
        start_ns=start_ns,
        # A span that was still open when recording stopped has the duration −1 (pytorch#150131).
        end_ns=start_ns + duration_ns if duration_ns >= 0 else NEVER_NS,
        external_id=identity(arguments, "External id", "external id"),
        operands=_operands(arguments),
        axes=_axes(arguments.get("Concrete Inputs")),
        message=_message(arguments),
    )


def _message(arguments: Mapping[str, object]) -> Message | None:
    """What torch says about a collective; newer versions only."""
    name, dtype = arguments.get("Collective name"), arguments.get("dtype")
    if not isinstance(name, str) or not name:
        return None
    given, received = count(arguments, "In msg nelems"), count(arguments, "Out msg nelems")
    listed = arguments.get("Process Group Ranks")
    members = listed if isinstance(listed, str) and _MEMBERS.fullmatch(listed) else ""  # long lists are cut with dots
    return Message(
        name=name,
        dtype=_SCALARS.get(dtype) if isinstance(dtype, str) else None,
        given_elements=given if given or received else None,  # 0 and 0 is what a coalesced collective says
        received_elements=received if given or received else None,
        ranks=count(arguments, "Group size") or None,
        members=tuple(map(int, re.findall(r"\d+", members))) or None,
    )


def _operands(arguments: Mapping[str, object]) -> tuple[Operand, ...] | None:
    """Shapes and dtypes of an operator's inputs; None where they were not recorded."""
    sizes = arguments.get("Input Dims", arguments.get("Input dims"))
    dtypes = arguments.get("Input type")
    if not isinstance(sizes, list) or not isinstance(dtypes, list):
        return None
    return tuple(
        Operand(dtype=_spelt_today(dtype), shapes=_shapes(size, is_list=dtype == "TensorList"))
        for size, dtype in zip(sizes, dtypes, strict=False)
    )


def _spelt_today(dtype: object) -> str:
    if not isinstance(dtype, str):
        return ""
    return "long int" if dtype == "long" else dtype  # torch 1.13


def _shapes(sizes: object, *, is_list: bool) -> tuple[tuple[int, ...], ...]:
    """The shape of a tensor, or those of a list's members; empty where they are not known."""
    if not isinstance(sizes, list):
        return ()
    members = sizes if is_list else [sizes]
    shapes = tuple(tuple(member) for member in members if is_shape(member))
    return shapes if len(shapes) == len(members) else ()


def _axes(values: object) -> tuple[int, ...]:
    """The axes a call states: the first list among its arguments, or a number in second place."""
    texts = [value if isinstance(value, str) else "" for value in values] if isinstance(values, list) else []
    stated = next((text for text in texts if text.startswith("[")), texts[1] if len(texts) > 1 else "")
    match = _AXES.fullmatch(stated)
    return tuple(map(int, match[1].split(", "))) if match else ()
