"""Which windows cannot be used, and why: none of them may become a plausible wrong number."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.kernels import KernelCount
from harness.measuring.results import TakenWindow
from harness.measuring.windows import Window
from harness.records import Part

# NVML clocks-event reasons that mean the device could not hold its clocks: hardware slowdown, software thermal
# slowdown, hardware thermal slowdown, power brake (nvml.h, nvmlClocksEventReason*). A power cap (0x4) is normal load.
THROTTLE_BITS = 0x08 | 0x20 | 0x40 | 0x80


def reason_to_reject(window: Window) -> str | None:
    """Why a window cannot be used: a thermal or hardware slowdown, or somebody else on the GPU."""
    for each in (*window.before, *window.after):
        if each.throttle_reasons is not None and each.throttle_reasons & THROTTLE_BITS:
            return f"the device slowed down (clocks-event reasons 0x{each.throttle_reasons:x})"
        if each.other_processes:
            return f"{each.other_processes} other process(es) on the GPU"
    return None


def reject_drifting_clocks(windows: Sequence[TakenWindow], drift_max: float) -> tuple[TakenWindow, ...]:
    """Mark windows in which a device's SM clock is further than ``drift_max`` from its median in such windows.

    Each device has a median of its own: two boards of one kind need not run at one clock.
    """
    clocks: dict[tuple[Part, tuple[KernelCount, ...], int], list[float]] = {}
    for taken in windows:
        for device, clock_mhz in _clocks(taken) if taken.rejected is None else ():
            clocks.setdefault((taken.part, taken.kernels, device), []).append(clock_mhz)
    usual = {place: median(values) for place, values in clocks.items()}

    def checked(taken: TakenWindow) -> TakenWindow:
        for device, clock_mhz in _clocks(taken) if taken.rejected is None else ():
            usual_mhz = usual[taken.part, taken.kernels, device]
            if abs(clock_mhz - usual_mhz) > drift_max * usual_mhz:
                return replace(taken, rejected=f"SM clock {clock_mhz:.0f} MHz, usually {usual_mhz:.0f} MHz")
        return taken

    return tuple(checked(taken) for taken in windows)


def _clocks(taken: TakenWindow) -> list[tuple[int, float]]:
    return [
        (device, each.sm_clock_mhz) for device, each in enumerate(taken.window.after) if each.sm_clock_mhz is not None
    ]


def reject_changed_limits(windows: Sequence[TakenWindow]) -> tuple[TakenWindow, ...]:
    """Mark windows during or since which a device's enforced power limit is not what it was in the first one."""
    if not windows:
        return ()
    first = [each.power_limit_w for each in windows[0].window.before]

    def checked(taken: TakenWindow) -> TakenWindow:
        for ends in (taken.window.before, taken.window.after):
            for usual_w, now in zip(first, ends, strict=True):
                if taken.rejected is None and None not in (usual_w, now.power_limit_w) and now.power_limit_w != usual_w:
                    return replace(taken, rejected=f"power limit {now.power_limit_w:g} W, at first {usual_w:g} W")
        return taken

    return tuple(checked(taken) for taken in windows)
