"""What is read from a trace: operators, launches, and the work of a device with what launched it."""

from dataclasses import dataclass, field
from enum import StrEnum

from harness.kernels import KernelKind


class Work(StrEnum):
    """What a device did."""

    KERNEL = "kernel"
    MEMCPY = "memcpy"
    MEMSET = "memset"


class Link(StrEnum):
    """How a device kernel found its operator."""

    EXTERNAL_ID = "external id"  # the profiler said so
    NESTING = "time nesting"  # the operator was running on the thread that launched


class Why(StrEnum):
    """Why a device kernel has no operator."""

    NO_CORRELATION = "it has no correlation id"
    NO_CALL = "no runtime call has its correlation id"
    SEVERAL_CALLS = "several runtime calls have its correlation id"
    GRAPH = "its CUDA graph was launched outside any operator"
    OUTSIDE = "it was launched outside any operator"


class Source(StrEnum):
    """Where the trace says what a collective moves and among how many."""

    KERNEL = "arguments of the kernel"
    OPERATOR = "arguments of record_param_comms"
    RANGE = "inputs of the nccl: range"
    WORLD = "world size of the trace"  # right unless the collective is among some of the ranks only


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """An input of an operator, its dtype as the profiler spells it: ``float``, ``c10::Half``, ``TensorList``."""

    dtype: str
    shapes: tuple[tuple[int, ...], ...]  # one, or one per member of a tensor list; empty: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What torch noted about a collective; None where it did not."""

    name: str  # as torch.distributed calls it: allreduce, _allgather_base, all_to_all, broadcast
    dtype: str | None  # as the profiler spells it
    given_elements: int | None  # in the rank's own input
    received_elements: int | None  # in its output
    ranks: int | None
    members: tuple[int, ...] | None  # which ranks; None also where the list is cut


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """One call of an operator on the host. Times count from the first event of the host."""

    name: str  # aten::mm, c10d::allreduce_, AddmmBackward0, triton_poi_fused_add_0
    process: str
    thread: str
    start_s: float
    duration_s: float | None  # None: still running when recording stopped
    operands: tuple[Operand, ...] | None  # None: shapes were not recorded
    axes: tuple[int, ...]  # that the call states, e.g. those of a reduction
    message: Message | None = field(repr=False)
    parent: "Operator | None" = field(repr=False)  # the innermost operator around it

    @property
    def chain(self) -> "tuple[Operator, ...]":
        """The operator and those around it, outermost first."""
        inner = [self]
        while (parent := inner[-1].parent) is not None:
            inner.append(parent)
        return tuple(reversed(inner))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCall:
    """The call of the runtime or driver that put work on a device: cudaLaunchKernel, cudaMemcpyAsync and so on."""

    name: str
    process: str
    thread: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """Communication among ranks; what is not known is None, with the source of what is."""

    name: str  # all_reduce, all_to_all, broadcast …, in the words of whoever said so
    kind: KernelKind
    dtype: str | None  # as the profiler spells it
    given_elements: int | None  # in this rank's own input
    size_bytes: int | None  # of the whole tensor, as nccl-tests counts: for all-gather the output, otherwise the input
    ranks: int | None
    members: tuple[int, ...] | None
    bytes_source: Source | None
    ranks_source: Source | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceKernel:
    """One kernel, copy or fill on a device, and what launched it."""

    name: str
    work: Work
    kind: KernelKind
    device: int | None
    stream: int | None
    start_s: float
    duration_s: float
    correlation: int | None
    grid: tuple[int, ...] | None
    block: tuple[int, ...] | None
    size_bytes: int | None  # moved or filled; None for kernels
    graph_node: int | None  # in a CUDA graph; None: launched by itself
    call: RuntimeCall | None
    operator: Operator | None  # innermost
    link: Link | None
    why: Why | None  # None: there is an operator
    module: str | None  # path, or the classes of Python modules where no paths were recorded
    ranges: tuple[str, ...]  # record_function and the like around the launch, outermost first
    collective: Collective | None

    @property
    def end_s(self) -> float:
        """When it ended."""
        return self.start_s + self.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTrace:
    """What the devices of one process did, in the order of time."""

    name: str  # of the file
    rank: int | None
    world_size: int | None
    kernels: tuple[DeviceKernel, ...]
    operators: tuple[Operator, ...]
