"""The calibration itself: what is done with the devices, in which order, and what is made of it.

    bare idle │ context: idle │ slow on/off │ fast on/off │ … │ beating load │ long load │ idle
              └ load.prepare()  fields        counter      fields, if need be, finer      cooling

All devices do the same at the same time; each is evaluated for itself. On and off never keep step with anything by
chance: edges fall evenly over the phases of the period that is looked at, in random order (``Watcher.sweep``).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.measuring.calibration_beats import Moves, beat_of, quantum_j
from harness.measuring.calibration_fields import Field, Fields, traits
from harness.measuring.calibration_lengths import Lengths
from harness.measuring.calibration_records import Aliasing, CounterTraits, DeviceCalibration, Estimate, IdleTraits
from harness.measuring.calibration_response import Pattern, Response, Values, answer_of_counter
from harness.measuring.calibration_steady import (
    Phase,
    aliasing,
    gap,
    level,
    noise_w,
    settle_s,
    tail_share,
    time_constant_s,
    w_per_c,
)
from harness.measuring.calibration_watch import Busy, Load, Trace, Watcher, array, has_counters
from harness.measuring.windows import PausingClock
from harness.meters.selection import MeterBank

_USUAL_S: Final = 0.1  # a period to begin with, where there is no counter
_STEP_WAIT_S: Final = 5.0
_SLOW_S: Final = 0.02  # between looks at powers, where nothing depends on their times
_POLL_S: Final = 0.002  # … and at most between looks at counters
_LEAST_POLL_S: Final = 2e-4
_LEAST_LONG_POLL_S: Final = 1e-3
_POLLS: Final = 50  # in a period of the counter
_FEW_POLLS: Final = 20  # … where only whole stretches matter
_SETTLE_S: Final = 2.0  # after a context was made, before its idle power is looked at
_LEAST_REST_S: Final = 0.1  # between two edges: clocks and regulators need milliseconds
_RESTS: Final = 2.5  # … and so many periods
_HISTORY_S: Final = 2.0  # of idling before a sweep, so that trailing means have forgotten what was before
_BEFORE_S: Final = 0.5  # … and of looking at that
_PHASES: Final = 8
_BEAT_MARGIN: Final = 2.5  # periods of idling before and after a beating load, so that all of it is counted
_LEAST_ON_S: Final = 0.002  # a host does not switch a load faster
_WARM_SHARE: Final = 0.5  # of the long load: then its power is taken to be steady
_EXTRA_SWEEPS: Final = 2
_LEAST_BLOCK_S: Final = 0.25  # of steady power
_HEAT_BLOCK_S: Final = 1.0
_NOISE_BLOCKS: Final = 14  # of the steady stretch: the longer they are, the less the looks' blur counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beating:
    """One beating load at all its phases."""

    watcher: Watcher
    load_period_s: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """All that was looked at."""

    bare: Watcher
    resident: Watcher | None
    fast: Watcher
    answers: tuple[Response | None, ...]  # of the counters, to the fast sweep
    fields: Fields
    beating: tuple[_Beating, ...]
    long: Watcher
    long_load: Busy


class Stages:
    """Puts the devices of one bank through all stages."""

    def __init__(
        self, bank: MeterBank, clock: PausingClock, load: Load, *, lengths: Lengths, rng: random.Random
    ) -> None:
        self._bank, self._clock, self._load = bank, clock, load
        self._lengths, self._rng = lengths, rng
        self._counters = has_counters(bank)
        self._period_s = _USUAL_S

    def calibrate(self) -> tuple[DeviceCalibration, ...]:
        """Go through the stages; one result per device.

        Raises ``MeterFailed`` for a counter that stands still or a meter that stops answering.
        """
        if self._counters:
            self._bank.measure_steps(_STEP_WAIT_S)
            self._period_s = self._bank.step_s
        seen = self._look()
        return tuple(self._device(seen, index) for index in range(len(self._bank.meters)))

    # ---- what is done ----

    def _look(self) -> _Seen:
        idle_s = max(self._lengths.idle_s, self._lengths.idle_periods * self._period_s)
        bare = self._watcher(_SLOW_S, polls=_FEW_POLLS)
        bare.idle(idle_s)
        self._load.prepare()
        resident = None
        if self._load.has_context:
            self._clock.pause(_SETTLE_S)
            resident = self._watcher(_SLOW_S, polls=_FEW_POLLS)
            resident.idle(idle_s)
        fast = self._swept(self._period_s, bursts=self._lengths.fast_bursts, counters=self._counters)
        self._period_s = _exact_period_s(fast) or self._period_s
        answers = tuple(_answer(fast, index) if self._counters else None for index in range(len(self._bank.meters)))
        fields = self._fields(fast)
        beating = tuple(self._beat(period_s) for period_s in self._beating_periods_s(answers[0]))
        long = self._watcher(_SLOW_S)
        long.poll_s = max(long.poll_s, _LEAST_LONG_POLL_S)
        long_load = long.load(self._load, self._lengths.load_s)
        long.poll_s *= _POLLS / _FEW_POLLS
        long.idle(max(self._lengths.cool_s, self._lengths.idle_periods * self._period_s))
        return _Seen(
            bare=bare,
            resident=resident,
            fast=fast,
            answers=answers,
            fields=fields,
            beating=beating,
            long=long,
            long_load=long_load,
        )

    def _fields(self, fast: Watcher) -> Fields:
        """The power fields: slow bursts show what averages for long, and the fast ones are there already."""
        if not Fields((fast,)).any:
            return Fields((fast,))
        slow = self._swept(_USUAL_S, bursts=self._lengths.slow_bursts, rest_s=self._lengths.slow_rest_s, counters=False)
        fields = Fields((slow, fast))
        for _ in range(_EXTRA_SWEEPS):
            period_s = fields.unknown_period_s()
            if period_s is None:
                break
            fields.add(self._swept(period_s, bursts=self._lengths.fast_bursts, counters=False))
        return fields

    def _watcher(self, conditions_s: float, *, polls: int = _POLLS) -> Watcher:
        poll_s = max(self._period_s / polls, _LEAST_POLL_S)
        poll_s = min(poll_s, _POLL_S * _POLLS / polls, conditions_s)
        return Watcher(self._bank, self._clock, poll_s=poll_s, conditions_s=conditions_s, counters=self._counters)

    def _swept(self, period_s: float, *, bursts: int, counters: bool, rest_s: float = 0.0) -> Watcher:
        poll_s = min(max(self._period_s / _POLLS, _LEAST_POLL_S), _POLL_S) if counters else _POLL_S
        self._clock.pause(_HISTORY_S)
        watcher = Watcher(self._bank, self._clock, poll_s=poll_s, conditions_s=_POLL_S, counters=counters)
        watcher.idle(_BEFORE_S)
        rest_s = max(rest_s, _LEAST_REST_S, _RESTS * period_s)
        watcher.sweep(self._load, period_s=period_s, bursts=bursts, rest_s=rest_s, rng=self._rng)
        return watcher

    def _beating_periods_s(self, answer: Response | None) -> tuple[float, ...]:
        """Near which the load beats: multiples of the counter's period, and the time between two of its looks."""
        if answer is None:
            return ()
        beats = {*self._lengths.beats, 1 / answer.looks}
        return tuple(beat * self._period_s for beat in sorted(beats) if beat * self._period_s / 2 >= _LEAST_ON_S)

    def _beat(self, load_period_s: float) -> _Beating:
        """Half on, half off, at each of the phases; the phases go round the load's period in eighths."""
        watcher = self._watcher(_SLOW_S)
        lasting_s = max(self._lengths.beat_s, self._lengths.beat_periods * self._period_s)
        cycles = max(1, round(lasting_s / load_period_s))
        margin_s = _BEAT_MARGIN * self._period_s
        origin_s = self._clock.now_s()
        phases = []
        for number in range(_PHASES):
            begun_s = self._clock.now_s()
            whole = math.ceil((begun_s + margin_s - origin_s) / load_period_s)
            watcher.idle_until(origin_s + (whole + number / _PHASES) * load_period_s)
            watcher.square(self._load, on_s=load_period_s / 2, off_s=load_period_s / 2, cycles=cycles)
            watcher.idle(margin_s)
            phases.append(Phase(started_s=begun_s, ended_s=self._clock.now_s()))
        return _Beating(watcher=watcher, load_period_s=load_period_s, phases=tuple(phases))

    # ---- what is made of it ----

    def _device(self, seen: _Seen, index: int) -> DeviceCalibration:
        meter = self._bank.meters[index]
        facts = meter.facts()
        counter, answer = self._counter(seen, index)
        long = _moves(seen.long.traces[index])
        steady = long.between(
            seen.long_load.ended_s - _WARM_SHARE * (seen.long_load.ended_s - seen.long_load.started_s),
            seen.long_load.ended_s,
        )
        block_s = max(_LEAST_BLOCK_S, 4 * self._period_s)
        noise_block_s = max(block_s, (steady.at_s[-1] - steady.at_s[0]) / _NOISE_BLOCKS if steady.at_s.size else 0.0)
        bare = seen.bare.traces[index]
        return DeviceCalibration(
            meter=meter.name,
            name=facts.name,
            uuid_sha256=facts.uuid_sha256,
            counter=counter,
            instant=traits(seen.fields.best(index, Field.INSTANT)),
            reported=traits(seen.fields.best(index, Field.REPORTED)),
            average=traits(seen.fields.best(index, Field.AVERAGE)),
            aliasing=_aliasing(seen.beating, index, answer),
            load_gap=gap(steady, seen.long.traces[index], block_s),
            idle_gap=gap(_moves(bare), bare, block_s),
            load_w=level(steady),
            noise_w=noise_w(steady, noise_block_s, self._period_s),
            idle=self._idle(seen, index, answer),
            notes=_notes(seen, index, counter, answer),
        )

    def _counter(self, seen: _Seen, index: int) -> tuple[CounterTraits | None, Response | None]:
        """What the fast sweep shows of a counter."""
        if not self._counters:
            return None, None
        trace = seen.fast.traces[index]
        moves = _moves(trace)
        beat, gaps_s = beat_of(moves), moves.gaps_s
        answer = seen.answers[index]
        latencies_s = array([*seen.bare.traces[index].latency_s, *trace.latency_s])
        energies_j = array([*seen.bare.traces[index].energy_j, *trace.energy_j])
        low_s, middle_s, high_s = np.percentile(gaps_s, (5, 50, 95)).tolist() if gaps_s.size else (0.0, 0.0, 0.0)
        return (
            CounterTraits(
                period_s=beat.period_s if beat else None,
                median_s=middle_s if gaps_s.size else None,
                spread_s=high_s - low_s if gaps_s.size else None,
                jitter_s=beat.jitter_s if beat else None,
                quantum_j=quantum_j(energies_j),
                read_median_s=float(np.median(latencies_s)),
                read_p99_s=float(np.percentile(latencies_s, 99)),
                lag_s=_estimate(answer.lag_s, answer.lag95_s) if answer else None,
                sampled_share=_estimate(answer.share, answer.open95_s / answer.spacing_s) if answer else None,
                looks=answer.looks if answer else None,
                misfit=answer.misfit if answer else None,
            ),
            answer,
        )

    def _idle(self, seen: _Seen, index: int, answer: Response | None) -> IdleTraits:
        long_trace = seen.long.traces[index]
        ended_s = seen.long_load.ended_s
        long = _moves(long_trace)
        settled_s = settle_s(long, ended_s, answer.high_w) if answer else None
        cooling = long.between(ended_s + (settled_s or 0.0) + self._period_s, np.inf)
        fast = _moves(seen.fast.traces[index])
        return IdleTraits(
            bare_w=level(_moves(seen.bare.traces[index])),
            context_w=level(_moves(seen.resident.traces[index])) if seen.resident else None,
            settle_s=settled_s,
            tail_share=tail_share(fast, seen.fast.bursts, answer) if answer else None,
            w_per_c=w_per_c(cooling, long_trace, _HEAT_BLOCK_S),
            time_constant_s=time_constant_s(long_trace, ended_s),
        )


