"""Which works a run is made of, in words that every rank understands alike."""

import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.kernels import NULL_KERNEL, KernelCount, Phase
from harness.measuring.attribution import Ceilings, modelled_shares
from harness.measuring.kernel_energy import NULL_IN_GRAPH, null_loop
from harness.records import EnergyMethod, Part
from harness.requests import Request
from harness.tracing.graph import COLLECTIVES
from harness.tracing.timeline import TracedKernel

_SMALL = 0.01  # of the modelled energy of a phase; smaller kernels are looped together
_PER_UNKNOWN = 2  # mixtures for every power that is sought
_SPARE = 4
_MIXED_S = 2e-4  # each kernel of a mixture runs about so long in a pass, or not at all …
_MIXED_MOST_S = 2e-2  # … or as long as the longest of them takes to be launched once, up to this
_LATE = 8.0  # times its own duration that one rank is late for a collective
_LATE_MIN_S = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSpec:
    """One work, in words that every rank understands alike."""

    part: Part
    context_tokens: int = 0  # decode: tokens in the context at the first step
    steps: int = 0  # decode: how many
    kernels: tuple[KernelCount, ...] = ()  # loops of kernels: what one pass launches, in this order
    late_s: float = 0.0  # waiting: the last rank starts each pass so much later


def traced_steps(request: Request) -> WorkSpec:
    """The decode steps that are traced: the one in the middle, or both, where their number is even."""
    steps = 2 - request.decode_steps % 2
    first = request.prompt_tokens + (request.decode_steps - steps) // 2
    return WorkSpec(part=Part.DECODE, context_tokens=first, steps=steps)


def kernel_works(
    phases: Mapping[Phase, Sequence[TracedKernel]],
    methods: Collection[EnergyMethod],
    ceilings: Ceilings,
    rng: random.Random,
) -> tuple[WorkSpec, ...]:
    """The loops that the energies of kernels are measured with; ``phases`` holds what one rank's trace saw."""
    specs: list[WorkSpec] = []
    for phase, traced in phases.items():
        large, small = _by_size(traced, ceilings)
        if EnergyMethod.REPLAY in methods:
            specs += [_replay([KernelCount(phase=phase, kernel_id=name, launches=1)]) for name in large]
            specs += [_replay(_in_proportion(phase, traced, small))] if small else []
        if EnergyMethod.REGRESSED in methods:
            specs += _mixtures(phase, traced, large, small, rng)
    if specs:  # the power of gaps, for either method
        specs += [WorkSpec(part=Part.REPLAY, kernels=null_loop(name)) for name in (NULL_KERNEL, NULL_IN_GRAPH)]
    if EnergyMethod.REPLAY in methods:
        specs += _waiting(phases)
    return tuple(specs)


def _by_size(traced: Sequence[TracedKernel], ceilings: Ceilings) -> tuple[list[str], list[str]]:
    """Kernels worth a loop of their own, and the others."""
    large: list[str] = []
    small: list[str] = []
    for each, share in zip(traced, modelled_shares(traced, ceilings), strict=True):
        (large if share >= _SMALL or each.kind in COLLECTIVES else small).append(each.kernel_id)
    return large, small


def _replay(kernels: Sequence[KernelCount]) -> WorkSpec:
    return WorkSpec(part=Part.REPLAY, kernels=tuple(kernels))


def _in_proportion(phase: Phase, traced: Sequence[TracedKernel], names: Collection[str]) -> list[KernelCount]:
    """Kernels in the proportions in which their phase launches them, as few of each as that allows."""
    chosen = [each for each in traced if each.kernel_id in names]
    rounds = math.gcd(*(each.launches for each in chosen))
    return [KernelCount(phase=phase, kernel_id=each.kernel_id, launches=each.launches // rounds) for each in chosen]


def _mixtures(
    phase: Phase, traced: Sequence[TracedKernel], large: Sequence[str], small: Sequence[str], rng: random.Random
) -> list[WorkSpec]:
    """Passes in which half of the kernels run, about equally long each; every kernel in half of the passes.

    No two kernels run in the same passes, else they could not be told apart; a kernel that is alone cannot be told
    from the gaps between its launches, so it is not mixed.
    """
    names = [*large, *([""] if small else [])]  # the small ones together go as one
    if len(names) < 2:
        return []
    rows = _PER_UNKNOWN * (len(names) + 1) + _SPARE
    present: dict[str, frozenset[int]] = {}
    for name in names:
        while (rows_of_name := frozenset(rng.sample(range(rows), k=rows // 2))) in present.values():
            pass
        present[name] = rows_of_name
    groups = _mixed(phase, traced, large, small)
    chosen = [[name for name in names if row in present[name]] for row in range(rows)]
    order = {each.kernel_id: place for place, each in enumerate(traced)}
    return [
        WorkSpec(
            part=Part.MIXTURE,
            kernels=tuple(
                sorted((each for name in some for each in groups[name]), key=lambda each: order[each.kernel_id])
            ),
        )
        for some in chosen
        if some
    ]


def _mixed(
    phase: Phase, traced: Sequence[TracedKernel], large: Sequence[str], small: Sequence[str]
) -> dict[str, list[KernelCount]]:
    """How often each kernel is launched in a pass of a mixture, so that all take about equally long."""
    launch_s = {each.kernel_id: each.traced_duration_s / each.launches for each in traced}
    groups = {name: [KernelCount(phase=phase, kernel_id=name, launches=1)] for name in large}
    if small:
        groups[""] = _in_proportion(phase, traced, small)
    once_s = {name: sum(each.launches * launch_s[each.kernel_id] for each in group) for name, group in groups.items()}
    wanted_s = min(_MIXED_MOST_S, max(_MIXED_S, *once_s.values()))
    return {
        name: [
            replace(each, launches=each.launches * max(1, round(wanted_s / max(once_s[name], 1e-7)))) for each in group
        ]
        for name, group in groups.items()
    }


def _waiting(phases: Mapping[Phase, Sequence[TracedKernel]]) -> list[WorkSpec]:
    """One collective for which the last rank is late: the power of waiting is the same for all of them."""
    collectives = [
        (each.traced_duration_s / each.launches, phase, each.kernel_id)
        for phase, traced in phases.items()
        for each in traced
        if each.kind in COLLECTIVES and each.link_bytes
    ]
    if not collectives:
        return []
    launch_s, phase, name = min(collectives)
    late_s = max(_LATE * launch_s, _LATE_MIN_S)
    kernels = (KernelCount(phase=phase, kernel_id=name, launches=1),)
    return [WorkSpec(part=Part.WAITING, kernels=kernels, late_s=late_s)]


def kernels_text(kernels: Sequence[KernelCount]) -> str | None:
    """What one pass launches, as the dataset stores it; None for the parts of a run."""
    if not kernels:
        return None
    phases: dict[str, dict[str, int]] = {}
    for each in kernels:
        phases.setdefault(each.phase.value, {})[each.kernel_id] = each.launches
    return json.dumps(phases, separators=(",", ":"))
