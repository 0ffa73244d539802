"""Requests shortened to what is possible: the model's context, the memory, and the time there is.

Prompt and output are shortened by the same factor, so a request keeps its shape. A request never falls below one prompt
token, nor below two output tokens if it had two, so that each keeps its decode phase. What cannot be made possible is
skipped with the reason. Nothing changes silently: what was shortened, and why, is kept with the run.

The time budget shortens the longest runs only. With c_i the cost of run i and f_i its cost at the shortest, the cap C
on the cost of one run is found with sum of max(f_i, min(c_i, C)) = budget: water filling.

Two requests that become the same by shortening would be one run asked for twice. The later one then gives up single
prompt tokens, or after these output tokens, until it differs; if it cannot, it is skipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from harness.campaign.estimate import (
    Estimate,
    Machine,
    ModelSize,
    Passes,
    ProtocolCost,
    estimate_request,
    estimate_run_s,
    memory_bytes,
)
from harness.requests import Deployment, Request
from harness.units import duration, gibibytes

MEMORY_SHARE = 0.9  # the rest is for the runtime, fragments and what the estimate leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRun:
    """A request on a deployment, and what its cost depends on."""

    request: Request
    deployment: Deployment
    sampling_weight: float | None
    size: ModelSize
    passes: Passes
    machine: Machine
    protocol: ProtocolCost

    def estimate(self, request: Request) -> Estimate:
        """What ``request`` would need here."""
        return estimate_request(request, self.size, self.passes, self.machine, kv_cache=self.deployment.kv_cache)

    def cost_s(self, request: Request) -> float:
        """Time of the whole run if it made ``request``."""
        return estimate_run_s(self.estimate(request), self.protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run as it will be made, or as it will be skipped."""

    wanted: WantedRun
    request: Request
    clipped: str | None  # what was shortened and why; None: nothing
    skipped: str | None  # why it cannot be made; None: it can

    @property
    def estimate(self) -> Estimate:
        """What the request needs."""
        return self.wanted.estimate(self.request)

    @property
    def cost_s(self) -> float:
        """Time of the whole run."""
        return estimate_run_s(self.estimate, self.wanted.protocol)


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A run while it is being shortened."""

    wanted: WantedRun
    request: Request
    reasons: list[str] = field(default_factory=list)
    skipped: str | None = None

    def shorten(self, fits: Callable[[Request], bool], reason: str) -> None:
        if not fits(self.request):
            self.request = _longest(self.request, fits)
            self.reasons.append(reason)

    def finish(self) -> PlannedRun:
        text = None
        if self.request != self.wanted.request and self.skipped is None:
            before, after = self.wanted.request, self.request
            text = (
                f"prompt {before.prompt_tokens} to {after.prompt_tokens}, output {before.output_tokens} to "
                f"{after.output_tokens} tokens: {'; '.join(self.reasons)}"
            )
        request = self.request if self.skipped is None else self.wanted.request
        return PlannedRun(wanted=self.wanted, request=request, clipped=text, skipped=self.skipped)


def clip(runs: Sequence[WantedRun], time_budget_s: float | None = None) -> tuple[PlannedRun, ...]:
    """Shorten or skip what is not possible as wanted. One planned run for each wanted one, in the same order."""
    drafts = [_Draft(wanted=run, request=run.request) for run in runs]
    for draft in drafts:
        _to_context(draft)
        _to_memory(draft)
    if time_budget_s is not None:
        _to_time([draft for draft in drafts if draft.skipped is None], time_budget_s)
    _make_unique(drafts)
    return tuple(draft.finish() for draft in drafts)


def shortest(request: Request) -> Request:
    """The shortest request that ``request`` may become."""
    return replace(request, prompt_tokens=1, output_tokens=min(2, request.output_tokens))


def _to_context(draft: _Draft) -> None:
    limit = draft.wanted.size.context_tokens
    if limit is None:
        return
    if shortest(draft.request).context_tokens > limit:
        draft.skipped = f"the model's context of {limit} tokens is too short for any request"
    else:
        draft.shorten(lambda request: request.context_tokens <= limit, f"the model's context is {limit} tokens")


def _to_memory(draft: _Draft) -> None:
    if draft.skipped is not None:
        return
    wanted, limit = draft.wanted, MEMORY_SHARE * draft.wanted.machine.memory_bytes

    def needed(request: Request) -> int:
        return memory_bytes(request, wanted.size, wanted.passes, kv_cache=wanted.deployment.kv_cache)

    least = needed(shortest(draft.request))
    room = f"{MEMORY_SHARE:.0%} of the memory is {gibibytes(limit)}"
    if least > limit:
        draft.skipped = (
            f"does not fit: the weights and the shortest request of batch {draft.request.batch_size} need "
            f"{gibibytes(least)}, {room}"
        )
    else:
        draft.shorten(lambda request: needed(request) <= limit, room)


def _to_time(drafts: list[_Draft], budget_s: float) -> None:
    costs = [draft.wanted.cost_s(draft.request) for draft in drafts]
    floors = [draft.wanted.cost_s(shortest(draft.request)) for draft in drafts]
    kept = len(drafts)
    while kept and sum(floors[:kept]) > budget_s:
        kept -= 1
    for draft, floor_s in zip(drafts[kept:], floors[kept:], strict=True):
        draft.skipped = (
            f"no time left: even the shortest request takes {duration(floor_s)}, and the time budget of "
            f"{duration(budget_s)} is spent on the runs before"
        )
    cap_s = _cap(costs[:kept], floors[:kept], budget_s)
    for draft, cost_s in zip(drafts[:kept], costs[:kept], strict=True):
        if cost_s > cap_s:
            draft.shorten(_costs_at_most(draft.wanted, cap_s), f"the time budget is {duration(budget_s)}")


def _costs_at_most(run: WantedRun, cap_s: float) -> Callable[[Request], bool]:
    return lambda request: run.cost_s(request) <= cap_s


def _cap(costs: Sequence[float], floors: Sequence[float], budget_s: float) -> float:
    """The water level: the highest cap under which everything fits the budget."""
    low, high = 0.0, max(costs, default=0.0)
    if sum(costs) <= budget_s:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        fits = sum(max(f, min(c, middle)) for c, f in zip(costs, floors, strict=True)) <= budget_s
        low, high = (middle, high) if fits else (low, middle)
    return low


def _longest(request: Request, fits: Callable[[Request], bool]) -> Request:
    """The request scaled by the largest factor that fits; the shortest one if none does."""
    low, high = 0.0, 1.0
    for _ in range(40):  # 2^-40 is finer than one token of any context
        middle = (low + high) / 2
        low, high = (middle, high) if fits(_scaled(request, middle)) else (low, middle)
    return _scaled(request, low)


def _scaled(request: Request, factor: float) -> Request:
    least = shortest(request)
    return replace(
        request,
        prompt_tokens=max(least.prompt_tokens, int(request.prompt_tokens * factor)),
        output_tokens=max(least.output_tokens, int(request.output_tokens * factor)),
    )


def _make_unique(drafts: list[_Draft]) -> None:
    taken = {(draft.wanted.request, draft.wanted.deployment) for draft in drafts if draft.skipped is not None}
    kept = [draft for draft in drafts if draft.skipped is None]
    for draft in sorted(kept, key=lambda draft: draft.request != draft.wanted.request):  # unchanged ones first
        key = (draft.request, draft.wanted.deployment)
        if key in taken:
            _differ(draft, taken)
        if draft.skipped is None:
            taken.add((draft.request, draft.wanted.deployment))


def _differ(draft: _Draft, taken: set[tuple[Request, Deployment]]) -> None:
    request, least = draft.request, shortest(draft.request)
    shortened = request != draft.wanted.request
    prompts = (replace(request, prompt_tokens=n) for n in range(request.prompt_tokens - 1, 0, -1))
    outputs = (replace(request, output_tokens=n) for n in range(request.output_tokens - 1, least.output_tokens - 1, -1))
    for other in chain(prompts, outputs) if shortened else ():
        if (other, draft.wanted.deployment) not in taken:
            draft.request = other
            draft.reasons.append("to differ from another run")
            return
    draft.skipped = "the same request on the same deployment is already in the plan" + (
        f", because it was shortened ({'; '.join(draft.reasons)})" if shortened else ""
    )
