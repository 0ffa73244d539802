"""Sums over a placed graph, in words: the same for the terminal and the page."""

from dataclasses import dataclass

from harness.kernels import KernelKind
from harness.report.text import NOTHING, count, percent, plural
from harness.tracing.graph import GraphKernel
from harness.tracing.placement import PlacedGraph, Side
from harness.units import si

SHORT_S = 2e-6  # launches below this are mentioned: about what the shortest kernels take on current GPUs
_NEXT_TO_NOTHING = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """One figure of the whole pass on this rank."""

    title: str
    value: str
    note: str


def totals(placed: PlacedGraph) -> tuple[Total, ...]:
    """Time, what bounds it, FLOP, traffic, links, launches."""
    graph = placed.graph
    sequences = f"{graph.batch_size} × {plural(graph.query_tokens, 'token')}"
    found = [
        Total(title="Roofline time", value=si(placed.time_s, "s"), note=f"at least, for {sequences}; not measured"),
        Total(title="Bound by", value=str(placed.side), note=sides_text(placed)),
        Total(title="FLOP", value=si(graph.flop, "FLOP"), note=_rate_text(placed)),
        Total(
            title="Memory traffic",
            value=si(graph.traffic_bytes, "B"),
            note=f"{si(graph.weight_bytes, 'B')} of it weights",
        ),
    ]
    if graph.link_bytes:
        note = f"sent by each of {graph.tensor_parallel} ranks"
        found.append(Total(title="Link traffic", value=si(graph.link_bytes, "B"), note=note))
    found.append(Total(title="Launches", value=count(graph.launches), note=_launch_text(placed)))
    return tuple(found)


def sides_text(placed: PlacedGraph) -> str:
    """How the time divides: memory 60 %, compute 40 %."""
    shares = {side: placed.share_of(side) for side in Side}
    parts = sorted((side for side in Side if shares[side]), key=lambda side: -shares[side])
    return ", ".join(f"{side} {percent(shares[side])}" for side in parts)


def _rate_text(placed: PlacedGraph) -> str:
    return f"{si(placed.graph.flop / placed.time_s, 'FLOP/s')} at best" if placed.time_s else "no time"


def _launch_text(placed: PlacedGraph) -> str:
    short = sum(kernel.kernel.launches for kernel in placed.kernels if kernel.launch_s < SHORT_S)
    return f"of {plural(len(placed.kernels), 'kernel')}; {count(short)} below {si(SHORT_S, 's')} each at the Roofline"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindShare:
    """A kind of kernel that occurs, and its part of the time."""

    name: str
    share: str


def kind_shares(placed: PlacedGraph) -> tuple[KindShare, ...]:
    """All kinds that occur, the largest share first."""
    shares = {
        kind: sum(kernel.share for kernel in placed.kernels if kernel.kernel.kind is kind)
        for kind in KernelKind
        if placed.graph.of_kind(kind)
    }
    ranked = sorted(shares, key=lambda kind: -shares[kind])
    return tuple(KindShare(name=str(kind), share=share_text(shares[kind])) for kind in ranked)


def share_text(share: float) -> str:
    """A share of the time; what is next to nothing is said to be.

    >>> share_text(0.23), share_text(0.00002), share_text(0.0)
    ('23 %', '< 0.1 %', '0 %')
    """
    return "< 0.1 %" if 0 < share < _NEXT_TO_NOTHING else percent(share)


def intensity_text(kernel: GraphKernel) -> str:
    """FLOP per byte; a dash where a kernel moves nothing.

    >>> kernel = GraphKernel(kind=KernelKind.OTHER, op="a", module=None, dtype="bfloat16", shape="{}", launches=1,
    ...     flop=4096, read_bytes=2, write_bytes=1, weight_bytes=0, link_bytes=0)
    >>> intensity_text(kernel)
    '1365'
    """
    intensity = kernel.arithmetic_intensity
    if intensity is None:
        return NOTHING
    return f"{intensity:.0f}" if intensity >= 100 else f"{intensity:.3g}"


def amount(value: int, unit: str) -> str:
    """A count with its unit; nothing is 0.

    >>> amount(37_580_963_840, "FLOP"), amount(0, "B")
    ('37.6 GFLOP', '0')
    """
    return si(value, unit) if value else "0"
