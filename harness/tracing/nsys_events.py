"""The events in an export of Nsight Systems, process by process, in the same terms as those of a torch trace.

A range that the harness' worker pushes is in the NVTX domain ``joulegraph``. Ranges of other domains keep the name of
theirs in front, so that none of them passes for a phase. What torch pushes for its operators (``emit_nvtx``, or nsys'
own ``--pytorch=autograd-nvtx``) are operators here too.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from harness.errors import CorruptFile
from harness.tracing.kineto_events import Call, Span, SpanKind, TraceEvents
from harness.tracing.kineto_values import NEVER_NS, ThreadId, WrongEvent
from harness.tracing.nsys_device import DEVICE_TABLES, GraphNodes, Names, OnDevice, OnHost, called, graph_node
from harness.tracing.nsys_file import EXPORT_AGAIN, Export, Row
from harness.tracing.nsys_schema import (
    CALLS,
    DOMAIN_CREATE,
    GRAPH_NODES,
    KERNELS,
    PUSH_POP,
    RANGES,
    START_END,
    Table,
    process_id,
    process_key,
    thread_id,
)

OUR_DOMAIN = "joulegraph"  # as harness.tracing.ranges names it; importing that would load torch
MODULE = "module:"
_OUTER_FIRST = ("run:", "trace:", "phase:", "step:", MODULE)
_OPERATOR = re.compile(r"([a-z_][a-z_0-9]{0,40}::[A-Za-z_0-9.]{1,200})(?:,|$)")
_STRINGS = ((KERNELS.name, "demangledName"), (CALLS.name, "nameId"), (RANGES.name, "textId"))  # columns of numbers
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEvents:
    """The events of one process that used a device."""

    process_id: int
    key: int  # as in globalPid: apart also from processes of other machines in one file
    events: TraceEvents
    split_ranges: int  # started on one thread and ended on another: they surround no call for certain
    whole_graphs: int  # launches of CUDA graphs that were recorded without their kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """A row of NVTX_EVENTS: a range, or the name of a domain."""

    is_domain: bool
    text: str
    domain: int
    process: int
    where: ThreadId
    start_ns: int
    end_ns: int
    split: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """What belongs to one process, in the order of the file."""

    device: list[OnDevice] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    ranges: list[_Range] = field(default_factory=list)


def events_of(export: Export, most_events: int) -> tuple[ProcessEvents, ...]:
    """Read the events of each process that used a device, in the order of their numbers.

    Raises CorruptFile where the file holds more than ``most_events`` of them, or something that is none.
    """
    reader = _Reader(export, most_events)
    strings = export.strings(reader.string_numbers())
    nodes = GraphNodes(reader.kept(GRAPH_NODES, graph_node))
    names = Names(strings=strings, nodes=nodes)
    device = list(_on_devices(reader, names))
    launching = {each.event.correlation for each in device} - {None}
    calls = list(reader.kept(CALLS, lambda row: _launching_call(row, names, launching)))
    processes: dict[int, _Process] = defaultdict(_Process)
    for each in (*calls, *nodes.made):
        processes[each.process].calls.append(each.call)
    owner = _Owner(calls, export.name)
    for work in device:
        processes[owner.of(work)].device.append(work)
    for found in reader.kept(RANGES, lambda row: _range(row, names)):
        processes[found.process].ranges.append(found)
    return tuple(_events(key, process) for key, process in sorted(processes.items()) if process.device)


class _Reader:
    """Reads what matters of an export, up to a number of events."""

    def __init__(self, export: Export, most_events: int) -> None:
        self._export = export
        self._most_events = most_events
        self._kept = 0

    def string_numbers(self) -> frozenset[int]:
        """Of the strings that any event refers to."""
        numbers: set[int | None] = set()
        for name, column in _STRINGS:
            table = Table(name=name, required=(), optional=(column,))
            numbers.update(self._export.read(table, lambda row, column=column: row.maybe(column)))  # type: ignore[misc]
        return frozenset(number for number in numbers if number is not None)

    def kept(self, table: Table, make: Callable[[Row], _T | None]) -> Iterator[_T]:
        """The events of a table."""
        for event in self._export.read(table, make):
            if event is None:
                continue
            self._kept += 1
            if self._kept > self._most_events:
                raise CorruptFile(
                    f"{self._export.name} holds more than {self._most_events:,} events, more than are read without "
                    "being asked to.\nRecord less (nsys profile --capture-range=nvtx --nvtx-capture=trace:decode@"
                    f"{OUR_DOMAIN}), or allow more (--most-events) if there is memory."
                )
            yield event


def _on_devices(reader: _Reader, names: Names) -> Iterator[OnDevice]:
    def with_names(make: Callable[[Row, Names], OnDevice]) -> Callable[[Row], OnDevice]:
        return lambda row: make(row, names)

    for table, make in DEVICE_TABLES.items():
        yield from reader.kept(table, with_names(make))


class _Owner:
    """Which process a device worked for, where the schema does not say."""

    def __init__(self, calls: Iterable[OnHost], name: str) -> None:
        self._name = name
        self._callers: dict[int | None, set[int]] = defaultdict(set)
        for each in calls:
            self._callers[each.call.correlation].add(each.process)
        self._all = set().union(*self._callers.values())

    def of(self, work: OnDevice) -> int:
        """Its key; raises CorruptFile where several processes could have been it."""
        if work.process is not None:
            return work.process
        possible = self._callers.get(work.event.correlation) or self._all or {0}
        if len(possible) == 1:
            return next(iter(possible))
        raise CorruptFile(
            f"{self._name} holds {len(self._all)} processes and does not say which of them a kernel belongs to: its "
            f"kernels have no globalPid.\n{EXPORT_AGAIN}, with a later version of nsys."
        )


def _launching_call(row: Row, names: Names, launching: set[int | None]) -> OnHost | None:
    correlation, global_tid = row.identity("correlationId"), row.maybe("globalTid")
    if correlation not in launching or global_tid is None:
        return None
    return called(row, global_tid, name=names.of(row.maybe("nameId")), correlation=correlation)


def _range(row: Row, names: Names) -> _Range | None:
    """A range with a name on a thread, or the name of a domain; None for marks, categories and the like."""
    kind, global_tid = row.whole("eventType"), row.maybe("globalTid")
    text_id = row.identity("textId")
    text = row.text("text") or (None if text_id is None else names.strings.get(text_id))
    if kind not in {PUSH_POP, START_END, DOMAIN_CREATE} or global_tid is None or text is None:
        return None
    end_tid, end_ns = row.identity("endGlobalTid"), _end_ns(row)
    if kind != DOMAIN_CREATE and end_ns < row.time_ns("start"):
        raise WrongEvent("its end is before its start")
    return _Range(
        is_domain=kind == DOMAIN_CREATE,
        text=text,
        domain=row.maybe("domainId") or 0,
        process=process_key(global_tid),
        where=ThreadId(process=str(process_id(process_key(global_tid))), thread=str(thread_id(global_tid))),
        start_ns=row.time_ns("start"),
        end_ns=end_ns,
        split=kind == START_END and end_tid not in {None, global_tid},
    )


def _end_ns(row: Row) -> int:
    """When a range ended; never, if it was open when recording stopped."""
    return NEVER_NS if row.maybe("end") is None else row.time_ns("end")


def _events(key: int, process: _Process) -> ProcessEvents:
    domains = {found.domain: found.text for found in process.ranges if found.is_domain}
    ranges = [found for found in process.ranges if not found.is_domain and not found.split]
    spans = [_span(found, domains) for found in ranges]
    return ProcessEvents(
        process_id=process_id(key),
        key=key,
        events=TraceEvents(
            spans=tuple(sorted(spans, key=_outer_first)),
            calls=tuple(_outermost(process.calls)),
            device=tuple(work.event for work in process.device),
            rank=None,
            world_size=None,
        ),
        split_ranges=sum(found.split for found in process.ranges),
        whole_graphs=sum(work.whole_graph for work in process.device),
    )


def _span(found: _Range, domains: Mapping[int, str]) -> Span:
    domain = domains.get(found.domain)
    ours = domain == OUR_DOMAIN or (domain is None and OUR_DOMAIN not in domains.values())
    operator = None if domain == OUR_DOMAIN else _OPERATOR.match(found.text)
    kind, name = SpanKind.RANGE, found.text if ours else f"{domain or ''}:{found.text}"
    if operator is not None:
        kind, name = SpanKind.OPERATOR, operator[1]
    elif ours and found.text.startswith(MODULE):
        kind, name = SpanKind.MODULE, found.text.removeprefix(MODULE)
    return Span(
        kind=kind,
        name=name,
        where=found.where,
        start_ns=found.start_ns,
        end_ns=found.end_ns,
        external_id=None,
        operands=None,
        axes=(),
        message=None,
    )


def _outer_first(span: Span) -> tuple[int, int]:
    """Decides between ranges that begin and end in the same nanosecond: a phase is around its steps."""
    if span.kind is SpanKind.MODULE:
        return _OUTER_FIRST.index(MODULE), len(span.name)
    return next((place for place, word in enumerate(_OUTER_FIRST) if span.name.startswith(word)), len(_OUTER_FIRST)), 0


def _outermost(calls: Sequence[Call]) -> list[Call]:
    """Of calls with one correlation, inside each other on a thread, the outer: the runtime's around the driver's."""
    kept: list[Call] = []
    last: dict[tuple[ThreadId, int | None], Call] = {}
    for call in sorted(calls, key=lambda call: (call.start_ns, -call.end_ns)):
        outer = last.get((call.where, call.correlation))
        if outer is None or call.end_ns > outer.end_ns:
            kept.append(call)
            last[call.where, call.correlation] = call
    return kept
