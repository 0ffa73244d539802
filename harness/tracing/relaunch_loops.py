"""Loops over kept calls: over enough inputs to leave the cache cold, and through CUDA graphs without launch gaps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice

import torch

from harness.tracing.relaunch_inputs import KeptCall
from harness.units import gibibytes

_COLD = 2  # times the cache is what a round through all inputs must read
_MOST_INPUTS = 1024  # tiny inputs would need tens of thousands
_CHUNK_CALLS = 32  # at least, in one CUDA graph
_WARM_UP_ROUNDS = 3  # before a capture (pytorch.org/docs, notes on CUDA graphs)

Launcher = Callable[[], object]


class Launching(StrEnum):
    """How kernels are launched."""

    EAGER = "eager"
    CUDA_GRAPH = "cuda_graph"


class CacheState(StrEnum):
    """What of its inputs a kernel finds in the last cache before memory."""

    COLD = "cold"  # a round through all inputs reads more than twice what the cache holds
    HOT = "hot"  # the inputs of all launches fit into it
    ROTATED = "rotated"  # neither, or the size of the cache is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a kernel is run alone."""

    launching: Launching
    cache: CacheState
    inputs: int  # different ones that its launches take in turn: other layers' of the model, or copies
    working_set_bytes: int  # that a round through them reads
    notes: tuple[str, ...] = ()  # what was wanted and could not be had, with the reason; what runs beside the kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Some launches that are one for the host."""

    replay: Callable[[], None]
    calls: int


