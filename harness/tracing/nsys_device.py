"""What ran on devices, in an export of Nsight Systems, and where the nodes of CUDA graphs were made.

Kernels that a CUDA graph launched have the correlation id of that launch; what they are part of is known from the
capture in which their node was added to the graph. A graph recorded as a whole (nsys' default,
``--cuda-graph-trace=graph``) is one piece of work here, named as what it is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from harness.tracing.kineto_events import Call, DeviceEvent
from harness.tracing.kineto_records import Work
from harness.tracing.kineto_values import ThreadId, WrongEvent
from harness.tracing.nsys_file import Row
from harness.tracing.nsys_schema import (
    KERNELS,
    MEMCPY_KINDS,
    MEMCPYS,
    MEMORY_KINDS,
    MEMSETS,
    WHOLE_GRAPHS,
    Table,
    process_id,
    process_key,
    thread_id,
)

_LONGEST_CHAIN = 8  # of graphs cloned from clones


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """A row of one of the tables of devices."""

    process: int | None  # key; None where the schema does not say
    event: DeviceEvent
    whole_graph: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHost:
    """A call, and the key of the process that made it."""

    process: int
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """A node of a CUDA graph, or of a graph cloned from another."""

    node: int
    original: int | None  # None: this is where it was made
    made: OnHost


class GraphNodes:
    """The nodes of all CUDA graphs."""

    def __init__(self, nodes: Iterable[GraphNode]) -> None:
        listed = tuple(nodes)
        self.made = tuple(node.made for node in listed if node.original is None)
        self._originals = {(node.made.process, node.node): node.original for node in listed}

    def capture(self, process: int | None, node: int | None) -> int | None:
        """The correlation of the call that made a node, through the graphs it was cloned from; None: not recorded."""
        if process is None or node is None:
            return None
        for _ in range(_LONGEST_CHAIN):
            if (process, node) not in self._originals:
                return None
            original = self._originals[process, node]
            if original is None:
                return -node
            node = original
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What rows refer to by number."""

    strings: Mapping[int, str]
    nodes: GraphNodes

    def of(self, number: int | None) -> str:
        """The string with a number; a question mark where it is not in the file."""
        return self.strings.get(number, "?") if number is not None else "?"


def graph_node(row: Row) -> GraphNode | None:
    """A row of CUDA_GRAPH_NODE_EVENTS; None for one of no thread or node."""
    global_tid, node = row.maybe("globalTid"), row.identity("graphNodeId")
    if global_tid is None or node is None:
        return None
    call = called(row, global_tid, name="graph node", correlation=-node)  # below 0: no launch has such a number
    return GraphNode(node=node, original=row.identity("originalGraphNodeId"), made=call)


def called(row: Row, global_tid: int, *, name: str, correlation: int | None) -> OnHost:
    """A call on a thread."""
    where = ThreadId(process=str(process_id(process_key(global_tid))), thread=str(thread_id(global_tid)))
    start_ns, end_ns = _times_ns(row)
    call = Call(name=name, where=where, start_ns=start_ns, end_ns=end_ns, correlation=correlation, external_id=None)
    return OnHost(process=process_key(global_tid), call=call)


def _kernel(row: Row, names: Names) -> OnDevice:
    return _on_device(
        row,
        names,
        name=names.of(row.maybe("demangledName")),
        work=Work.KERNEL,
        grid=_dimensions(row, "gridX", "gridY", "gridZ"),
        block=_dimensions(row, "blockX", "blockY", "blockZ"),
    )


def _memcpy(row: Row, names: Names) -> OnDevice:
    """Named as torch.profiler names it."""
    way = MEMCPY_KINDS.get(row.whole("copyKind"), "")
    ends = [_memory(row.maybe(end)) for end in ("srcKind", "dstKind")]
    name = f"Memcpy {way} ({ends[0]} -> {ends[1]})" if all(ends) else f"Memcpy {way}"
    return _on_device(row, names, name=name.strip(), work=Work.MEMCPY, size_bytes=row.count("bytes"))


def _memset(row: Row, names: Names) -> OnDevice:
    kind = _memory(row.maybe("memKind"))
    name = f"Memset ({kind})" if kind else "Memset"
    return _on_device(row, names, name=name, work=Work.MEMSET, size_bytes=row.count("bytes"))


def _whole_graph(row: Row, names: Names) -> OnDevice:
    name = f"CUDA graph {row.whole('graphId')} (recorded as a whole)"
    return _on_device(row, names, name=name, work=Work.KERNEL, whole_graph=True)


DEVICE_TABLES: Mapping[Table, Callable[[Row, Names], OnDevice]] = {
    KERNELS: _kernel,
    MEMCPYS: _memcpy,
    MEMSETS: _memset,
    WHOLE_GRAPHS: _whole_graph,
}


def _on_device(
    row: Row,
    names: Names,
    *,
    name: str,
    work: Work,
    size_bytes: int | None = None,
    grid: tuple[int, ...] | None = None,
    block: tuple[int, ...] | None = None,
    whole_graph: bool = False,
) -> OnDevice:
    global_pid = row.identity("globalPid")
    process = None if global_pid is None else process_key(global_pid)
    node = row.identity("graphNodeId")
    start_ns, end_ns = _times_ns(row)
    event = DeviceEvent(
        name=name,
        work=work,
        device=row.count("deviceId"),
        stream=row.count("streamId"),
        start_ns=start_ns,
        end_ns=end_ns,
        correlation=row.identity("correlationId"),
        external_id=None,
        grid=grid,
        block=block,
        size_bytes=size_bytes,
        graph_node=node,
        message=None,
        capture=names.nodes.capture(process, node),
    )
    return OnDevice(process=process, event=event, whole_graph=whole_graph)


def _times_ns(row: Row) -> tuple[int, int]:
    start_ns, end_ns = row.time_ns("start"), row.time_ns("end")
    if end_ns < start_ns:
        raise WrongEvent("its end is before its start")
    return start_ns, end_ns


def _dimensions(row: Row, *columns: str) -> tuple[int, ...] | None:
    sizes = [row.maybe(column) for column in columns]
    return tuple(size for size in sizes if size is not None) if None not in sizes else None


def _memory(kind: int | None) -> str:
    return MEMORY_KINDS.get(kind, "") if kind is not None else ""
