"""Counts of a whole decode, integrated over its growing context.

A step's FLOP and bytes are linear in its context as long as nothing else changes (a sliding window fills up, a cache
is cut to chunks). So a stretch of contexts is halved until the middle lies on the line through its ends; then the
sum over the stretch is that of an arithmetic series. The last step times the number of steps would be too much, by
half of what the cache adds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from harness.kernels import Phase
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph

_STRAIGHT = 1e-6  # relative: counts are exact, what is left is rounding of expected experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts of one rank over some forward passes."""

    passes: int
    flop: float
    traffic_bytes: float
    weight_bytes: float
    link_bytes: float
    launches: float


def request_totals(capture: GraphCapture, *, batch_size: int, prompt_tokens: int, output_tokens: int) -> Totals:
    """Counts of a whole request: the prefill, which gives the first token, and ``output_tokens − 1`` decode steps."""
    prefill = _counts(capture.capture(Phase.PREFILL, batch_size=batch_size, tokens=prompt_tokens))
    steps = max(0, output_tokens - 1)
    decode = decode_totals(capture, batch_size=batch_size, first=prompt_tokens, steps=steps)
    summed = (one + other for one, other in zip(prefill, _values(decode), strict=True))
    return _totals(1 + steps, tuple(summed))


def decode_totals(capture: GraphCapture, *, batch_size: int, first: int, steps: int) -> Totals:
    """Counts of ``steps`` decode steps, the first of which finds ``first`` tokens in the cache."""

    @cache
    def step(context: int) -> tuple[float, ...]:
        return _counts(capture.capture(Phase.DECODE, batch_size=batch_size, tokens=context))

    return _totals(steps, over_contexts(step, first, first + steps - 1) if steps else (0.0,) * 5)


def over_contexts(step: Callable[[int], Sequence[float]], first: int, last: int) -> tuple[float, ...]:
    """Σ of ``step(context)`` over the contexts ``first … last``, for counts that are linear in stretches.

    >>> over_contexts(lambda context: [context], 1, 100)
    (5050.0,)
    """
    low, high = step(first), step(last)
    middle_at = (first + last) // 2
    count = last - first + 1
    if count > 2:
        middle = step(middle_at)
        share = (middle_at - first) / (last - first)
        if not all(
            abs(value - (start + share * (end - start))) <= _STRAIGHT * max(abs(start), abs(end), 1.0)
            for value, start, end in zip(middle, low, high, strict=True)
        ):
            left = over_contexts(step, first, middle_at)
            right = over_contexts(step, middle_at + 1, last)
            return tuple(one + other for one, other in zip(left, right, strict=True))
    if count == 1:
        return tuple(map(float, low))
    return tuple(count * (start + end) / 2 for start, end in zip(low, high, strict=True))


def _counts(graph: KernelGraph) -> tuple[float, ...]:
    return (graph.flop, graph.traffic_bytes, graph.weight_bytes, graph.link_bytes, graph.launches)


def _values(totals: Totals) -> tuple[float, ...]:
    return (totals.flop, totals.traffic_bytes, totals.weight_bytes, totals.link_bytes, totals.launches)


def _totals(passes: int, counts: tuple[float, ...]) -> Totals:
    flop, traffic_bytes, weight_bytes, link_bytes, launches = counts
    return Totals(
        passes=passes,
        flop=flop,
        traffic_bytes=traffic_bytes,
        weight_bytes=weight_bytes,
        link_bytes=link_bytes,
        launches=launches,
    )
