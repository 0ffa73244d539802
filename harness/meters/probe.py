"""Whether a meter can be used here: open it, watch it move, close it."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import MeterError
from harness.meters.base import Clock, DeviceFacts, DeviceMeter
from harness.meters.period import measure_step_s


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterProbe:
    """What became of trying a meter."""

    name: str | None  # null: it did not open
    step_s: float | None  # null: it did not move
    facts: DeviceFacts | None
    problem: str | None  # null: it can be used


def probe(open_meter: Callable[[], DeviceMeter], clock: Clock, max_wait_s: float = 1.0) -> MeterProbe:
    """Try a meter for at most ``max_wait_s``; an error becomes the ``problem``."""
    try:
        meter = open_meter()
    except MeterError as error:
        return MeterProbe(name=None, step_s=None, facts=None, problem=str(error))
    try:
        step_s = measure_step_s(meter, clock, max_wait_s)
        still = f"The counter stood still for {max_wait_s:g} s, so it would read as 0 J.\nReload the driver or reboot."
        return MeterProbe(
            name=meter.name, step_s=step_s, facts=meter.facts(), problem=still if step_s is None else None
        )
    except MeterError as error:
        return MeterProbe(name=meter.name, step_s=None, facts=None, problem=str(error))
    finally:
        meter.close()