def _answer(watcher: Watcher, index: int) -> Response | None:
    """How a counter answers to a sweep."""
    moves = _moves(watcher.traces[index])
    values = Values(at_s=moves.at_s[1:], power_w=np.diff(moves.value) / moves.gaps_s, span_s=moves.gaps_s)
    return answer_of_counter(values, Pattern(watcher.bursts), blur_s=moves.blur_s)


def _exact_period_s(watcher: Watcher) -> float | None:
    """The period of the first counter, well enough that a load can keep step with it for minutes."""
    beat = beat_of(_moves(watcher.traces[0]))
    return beat.period_s if beat else None


def _aliasing(beating: Sequence[_Beating], index: int, answer: Response | None) -> tuple[Aliasing, ...]:
    if answer is None:
        return ()
    found = (
        aliasing(
            _moves(one.watcher.traces[index]),
            one.watcher.traces[index],
            Pattern(one.watcher.bursts),
            answer,
            one.phases,
            one.load_period_s,
        )
        for one in beating
    )
    return tuple(one for one in found if one is not None)


def _notes(seen: _Seen, index: int, counter: CounterTraits | None, answer: Response | None) -> tuple[str, ...]:
    """What could not be measured on a device, and why."""
    notes = []
    if counter is None:
        notes.append("There is no energy counter, so nothing that rests on it could be measured.")
    elif answer is None:
        notes.append("The load does not show in the counter, so its lag and what it sees could not be measured.")
    for field in Field:
        if not seen.fields.has(index, field):
            notes.append(f"The driver gives no {field.value} power.")
        elif seen.fields.best(index, field) is None:
            notes.append(f"The {field.value} power does not follow the load, or keeps no beat.")
    if seen.resident is None:
        notes.append("This load leaves no context on the device, so there is one idle power only.")
    return tuple(notes)


def _moves(trace: Trace) -> Moves:
    return Moves.of(trace.counter_at_s, trace.energy_j)


def _estimate(value: float, half_width: float) -> Estimate:
    return Estimate(value=value, ci95=half_width if np.isfinite(half_width) else None)
