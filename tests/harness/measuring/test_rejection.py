from dataclasses import replace

from harness.measuring.results import TakenWindow, reason_to_reject, reject_drifting_clocks
from harness.measuring.windows import Window
from harness.meters.base import Conditions
from harness.records import Part


def taken_at(part: Part, *clocks_mhz: float | None, rejected: str | None = None) -> TakenWindow:
    conditions = tuple(Conditions(sm_clock_mhz=clock) for clock in clocks_mhz)
    window = Window(
        energies_j=(100.0,) * len(clocks_mhz),
        uncertainties_j=(1.0,) * len(clocks_mhz),
        counters_start_j=(0.0,) * len(clocks_mhz),
        counters_end_j=(100.0,) * len(clocks_mhz),
        started_s=10.0,
        duration_s=1.0,
        tail_s=0.0,
        before=conditions,
        after=conditions,
    )
    return TakenWindow(
        part=part,
        trial=0,
        passes=1.0,
        context_start_tokens=None,
        mean_context_tokens=None,
        window=window,
        rejected=rejected,
    )


def test_a_window_at_another_clock_than_its_part_is_rejected() -> None:
    windows = [taken_at(Part.PREFILL, clock) for clock in (1980, 1980, 1965, 1800)]
    windows += [taken_at(Part.DECODE, 1400), taken_at(Part.RUN, None)]
    rejected = [taken.rejected for taken in reject_drifting_clocks(windows, 0.03)]
    assert rejected == [None, None, None, "SM clock 1800 MHz, usually 1972 MHz", None, None]


def test_each_device_has_a_clock_of_its_own() -> None:
    windows = [taken_at(Part.PREFILL, 1980, 1700)] * 3
    assert all(taken.rejected is None for taken in reject_drifting_clocks(windows, 0.03))
    drifting = reject_drifting_clocks([*windows, taken_at(Part.PREFILL, 1980, 1500)], 0.03)
    assert [taken.rejected is None for taken in drifting] == [True, True, True, False]


def test_clocks_of_rejected_windows_do_not_set_what_is_usual() -> None:
    windows = [taken_at(Part.PREFILL, 900, rejected="slow")] * 5 + [taken_at(Part.PREFILL, 1980)] * 2
    checked = reject_drifting_clocks(windows, 0.03)
    assert [taken.rejected for taken in checked] == ["slow"] * 5 + [None] * 2


def test_reasons_at_either_end_count() -> None:
    calm = taken_at(Part.PREFILL, 1980).window
    assert reason_to_reject(calm) is None
    slow = (Conditions(throttle_reasons=0x20),)
    assert reason_to_reject(replace(calm, before=slow)) is not None
    assert reason_to_reject(replace(calm, after=slow)) is not None
    assert reason_to_reject(replace(calm, after=(Conditions(other_processes=0),))) is None
