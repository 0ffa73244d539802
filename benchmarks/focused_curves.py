"""Error over the number of measured runs, for each way of choosing them: what ``benchmarks.focused_study`` compares."""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from benchmarks.focused_cells import Cell, Population
from harness.campaign.fields import RequestSpec
from harness.campaign.focused_choice import Pool, choose
from harness.campaign.sampling import stratify
from harness.campaign.traces import LengthPair, Trace
from predictor.focus_model import Floats, FocusModel, Sizes, sizes_of

STEP = 2  # runs of a round
MOST = 40  # runs
COUNTS = tuple(range(STEP, MOST + 1, STEP))
_HELD_OUT = 200  # requests, and at most a third of those there are
_POOL = 200  # drawn from the trace in each round, as in a campaign


class Way(StrEnum):
    """How requests are chosen."""

    RANDOM = "random from the trace"
    STRATIFIED = "--sampling trace (stratified)"
    UNIFORM = "uniform lengths"
    FOCUSED = "--sampling focused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Errors on the held-out requests after each of ``COUNTS`` runs; each [len(COUNTS)], relative."""

    median: Floats
    mean: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """Requests to score on, and those that may be measured; no lengths are in both."""

    held_sizes: Sizes
    held_log_energies: Floats
    held_weights: Floats
    trace: Population
    uniform: Population


def errors(cell: Cell, way: Way, seed: int) -> Errors:
    """One campaign: the held-out requests follow from the seed alone, so all ways are scored on the same."""
    split = _split(cell, np.random.default_rng(seed))
    rng = np.random.default_rng((seed, zlib.crc32(f"{way} {cell.name} {cell.phase}".encode())))
    runs = _RUNS[way](split, rng)
    scored = [_score(split, *runs(count)) for count in COUNTS]
    return Errors(median=np.array([each[0] for each in scored]), mean=np.array([each[1] for each in scored]))


_Runs = Callable[[int], tuple[Sequence[RequestSpec], Floats]]  # the first so many runs, with their log energies


def _split(cell: Cell, rng: np.random.Generator) -> _Split:
    trace = cell.trace
    shares = trace.repeats() / trace.repeats().sum()
    held = rng.choice(len(shares), min(_HELD_OUT, len(shares) // 3), replace=False, p=shares)
    lengths = {(trace.requests[place].prompt_tokens, trace.requests[place].output_tokens) for place in held}
    return _Split(
        held_sizes=_sizes([trace.requests[place] for place in held]),
        held_log_energies=np.array([np.median(trace.log_energies[place]) for place in held]),
        held_weights=trace.repeats()[held],
        trace=_without(trace, lengths),
        uniform=_without(cell.uniform, lengths),
    )


def _without(population: Population, lengths: set[tuple[int, int]]) -> Population:
    kept = [
        place
        for place, request in enumerate(population.requests)
        if (request.prompt_tokens, request.output_tokens) not in lengths
    ]
    return Population(
        requests=tuple(population.requests[place] for place in kept),
        log_energies=tuple(population.log_energies[place] for place in kept),
    )


def _score(split: _Split, requests: Sequence[RequestSpec], log_energies: Floats) -> tuple[float, float]:
    """Median and mean error, each held-out request counting as often as the trace asks for it."""
    predicted = FocusModel(_sizes(requests), log_energies).predict(split.held_sizes)
    error = np.abs(np.expm1(predicted.mean - split.held_log_energies))
    order = np.argsort(error)
    share = np.cumsum(split.held_weights[order]) / split.held_weights.sum()
    return float(error[order][np.searchsorted(share, 0.5)]), float(np.average(error, weights=split.held_weights))


def _drawn(population: Population, rng: np.random.Generator) -> _Runs:
    """Measured values in random order: a request that was measured often comes often."""
    values = [(place, value) for place, all_of in enumerate(population.log_energies) for value in all_of]
    order = rng.permutation(len(values))[:MOST]
    requests = [population.requests[values[place][0]] for place in order]
    log_energies = np.array([values[place][1] for place in order])
    return lambda count: (requests[:count], log_energies[:count])


def _stratified(population: Population, rng: np.random.Generator) -> _Runs:
    """For each count the harness's own sample of a trace, drawn anew."""
    places = {(each.prompt_tokens, each.output_tokens): place for place, each in enumerate(population.requests)}
    repeats: dict[tuple[int, int], int] = {}
    for request, values in zip(population.requests, population.log_energies, strict=True):
        key = (request.prompt_tokens, request.output_tokens)
        repeats[key] = repeats.get(key, 0) + len(values)
    trace = Trace(
        name="measured",
        pairs=tuple(LengthPair(prompt_tokens=p, output_tokens=o, requests=n) for (p, o), n in sorted(repeats.items())),
    )

    def runs(count: int) -> tuple[Sequence[RequestSpec], Floats]:
        dice = random.Random(int(rng.integers(2**32)))  # noqa: S311  a simulation
        pairs = [stratum.draw(dice) for stratum in stratify(trace, count)]
        chosen = [places[pair.prompt_tokens, pair.output_tokens] for pair in pairs]
        return [population.requests[place] for place in chosen], _once(population, chosen, rng)

    return runs


def _focused(population: Population, rng: np.random.Generator) -> _Runs:
    """As ``harness.campaign.focused``: refit, score what is drawn from the trace, choose, measure."""
    shares = population.repeats() / population.repeats().sum()
    chosen: list[int] = []
    log_energies = np.zeros(0)

    def runs(count: int) -> tuple[Sequence[RequestSpec], Floats]:
        nonlocal log_energies
        while len(chosen) < count:
            model = FocusModel(_sizes([population.requests[place] for place in chosen]), log_energies)
            drawn, times = np.unique(rng.choice(len(shares), _POOL, p=shares), return_counts=True)
            requests = [population.requests[place] for place in drawn]
            pool = Pool(
                sizes=np.array([(each.batch_size, each.prompt_tokens, each.output_tokens) for each in requests], float),
                uncertainty=model.predict(_sizes(requests)).sd,
                weight=times.astype(np.float64),
                eligible=~np.isin(drawn, chosen),
            )
            new = [int(drawn[place]) for place in choose(pool, STEP)]
            chosen.extend(new)
            log_energies = np.concatenate([log_energies, _once(population, new, rng)])
        return [population.requests[place] for place in chosen], log_energies

    return runs


def _once(population: Population, places: Sequence[int], rng: np.random.Generator) -> Floats:
    """What one measurement of each said."""
    return np.array([rng.choice(population.log_energies[place]) for place in places])


def _sizes(requests: Sequence[RequestSpec]) -> Sizes:
    return sizes_of([(each.batch_size, each.prompt_tokens, each.output_tokens) for each in requests])


_RUNS: dict[Way, Callable[[_Split, np.random.Generator], _Runs]] = {
    Way.RANDOM: lambda split, rng: _drawn(split.trace, rng),
    Way.STRATIFIED: lambda split, rng: _stratified(split.trace, rng),
    Way.UNIFORM: lambda split, rng: _drawn(split.uniform, rng),
    Way.FOCUSED: lambda split, rng: _focused(split.trace, rng),
}
