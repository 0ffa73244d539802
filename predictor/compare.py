"""Which deployment costs least energy under a latency bound: all combinations predicted, ranked, and their front.

Rank is by joules per output token, those within the bounds before those beyond. Two neighbours are a tie where the
dearer lies within the 90 % interval of the cheapest of the tie: the predictor cannot tell them apart. Pareto front:
no other within the bounds has less energy per token and as little time for the request, or the other way round.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from harness.errors import UsageError
from predictor.answers import Answer, Carbon, answers, request_values
from predictor.checks import kind_of, one_line
from predictor.compare_axes import Axis, Bounds
from predictor.requests import Interval, Prediction, PredictionRequest, Predictor
from predictor.table_columns import COLUMNS, Cell, flag_of
from predictor.table_rows import RequestReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A deployment with an answer, and its place among the others."""

    request: PredictionRequest
    prediction: Prediction
    answer: Answer
    meets: bool  # all bounds
    rank: int = 0  # from 1; all of a tie have that of its cheapest
    tied: bool = False
    on_front: bool = False

    @property
    def output_tokens(self) -> int:
        """Of the batch."""
        return self.request.batch_size * self.request.output_tokens

    @property
    def energy_per_token_j(self) -> float:
        """Per output token."""
        return self.prediction.whole.energy_j / self.output_tokens

    @property
    def energy_per_token_interval_j(self) -> Interval:
        """Its 90 % interval."""
        interval = self.prediction.whole.energy_interval_j
        return Interval(low=interval.low / self.output_tokens, high=interval.high / self.output_tokens)

    @property
    def time_s(self) -> float:
        """Of the whole request."""
        return self.prediction.whole.duration_s

    @property
    def ttft_s(self) -> float:
        """To the first token, which the prefill yields."""
        return self.prediction.prefill.duration_s

    @property
    def tpot_s(self) -> float | None:
        """Per output token after the first; None where there is none."""
        steps = self.request.output_tokens - 1
        return self.prediction.decode.duration_s / steps if steps > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Deployments without an answer for one reason."""

    reason: str
    times: int
    first: str  # of them, by what varies


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All deployments, ranked."""

    axes: tuple[Axis, ...]
    bounds: Bounds
    predictor: str
    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]

    @property
    def shared(self) -> Mapping[str, str]:
        """What was not varied and all candidates have alike, by the names of columns."""
        varied = {axis.column for axis in self.axes}
        kept = ("model", "gpu", "n_gpus", "batch_size", "prompt_tokens", "output_tokens", "dtype", "runtime")
        all_values = [request_values(one.request) for one in self.candidates]
        return {
            name: str(all_values[0][name])
            for name in kept
            if name not in varied and len({values[name] for values in all_values}) == 1
        }


def compare(
    axes: Sequence[Axis],
    *,
    stated: Mapping[str, Cell],
    hardware: Path | None,
    bounds: Bounds,
    carbon: Carbon | None,
    load: Callable[[], Predictor],
) -> Comparison:
    """Predict and rank all combinations. ``load`` gives the predictor, once the requests have been understood.

    Raises ``UsageError`` where something is missing, a value is not known, or no deployment has an answer.
    """
    _check_complete(axes, stated)
    names = [axis.column for axis in axes]
    rows = list(product(*(axis.values for axis in axes)))
    reader = RequestReader(names, stated=stated, hardware=hardware)
    _check_values(axes, reader)
    cells = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    asked = list(reader.read(cells, len(rows)))
    if any(row.request is not None and row.request.output_tokens == 0 for row in asked):
        raise UsageError("A comparison is by joules per output token, and here is no output.\nGive 1 token or more.")
    predictor = load()
    found = answers(asked, predictor, carbon)
    candidates = ranked([_candidate(answer, bounds) for answer in found if answer.prediction is not None])
    refused = _refused(zip(rows, found, strict=True))
    if not candidates:
        reasons = "\n".join(f"  {one.times:,} × {one.reason}" for one in refused[:5])
        raise UsageError(f"None of the {len(rows):,} deployments has an answer:\n{reasons}\nCompare others.")
    return Comparison(axes=tuple(axes), bounds=bounds, predictor=predictor.name, candidates=candidates, refused=refused)


def _check_complete(axes: Sequence[Axis], stated: Mapping[str, Cell]) -> None:
    given = {*stated, *(axis.column for axis in axes)}
    missing = [flag_of(column.name) for column in COLUMNS if column.required and column.name not in given]
    if missing:
        raise UsageError(
            f"The comparison lacks {', '.join(missing)}.\nGive one value by flag, or several in --compare."
        )


def _check_values(axes: Sequence[Axis], reader: RequestReader) -> None:
    """A value that is not known is somebody's mistake, not a deployment that is refused."""
    for axis in axes:
        for value in axis.values:
            reader.check(axis.column, value)


def _candidate(answer: Answer, bounds: Bounds) -> Candidate:
    assert answer.request is not None and answer.prediction is not None  # noqa: S101, PT018
    candidate = Candidate(request=answer.request, prediction=answer.prediction, answer=answer, meets=True)
    latencies = (
        (candidate.ttft_s, bounds.ttft_s),
        (candidate.tpot_s, bounds.tpot_s),
        (candidate.time_s, bounds.time_s),
    )
    meets = all(bound is None or latency is None or latency <= bound for latency, bound in latencies)
    return replace(candidate, meets=meets)


def ranked(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """In order, with ranks, ties and front."""
    ordered = sorted(candidates, key=lambda one: (not one.meets, one.energy_per_token_j, one.time_s))
    front = front_of([one for one in ordered if one.meets], lambda one: one.time_s)
    placed: list[Candidate] = []
    for place, one in enumerate(ordered, start=1):
        leader = placed[-1].rank if placed else 0
        tied = leader > 0 and _ties(placed[leader - 1], one)
        if tied:
            placed[leader - 1] = replace(placed[leader - 1], tied=True)
        placed.append(replace(one, rank=leader if tied else place, tied=tied, on_front=id(one) in front))
    return tuple(placed)


def _ties(leader: Candidate, other: Candidate) -> bool:
    return leader.meets == other.meets and other.energy_per_token_j <= leader.energy_per_token_interval_j.high


def front_of(candidates: Sequence[Candidate], latency_s: Callable[[Candidate], float | None]) -> set[int]:
    """``id`` of those on the Pareto front of energy per token and a latency; one without the latency is on none."""
    known = [(latency, one) for one in candidates if (latency := latency_s(one)) is not None]
    known.sort(key=lambda pair: (pair[0], pair[1].energy_per_token_j))
    front: set[int] = set()
    least_j = float("inf")
    for _, one in known:
        if one.energy_per_token_j < least_j:
            front.add(id(one))
            least_j = one.energy_per_token_j
    return front


def _refused(pairs: Iterable[tuple[tuple[str, ...], Answer]]) -> tuple[Refused, ...]:
    """By reason, the commonest first. Reasons that differ in their numbers only are one, shown as it first came."""
    times: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}
    for values, answer in pairs:
        if answer.prediction is None:
            reason = one_line(answer.error or "")
            kind = kind_of(reason)
            times[kind] += 1
            first.setdefault(kind, (reason, ", ".join(values)))
    return tuple(
        Refused(reason=first[kind][0], times=count, first=first[kind][1]) for kind, count in times.most_common()
    )
