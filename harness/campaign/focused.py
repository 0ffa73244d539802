"""Focused sampling: a campaign that chooses its next requests by what the last ones left uncertain.

    held-out requests, sampled and measured first
    └── again and again: learn from the chosen runs → score requests of the trace → choose some → measure them

The held-out requests are part of the plan, so they are fixed before anything is measured, and a change of them is
another campaign. Nothing of them reaches the choice: their lengths are left out of what may be chosen, with any batch
size, and their runs out of what is learned from.

What is chosen is the best by ``harness.campaign.focused_choice``, not a draw, so no weight can make a mean over it
unbiased: its ``sampling_weight`` is null. The held-out runs carry the weights of stratified sampling, so the weighted
mean over the rows that have a weight is unbiased for the trace, as in any other campaign.

Where a campaign stands is read from its queue and its dataset, so a killed one goes on as if nothing had happened.
"""

import hashlib
import json
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from harness.campaign.campaign import Campaign
from harness.campaign.focused_choice import Pool, choose, root_mean_square
from harness.campaign.jobs import Job
from harness.campaign.plan import Plan
from harness.campaign.planning import Planned, Planner, Stage
from harness.campaign.sampling import WantedRequest, sample_requests
from harness.campaign.traces import Trace, load_trace
from harness.dataset.layout import survey
from harness.dataset.reading import dataset_of
from harness.records import RunRow, Status
from harness.requests import Deployment, Request

