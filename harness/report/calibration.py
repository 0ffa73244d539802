"""What a calibration found out about the meters, as rows of text for the terminal and as a section of the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import CorruptFile
from harness.measuring.calibration import Calibration, gap_is_flagged
from harness.measuring.calibration_advice import Facts, half_width
from harness.measuring.calibration_records import (
    Aliasing,
    CounterTraits,
    DeviceCalibration,
    Estimate,
    FieldTraits,
    IdleTraits,
)
from harness.measuring.precision import precision_of
from harness.measuring.protocol import STANDARD
from harness.records import EnvironmentRow
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.plot import Axis, Figure, Mark, Points, scatter
from harness.report.setups import LegendEntry, Scene
from harness.report.text import NOTHING, moment, percent, plain, quantity, signed_percent, time_span, with_interval

_LENGTHS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#6B7280")
_LEAD = (
    "Found by `python -m harness.calibrate` on the machine of the runs. Intervals are 95 %; a dash is what could not "
    "be found. The meter's gain is in none of them: nothing on the machine can see it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line about a device."""

    name: str
    value: str
    warning: bool = False


def device_facts(device: DeviceCalibration) -> tuple[Fact, ...]:
    """Everything that is known of one device and its meter."""
    return tuple(
        fact
        for facts in (
            _counter_facts(device.counter),
            _field_facts("instant power", device.instant),
            _field_facts("reported power", device.reported),
            _field_facts("average power", device.average),
            _aliasing_facts(device.aliasing),
            _gap_facts(device),
            _idle_facts(device.idle),
        )
        for fact in facts
    )


def advice_facts(calibration: Calibration) -> tuple[Fact, ...]:
    """What follows for measuring with these meters."""
    protocol, precision = calibration.protocol(STANDARD), calibration.precision(precision_of(calibration.method))
    step_s = calibration.period_s
    window_s = protocol.window_s if step_s is None else protocol.shortest_window_s(step_s)
    return (
        Fact(
            name="window",
            value=f"{time_span(window_s)}, of kernels {time_span(window_s * protocol.kernel_window_share)}",
        ),
        Fact(name="trials", value=f"{protocol.trials_min} to {protocol.trials_max}"),
        Fact(name="idle floor", value=f"{time_span(protocol.idle_s)} each time"),
        *(Fact(name="because", value=reason) for reason in calibration.advice(STANDARD).reasons),
        Fact(
            name="precision",
            value=f"lingers {percent(precision.tail95)}, lag {time_span(precision.lag_s)}, sampled "
            f"{percent(precision.sampled_share)}, gain {percent(precision.gain95)} ({precision.source})",
        ),
    )


def calibration_section(scene: Scene) -> Section | None:
    """A group for each environment that was calibrated; None where none was."""
    groups = tuple(
        _group(number, row)
        for number, row in enumerate(scene.summary.environments, start=1)
        if row.calibration is not None
    )
    if not groups:
        return None
    return Section(name="calibration", title="Calibration of the meters", lead=_LEAD, groups=groups)


