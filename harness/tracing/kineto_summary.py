"""What a trace amounts to: how much of it found its operator, where the time went, what communication cost and hid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.kernels import KernelKind
from harness.tracing.collectives import sent_bytes
from harness.tracing.kineto_records import Collective, DeviceKernel, DeviceTrace, Link, Source, Why, Work
from harness.tracing.operands import total

_ONE_WAY = frozenset({KernelKind.OTHER})  # broadcast, send and receive: nccl-tests counts the tensor once


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmatchedGroup:
    """Device kernels of one name that have no operator, for one reason."""

    name: str
    count: int
    duration_s: float
    why: Why
    inside: str | None  # the innermost range they were launched in


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How many device kernels (copies and fills included) found what launched them."""

    kernels: int
    with_runtime: int
    with_operator: int
    by_external_id: int
    by_nesting: int
    collectives: int
    unmatched: tuple[UnmatchedGroup, ...]  # the most time-consuming first

    @property
    def share(self) -> float | None:
        """Share of kernels with an operator; None without kernels."""
        return self.with_operator / self.kernels if self.kernels else None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindTime:
    """Time of the device kernels of one kind; where streams overlap, the sum is longer than the time that passed."""

    kind: KernelKind
    kernels: int
    duration_s: float
    share: float | None  # of the kernels' time; None where that is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveGroup:
    """The collectives of one name among as many ranks."""

    name: str
    kind: KernelKind
    ranks: int | None
    ranks_source: Source | None
    count: int
    with_bytes: int
    bytes_source: Source | None
    size_bytes: int | None  # of all; None as soon as one is not known
    duration_s: float  # from this rank's start on: waiting for the others included
    bus_bytes_per_s: float | None  # nccl-tests' bus bandwidth, a lower bound because of the waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTime:
    """One stream of a device, or all of its streams together (``stream`` is None)."""

    device: int | None
    stream: int | None
    kernels: int
    busy_s: float  # at least one of its kernels ran
    communication_s: float  # at least one of its collectives ran
    hidden_s: float  # the part of it in which a kernel of the device computed


