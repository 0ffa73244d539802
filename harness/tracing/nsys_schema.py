"""The tables and columns of an SQLite export of Nsight Systems that are read here, in every version of its schema.

Names are those of NVIDIA's "SQLite Schema Reference" (Nsight Systems User Guide, "Exporting"; 2020.1 to schema 3.25).
All times are nanoseconds since the start of the recording. What came later than the first version is optional: among
others the columns graphNodeId and eventClass and the tables META_DATA_EXPORT and CUDA_GRAPH_NODE_EVENTS.

A ``globalTid`` is four numbers in one, from the highest bits: hardware (8), virtual machine (8), process (24) and
thread (24); a ``globalPid`` has 0 for the thread.
"""

from dataclasses import dataclass

PUSH_POP, START_END, DOMAIN_CREATE = 59, 60, 75  # of NVTX_EVENTS.eventType ("NVTX Event Type Values")
_THREAD_BITS = 24
_ID_MASK = (1 << _THREAD_BITS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, with the columns that it must have and those that it may have."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them, in the order in which they are read."""
        return self.required + self.optional


_SPAN = ("start", "end")
_ON_DEVICE = (*_SPAN, "deviceId", "streamId", "correlationId")
_LAUNCHED = ("globalPid", "graphNodeId")

STRINGS = Table(name="StringIds", required=("id", "value"))
KERNELS = Table(
    name="CUPTI_ACTIVITY_KIND_KERNEL",
    required=(*_ON_DEVICE, "demangledName"),
    optional=(*_LAUNCHED, "gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ"),
)
MEMCPYS = Table(
    name="CUPTI_ACTIVITY_KIND_MEMCPY",
    required=(*_ON_DEVICE, "bytes", "copyKind"),
    optional=(*_LAUNCHED, "srcKind", "dstKind"),
)
MEMSETS = Table(name="CUPTI_ACTIVITY_KIND_MEMSET", required=(*_ON_DEVICE, "bytes"), optional=(*_LAUNCHED, "memKind"))
WHOLE_GRAPHS = Table(name="CUPTI_ACTIVITY_KIND_GRAPH_TRACE", required=(*_ON_DEVICE, "graphId"), optional=("globalPid",))
CALLS = Table(name="CUPTI_ACTIVITY_KIND_RUNTIME", required=(*_SPAN, "globalTid", "correlationId", "nameId"))
RANGES = Table(
    name="NVTX_EVENTS",
    required=(*_SPAN, "eventType", "text", "globalTid"),
    optional=("endGlobalTid", "textId", "domainId"),
)
GRAPH_NODES = Table(
    name="CUDA_GRAPH_NODE_EVENTS",
    required=(*_SPAN, "globalTid", "graphNodeId"),
    optional=("originalGraphNodeId",),
)
GPUS = Table(name="TARGET_INFO_GPU", required=("name",))
PROCESSES = Table(name="PROCESSES", required=("globalPid", "name"))
VERSIONS = Table(name="META_DATA_EXPORT", required=("name", "value"))

MEMCPY_KINDS = {  # ENUM_CUDA_MEMCPY_OPER, spelt as torch.profiler spells them
    1: "HtoD",
    2: "DtoH",
    3: "HtoA",
    4: "AtoH",
    5: "AtoA",
    6: "AtoD",
    7: "DtoA",
    8: "DtoD",
    9: "HtoH",
    10: "PtoP",
    11: "UVM HtoD",
    12: "UVM DtoH",
    13: "UVM DtoD",
}
MEMORY_KINDS = {  # ENUM_CUDA_MEM_KIND
    0: "Pageable",
    1: "Pinned",
    2: "Device",
    3: "Array",
    4: "Managed",
    5: "Device Static",
    6: "Managed Static",
}


def process_key(global_id: int) -> int:
    """What a ``globalTid`` and the ``globalPid`` of its process have in common.

    >>> process_key((17 << 24) + 5) == process_key(17 << 24)
    True
    """
    return global_id >> _THREAD_BITS


def process_id(key: int) -> int:
    """The operating system's number of a process."""
    return key & _ID_MASK


def thread_id(global_id: int) -> int:
    """The operating system's number of a thread.

    >>> thread_id((17 << 24) + 5)
    5
    """
    return global_id & _ID_MASK