_POOL = 200  # requests drawn from the trace to choose from: a round of two costs a hundredth of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A request that may be measured, on what it would run on."""

    request: Request
    deployment: Deployment
    gpu: str  # as in ``RunRow.gpu``: a name in the hardware table, ``cpu: …`` or ``virtual: …``


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A candidate that has been measured."""

    candidate: Candidate
    energy_j: float


Scorer = Callable[[Sequence[Candidate]], Sequence[float]]
"""How uncertain the prediction of each candidate is, relative to the prediction; NaN: it has none, so is not chosen."""

Learner = Callable[[Sequence[Measured]], Scorer]
"""Makes a scorer that has learned from all that was measured so far, if anything."""


class FocusedRuns:
    """The runs of a campaign that follow from its earlier ones; called for the next of them."""

    def __init__(self, campaign: Campaign, learner: Learner) -> None:
        self._campaign = campaign
        self._plan = campaign.plan
        self._learner = learner

    def __call__(self) -> tuple[Job, ...]:
        """The runs of the next round; none when the plan's samples are made, or nothing is left to learn from.

        Raises what the scorer raises.
        """
        known = self._known_ids()
        made = len(known - self._held_ids) // len(self._planner.stages)
        count = min(self._plan.round_size, self._plan.samples - made)
        return self._next(made, count, known) if count > 0 else ()

    def check(self) -> None:
        """Score and choose nothing: a scorer that has no scores says so before hours are spent on held-out requests."""
        self._next(0, 0, self._known_ids())

    def _next(self, made: int, count: int, known: frozenset[str]) -> tuple[Job, ...]:
        drawn = self._drawn(random.Random(f"{self._plan.seed} focused {made}"))  # noqa: S311  no secret
        runs = self._runs(list(drawn), known)
        scorer = self._learner(self.measured())
        chosen = choose(self._pool(drawn, runs, scorer), count)
        return tuple(run.job for place in chosen for run in runs[place] if run is not None)

    def measured(self) -> tuple[Measured, ...]:
        """What may be learned from: the runs with an energy that are not held out, in the order they were recorded."""
        found = []
        for row in self._rows():
            stage = self._stages.get((row.model, row.n_gpus, row.tensor_parallel))
            if stage is None or row.run_id in self._held_ids or row.status is not Status.OK or not row.energy_j:
                continue
            sizes = (row.batch_size or 0, row.prompt_tokens or 0, row.output_tokens or 0)
            found.append(Measured(candidate=self._candidate(stage, *sizes), energy_j=row.energy_j))
        return tuple(found)

    def _drawn(self, rng: random.Random) -> Mapping[WantedRequest, int]:
        """Requests of the trace with how often each was drawn, each batch size as likely as the others."""
        pairs = [
            pair for pair in self._trace.pairs if (pair.prompt_tokens, pair.output_tokens) not in self._held_lengths
        ]
        if not pairs:
            return {}
        ends = list(accumulate(pair.requests for pair in pairs))
        counts: Counter[WantedRequest] = Counter()
        for _ in range(_POOL):
            pair = pairs[bisect_right(ends, int(rng.random() * ends[-1]))]
            batch_size = self._plan.batch_sizes[int(rng.random() * len(self._plan.batch_sizes))]
            wanted = WantedRequest(
                batch_size=batch_size,
                prompt_tokens=pair.prompt_tokens,
                output_tokens=pair.output_tokens,
                sampling_weight=None,
            )
            counts[wanted] += 1
        return counts

    def _runs(self, wanted: Sequence[WantedRequest], known: frozenset[str]) -> list[list[Planned | None]]:
        """For each request its runs in the order of the stages; None for one that is made or cannot be."""
        size = len(self._planner.stages)
        planned = self._planner.planned(wanted)
        too_large = [run.job for run in self._campaign.queue.runs() if run.status is Status.OOM]
        runs = [run if self._may_be_made(run.job, known, too_large) else None for run in planned]
        return [runs[first : first + size] for first in range(0, len(runs), size)]

    def _may_be_made(self, job: Job, known: frozenset[str], too_large: Iterable[Job]) -> bool:
        """Shortening may have made a request one that is held out, or one that is there already."""
        return (
            job.skipped is None
            and job.run_id not in known
            and (job.request.prompt_tokens, job.request.output_tokens) not in self._held_lengths
            and not any(job.needs_at_least(other) for other in too_large)
        )

    def _pool(
        self, drawn: Mapping[WantedRequest, int], runs: Sequence[Sequence[Planned | None]], scorer: Scorer
    ) -> Pool:
        stages = self._planner.stages
        asked = [
            self._candidate(stage, wanted.batch_size, wanted.prompt_tokens, wanted.output_tokens)
            if run is None
            else Candidate(request=run.job.request, deployment=stage.deployment, gpu=self._gpu)
            for wanted, made in zip(drawn, runs, strict=True)
            for stage, run in zip(stages, made, strict=True)
        ]
        scores = np.asarray(scorer(asked), dtype=np.float64).reshape(-1, len(stages))
        can = np.array([[run is not None for run in made] for made in runs], dtype=np.bool_).reshape(scores.shape)
        return Pool(
            sizes=np.array(
                [(each.batch_size, each.prompt_tokens, each.output_tokens) for each in drawn], dtype=np.float64
            ).reshape(-1, 3),
            uncertainty=np.array([root_mean_square(row) for row in scores.tolist()]),
            weight=np.array(list(drawn.values()), dtype=np.float64),
            eligible=np.any(can & np.isfinite(scores), axis=1),
        )

    def _candidate(self, stage: Stage, batch_size: int, prompt_tokens: int, output_tokens: int) -> Candidate:
        request = Request(
            model=stage.name,
            batch_size=batch_size,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            dtype=stage.dtype,
        )
        return Candidate(request=request, deployment=stage.deployment, gpu=self._gpu)

    def _known_ids(self) -> frozenset[str]:
        queued = {run.job.run_id for run in self._campaign.queue.runs()}
        return frozenset(queued | {row.run_id for row in self._rows()})

    def _rows(self) -> Iterable[RunRow]:
        folder = self._campaign.folder.path
        return dataset_of(folder, survey(folder)).rows(RunRow)

    @property
    def _gpu(self) -> str:
        return self._campaign.surroundings.site.gpu

    @cached_property
    def _trace(self) -> Trace:
        return load_trace(self._plan.trace)

    @cached_property
    def _planner(self) -> Planner:
        around = self._campaign.surroundings
        return Planner(self._plan, around.site, around.subjects)

    @cached_property
    def _stages(self) -> Mapping[tuple[str | None, int | None, int | None], Stage]:
        """By what the rows of runs say of them."""
        stages: dict[tuple[str | None, int | None, int | None], Stage] = {}
        for stage in self._planner.stages:
            deployment = stage.deployment
            ranks = deployment.ranks if deployment.parallelism == "tensor" else 1
            stages[stage.name, deployment.n_gpus, ranks] = stage
        return stages

    @cached_property
    def _held(self) -> tuple[Job, ...]:
        return tuple(planned.job for planned in self._planner.planned(sample_requests(self._plan)))

    @cached_property
    def _held_ids(self) -> frozenset[str]:
        return frozenset(job.run_id for job in self._held)

    @cached_property
    def _held_lengths(self) -> frozenset[tuple[int, int]]:
        """Prompt and output of the held-out requests, as wanted and as made."""
        made = {(job.request.prompt_tokens, job.request.output_tokens) for job in self._held}
        return frozenset(made | {(spec.prompt_tokens, spec.output_tokens) for spec in self._plan.held_out})


def held_out_sha256(plan: Plan) -> str:
    """Content hash of the held-out requests of a plan, whatever their order; 16 hexadecimal digits."""
    text = json.dumps(sorted(map(str, plan.held_out)), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
