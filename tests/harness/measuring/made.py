"""Windows, idle floors and sessions made by hand, with energies that are known."""

import random
from collections.abc import Sequence

from harness.kernels import KernelCount, KernelKind, Phase
from harness.measuring.attribution import Apportionment, KernelShare
from harness.measuring.precision import Precision
from harness.measuring.results import IdleFloor, PartResult, SessionResult, TakenWindow
from harness.measuring.statistics import Mean
from harness.measuring.windows import Span, Window
from harness.meters.base import Conditions
from harness.records import Part
from harness.tracing.timeline import TracedKernel

EXACT = Precision(tail95=0.0)  # nothing a meter could get wrong
IDLE_W = 50.0


def span(energy_j: float, duration_s: float, *, started_s: float = 0.0, **known: float) -> Span:
    """What one counter said; lead, tail and timing are 0 where not given."""
    return Span(
        energy_j=energy_j,
        counter_start_j=100.0,
        counter_end_j=100.0 + energy_j,
        started_s=started_s,
        duration_s=duration_s,
        **{"lead_s": 0.0, "tail_s": 0.0, "timing95_s": 0.0} | known,
    )


def window(
    *energies_j: float,
    work_s: float = 1.0,
    started_s: float = 0.0,
    conditions: Conditions | None = None,
    **known: float,
) -> Window:
    """One entry per device; all have the same lead and tail."""
    whole_s = work_s + known.get("lead_s", 0.0) + known.get("tail_s", 0.0)
    begun_s = started_s - known.get("lead_s", 0.0)
    seen = (Conditions() if conditions is None else conditions,) * len(energies_j)
    return Window(
        spans=tuple(span(energy_j, whole_s, started_s=begun_s, **known) for energy_j in energies_j),
        started_s=started_s,
        work_s=work_s,
        before=seen,
        after=seen,
    )


def taken(
    part: Part,
    *energies_j: float,
    passes: float = 1.0,
    kernels: Sequence[KernelCount] = (),
    rejected: str | None = None,
    work_s: float = 1.0,
    started_s: float = 0.0,
    conditions: Conditions | None = None,
    **known: float,
) -> TakenWindow:
    """A window with what was in it."""
    return TakenWindow(
        part=part,
        trial=0,
        passes=passes,
        context_start_tokens=None,
        mean_context_tokens=None,
        window=window(*energies_j, work_s=work_s, started_s=started_s, conditions=conditions, **known),
        kernels=tuple(kernels),
        rejected=rejected,
    )


def idle_floor(*powers_w: float) -> IdleFloor:
    """The same idle power before and after; one entry per device."""
    energies_j = [10 * power_w for power_w in powers_w]
    return IdleFloor(windows=(window(*energies_j, work_s=10.0), window(*energies_j, work_s=10.0, started_s=1000.0)))


def session(
    windows: Sequence[TakenWindow],
    *,
    idle_w: Sequence[float] = (IDLE_W,),
    precision: Precision = EXACT,
    parts: Sequence[Part] = (Part.PREFILL, Part.RUN),
    step_s: float = 0.0,
) -> SessionResult:
    """What a session gave; the energies of its parts play no role."""
    some = Mean(value=1.0, ci95=0.0, samples=2)
    return SessionResult(
        windows=tuple(windows),
        idle=idle_floor(*idle_w),
        parts=tuple(PartResult(part=part, energy_j=some, duration_s=some) for part in parts),
        precision=precision,
        step_s=step_s,
    )


def loops(
    part: Part,
    kernels: Sequence[KernelCount],
    pass_j: float | Sequence[float],
    pass_s: float,
    *,
    trials: int = 5,
    passes: int = 1000,
    spread: float = 0.0,
    rng: random.Random | None = None,
) -> list[TakenWindow]:
    """Windows of a loop; ``pass_j`` is gross, one value per device. ``spread`` is relative and falls on all alike."""
    draw = rng or random.Random(0)
    each_j = [pass_j] if isinstance(pass_j, float | int) else list(pass_j)
    found = []
    for trial in range(trials):
        factor = draw.gauss(1, spread) * passes
        energies_j = [value * factor for value in each_j]
        started_s = 20.0 + 10 * trial
        found.append(
            taken(part, *energies_j, passes=passes, kernels=kernels, work_s=passes * pass_s, started_s=started_s)
        )
    return found


def count(kernel_id: str, launches: int = 1, phase: Phase = Phase.PREFILL) -> KernelCount:
    """How often a kernel is launched in a pass of a loop."""
    return KernelCount(phase=phase, kernel_id=kernel_id, launches=launches)


def traced(kernel_id: str, duration_s: float, *, launches: int = 1, kind: KernelKind = KernelKind.GEMM) -> TracedKernel:
    """A kernel as a trace shows it."""
    return TracedKernel(
        kernel_id=kernel_id,
        kind=kind,
        op="aten::mm",
        module=None,
        dtype="bfloat16",
        shape="{}",
        launches=launches,
        flop=None,
        read_bytes=None,
        write_bytes=None,
        traced_duration_s=duration_s,
        link_bytes=1000 if kind is KernelKind.ALL_REDUCE else 0,
    )


def split(*kernels: TracedKernel) -> Apportionment:
    """A phase whose kernels took as long as they were traced; its apportioned energies play no role."""
    shares = tuple(
        KernelShare(kernel=kernel, duration_s=kernel.traced_duration_s, energy_j=0.0, active_energy_j=0.0)
        for kernel in kernels
    )
    return Apportionment(kernels=shares, host_gap_energy_j=0.0, host_gap_s=0.0)
