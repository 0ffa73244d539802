"""How long windows must be and how many, from what is known of the meters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.measuring.calibration_records import DeviceCalibration
from harness.measuring.protocol import Protocol
from harness.measuring.statistics import student_t

NORMAL_95: Final = 1.96
_PART: Final = 0.5  # of the wanted half width that the readings' own errors may take
_CLOSE: Final = 1.01  # a protocol is not changed for 1 %: periods of 100 ms are measured as 100.003 ms
_PHASES: Final = 8  # at which the works of successive trials start
_POLL_S: Final = 0.001  # of a window's edges, where a period has few of them
_POLL_STEPS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one device; None: not measured. Shares are half widths at 95 %."""

    period_s: float | None = None
    read_s: float | None = None
    edge_share: float | None = None
    noise_w: float | None = None
    idle_w: float | None = None
    load_w: float | None = None
    tail_share: float | None = None
    aliasing: float | None = None  # worst relative error that was seen

    @classmethod
    def of(cls, device: DeviceCalibration) -> "Facts":
        """Those of a calibrated device."""
        counter, idle, tail = device.counter, device.idle, device.idle.tail_share
        resting = idle.context_w or idle.bare_w
        return cls(
            period_s=counter.period_s if counter else None,
            read_s=counter.read_p99_s if counter else None,
            edge_share=counter.edge_share if counter else None,
            noise_w=device.noise_w,
            idle_w=resting.value if resting else None,
            load_w=device.load_w.value if device.load_w else None,
            tail_share=abs(tail.value) + (tail.ci95 or 0.0) if tail else None,
            aliasing=max((one.worst for one in device.aliasing if one.seen), default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Lengths and counts for one protocol, and why they are what they are."""

    window_s: float
    kernel_window_share: float
    idle_s: float
    trials_min: int
    trials_max: int
    reasons: tuple[str, ...]


def advice(devices: Sequence[Facts], base: Protocol) -> Advice:
    """The longest windows and the most trials that any of the devices asks for; never less than ``base``.

    Notation: T period of the counter, P₀ and P₁ power at rest and under load, h = (max(1 ms, T/50) + read)/2 half of
    what lies between two looks at an edge, s the share of T that the counter sees where a load begins or ends, λ the
    share that lingers, σ the standard deviation of the power over one T, τ the relative half width wanted
    (``half_width_target``), n = ``trials_min`` of ``base``.

    One reading is wrong, at 95 %, by

        a = √( (√2 h P₀)² + (1.96 √2 · ½ (1 − s)(P₁ − P₀) T)² )      at its edges, another way in each trial
        b(W) = 1.96 σ √(T W)                                         by noise
        c = λ (P₁ − P₀) T                                            by what lingers, the same way in each trial

    so that the energy of a window, P₁ W, is known well enough, with half of τ left for what the work itself does, from

        window       W ≥ a / (½ τ √n P₁),   W ≥ (1.96 σ / (½ τ √n P₁))² T,   W ≥ c / (½ τ P₁)
        kernel       the same with τ for ½ τ: its windows are many, and the bar for one kernel is wider
        idle         ``window_steps`` periods, as for windows
        trials       the fewest m ≥ n with t(m − 1) · √(a² + b²)/1.96 / (P₁ W √m) ≤ ½ τ, and one for each of the eight
                     phases where the counter was seen to alias by more than τ; the most are at least twice that

    The formulas for a and c are those by which ``results.reading95_of_device`` states a window's interval. Where a
    figure is missing, its term is left out: ``base`` alone is then what is known.
    """
    window_s, reason = base.window_s, f"window: {base.window_s:g} s, the protocol's own"
    for facts in devices:
        for wanted_s, why in _wanted(facts, base, part=_PART):
            if wanted_s > _CLOSE * window_s:
                window_s, reason = _up(wanted_s), f"window: {why}"
    kernel_s = max(
        [base.kernel_window_share * base.window_s]
        + [wanted_s for facts in devices for wanted_s, _ in _wanted(facts, base, part=1.0, steps=0.5)]
    )
    resting_s = base.window_steps * max((facts.period_s or 0.0 for facts in devices), default=0.0)
    trials_min, trials_reason = _trials(devices, base, window_s)
    return Advice(
        window_s=window_s,
        kernel_window_share=min(1.0, max(kernel_s / window_s, 0.01)),
        idle_s=_up(resting_s) if resting_s > _CLOSE * base.idle_s else base.idle_s,
        trials_min=trials_min,
        trials_max=max(base.trials_max, 2 * trials_min),
        reasons=(reason, trials_reason),
    )


def half_width(facts: Facts, window_s: float) -> float | None:
    """What one reading of the load in a window of that length is wrong by, relative: √(a² + b² + c²)/(P₁ W).

    None where period or load power is not known.
    """
    if facts.period_s is None or not facts.load_w:
        return None
    noise_j = NORMAL_95 * (facts.noise_w or 0.0) * math.sqrt(facts.period_s * window_s)
    return math.hypot(_edges95_j(facts), noise_j, _lingering95_j(facts)) / (facts.load_w * window_s)


def _wanted(facts: Facts, base: Protocol, *, part: float, steps: float = 1.0) -> list[tuple[float, str]]:
    """Shortest windows of one device by each of the causes that are known, with the cause."""
    if facts.period_s is None:
        return []
    found = [(steps * base.window_steps * facts.period_s, f"{steps * base.window_steps:g} periods of the counter")]
    if facts.load_w is None or facts.load_w <= 0:
        return found
    allowed_w = part * base.half_width_target * facts.load_w
    root = math.sqrt(base.trials_min)
    found.append((_edges95_j(facts) / (allowed_w * root), "what its edges may be wrong by"))
    if facts.noise_w is not None:
        noise_s = (NORMAL_95 * facts.noise_w / (allowed_w * root)) ** 2 * facts.period_s
        found.append((noise_s, "noise of the counter"))
    found.append((_lingering95_j(facts) / allowed_w, "power that lingers after the work"))
    return found


def _lingering95_j(facts: Facts) -> float:
    """What lingers, c of ``advice``; 0 where it was not measured."""
    active_w = max(0.0, (facts.load_w or 0.0) - (facts.idle_w or 0.0))
    return (facts.tail_share or 0.0) * active_w * (facts.period_s or 0.0)


def _edges95_j(facts: Facts) -> float:
    """What edges cost, a of ``advice``."""
    period_s, idle_w = facts.period_s or 0.0, facts.idle_w or 0.0
    half_s = (max(_POLL_S, period_s / _POLL_STEPS) + (facts.read_s or 0.0)) / 2
    hidden = 1 - (1.0 if facts.edge_share is None else facts.edge_share)
    active_w = max(0.0, (facts.load_w or 0.0) - idle_w)
    return math.hypot(2**0.5 * half_s * idle_w, NORMAL_95 * 2**0.5 * 0.5 * hidden * active_w * period_s)


def _trials(devices: Sequence[Facts], base: Protocol, window_s: float) -> tuple[int, str]:
    """Fewest trials, with the cause."""
    fewest, reason = base.trials_min, f"trials: {base.trials_min} at least, the protocol's own"
    for facts in devices:
        needed = _trials_for(facts, base, window_s)
        if needed > fewest:
            fewest, reason = needed, f"trials: {needed} at least, for the spread of single readings"
        if facts.aliasing is not None and facts.aliasing > base.half_width_target and fewest < _PHASES:
            fewest, reason = _PHASES, "trials: 8 at least, one for each phase, because the counter aliases with loads"
    return fewest, reason


def _trials_for(facts: Facts, base: Protocol, window_s: float) -> int:
    if facts.period_s is None or facts.load_w is None or facts.load_w <= 0:
        return base.trials_min
    noise_j = (facts.noise_w or 0.0) * math.sqrt(facts.period_s * window_s)
    relative = math.hypot(_edges95_j(facts) / NORMAL_95, noise_j) / (facts.load_w * window_s)
    trials = base.trials_min
    while trials < 10 * base.trials_max and (
        student_t(trials - 1) * relative / math.sqrt(trials) > _PART * base.half_width_target
    ):
        trials += 1
    return trials


def _up(length_s: float) -> float:
    """A length of two digits, rounded up: 5.003 s is 5.1 s."""
    scale = 10 ** (math.floor(math.log10(length_s)) - 1)
    return float(f"{math.ceil(length_s / scale - 1e-9) * scale:.2g}")
