"""Power, clocks and slowdowns while a run's windows are taken, sampled by a process of its own.

The counter is what energies come from. The samples hold it against a second source: instant power, integrated over each
window (``readings.polled_energy_j``), and they see slowdowns and changed limits between the ends of a window. A counter
and a power field of one board may disagree by tens of percent (zeus-ml/zeus#181): more than 5 % is flagged.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter

from harness.measuring.rejection import THROTTLE_BITS
from harness.measuring.results import SessionResult, TakenWindow, results
from harness.meters.power import PowerField, PowerSample, Sampler, SamplerState, integrate
from harness.meters.selection import MeterBank
from harness.records import PowerTraceRow

DISAGREEMENT = 0.05
_BEYOND_S = 1.0  # of a window: power at its ends lies between two samples
_TRACE_S = 1.0  # the dataset keeps a sample a second


@dataclass(slots=True)
class Watch:
    """What a sampler saw of one run; nothing where the devices have none."""

    samples: tuple[tuple[PowerSample, ...], ...] = ()  # [devices][samples]
    problem: str | None = None

    def checked(self, session: SessionResult) -> SessionResult:
        """The session with windows rejected in which the samples saw a slowdown."""
        windows = tuple(map(self._checked, session.windows))
        if windows == session.windows:
            return session
        parts = results(
            session.windows, windows, session.idle, session.precision, step_s=session.step_s, planned=session.planned
        )
        return replace(session, windows=windows, parts=parts)

    def polled_j(self, taken: TakenWindow, device: int) -> float | None:
        """Instant power integrated over a window on one device; None where it was not sampled throughout."""
        if device >= len(self.samples):
            return None
        span = taken.window.spans[device]
        start_s, end_s = span.started_s, span.started_s + span.duration_s
        found = integrate(_around(self.samples[device], start_s, end_s), start_s, end_s, field=PowerField.INSTANT)
        return None if found is None else found.energy_j

    def notes(self, session: SessionResult) -> tuple[str, ...]:
        """Flags: a sampler that ended, a counter that its own board's power contradicts."""
        notes = [] if self.problem is None else [f"power was not sampled throughout: {self.problem}"]
        counted_j = polled_j = 0.0
        for taken in session.windows:
            for device, span in enumerate(taken.window.spans):
                polled = self.polled_j(taken, device)
                if taken.rejected is None and polled is not None:
                    counted_j, polled_j = counted_j + span.energy_j, polled_j + polled
        if counted_j and abs(polled_j / counted_j - 1) > DISAGREEMENT:
            notes.append(f"counter and polled power disagree: polled is {polled_j / counted_j - 1:+.1%} of the counter")
        return tuple(notes)

    def rows(self, run_id: str, ranks: Sequence[int], origin_s: float) -> tuple[PowerTraceRow, ...]:
        """A sample a second of each device, for the dataset."""
        return tuple(
            PowerTraceRow(
                run_id=run_id,
                rank=ranks[device],
                t_s=sample.at_s - origin_s,
                power_w=sample.power_w,
                clock_mhz=sample.sm_clock_mhz,
                temperature_c=sample.temperature_c,
            )
            for device, samples in enumerate(self.samples)
            for sample in _thinned(samples)
        )

    def _checked(self, taken: TakenWindow) -> TakenWindow:
        if taken.rejected is not None:
            return taken
        start_s, end_s = taken.window.started_s, taken.window.started_s + taken.window.work_s
        for samples in self.samples:
            for sample in _around(samples, start_s, end_s):
                if start_s <= sample.at_s <= end_s and (sample.throttle_reasons or 0) & THROTTLE_BITS:
                    reasons = f"clocks-event reasons 0x{sample.throttle_reasons:x}"
                    return replace(taken, rejected=f"the device slowed down meanwhile ({reasons})")
        return taken


@contextmanager
def watching(bank: MeterBank) -> Iterator[Watch]:
    """Sample the devices of a bank meanwhile; what went wrong with the sampler is in the watch, never raised."""
    watch, sampler = Watch(), bank.sampler()
    if sampler is None:
        yield watch
        return
    sampler.start()
    try:
        yield watch
    finally:
        _gather(watch, sampler, len(bank.meters))


def _gather(watch: Watch, sampler: Sampler, devices: int) -> None:
    report = sampler.stop()
    by_device: list[list[PowerSample]] = [[] for _ in range(devices)]
    for sample in report.samples:
        by_device[sample.device].append(sample)
    watch.samples = tuple(map(tuple, by_device))
    if report.state is not SamplerState.FINISHED:
        watch.problem = f"the sampler is {report.state.value}{f': {report.detail}' if report.detail else ''}"


def _around(samples: Sequence[PowerSample], start_s: float, end_s: float) -> Sequence[PowerSample]:
    """The samples of a device, in order of time, between two times and a little beyond."""
    first = bisect_left(samples, start_s - _BEYOND_S, key=attrgetter("at_s"))
    return samples[first : bisect_right(samples, end_s + _BEYOND_S, key=attrgetter("at_s"))]


def _thinned(samples: Sequence[PowerSample]) -> Iterator[PowerSample]:
    last_s = float("-inf")
    for sample in samples:
        if sample.at_s - last_s >= _TRACE_S:
            last_s = sample.at_s
            yield sample
