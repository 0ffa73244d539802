"""The kernels of a saved trace as the harness knows them: one row per operator, module, dtype and shape.

A launch is one call of an operator with all the device kernels it launched, as in ``harness.tracing.timeline``, which
reads a running profiler. What no operator launched (a replayed CUDA graph, say) goes by the name of its kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.kernels import KernelKind, shape_text
from harness.tracing.collectives import collective_kind, cost_of_collective
from harness.tracing.kineto_kinds import counted_operator, operator_cost, tensors_of
from harness.tracing.kineto_records import Collective, DeviceKernel, DeviceTrace, Operator, Work
from harness.tracing.names import any_layer
from harness.tracing.operands import DTYPES, Cost, Tensor, total

if TYPE_CHECKING:
    from harness.tracing.timeline import TracedKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One call of an operator and the device kernels it launched; FLOP and bytes are those of the whole call."""

    op: str
    module: str | None
    dtype: str
    cost: Cost
    link_bytes: int | None  # sent to other ranks; 0 for all but collectives
    collective: Collective | None
    kernels: tuple[DeviceKernel, ...]

    @property
    def kind(self) -> KernelKind:
        """That of the operator; where its name tells nothing, of the kernels that took most of the time."""
        return self.cost.kind if self.cost.kind is not KernelKind.OTHER else _prevailing(self.kernels)

    @property
    def duration_s(self) -> float:
        """Sum of its device kernels, each for itself."""
        return sum((kernel.duration_s for kernel in self.kernels), 0.0)


def launches_of(trace: DeviceTrace, *, dtype: str | None = None) -> tuple[Launch, ...]:
    """The launches in a trace, in the order of time.

    ``dtype`` is that of the model as torch names it; without it the bytes of operators on tensor lists (``cat``) are
    not known, because a trace does not say what their members are.
    """
    groups: dict[object, list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        groups.setdefault(kernel if kernel.operator is None else _owner(kernel.operator), []).append(kernel)
    return tuple(_launch(owner, kernels, dtype) for owner, kernels in groups.items())


def traced_kernels(trace: DeviceTrace, *, dtype: str | None = None) -> "tuple[TracedKernel, ...]":
    """The launches grouped by operator, module, dtype and shape, as a running profiler gives them; loads torch."""
    groups: dict[tuple[str, str | None, str, str], list[Launch]] = {}
    for launch in launches_of(trace, dtype=dtype):
        module = None if launch.module is None else any_layer(launch.module)
        groups.setdefault((launch.op, module, launch.dtype, shape_text(launch.cost.shape)), []).append(launch)
    ordered = sorted(groups.items(), key=lambda item: -sum(launch.duration_s for launch in item[1]))
    return tuple(
        _traced(f"k{index:04d}", module, members) for index, ((_, module, _, _), members) in enumerate(ordered)
    )


def _owner(operator: Operator) -> Operator:
    """The operator that a kernel is part of: a collective with all it does around, or one with a cost formula."""
    collective = next((around for around in operator.chain if collective_kind(around.name) is not None), None)
    return collective or counted_operator(operator)


def _launch(owner: object, kernels: Sequence[DeviceKernel], dtype: str | None) -> Launch:
    longest = max(kernels, key=lambda kernel: kernel.duration_s)
    collective = next((kernel.collective for kernel in kernels if kernel.collective is not None), None)
    if collective is not None:
        return _communication(owner, collective, kernels)
    if not isinstance(owner, Operator):
        return _plain(longest.name, "none", _moved(longest), kernels)
    cost = operator_cost(owner, longest.module, dtype)
    tensors = tensors_of(owner, dtype)
    return _plain(owner.name, DTYPES[tensors[0].dtype].name if tensors else "none", cost, kernels)


def _prevailing(kernels: Sequence[DeviceKernel]) -> KernelKind:
    durations_s: dict[KernelKind, float] = {}
    for kernel in kernels:
        durations_s[kernel.kind] = durations_s.get(kernel.kind, 0.0) + kernel.duration_s
    return max(durations_s, key=lambda kind: durations_s[kind])


def _plain(op: str, dtype: str, cost: Cost, kernels: Sequence[DeviceKernel]) -> Launch:
    longest = max(kernels, key=lambda kernel: kernel.duration_s)
    return Launch(
        op=op,
        module=longest.module,
        dtype=dtype,
        cost=cost,
        link_bytes=0,
        collective=None,
        kernels=tuple(kernels),
    )


def _moved(kernel: DeviceKernel) -> Cost:
    """What is known of a device kernel that no operator launched: copies and fills state their bytes."""
    if kernel.work is Work.KERNEL:
        return Cost(kind=kernel.kind)
    read_bytes = kernel.size_bytes if kernel.work is Work.MEMCPY else 0
    return Cost(kind=kernel.kind, flop=0, read_bytes=read_bytes, write_bytes=kernel.size_bytes)


def _communication(owner: object, collective: Collective, kernels: Sequence[DeviceKernel]) -> Launch:
    named = owner.name if isinstance(owner, Operator) and collective_kind(owner.name) is not None else None
    cost, link_bytes = Cost(kind=collective.kind), None
    known = collective.dtype and collective.given_elements and collective.ranks
    if known and collective_kind(f"c10d::{collective.name}") is not None:
        given = Tensor(shape=(collective.given_elements or 0,), dtype=collective.dtype or "")
        moved = cost_of_collective(collective.kind, given, collective.ranks or 1)
        cost, link_bytes = moved.cost, moved.link_bytes
    return Launch(
        op=named or f"nccl:{collective.name}",
        module=kernels[0].module,
        dtype=DTYPES[collective.dtype].name if collective.dtype else "none",
        cost=cost,
        link_bytes=link_bytes,
        collective=collective,
        kernels=tuple(kernels),
    )


def _traced(kernel_id: str, module: str | None, launches: Sequence[Launch]) -> "TracedKernel":
    from harness.tracing.timeline import TracedKernel  # loads torch, which nothing else here needs

    first = launches[0]
    durations_s = tuple(launch.duration_s for launch in launches)
    kernels = [kernel for launch in launches for kernel in launch.kernels]
    return TracedKernel(
        kernel_id=kernel_id,
        kind=first.kind if len({launch.kind for launch in launches}) == 1 else _prevailing(kernels),
        op=first.op,
        module=module,
        dtype=first.dtype,
        shape=shape_text(first.cost.shape),
        launches=len(launches),
        flop=total(launch.cost.flop for launch in launches),
        read_bytes=total(launch.cost.read_bytes for launch in launches),
        write_bytes=total(launch.cost.write_bytes for launch in launches),
        traced_duration_s=sum(durations_s),
        link_bytes=total(launch.link_bytes for launch in launches),
        launch_durations_s=durations_s if first.collective is not None else (),
    )