class Loop:
    """Makes calls in turn, as often as it is told."""

    def __init__(self, launchers: Sequence[Launcher], graph: Graph | None = None) -> None:
        self._launchers = tuple(launchers)
        self._graph = graph

    def run(self, calls: int) -> None:
        """Whole graphs, then what is left call by call."""
        if self._graph is not None:
            for _ in range(calls // self._graph.calls):
                self._graph.replay()
            calls %= self._graph.calls
        for launcher in islice(cycle(self._launchers), calls):
            launcher()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A kernel that can be launched at once."""

    loop: Loop
    how: How
    copies_bytes: int  # held beside what was recorded


def null_call(device: torch.device) -> KeptCall:
    """The emptiest kernel: one number in, one number out."""
    number = torch.ones(1, device=device)
    return KeptCall(torch.ops.aten.neg.default, (number,), {}, ())


def make_ready(
    calls: Sequence[KeptCall], *, traffic_bytes: int | None, cold: bool, graph: bool, spare_bytes: int
) -> Ready:
    """Make a loop over calls; on a GPU with copies until they exceed the cache, and as a CUDA graph, if wanted.

    ``traffic_bytes`` is what one launch moves, None if that is not known; copies take ``spare_bytes`` at most.
    """
    device = _device(calls)
    cache_bytes = _cache_bytes(device)
    notes = list(_beside(calls[0]))
    all_calls, copies_bytes = list(calls), 0
    if cold and cache_bytes is None:
        notes.append("cold inputs were wanted; the size of this device's cache is not known")
    elif cold:
        all_calls, copies_bytes, note = _colder(calls, traffic_bytes, cache_bytes or 0, spare_bytes)
        notes += note
    working_set_bytes = _working_set_bytes(all_calls, traffic_bytes)
    launchers = [call.launcher() for call in all_calls]
    captured = None
    if graph:
        captured, reason = _captured(launchers, device)
        notes += reason
    return Ready(
        loop=Loop(launchers, captured),
        how=How(
            launching=Launching.EAGER if captured is None else Launching.CUDA_GRAPH,
            cache=cache_state(working_set_bytes, cache_bytes),
            inputs=len(all_calls),
            working_set_bytes=working_set_bytes,
            notes=tuple(notes),
        ),
        copies_bytes=copies_bytes,
    )


def cache_state(working_set_bytes: int, cache_bytes: int | None) -> CacheState:
    """Whether inputs are found in a cache of this size when their turn comes again.

    >>> cache_state(101, 50), cache_state(50, 50), cache_state(60, 50), cache_state(10**12, None)  # doctest: +ELLIPSIS
    (<CacheState.COLD: 'cold'>, <CacheState.HOT: 'hot'>, <CacheState.ROTATED: 'rotated'>, <CacheState.ROTATED: ...>)
    """
    if cache_bytes is None or cache_bytes < working_set_bytes <= _COLD * cache_bytes:
        return CacheState.ROTATED
    return CacheState.HOT if working_set_bytes <= cache_bytes else CacheState.COLD


def _beside(call: KeptCall) -> list[str]:
    every = call.refill_calls
    return [] if every is None else [f"what {call.op} writes to is copied back every {every} launches"]


def _working_set_bytes(calls: Sequence[KeptCall], traffic_bytes: int | None) -> int:
    """Bytes of different inputs; of a table of which a launch reads a few rows, what it reads."""
    seen: set[tuple[object, ...]] = set()
    shown = [call.shown_bytes(seen) for call in calls]
    return sum(size if traffic_bytes is None else min(size, traffic_bytes) for size in shown)


def _colder(
    calls: Sequence[KeptCall], traffic_bytes: int | None, cache_bytes: int, spare_bytes: int
) -> tuple[list[KeptCall], int, list[str]]:
    """Calls, the bytes of those that are copies, and what stood in the way."""
    target_bytes = _COLD * cache_bytes + 1
    each_bytes = max(1, _working_set_bytes(calls[:1], traffic_bytes))
    missing = math.ceil((target_bytes - _working_set_bytes(calls, traffic_bytes)) / each_bytes)
    whole_bytes = max(1, calls[0].shown_bytes(set()))
    affordable = min(spare_bytes // whole_bytes, _MOST_INPUTS - len(calls))
    copies = [calls[place % len(calls)].copied() for place in range(min(missing, affordable))]
    notes = []
    if affordable < missing:
        notes.append(
            f"cold inputs were wanted; {missing} copies of {whole_bytes} bytes are more than {_MOST_INPUTS} inputs or "
            f"the {gibibytes(spare_bytes)} that are left for copies"
        )
    return [*calls, *copies], len(copies) * whole_bytes, notes


def _device(calls: Sequence[KeptCall]) -> torch.device | None:
    """Where the calls run; None where that is not one device."""
    devices = {tensor.device for call in calls for tensor in call.tensors() if tensor.dim() > 0}
    return devices.pop() if len(devices) == 1 else None


def _cache_bytes(device: torch.device | None) -> int | None:
    if device is None or device.type != "cuda":
        return None
    return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", None) or None


def _captured(launchers: Sequence[Launcher], device: torch.device | None) -> tuple[Graph | None, list[str]]:
    """A CUDA graph of some rounds through all launchers; or why there is none."""
    if device is None or device.type != "cuda":
        return None, ["a CUDA graph was wanted; the inputs are not on one GPU"]
    rounds = math.ceil(_CHUNK_CALLS / len(launchers))
    try:
        graph = _capture(list(launchers) * rounds, launchers, device)
    except RuntimeError as problem:  # an operator that waits for the device, say
        torch.cuda.synchronize(device)
        first_line = str(problem).partition("\n")[0]
        return None, [f"a CUDA graph was wanted; capturing it failed: {first_line}"]
    return Graph(replay=graph.replay, calls=rounds * len(launchers)), []


def _capture(chunk: Sequence[Launcher], warm_up: Sequence[Launcher], device: torch.device) -> torch.cuda.CUDAGraph:
    """Warm up on a side stream, then capture ``chunk``, which begins with scratch copies filled again."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for launcher in [*warm_up] * _WARM_UP_ROUNDS:
                launcher()
        torch.cuda.current_stream().wait_stream(side)
        for launcher in warm_up:
            getattr(launcher, "restart", lambda: None)()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for launcher in chunk:
                launcher()
    return graph
