"""How samples travel from the sampler's process to ours: records of one size, appended to a file of both.

A file and no pipe: nobody has to empty it, so a busy reader never stops the sampler and the sampler never wakes the
reader. A record is there once the file is long enough, and is never changed.
"""

import math
import os
import struct
from typing import Final

from harness.meters.power import PowerSample

_LAYOUT: Final = struct.Struct("<HddddddddQi2x")
_NO_REASONS: Final = 2**64 - 1  # NVML has no bit there
SAMPLE_BYTES: Final = _LAYOUT.size


def packed(sample: PowerSample) -> bytes:
    """A sample as a record; ``None`` is NaN."""
    numbers = (
        sample.power_w,
        sample.average_power_w,
        sample.reported_power_w,
        sample.sm_clock_mhz,
        sample.temperature_c,
        sample.power_limit_w,
    )
    return _LAYOUT.pack(
        sample.device,
        sample.at_s,
        sample.latency_s,
        *(math.nan if number is None else number for number in numbers),
        _NO_REASONS if sample.throttle_reasons is None else sample.throttle_reasons,
        sample.problem or 0,
    )


class SampleReader:
    """Reads the samples of a file that is still being written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read_bytes = 0

    def take(self) -> tuple[PowerSample, ...]:
        """The samples since the last ``take``."""
        there_bytes = os.fstat(self._descriptor).st_size - self._read_bytes
        data = os.pread(self._descriptor, there_bytes - there_bytes % SAMPLE_BYTES, self._read_bytes)
        whole = data[: len(data) - len(data) % SAMPLE_BYTES]
        self._read_bytes += len(whole)
        return tuple(_sample(*fields) for fields in _LAYOUT.iter_unpack(whole))

    def newest_s(self) -> float | None:
        """When the newest sample was made, taken or not; ``None``: there is none."""
        whole = os.fstat(self._descriptor).st_size // SAMPLE_BYTES
        if not whole:
            return None
        return _sample(*_LAYOUT.unpack(os.pread(self._descriptor, SAMPLE_BYTES, (whole - 1) * SAMPLE_BYTES))).at_s


def _sample(
    device: int,
    at_s: float,
    latency_s: float,
    power_w: float,
    average_power_w: float,
    reported_power_w: float,
    sm_clock_mhz: float,
    temperature_c: float,
    power_limit_w: float,
    throttle_reasons: int,
    problem: int,
) -> PowerSample:
    return PowerSample(
        device=device,
        at_s=at_s,
        latency_s=latency_s,
        power_w=_number(power_w),
        average_power_w=_number(average_power_w),
        reported_power_w=_number(reported_power_w),
        sm_clock_mhz=_number(sm_clock_mhz),
        temperature_c=_number(temperature_c),
        power_limit_w=_number(power_limit_w),
        throttle_reasons=None if throttle_reasons == _NO_REASONS else throttle_reasons,
        problem=problem or None,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