def _group(number: int, row: EnvironmentRow) -> Group:
    title = f"{plain(row.device_name)}, environment {row.environment_id[:12]}"
    try:
        calibration = Calibration.from_json(row.calibration or "", "It")
    except CorruptFile as error:
        return Group(title=title, notes=(f"The calibration stored here cannot be read. {plain(str(error))}",))
    tables = [_advice_table(calibration)]
    if calibration.devices:
        tables.insert(0, _device_table(calibration))
    figure = _figure(number, calibration)
    notes = [plain(note) for note in calibration.notes]
    notes += [f"{plain(one.meter)}: {plain(note)}" for one in calibration.devices for note in one.notes]
    return Group(
        title=title,
        legend=_legend(calibration) if figure else (),
        figures=(figure,) if figure else (),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _device_table(calibration: Calibration) -> Table:
    columns = [device_facts(device) for device in calibration.devices]
    made = f"{moment(calibration.calibrated_at_utc)}, {calibration.provenance.value}, {plain(calibration.load)}"
    return Table(
        caption=f"Meters ({made}{', quick' if calibration.quick else ''})",
        columns=(Column(title="what"), *(Column(title=plain(device.meter)) for device in calibration.devices)),
        rows=tuple(
            (
                Cell(text=name),
                *(Cell(text=" · ".join(_shown(fact) for fact in facts if fact.name == name)) for facts in columns),
            )
            for name in dict.fromkeys(fact.name for facts in columns for fact in facts)
        ),
    )


def _advice_table(calibration: Calibration) -> Table:
    return Table(
        caption="What follows for the standard protocol",
        columns=(Column(title="what"), Column(title="value")),
        rows=tuple((Cell(text=fact.name), Cell(text=plain(fact.value))) for fact in advice_facts(calibration)),
    )


def _shown(fact: Fact) -> str:
    return f"{'⚠ ' if fact.warning else ''}{fact.value}"


def _figure(number: int, calibration: Calibration) -> Figure | None:
    """What a reading is wrong by, against the length of its window."""
    series = []
    for device, mark in zip(calibration.devices, _marks(len(calibration.devices)), strict=True):
        shares = [half_width(Facts.of(device), length_s) for length_s in _LENGTHS_S]
        known = [(length_s, share) for length_s, share in zip(_LENGTHS_S, shares, strict=True) if share is not None]
        if known:
            series.append(
                Points(
                    series=plain(device.meter),
                    mark=mark,
                    x=([length_s for length_s, _ in known],),
                    y=[100 * share for _, share in known],
                    notes=[(plain(device.meter), f"{time_span(at)}: ± {percent(share)}") for at, share in known],
                )
            )
    if not series:
        return None
    return scatter(
        name=f"calibration-{number}",
        title="What one window's reading may be wrong by, the meter's gain apart",
        series=series,
        x_axes=(Axis(title="length of the window", unit="s", log=True),),
        y_axis=Axis(title="half width", unit="%", log=True),
        height_px=260,
    )


def _legend(calibration: Calibration) -> tuple[LegendEntry, ...]:
    marks = _marks(len(calibration.devices))
    return tuple(
        LegendEntry(series=plain(device.meter), text=plain(device.meter), mark=mark)
        for device, mark in zip(calibration.devices, marks, strict=True)
    )


def _marks(count: int) -> Sequence[Mark]:
    return [Mark(colour=_COLOURS[index % len(_COLOURS)]) for index in range(count)]


def _counter_facts(counter: CounterTraits | None) -> Iterator[Fact]:
    if counter is None:
        yield Fact(name="counter", value=NOTHING)
        return
    yield Fact(
        name="read takes",
        value=f"{time_span(counter.read_median_s)}, 99 % at most {time_span(counter.read_p99_s)}",
    )
    if counter.median_s is None:
        return
    yield Fact(
        name="counter moves every",
        value=f"{time_span(counter.period_s)} (median {time_span(counter.median_s)}, 90 % within "
        f"{time_span(counter.spread_s)}, jitter {_jitter(counter.jitter_s)})",
    )
    yield Fact(name="counts in", value=quantity(counter.quantum_j, "J"))
    yield Fact(name="counter lags by", value=_span(counter.lag_s))
    yield Fact(name="counter sees", value=_seen(counter), warning=_blind(counter.sampled_share))


def _field_facts(name: str, field: FieldTraits | None) -> Iterator[Fact]:
    if field is None:
        yield Fact(name=name, value=NOTHING)
        return
    yield Fact(
        name=name,
        value=f"renewed every {time_span(field.period_s)}, averages {_span(field.window_s)}"
        f"{f' in {field.looks} looks' if (field.looks or 1) > 1 else ''}, sees {percent(field.sampled_share)} of the "
        f"time, lags by {_span(field.lag_s)}, rises in {time_span(field.rise_s)}",
    )


def _aliasing_facts(found: Sequence[Aliasing]) -> Iterator[Fact]:
    for one in found:
        polled = f"; polled power ± {percent(one.polled_worst)}" if one.polled_worst is not None else ""
        verdict = "aliases" if one.seen else "no aliasing seen"
        yield Fact(
            name="beating load",
            value=f"period {time_span(one.load_period_s)}: {verdict}, ± {percent(one.worst)} over {one.phases} phases "
            f"(noise ± {percent(one.resolution)}), mean {signed_percent(one.bias, None)}{polled}",
            warning=one.seen,
        )


def _gap_facts(device: DeviceCalibration) -> Iterator[Fact]:
    for name, gap in (("polled power less counter, load", device.load_gap), ("… idle", device.idle_gap)):
        value = NOTHING if gap is None else signed_percent(gap.value, gap.ci95)
        yield Fact(name=name, value=value, warning=gap_is_flagged(gap))
    yield Fact(name="power under the load", value=_power(device.load_w))
    yield Fact(name="noise of one period", value=quantity(device.noise_w, "W"))


def _idle_facts(idle: IdleTraits) -> Iterator[Fact]:
    yield Fact(name="idle, nothing resident", value=_power(idle.bare_w))
    yield Fact(name="idle, context resident", value=_power(idle.context_w))
    yield Fact(name="idle settles after", value=time_span(idle.settle_s))
    tail = idle.tail_share
    yield Fact(
        name="lingers until the next move", value=NOTHING if tail is None else signed_percent(tail.value, tail.ci95)
    )
    slope = idle.w_per_c
    yield Fact(
        name="idle power per °C",
        value=NOTHING if slope is None else f"{slope.value:.3f} ± {slope.ci95 or 0:.3f} W",
    )
    yield Fact(name="cools with", value=time_span(idle.time_constant_s))


def _power(power: Estimate | None) -> str:
    return with_interval(power.value, power.ci95, "W") if power else NOTHING


def _span(span_s: Estimate | None) -> str:
    """A time that may be around 0, with its interval in the same unit."""
    if span_s is None:
        return NOTHING
    half = "" if span_s.ci95 is None else f" ± {_milliseconds(span_s.ci95)}"
    return f"{_milliseconds(span_s.value)}{half} ms"


def _milliseconds(span_s: float) -> str:
    return f"{1e3 * span_s:.3g}" if abs(span_s) < 0.9995 else f"{1e3 * span_s:.0f}"


def _jitter(jitter_s: float | None) -> str:
    """What is lost in the resolution of the looks is not claimed to be none."""
    return "not seen" if jitter_s is None else time_span(jitter_s)


def _seen(counter: CounterTraits) -> str:
    share = counter.sampled_share
    if share is None:
        return NOTHING
    looks = f", in {counter.looks} looks a period" if (counter.looks or 1) > 1 else ""
    return f"{percent(share.value)} ± {percent(share.ci95)} of the time{looks}"


def _blind(share: Estimate | None) -> bool:
    return share is not None and share.value + (share.ci95 or 0.0) < 0.95
