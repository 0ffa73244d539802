"""Collectives in the profiler's timeline: which events they are, what they move, and who waited for whom.

On the CPU (gloo) ``c10d::allreduce_`` only hands the work to another thread, where an event ``gloo:all_reduce`` lasts
from its start to its end; the caller waits meanwhile. On a GPU (NCCL) ``c10d::allreduce_`` launches the device's
kernel. Every rank launches the same collectives in the same order, so the n-th launch of a kernel on one rank is the
n-th on every other.

Bytes a rank sends with a ring of N ranks, S being the size of the whole tensor (Thakur, Rabenseifner, Gropp,
"Optimization of Collective Communication Operations in MPICH", IJHPCA 19(1), 2005; nccl-tests, doc/PERFORMANCE.md):

    all-reduce  2 (N − 1)/N · S      all-gather, reduce-scatter, all-to-all  (N − 1)/N · S
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.kernels import KernelKind
from harness.tracing.operands import Cost, Tensor, bytes_of

_KINDS: Mapping[str, KernelKind] = {
    "allreduce": KernelKind.ALL_REDUCE,
    "allgather": KernelKind.ALL_GATHER,
    "reducescatter": KernelKind.REDUCE_SCATTER,
    "alltoall": KernelKind.ALL_TO_ALL,
    "broadcast": KernelKind.OTHER,
}
_OPERATORS = ("c10d::", "nccl:", "gloo:", "mpi:", "ucc:")
_FUNCTIONAL = "_c10d_functional::"  # wrappers and waits around what c10d does


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one collective costs one rank."""

    cost: Cost
    link_bytes: int | None


def collective_kind(name: str) -> KernelKind | None:
    """The kind of a collective by the name of its event; None for anything else.

    >>> collective_kind("c10d::allreduce_"), collective_kind("gloo:all_gather"), collective_kind("aten::mm")
    (<KernelKind.ALL_REDUCE: 'all_reduce'>, <KernelKind.ALL_GATHER: 'all_gather'>, None)
    """
    prefix = next((prefix for prefix in _OPERATORS if name.startswith(prefix)), None)
    if prefix is None:
        return None
    plain = name.removeprefix(prefix).replace("_", "")
    return next((kind for word, kind in _KINDS.items() if plain.startswith(word)), None)


def is_plumbing(name: str) -> bool:
    """Whether an event hands over or waits for a collective without being one: its own time is a host gap."""
    return name.startswith((_FUNCTIONAL, "c10d::"))


def given_to(kind: KernelKind, operands: Sequence[Tensor]) -> Tensor | None:
    """A rank's own input among the operands, of which the result may be one: the smaller if parts are gathered."""
    if not operands:
        return None
    choose = min if kind is KernelKind.ALL_GATHER else max
    return choose(operands, key=lambda tensor: tensor.elements)


def cost_of_collective(kind: KernelKind, given: Tensor, ranks: int) -> Moved:
    """What a rank reads, writes, adds and sends in a collective that ``given`` (its own input) takes part in.

    Adding up is (N − 1)/N of the elements on each rank of a ring.
    """
    elements = given.elements
    whole = elements * ranks if kind is KernelKind.ALL_GATHER else elements
    written = whole // ranks if kind is KernelKind.REDUCE_SCATTER else whole
    adds = kind in {KernelKind.ALL_REDUCE, KernelKind.REDUCE_SCATTER}
    size_bytes = bytes_of(whole, given.dtype)
    return Moved(
        cost=Cost(
            kind=kind,
            shape={"elements": elements, "ranks": ranks},
            flop=elements * (ranks - 1) // ranks if adds else 0,
            read_bytes=given.size_bytes,
            write_bytes=bytes_of(written, given.dtype),
        ),
        link_bytes=None if size_bytes is None else sent_bytes(kind, size_bytes, ranks),
    )


def sent_bytes(kind: KernelKind, size_bytes: int, ranks: int) -> int:
    """Bytes each rank sends for a whole tensor of ``size_bytes``; the formulas are above.

    >>> sent_bytes(KernelKind.ALL_REDUCE, 1200, 3), sent_bytes(KernelKind.ALL_GATHER, 1200, 3)
    (1600, 800)
    """
    rounds = 2 if kind is KernelKind.ALL_REDUCE else 1
    return rounds * size_bytes * (ranks - 1) // ranks


def waits_s(durations_s: Sequence[Sequence[float]]) -> tuple[float, ...] | None:
    """What each rank waited for the last to arrive, over all launches of one kernel: [ranks][launches] → [ranks].

    A collective ends for all at about the same time, and the rank that came last is in it for the shortest: what
    the others are in it for longer they waited. None where the ranks do not count the same launches.
    """
    if not durations_s or len({len(each) for each in durations_s}) != 1:
        return None
    shortest_s = [min(launch) for launch in zip(*durations_s, strict=True)]
    return tuple(math.fsum(own) - math.fsum(shortest_s) for own in durations_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuCollectives:
    """The collectives of a CPU timeline: their events, each with the operator that called for it."""

    callers: Mapping[int, Any]  # id of the calling operator → the event of the work itself
    threads: frozenset[int]  # that only serve collectives: what else runs there is part of them

    def inside(self, event: Any) -> bool:
        """Whether an event is part of a collective, or the collective's own work."""
        return bool(self.threads) and event.thread in self.threads


def cpu_collectives(events: Iterable[Any]) -> CpuCollectives:
    """Find them in a list of ``torch.autograd.profiler_util.FunctionEvent``.

    Callers and works are paired by kind in the order of time; a caller without a work (it failed) stays without.
    """
    called: dict[KernelKind, list[Any]] = {}
    worked: dict[KernelKind, list[Any]] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        kind = collective_kind(event.name)
        if kind is not None:
            (called if event.name.startswith("c10d::") else worked).setdefault(kind, []).append(event)
    pairs = [pair for kind, callers in called.items() for pair in zip(callers, worked.get(kind, ()), strict=False)]
    own = {event.thread for callers in called.values() for event in callers}
    return CpuCollectives(
        callers={id(caller): work for caller, work in pairs},
        threads=frozenset(work.thread for works in worked.values() for work in works) - own,
    )
