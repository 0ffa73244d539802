"""Which operator launched what ran on a device.

A device kernel carries the correlation id of the runtime call that launched it. The call belongs to the operator whose
external id the profiler noted with the kernel or the call; where it noted none, to the innermost operator that was
running on the calling thread at that time. Until Kineto #1001 (2024) an event without a link was given its own
correlation id as external id, which names no operator or the wrong one: such an external id is not used.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.errors import CorruptFile
from harness.tracing.kineto_collectives import collective_of
from harness.tracing.kineto_events import Call, DeviceEvent, Span, SpanKind, TraceEvents
from harness.tracing.kineto_file import RECORD_AGAIN
from harness.tracing.kineto_kinds import kind_of
from harness.tracing.kineto_records import DeviceKernel, DeviceTrace, Link, Operator, RuntimeCall, Why
from harness.tracing.kineto_values import NEVER_NS, ThreadId

_DEEPEST = 256  # spans open at once on a thread; operators, modules and ranges of real traces nest some 40 deep
_MOST_OF_ONE_ID = 64  # an id that more events carry (traces of many ranks in one file: one each) tells nothing
_S_PER_NS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What is around a runtime call on its thread."""

    operator: Operator | None = None
    collective_range: Operator | None = None
    module: str | None = None
    ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """What launched a device kernel, as far as it is known."""

    call: Call | None = None
    place: _Place = _Place()
    operator: Operator | None = None
    link: Link | None = None
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A span with its operator, if it is one."""

    span: Span
    operator: Operator | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    """What the threads of the host did."""

    origin_ns: int
    operators: list[Operator] = field(default_factory=list)
    stated: dict[int, list[_Open]] = field(default_factory=lambda: defaultdict(list))  # by external id
    calls: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))  # by correlation id
    places: dict[int, _Place] = field(default_factory=dict)  # by id() of the call


def linked(events: TraceEvents, name: str, *, remedy: str = RECORD_AGAIN) -> DeviceTrace:
    """Link what ran on devices to what launched it.

    Raises CorruptFile, with the ``remedy``, where spans nest deeper than any program's.
    """
    host = _host(events, name, remedy)
    kernels = [_kernel(event, host, events.world_size) for event in events.device]
    return DeviceTrace(
        name=name,
        rank=events.rank,
        world_size=events.world_size,
        kernels=tuple(sorted(kernels, key=lambda kernel: kernel.start_s)),
        operators=tuple(sorted(host.operators, key=lambda operator: operator.start_s)),
    )


def _host(events: TraceEvents, name: str, remedy: str) -> _Host:
    starts_ns = [span.start_ns for span in events.spans] + [call.start_ns for call in events.calls]
    host = _Host(origin_ns=min(starts_ns or [event.start_ns for event in events.device], default=0))
    launching = {event.correlation for event in events.device} | {event.capture for event in events.device}
    spans: dict[ThreadId, list[Span]] = defaultdict(list)
    calls: dict[ThreadId, list[Call]] = defaultdict(list)
    for span in events.spans:
        spans[span.where].append(span)
    for call in events.calls:
        if call.correlation is not None and call.correlation in launching:
            calls[call.where].append(call)
            host.calls[call.correlation].append(call)
    for where in spans.keys() | calls.keys():
        _nest(spans[where], calls[where], host, name, remedy)
    return host


def _nest(spans: Sequence[Span], calls: Sequence[Call], host: _Host, name: str, remedy: str) -> None:
    """Go through one thread in time, with a stack of the spans that are open."""
    stack: list[_Open] = []
    for event in _in_time(spans, calls):
        while stack and stack[-1].span.end_ns < event.start_ns:
            stack.pop()
        if len(stack) >= _DEEPEST:  # some may have ended below one that outlasts them
            stack = [opened for opened in stack if opened.span.end_ns >= event.start_ns]
        if len(stack) >= _DEEPEST:
            raise CorruptFile(
                f"{name} is damaged: more than {_DEEPEST} spans are open at once on thread {event.where.thread}.\n"
                f"{remedy}"
            )
        if isinstance(event, Call):
            host.places[id(event)] = _place([opened for opened in stack if opened.span.end_ns >= event.end_ns])
        else:
            stack.append(_opened(event, stack, host))


def _in_time(spans: Sequence[Span], calls: Sequence[Call]) -> Iterator[Span | Call]:
    """Outer before inner: of spans that start together the longer first, of equal ones that with the lower id."""
    timed = [(span.start_ns, 0, -span.end_ns, span.external_id or 0, place) for place, span in enumerate(spans)]
    timed += [(call.start_ns, 1, 0, 0, place) for place, call in enumerate(calls)]
    for _, is_call, _, _, place in sorted(timed):
        yield calls[place] if is_call else spans[place]


def _opened(span: Span, stack: Sequence[_Open], host: _Host) -> _Open:
    if span.kind not in {SpanKind.OPERATOR, SpanKind.NCCL}:
        return _Open(span=span, operator=None)
    around = [opened for opened in reversed(stack) if opened.span.kind is SpanKind.OPERATOR]
    parent = next((opened.operator for opened in around if opened.span.end_ns >= span.end_ns), None)
    operator = Operator(
        name=span.name,
        process=span.where.process,
        thread=span.where.thread,
        start_s=(span.start_ns - host.origin_ns) * _S_PER_NS,
        duration_s=None if span.end_ns == NEVER_NS else (span.end_ns - span.start_ns) * _S_PER_NS,
        operands=span.operands,
        axes=span.axes,
        message=span.message,
        parent=parent,
    )
    host.operators.append(operator)
    opened = _Open(span=span, operator=operator)
    if span.kind is SpanKind.OPERATOR and span.external_id is not None:
        host.stated[span.external_id].append(opened)
    return opened


def _place(around: Sequence[_Open]) -> _Place:
    named = {kind: [opened for opened in around if opened.span.kind is kind] for kind in SpanKind}
    operators, collectives = named[SpanKind.OPERATOR], named[SpanKind.NCCL]
    modules, classes = named[SpanKind.MODULE], named[SpanKind.PYTHON_MODULE]
    path = modules[-1].span.name if modules else ".".join(opened.span.name for opened in classes)
    return _Place(
        operator=(operators or collectives)[-1].operator if operators or collectives else None,
        collective_range=collectives[-1].operator if collectives else None,
        module=path or None,
        ranges=tuple(opened.span.name for opened in named[SpanKind.RANGE]),
    )


def _kernel(event: DeviceEvent, host: _Host, world_size: int | None) -> DeviceKernel:
    launch = _launch(event, host)
    collective = collective_of(event, launch.operator, launch.place.collective_range, world_size)
    return DeviceKernel(
        name=event.name,
        work=event.work,
        kind=collective.kind if collective else kind_of(event.name, launch.operator, launch.place.module),
        device=event.device,
        stream=event.stream,
        start_s=(event.start_ns - host.origin_ns) * _S_PER_NS,
        duration_s=(event.end_ns - event.start_ns) * _S_PER_NS,
        correlation=event.correlation,
        grid=event.grid,
        block=event.block,
        size_bytes=event.size_bytes,
        graph_node=event.graph_node,
        call=None if launch.call is None else _runtime_call(launch.call, host),
        operator=launch.operator,
        link=launch.link,
        why=launch.why,
        module=launch.place.module or _captured_in(event, host),
        ranges=launch.place.ranges,
        collective=collective,
    )


def _captured_in(event: DeviceEvent, host: _Host) -> str | None:
    """The module whose forward was captured into the CUDA graph that the kernel is a node of."""
    calls = [] if event.capture is None else host.calls.get(event.capture, [])
    return host.places[id(calls[0])].module if len(calls) == 1 else None


def _runtime_call(call: Call, host: _Host) -> RuntimeCall:
    return RuntimeCall(
        name=call.name,
        process=call.where.process,
        thread=call.where.thread,
        start_s=(call.start_ns - host.origin_ns) * _S_PER_NS,
        duration_s=(call.end_ns - call.start_ns) * _S_PER_NS,
    )


def _launch(event: DeviceEvent, host: _Host) -> _Launch:
    calls = host.calls.get(event.correlation, []) if event.correlation is not None else []
    if not calls:
        return _without_call(event, host)
    if len(calls) > _MOST_OF_ONE_ID:
        return _Launch(why=Why.SEVERAL_CALLS)
    single = [_launch_by(call, event, host) for call in calls]
    likely = [launch for launch in single if launch.link is Link.EXTERNAL_ID] or single
    same = all(launch.operator is likely[0].operator for launch in likely)
    if len(calls) > 1 and (not same or likely[0].operator is None):
        return _Launch(why=Why.SEVERAL_CALLS)
    return likely[0]


def _launch_by(call: Call, event: DeviceEvent, host: _Host) -> _Launch:
    """The launch, if it was this call that made it."""
    place = host.places[id(call)]
    operator = _stated(event, call, host)
    if operator is not None:
        return _Launch(call=call, place=place, operator=operator, link=Link.EXTERNAL_ID)
    if place.operator is not None:
        return _Launch(call=call, place=place, operator=place.operator, link=Link.NESTING)
    return _Launch(call=call, place=place, why=Why.GRAPH if "GraphLaunch" in call.name else Why.OUTSIDE)


def _stated(event: DeviceEvent, call: Call, host: _Host) -> Operator | None:
    """The operator that the profiler names: on the calling thread, and running when the call was made."""
    for external_id, own_id in ((event.external_id, event.correlation), (call.external_id, call.correlation)):
        if external_id is None or external_id == own_id:
            continue
        for opened in host.stated.get(external_id, [])[:_MOST_OF_ONE_ID]:
            span = opened.span
            if span.where == call.where and span.start_ns <= call.end_ns and span.end_ns >= call.start_ns:
                return opened.operator
    return None


def _without_call(event: DeviceEvent, host: _Host) -> _Launch:
    """Only the external id is left, if it names one operator that started earlier."""
    external_id = None if event.external_id == event.correlation else event.external_id
    stated = host.stated.get(external_id, []) if external_id is not None else []
    if len(stated) == 1 and stated[0].span.start_ns <= event.start_ns:
        return _Launch(operator=stated[0].operator, link=Link.EXTERNAL_ID)
    return _Launch(why=Why.NO_CORRELATION if event.correlation is None else Why.NO_CALL)
