"""Samples of power beside the counter: known answers, and what is said where they contradict it."""

from dataclasses import replace

import pytest

from harness.campaign.watch import Watch, watching
from harness.measuring.precision import Precision
from harness.measuring.results import IdleFloor, SessionResult, TakenWindow, results
from harness.measuring.windows import Span, Window
from harness.meters.base import Conditions, ManualClock
from harness.meters.power import PowerSample, SamplerReport, SamplerState
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank
from harness.records import Part

LOAD_W, IDLE_W = 300.0, 100.0


def window(started_s: float, duration_s: float, power_w: float) -> Window:
    span = Span(
        energy_j=power_w * duration_s,
        counter_start_j=0.0,
        counter_end_j=power_w * duration_s,
        started_s=started_s,
        duration_s=duration_s,
        lead_s=0.0,
        tail_s=0.0,
        timing95_s=0.0,
    )
    return Window(spans=(span,), started_s=started_s, work_s=duration_s, before=(Conditions(),), after=(Conditions(),))


def taken(started_s: float) -> TakenWindow:
    return TakenWindow(
        part=Part.PREFILL,
        trial=0,
        passes=10.0,
        context_start_tokens=None,
        mean_context_tokens=None,
        window=window(started_s, 5.0, LOAD_W),
    )


def session() -> SessionResult:
    windows = (taken(20.0), taken(40.0))
    idle = IdleFloor(windows=(window(0.0, 10.0, IDLE_W), window(60.0, 10.0, IDLE_W)))
    parts = results(windows, windows, idle)
    return SessionResult(windows=windows, idle=idle, parts=parts, precision=Precision(), step_s=0.1)


def samples(*, scale: float = 1.0, throttled_s: float | None = None) -> tuple[PowerSample, ...]:
    """A sample every tenth of a second for 70 s: load in both windows, idle elsewhere."""

    def power_w(at_s: float) -> float:
        return LOAD_W if 19 <= at_s <= 26 or 39 <= at_s <= 46 else IDLE_W

    times_s = [number / 10 for number in range(700)]
    return tuple(
        PowerSample(
            device=0,
            at_s=at_s,
            latency_s=1e-4,
            power_w=scale * power_w(at_s),
            throttle_reasons=0x40 if at_s == throttled_s else 0,
        )
        for at_s in times_s
    )


def test_polled_energy_is_the_integral_over_the_window() -> None:
    watch = Watch(samples=(samples(),))

    assert watch.polled_j(taken(20.0), 0) == pytest.approx(5 * LOAD_W)
    assert watch.polled_j(taken(20.03), 0) == pytest.approx(5 * LOAD_W)  # its ends lie between samples
    assert watch.polled_j(taken(90.0), 0) is None
    assert watch.polled_j(taken(20.0), 1) is None


@pytest.mark.parametrize(("scale", "told"), [(1.0, False), (1.04, False), (1.06, True), (0.9, True)])
def test_a_counter_that_its_own_boards_power_contradicts_is_flagged(scale: float, told: bool) -> None:
    notes = Watch(samples=(samples(scale=scale),)).notes(session())

    assert bool(notes) is told
    if told:
        assert f"{scale - 1:+.1%}" in notes[0]


def test_a_slowdown_between_the_ends_of_a_window_rejects_it_and_its_number_goes() -> None:
    before = session()
    after = Watch(samples=(samples(throttled_s=22.0),)).checked(before)

    assert [each.rejected is None for each in after.windows] == [False, True]
    assert "0x40" in (after.windows[0].rejected or "")
    energy = after.parts[0].energy_j
    assert energy is not None
    assert energy.samples == 1
    assert energy.value == pytest.approx(5 * LOAD_W / 10)
    assert Watch(samples=(samples(throttled_s=30.0),)).checked(before) is before  # in no window


def test_the_dataset_keeps_a_sample_a_second() -> None:
    rows = Watch(samples=(samples(),)).rows("run", (3,), origin_s=10.0)

    assert len(rows) == 70
    assert (rows[0].rank, rows[0].t_s, rows[0].power_w) == (3, -10.0, IDLE_W)


class Sampling:
    """A sampler that is told how it ends."""

    period_s = 0.1

    def __init__(self, state: SamplerState) -> None:
        self.state = state

    def start(self) -> None:
        """Nothing to start."""

    def take(self) -> tuple[PowerSample, ...]:
        return ()

    def stop(self) -> SamplerReport:
        return SamplerReport(state=self.state, samples=samples(), detail="")


@pytest.mark.parametrize(("state", "told"), [(SamplerState.FINISHED, ()), (SamplerState.KILLED, ("killed",))])
def test_a_sampler_that_was_killed_is_told_and_costs_no_energy(state: SamplerState, told: tuple[str, ...]) -> None:
    meter = ReplayMeter(Profile.constant(100), ManualClock())
    bank = MeterBank((meter,), ManualClock(), why="a test", new_sampler=lambda: Sampling(state))

    with watching(bank) as watch:
        pass

    notes = watch.notes(replace(session(), windows=()))
    assert len(watch.samples[0]) == 700
    assert len(notes) == len(told)
    assert all(word in note for word, note in zip(told, notes, strict=True))


def test_devices_without_a_sampler_are_not_watched() -> None:
    meter = ReplayMeter(Profile.constant(100), ManualClock())

    with watching(MeterBank((meter,), ManualClock(), why="a test")) as watch:
        pass

    assert (watch.samples, watch.notes(session())) == ((), ())
