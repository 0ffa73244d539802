"""Collectives in a trace of a GPU: what they move, among how many ranks, and where the trace says so.

Newer versions of torch note it with the kernel and with ``record_param_comms``; older ones leave the inputs of a range
``nccl:all_reduce`` and the world size of the trace.
"""

import re
from dataclasses import dataclass

from harness.kernels import KernelKind
from harness.tracing.collectives import collective_kind
from harness.tracing.kineto_events import DeviceEvent
from harness.tracing.kineto_kinds import kind_by_name, tensors_of
from harness.tracing.kineto_records import Collective, Message, Operator, Source, Work
from harness.tracing.operands import bytes_of

_KINDS = frozenset({KernelKind.ALL_REDUCE, KernelKind.ALL_GATHER, KernelKind.REDUCE_SCATTER, KernelKind.ALL_TO_ALL})
_LIBRARY = re.compile(r"nccl|rccl|msccl")  # NVIDIA's, and those of AMD
_RANGE = "nccl:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stated:
    """What one source says; ``source`` is None where there is none but the kernel's name."""

    message: Message
    source: Source | None


def collective_of(
    event: DeviceEvent, operator: Operator | None, around: Operator | None, world_size: int | None
) -> Collective | None:
    """The collective that a device kernel is; None for any other, copies inside of collectives too.

    ``around`` is torch's own range around the launch, if there is one.
    """
    named = kind_by_name(event.name)
    is_one = event.message is not None or named in _KINDS or _LIBRARY.search(event.name[:100]) is not None
    if event.work is not Work.KERNEL or not is_one:
        return None
    stated = _stated(event, operator, around)
    message = stated.message
    kind = collective_kind(f"c10d::{message.name}") or named
    ranks = message.ranks or (len(message.members) if message.members else None)
    ranks_source = stated.source if ranks else Source.WORLD if world_size else None
    ranks = ranks or world_size
    size_bytes = _size_bytes(kind, message, ranks)
    return Collective(
        name=message.name,
        kind=kind,
        dtype=message.dtype,
        given_elements=message.given_elements,
        size_bytes=size_bytes,
        ranks=ranks,
        members=message.members,
        bytes_source=None if size_bytes is None else stated.source,
        ranks_source=ranks_source,
    )


def _stated(event: DeviceEvent, operator: Operator | None, around: Operator | None) -> _Stated:
    """The first source that says anything, the closest to the kernel first."""
    if event.message is not None:
        return _Stated(message=event.message, source=Source.KERNEL)
    noted = [op.message for op in reversed(operator.chain) if op.message] if operator else []
    if noted:
        return _Stated(message=noted[0], source=Source.OPERATOR)
    if around is not None:
        return _Stated(message=_from_inputs(around), source=Source.RANGE)
    kind = kind_by_name(event.name)
    name = event.name.partition("(")[0] if kind is KernelKind.OTHER else kind.value
    return _Stated(message=_message(name), source=None)


def _from_inputs(around: Operator) -> Message:
    tensors = tensors_of(around)
    name = around.name.removeprefix(_RANGE)
    if len({tensor.dtype for tensor in tensors}) != 1:
        return _message(name)
    return _message(name, dtype=tensors[0].dtype, elements=sum(tensor.elements for tensor in tensors))


def _message(name: str, dtype: str | None = None, elements: int | None = None) -> Message:
    return Message(name=name, dtype=dtype, given_elements=elements, received_elements=None, ranks=None, members=None)


def _size_bytes(kind: KernelKind, message: Message, ranks: int | None) -> int | None:
    """Bytes of the whole tensor as nccl-tests counts them (its doc/PERFORMANCE.md)."""
    given, received = message.given_elements, message.received_elements
    if kind is KernelKind.ALL_GATHER:
        elements = received or (given * ranks if given and ranks else None)
    else:
        elements = given or received
    return bytes_of(elements, message.dtype) if elements and message.dtype else None