def matching(trace: DeviceTrace) -> Matching:
    """Count what is matched and what is not."""
    groups: dict[tuple[str, Why, str | None], list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        if kernel.why is not None:
            inside = kernel.ranges[-1] if kernel.ranges else None
            groups.setdefault((kernel.name, kernel.why, inside), []).append(kernel)
    unmatched = [
        UnmatchedGroup(name=name, count=len(members), duration_s=_duration_s(members), why=why, inside=inside)
        for (name, why, inside), members in groups.items()
    ]
    return Matching(
        kernels=len(trace.kernels),
        with_runtime=sum(kernel.call is not None for kernel in trace.kernels),
        with_operator=sum(kernel.operator is not None for kernel in trace.kernels),
        by_external_id=sum(kernel.link is Link.EXTERNAL_ID for kernel in trace.kernels),
        by_nesting=sum(kernel.link is Link.NESTING for kernel in trace.kernels),
        collectives=sum(kernel.collective is not None for kernel in trace.kernels),
        unmatched=tuple(sorted(unmatched, key=lambda group: -group.duration_s)),
    )


def times_by_kind(trace: DeviceTrace) -> tuple[KindTime, ...]:
    """Where the time went, the longest first."""
    groups: dict[KernelKind, list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        groups.setdefault(kernel.kind, []).append(kernel)
    whole_s = _duration_s(trace.kernels)
    times = [
        KindTime(
            kind=kind,
            kernels=len(members),
            duration_s=_duration_s(members),
            share=_duration_s(members) / whole_s if whole_s else None,
        )
        for kind, members in groups.items()
    ]
    return tuple(sorted(times, key=lambda time: -time.duration_s))


def collective_groups(trace: DeviceTrace) -> tuple[CollectiveGroup, ...]:
    """The collectives, the most time-consuming first."""
    groups: dict[tuple[str, int | None, Source | None, Source | None], list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        found = kernel.collective
        if found is not None:
            key = (found.name, found.ranks, found.ranks_source, found.bytes_source)
            groups.setdefault(key, []).append(kernel)
    return tuple(sorted(map(_group, groups.values()), key=lambda group: -group.duration_s))


def _group(members: Sequence[DeviceKernel]) -> CollectiveGroup:
    collectives = [kernel.collective for kernel in members if kernel.collective is not None]
    first, duration_s = collectives[0], _duration_s(members)
    bus_bytes = total(map(_bus_bytes, collectives))
    return CollectiveGroup(
        name=first.name,
        kind=first.kind,
        ranks=first.ranks,
        ranks_source=first.ranks_source,
        count=len(members),
        with_bytes=sum(collective.size_bytes is not None for collective in collectives),
        bytes_source=first.bytes_source,
        size_bytes=total(collective.size_bytes for collective in collectives),
        duration_s=duration_s,
        bus_bytes_per_s=bus_bytes / duration_s if bus_bytes is not None and duration_s else None,
    )


def _bus_bytes(collective: Collective) -> int | None:
    if collective.size_bytes is None or collective.kind in _ONE_WAY:
        return collective.size_bytes
    return None if collective.ranks is None else sent_bytes(collective.kind, collective.size_bytes, collective.ranks)


def stream_times(trace: DeviceTrace) -> tuple[StreamTime, ...]:
    """Each device as a whole, followed by its streams.

    Communication is hidden while a kernel of the same device computes; copies and fills do not compute.
    """
    devices: dict[int | None, list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        devices.setdefault(kernel.device, []).append(kernel)
    return tuple(
        time for device, kernels in sorted(devices.items(), key=_none_last) for time in _device(device, kernels)
    )


def _device(device: int | None, kernels: Sequence[DeviceKernel]) -> Iterable[StreamTime]:
    computing = _union(kernel for kernel in kernels if kernel.work is Work.KERNEL and kernel.collective is None)
    yield _stream(device, None, kernels, computing)
    streams: dict[int | None, list[DeviceKernel]] = {}
    for kernel in kernels:
        streams.setdefault(kernel.stream, []).append(kernel)
    if set(streams) != {None}:
        for stream, members in sorted(streams.items(), key=_none_last):
            yield _stream(device, stream, members, computing)


def _stream(
    device: int | None, stream: int | None, kernels: Sequence[DeviceKernel], computing: "Sequence[_Interval]"
) -> StreamTime:
    communication = _union(kernel for kernel in kernels if kernel.collective is not None)
    return StreamTime(
        device=device,
        stream=stream,
        kernels=len(kernels),
        busy_s=_length_s(_union(kernels)),
        communication_s=_length_s(communication),
        hidden_s=_common_s(communication, computing),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interval:
    start_s: float
    end_s: float


def _union(kernels: Iterable[DeviceKernel]) -> list[_Interval]:
    """The spans of time in which at least one of them ran, in order and apart."""
    spans: list[_Interval] = []
    for kernel in sorted(kernels, key=lambda kernel: kernel.start_s):
        if spans and kernel.start_s <= spans[-1].end_s:
            spans[-1] = _Interval(start_s=spans[-1].start_s, end_s=max(spans[-1].end_s, kernel.end_s))
        else:
            spans.append(_Interval(start_s=kernel.start_s, end_s=kernel.end_s))
    return spans


def _length_s(spans: Iterable[_Interval]) -> float:
    return sum((span.end_s - span.start_s for span in spans), 0.0)


def _common_s(one: Sequence[_Interval], other: Sequence[_Interval]) -> float:
    """How long both go on at once; each in order and apart."""
    common_s, here, there = 0.0, 0, 0
    while here < len(one) and there < len(other):
        a, b = one[here], other[there]
        common_s += max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
        here, there = (here + 1, there) if a.end_s < b.end_s else (here, there + 1)
    return common_s


def _duration_s(kernels: Iterable[DeviceKernel]) -> float:
    return sum((kernel.duration_s for kernel in kernels), 0.0)


def _none_last(item: tuple[int | None, object]) -> tuple[bool, int]:
    return (item[0] is None, item[0] or 0)
