"""Which requests a plan asks for.

Few requests should cover a long-tailed joint distribution of prompt and output lengths, and still give unbiased
estimates of what the trace as a whole would need. Both follow from stratified sampling with one draw per stratum:

1. *Tails first.* The requests of the trace are divided into up to five groups: prompt at or above p90, output at or
   above p90, prompt at or below p10, output at or below p10, and the rest. From five samples on each tail holds a
   whole group, so every seed draws at least one request from each tail: a certainty, not a probability.
2. *Strata.* Each group gets samples in proportion to its share of the trace, tails twice that, and is cut into as many
   strata, always along the length that varies by the greater factor, so that strata are compact in both lengths.
3. *One draw each*, with the probability the pair of lengths has within its stratum. Strata share no pair, so no
   request is drawn twice.

With p_s the share of the trace in stratum s, E[sum of p_s x_s] is exactly the mean of x over the trace. The
``sampling_weight`` of a sample is samples × p_s, so (1/samples) × sum of weight × x is unbiased (W. G. Cochran,
"Sampling Techniques", 3rd ed., 1977, theorem 5.1), and the weights sum to the number of samples.

All randomness comes from ``random.Random(seed).random()``, the one sequence that Python promises to keep from version
to version, so the same plan gives the same requests everywhere.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from harness.campaign.fields import RequestSpec
from harness.campaign.plan import Plan
from harness.campaign.traces import LengthPair, Trace, load_trace
from harness.errors import UsageError

TAIL_BOOST = 2  # samples of a tail, relative to its share of the trace
FEWEST_SAMPLES_FOR_TAILS = 5  # four tails and the rest

_T = TypeVar("_T")
_Pairs = tuple[LengthPair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRequest:
    """A request of the plan, for whatever models and deployments the plan names."""

    batch_size: int
    prompt_tokens: int
    output_tokens: int
    sampling_weight: float | None  # how many average samples it stands for; None: not sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """A part of the trace of which one request is drawn."""

    pairs: _Pairs

    @property
    def requests(self) -> int:
        """Requests of the trace in this stratum."""
        return _requests(self.pairs)

    def draw(self, rng: random.Random) -> LengthPair:
        """Draw a pair of lengths with its probability in the stratum."""
        left = int(rng.random() * self.requests)
        for pair in self.pairs:
            left -= pair.requests
            if left < 0:
                return pair
        raise AssertionError("random() is below 1, so the draw is below the number of requests")


def sample_requests(plan: Plan, trace: Trace | None = None) -> tuple[WantedRequest, ...]:
    """The requests of a plan, in the order they are to be made; raises ``UsageError``.

    Sampled requests and grids come in random order, so that slow drifts of the machine do not look like an effect of
    the lengths; a list keeps its order. Of focused sampling these are the held-out requests, sampled like any others:
    what is chosen after them is in ``harness.campaign.focused``. ``trace`` is loaded by the plan's name for it where it
    is not given.
    """
    rng = random.Random(plan.seed)  # noqa: S311 — reproducible on purpose
    if plan.sampling == "list":
        return tuple(_wanted(spec.batch_size, spec.prompt_tokens, spec.output_tokens) for spec in plan.requests)
    if plan.sampling == "grid":
        return _shuffled(
            [_wanted(*sizes) for sizes in product(plan.batch_sizes, plan.prompt_tokens, plan.output_tokens)], rng
        )
    samples = plan.held_out_samples if plan.sampling == "focused" else plan.samples
    sampled = _sampled(stratify(trace or load_trace(plan.trace), samples), plan.batch_sizes, rng)
    if plan.held_out and tuple(map(spec_of, sampled)) != plan.held_out:  # somebody else's choice, with weights unknown
        return tuple(_wanted(spec.batch_size, spec.prompt_tokens, spec.output_tokens) for spec in plan.held_out)
    return sampled


def with_held_out(plan: Plan) -> Plan:
    """The plan with its held-out requests written into it, and so into its identity; others stay as they are.

    Raises ``UsageError`` for a trace that cannot be read or is too small.
    """
    if plan.sampling != "focused" or plan.held_out:
        return plan
    return replace(plan, held_out=tuple(map(spec_of, sample_requests(plan))))


def spec_of(wanted: WantedRequest) -> RequestSpec:
    """The request as a plan names it."""
    return RequestSpec(
        batch_size=wanted.batch_size, prompt_tokens=wanted.prompt_tokens, output_tokens=wanted.output_tokens
    )


def stratify(trace: Trace, samples: int) -> tuple[Stratum, ...]:
    """Divide a trace into as many strata as there are samples; raises ``UsageError`` if it has too few pairs."""
    if samples > len(trace.pairs):
        raise UsageError(
            f"{samples} different requests cannot be sampled from {trace.name}: it has {len(trace.pairs)} different "
            f"pairs of lengths.\nAsk for at most {len(trace.pairs)} samples."
        )
    groups = _groups(trace.pairs) if samples >= FEWEST_SAMPLES_FOR_TAILS else [(trace.pairs, 1)]
    shares = [_requests(pairs) * boost for pairs, boost in groups]
    counts = _allocate(shares, [len(pairs) for pairs, _ in groups], samples)
    return tuple(
        Stratum(pairs=part) for (pairs, _), count in zip(groups, counts, strict=True) for part in _cut(pairs, count)
    )


def _sampled(strata: Sequence[Stratum], batch_sizes: Sequence[int], rng: random.Random) -> tuple[WantedRequest, ...]:
    """Draw from each stratum. Each run of as many neighbouring strata as there are batch sizes gets all of them."""
    total = sum(stratum.requests for stratum in strata)
    batches: list[int] = []
    while len(batches) < len(strata):
        batches += _shuffled(batch_sizes, rng)
    wanted = []
    for stratum, batch in zip(strata, batches, strict=False):
        pair = stratum.draw(rng)
        weight = len(strata) * stratum.requests / total
        wanted.append(_wanted(batch, pair.prompt_tokens, pair.output_tokens, weight))
    return _shuffled(wanted, rng)


def _groups(pairs: _Pairs) -> list[tuple[_Pairs, int]]:
    """Disjoint groups with their boosts, such that each tail contains at least one whole group."""
    groups: list[frozenset[LengthPair]] = []
    for tail in _tails(pairs):
        if any(group <= tail for group in groups):
            continue
        rest = tail.difference(*groups)
        if rest:
            groups.append(rest)
        else:  # covered by earlier groups, none of which lies inside: split one, its halves stay inside its own tail
            split = next(group for group in groups if group & tail)
            groups[groups.index(split)] = split & tail
            groups.append(split - tail)
    middle = frozenset(pairs).difference(*groups)
    boosted = [(group, TAIL_BOOST) for group in groups] + ([(middle, 1)] if middle else [])
    return [(tuple(pair for pair in pairs if pair in group), boost) for group, boost in boosted]


def _tails(pairs: _Pairs) -> list[frozenset[LengthPair]]:
    """Prompt and output at or above p90, prompt and output at or below p10; the stricter of the usual quantiles."""
    high, low = [], []
    for length in (_prompt, _output):
        top, bottom = _tenth(pairs, length, descending=True), _tenth(pairs, length, descending=False)
        high.append(frozenset(pair for pair in pairs if length(pair) >= top))
        low.append(frozenset(pair for pair in pairs if length(pair) <= bottom))
    return high + low


def _tenth(pairs: _Pairs, length: Callable[[LengthPair], int], *, descending: bool) -> int:
    """The length of the last request within the first tenth, counted from one end; at least one request."""
    left = max(1, -(-_requests(pairs) // 10))
    for pair in sorted(pairs, key=length, reverse=descending):
        left -= pair.requests
        if left <= 0:
            return length(pair)
    raise AssertionError("a tenth of the requests is less than all of them")


def _allocate(shares: Sequence[int], capacities: Sequence[int], samples: int) -> list[int]:
    """Samples per group: at least one each, then in proportion (Webster's method), at most one per pair."""
    counts = [1] * len(shares)
    for _ in range(samples - len(shares)):
        open_groups = [i for i, count in enumerate(counts) if count < capacities[i]]
        counts[max(open_groups, key=lambda i: shares[i] / (2 * counts[i] + 1))] += 1
    return counts


def _cut(pairs: _Pairs, count: int) -> list[_Pairs]:
    """Cut pairs into ``count`` parts with about equal numbers of requests, each with at least one pair."""
    if count == 1:
        return [pairs]
    length, other = (_prompt, _output) if _factor(pairs, _prompt) >= _factor(pairs, _output) else (_output, _prompt)
    ordered = sorted(pairs, key=lambda pair: (length(pair), other(pair)))
    first = count // 2
    wanted = _requests(pairs) * first / count
    cut, below = 0, 0
    while cut < first or (below + ordered[cut].requests / 2 < wanted and cut < len(ordered) - (count - first)):
        below += ordered[cut].requests
        cut += 1
    return _cut(tuple(ordered[:cut]), first) + _cut(tuple(ordered[cut:]), count - first)


def _factor(pairs: _Pairs, length: Callable[[LengthPair], int]) -> float:
    lengths = [length(pair) for pair in pairs]
    return max(lengths) / min(lengths)


def _requests(pairs: _Pairs) -> int:
    return sum(pair.requests for pair in pairs)


def _prompt(pair: LengthPair) -> int:
    return pair.prompt_tokens


def _output(pair: LengthPair) -> int:
    return pair.output_tokens


def _wanted(batch: int, prompt: int, output: int, weight: float | None = None) -> WantedRequest:
    return WantedRequest(batch_size=batch, prompt_tokens=prompt, output_tokens=output, sampling_weight=weight)


def _shuffled(items: Sequence[_T], rng: random.Random) -> tuple[_T, ...]:
    """Fisher and Yates' shuffle; ``random.shuffle`` may change from one Python version to the next."""
    shuffled = list(items)
    for last in range(len(shuffled) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    return tuple(shuffled)
