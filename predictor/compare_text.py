"""A comparison for terminals and programs."""

import json
from collections.abc import Iterator, Mapping, Sequence

from harness.units import duration, si
from predictor.answers import GRAMS, PREDICTED, Scalar, request_values, values
from predictor.compare import Candidate, Comparison
from predictor.compare_axes import Bounds
from predictor.predict_text import aligned, printable

TITLES: Mapping[str, str] = {
    "model": "model",
    "gpu": "GPU",
    "n_gpus": "GPUs",
    "batch_size": "batch",
    "prompt_tokens": "prompt",
    "output_tokens": "output",
    "dtype": "dtype",
    "runtime": "runtime",
}
RULES = (
    "Rank: by joules per output token of the batch, those within the bounds first.",
    "=: a tie, within the 90 % interval of the cheapest of it. front: nothing else within the bounds has both less "
    "energy per token and less time.",
    "?: unlike anything that was learned from. !: answered with a warning.",
)
_MOST_REFUSALS = 8


def comparison_text(comparison: Comparison, *, top: int) -> str:
    """Heading, the first ``top`` (0: all) in order of rank, and what was refused."""
    shown = comparison.candidates[: top or None]
    lines = [*_heading(comparison), "", *aligned(_rows(comparison, shown), left=1 + len(comparison.axes)), ""]
    rest = len(comparison.candidates) - len(shown)
    if rest:
        lines.append(f"{rest:,} more; --top 0 shows all")
    return "".join(f"{line}\n" for line in (*lines, *RULES, *_refusals(comparison)))


def _heading(comparison: Comparison) -> Iterator[str]:
    yield printable(shared_text(comparison))
    meeting = sum(one.meets for one in comparison.candidates)
    bounds = bounds_text(comparison.bounds)
    within = f"{meeting:,} within the bounds ({bounds})" if bounds else "no latency bound"
    yield f"{len(comparison.candidates):,} deployments answered, {within}"
    if not meeting:
        yield "None meets the bounds: the least energy is listed all the same."


def shared_text(comparison: Comparison) -> str:
    """What all deployments have alike."""
    return ", ".join(f"{TITLES[name]} {value}" for name, value in comparison.shared.items())


def bounds_text(bounds: Bounds) -> str:
    """The bounds in words; empty where there are none.

    >>> bounds_text(Bounds(ttft_s=0.5, time_s=30))
    'first token 500 ms, request 30 s'
    """
    named = {
        "first token": bounds.ttft_s,
        "each further token": bounds.tpot_s,
        "request": bounds.time_s,
    }
    stated = [f"{name} {duration(seconds)}" for name, seconds in named.items() if seconds is not None]
    return ", ".join(stated)


def varied(comparison: Comparison, candidate: Candidate) -> tuple[str, ...]:
    """What tells a candidate from the others, in the order of the axes."""
    known = request_values(candidate.request)
    return tuple(printable(str(known[axis.column])) for axis in comparison.axes)


def _rows(comparison: Comparison, shown: Sequence[Candidate]) -> list[list[str]]:
    titles = ["rank", *(TITLES[axis.column] for axis in comparison.axes)]
    titles += ["J/token", "90 % interval", "first token", "per token", "request", ""]
    return [titles] + [[rank_text(one), *varied(comparison, one), *_figures(one)] for one in shown]


def rank_text(one: Candidate) -> str:
    """The rank, and = for a tie."""
    return f"{one.rank}=" if one.tied else str(one.rank)


def _figures(one: Candidate) -> list[str]:
    interval = one.energy_per_token_interval_j
    return [
        si(one.energy_per_token_j, "J"),
        f"{si(interval.low, 'J')} – {si(interval.high, 'J')}",
        duration(one.ttft_s),
        "–" if one.tpot_s is None else duration(one.tpot_s),
        duration(one.time_s),
        marks(one),
    ]


def marks(one: Candidate) -> str:
    """What else is to be said of a candidate."""
    said = (
        ("front", one.on_front),
        ("too slow", not one.meets),
        ("?", not one.prediction.in_distribution),
        ("!", bool(one.answer.warnings)),
    )
    return " ".join(word for word, holds in said if holds)


def _refusals(comparison: Comparison) -> Iterator[str]:
    total = sum(one.times for one in comparison.refused)
    if not total:
        return
    yield f"{total:,} deployments have no answer:"
    for one in comparison.refused[:_MOST_REFUSALS]:
        yield printable(f"  {one.times:,} × {one.reason} (first: {one.first})")
    if len(comparison.refused) > _MOST_REFUSALS:
        yield f"  and {len(comparison.refused) - _MOST_REFUSALS:,} other reasons"


def comparison_json(comparison: Comparison) -> str:
    """All candidates in order of rank, and what was refused."""
    content = {
        "predictor": comparison.predictor,
        "bounds": {
            "ttft_s": comparison.bounds.ttft_s,
            "tpot_s": comparison.bounds.tpot_s,
            "time_s": comparison.bounds.time_s,
        },
        "deployments": [dict(candidate_values(one)) for one in comparison.candidates],
        "refused": [{"reason": one.reason, "times": one.times, "first": one.first} for one in comparison.refused],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def candidate_values(one: Candidate) -> Mapping[str, Scalar]:
    """A candidate as the columns of a table."""
    interval = one.energy_per_token_interval_j
    return {
        "rank": one.rank,
        "tied": one.tied,
        "meets_bounds": one.meets,
        "on_front": one.on_front,
        **request_values(one.request),
        "energy_per_output_token_j": one.energy_per_token_j,
        "energy_per_output_token_low_j": interval.low,
        "energy_per_output_token_high_j": interval.high,
        "ttft_s": one.ttft_s,
        "tpot_s": one.tpot_s,
        **values(one.answer, PREDICTED),
        **(values(one.answer, GRAMS) if one.answer.factors is not None else {}),
    }
