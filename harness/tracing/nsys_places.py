"""Where in a run a device kernel belongs: the worker's ranges around the call that launched it.

The worker pushes ``run:ID`` around everything, ``phase:prefill`` and ``phase:decode`` around passes, ``step:N`` around
each decode step, ``trace:prefill`` and ``trace:decode`` around the passes that are traced, and ``module:PATH`` around
every module's forward in these (``harness.tracing.ranges``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import RunError
from harness.kernels import KernelKind, Phase
from harness.tracing.kineto_records import DeviceKernel, DeviceTrace
from harness.tracing.launches import traced_kernels
from harness.tracing.names import any_layer

if TYPE_CHECKING:
    from harness.tracing.timeline import TracedKernel

_STEP = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a kernel was launched for; None where no such range was around."""

    run_id: str | None
    phase: Phase | None
    step: int | None  # of the decode, counted from 0 in every pass
    traced: bool  # in a pass of its own for the kernels, with ranges of modules
    module: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """How many device kernels (copies and fills included) found their place."""

    kernels: int
    with_call: int
    in_run: int
    in_phase: int
    in_step: int
    in_trace: int
    in_module: int
    collectives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceTime:
    """The kernels of one name in one module (of any layer) and phase."""

    phase: Phase | None
    traced: bool
    module: str | None
    name: str
    kind: KernelKind
    launches: int
    duration_s: float
    share: float | None  # of the time of all kernels; None where that is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplacedGroup:
    """Kernels of one name outside any phase, for one reason."""

    name: str
    count: int
    duration_s: float
    why: str
    inside: str | None  # the innermost range they were launched in


def place_of(kernel: DeviceKernel) -> Place:
    """Where a kernel belongs; of ranges inside one another the innermost counts."""
    step = _innermost(kernel.ranges, "step:") or ""
    phase = _innermost(kernel.ranges, "phase:")
    return Place(
        run_id=_innermost(kernel.ranges, "run:"),
        phase=Phase(phase) if phase in set(Phase) else None,
        step=int(step) if _STEP.fullmatch(step) else None,
        traced=_innermost(kernel.ranges, "trace:") is not None,
        module=kernel.module,
    )


def traced_phase(trace: DeviceTrace, phase: Phase, *, dtype: str | None = None) -> "tuple[TracedKernel, ...]":
    """The kernels of the traced pass, or passes, of a phase, in the form in which a running profiler gives them.

    As of ``harness.tracing.timeline.trace``, counts and times are totals over the passes inside ``trace:PHASE``.
    Nsight Systems records no operators and no shapes: a kernel goes by its own name, its kind is told by that name,
    and FLOP and bytes are not known (None), those of copies excepted. ``dtype`` as in ``traced_kernels``, which this
    loads torch for. Raises RunError without kernels of such a pass.
    """
    name = f"trace:{phase}"
    inside = tuple(kernel for kernel in trace.kernels if name in kernel.ranges)
    if not inside:
        raise RunError(
            f"{trace.name} holds no kernel launched inside the range {name}, so it has no traced pass of the "
            f"{phase}.\nRecord the whole run, or at least that range, of a worker that traces kernels."
        )
    return traced_kernels(replace(trace, kernels=inside), dtype=dtype)


def placed(trace: DeviceTrace) -> Placed:
    """Count what has a place and what has not."""
    places = [place_of(kernel) for kernel in trace.kernels]
    return Placed(
        kernels=len(places),
        with_call=sum(kernel.call is not None for kernel in trace.kernels),
        in_run=sum(place.run_id is not None for place in places),
        in_phase=sum(place.phase is not None for place in places),
        in_step=sum(place.step is not None for place in places),
        in_trace=sum(place.traced for place in places),
        in_module=sum(place.module is not None for place in places),
        collectives=sum(kernel.collective is not None for kernel in trace.kernels),
    )


def times_by_place(trace: DeviceTrace) -> tuple[PlaceTime, ...]:
    """Where the time went, by phase, module and kernel: the longest first."""
    groups: dict[tuple[Phase | None, bool, str | None, str], list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        place = place_of(kernel)
        module = None if place.module is None else any_layer(place.module)
        groups.setdefault((place.phase, place.traced, module, kernel.name), []).append(kernel)
    whole_s = _duration_s(trace.kernels)
    times = [
        PlaceTime(
            phase=phase,
            traced=traced,
            module=module,
            name=name,
            kind=members[0].kind,
            launches=len(members),
            duration_s=_duration_s(members),
            share=_duration_s(members) / whole_s if whole_s else None,
        )
        for (phase, traced, module, name), members in groups.items()
    ]
    return tuple(sorted(times, key=lambda time: -time.duration_s))


def unplaced_groups(trace: DeviceTrace) -> tuple[UnplacedGroup, ...]:
    """What has no phase, and why: the longest first."""
    groups: dict[tuple[str, str, str | None], list[DeviceKernel]] = {}
    for kernel in trace.kernels:
        if place_of(kernel).phase is None:
            inside = kernel.ranges[-1] if kernel.ranges else None
            groups.setdefault((kernel.name, _why(kernel), inside), []).append(kernel)
    found = [
        UnplacedGroup(name=name, count=len(members), duration_s=_duration_s(members), why=why, inside=inside)
        for (name, why, inside), members in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.duration_s))


def _why(kernel: DeviceKernel) -> str:
    return str(kernel.why) if kernel.call is None and kernel.why is not None else "it was launched outside any phase"


def _innermost(ranges: Sequence[str], prefix: str) -> str | None:
    found = next((name for name in reversed(ranges) if name.startswith(prefix)), None)
    return None if found is None else found.removeprefix(prefix)


def _duration_s(kernels: Sequence[DeviceKernel]) -> float:
    return sum((kernel.duration_s for kernel in kernels), 0.0)
