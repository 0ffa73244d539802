"""Energy of GPUs that have no counter: the integral of their sampled power. Taken only where the user allows it.

    E(t) = ∫ P dt by trapezoids over the samples up to t, at about ten a second

Assumed: power between two samples lies on the line between them. What that is worth is stated by ``sampling95_j``; what
the sensor does not look at (A100 and H100 look at a quarter of the time, arXiv 2312.02741) and its gain are not in it.
Where power is a trailing mean, energy shows ``averaging_s`` late (``lag_s`` of the bank), and edges are smeared.

The energy is measured, by a sensor of the device; that it was integrated here is said by the method, ``nvml-power``.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from harness.errors import MeterCause, MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import Conditions, DeviceFacts, closed
from harness.meters.nvml import device_of, open_nvml
from harness.meters.nvml_device import MEAN_S, GpuHandle
from harness.meters.nvml_library import CALL_TIMEOUT_S
from harness.meters.power import CAUSES, PowerField, PowerSample, Sampler, integrate
from harness.records import Provenance

_LONGEST_GAP_PERIODS: Final = 10  # a busy machine keeps a process waiting; what that costs is in sampling95_j
_KEPT: Final = 200_000  # samples per GPU for the uncertainty of windows: five hours
_FIRST_LOOKS_PERIODS: Final = 10  # in which a GPU must tell a power once


class PowerIntegral:
    """Adds up one device's power; it may not be unknown for longer than ``longest_gap_s``."""

    def __init__(self, name: str, field: PowerField, *, averaging_s: float, longest_gap_s: float) -> None:
        self.energy_j = 0.0
        self.averaging_s = averaging_s
        self.fault: MeterFailed | None = None
        self._name = name
        self._field = field
        self._longest_gap_s = longest_gap_s
        self._kept: deque[PowerSample] = deque(maxlen=_KEPT)

    def add(self, sample: PowerSample) -> None:
        """Take one more sample; one without a power is a gap, and one that is too long spoils all that follows."""
        last = self._kept[-1] if self._kept else None
        gap_s = 0.0 if last is None else sample.at_s - last.at_s
        if gap_s > self._longest_gap_s and self.fault is None:
            code = "" if sample.problem is None else f" (NVML's error {sample.problem})"
            self.fault = MeterFailed(
                f"{self._name}: no power was read for {gap_s:.3g} s{code}, so the energy of that time is not known.\n"
                "Run again: finished runs are kept. See `python -m harness.doctor` if it comes back.",
                cause=MeterCause.SAMPLES_MISSING,
            )
        power_w = self._field.of(sample)
        if power_w is None or self.fault is not None:
            return
        if last is not None:
            self.energy_j += gap_s * (power_w + (self._field.of(last) or power_w)) / 2
        self._kept.append(sample)

    def sampling95_j(self, start_s: float, end_s: float) -> float | None:
        """Half width of the 95 % interval of the energy between two times, from sampling alone."""
        margin_s = self.averaging_s + self._longest_gap_s
        around = [sample for sample in self._kept if start_s - margin_s <= sample.at_s <= end_s + margin_s]
        found = integrate(
            around,
            start_s,
            end_s,
            field=self._field,
            averaging_s=self.averaging_s,
            longest_gap_s=self._longest_gap_s,
        )
        return None if found is None else found.sampling95_j


class SampledPower:
    """The power of several GPUs, sampled by one process for as long as one of their meters is open."""

    def __init__(self, sampler: Sampler, names: Sequence[str], usage_averaging_s: Sequence[float]) -> None:
        """Start the sampler and choose what to integrate; raises ``MeterUnavailable`` where a GPU tells no power."""
        self.period_s = sampler.period_s
        self._sampler = sampler
        self._open = len(names)
        sampler.start()
        try:
            seen = self._first_looks(len(names))
            self.integrals = tuple(
                self._integral(name, [sample for sample in seen if sample.device == place], averaging_s)
                for place, (name, averaging_s) in enumerate(zip(names, usage_averaging_s, strict=True))
            )
        except MeterError:
            sampler.stop()
            raise

    def catch_up(self) -> None:
        """Add what was sampled since the last time; raises ``MeterFailed`` if the sampler is no more."""
        for sample in self._sampler.take():
            self.integrals[sample.device].add(sample)
        state = self._sampler.state
        if state in CAUSES:
            detail = self._sampler.stop().detail
            raise MeterFailed(
                f"The power sampler is {state.value}{detail and ': '}{detail}, so no energy can be integrated.\n"
                "Run again: finished runs are kept.",
                cause=CAUSES[state],
            )

    def close_one(self) -> None:
        """Note that one meter is closed; the last one ends the sampler."""
        self._open -= 1
        if self._open == 0:
            self._sampler.stop()

    def _first_looks(self, devices: int) -> list[PowerSample]:
        """Samples until every device has told a power, or ten periods long: some answer nothing now and then."""
        seen: list[PowerSample] = []
        for _ in range(_FIRST_LOOKS_PERIODS):
            seen += self._sampler.take()
            told = {sample.device for sample in seen if any(field.of(sample) for field in PowerField)}
            if len(told) == devices:
                break
            time.sleep(self.period_s)
        return seen

    def _integral(self, name: str, seen: Sequence[PowerSample], usage_averaging_s: float) -> PowerIntegral:
        """The best power the device tells: instantaneous, else what NVML reports, else the mean."""
        means_s = {PowerField.INSTANT: 0.0, PowerField.REPORTED: usage_averaging_s, PowerField.AVERAGE: MEAN_S}
        for field, averaging_s in means_s.items():
            if any(field.of(sample) for sample in seen):
                gap_s = _LONGEST_GAP_PERIODS * self.period_s
                integral = PowerIntegral(name, field, averaging_s=averaging_s, longest_gap_s=gap_s)
                for sample in seen:
                    integral.add(sample)
                return integral
        raise MeterUnavailable(
            f"{name}: the GPU has no energy counter and tells no power either, so its energy cannot be measured.\n"
            "Use a Volta or newer GPU, passed through whole.",
            cause=MeterCause.NOT_SUPPORTED,
        )


class NvmlPowerMeter:
    """Energy of one GPU integrated from its sampled power. A ``SampledMeter``."""

    method = "nvml-power"
    provenance = Provenance.MEASURED

    def __init__(
        self, gpu: GpuHandle, index: int, own_pids: frozenset[int] | None, power: SampledPower, place: int
    ) -> None:
        """The GPU is the one at ``place`` among those that ``power`` samples. Raises ``MeterUnavailable``."""
        self.name = f"nvml:{index}"
        self.step_s = power.period_s
        self._gpu = gpu
        self._own_pids = own_pids if own_pids is not None else frozenset({os.getpid()})
        self._power, self._integral = power, power.integrals[place]
        self._closed = False
        self._nvml = open_nvml(timeout_s=CALL_TIMEOUT_S)
        try:
            self._device = device_of(self._nvml, gpu, f"{self.name} ({gpu.name})")
        except MeterError:
            self._nvml.close()
            raise

    @property
    def lag_s(self) -> float:
        """Energy shows this much later than it was used: the length of the mean that the GPU tells."""
        return self._integral.averaging_s

    def read_j(self) -> float:
        """Joules since the sampler was started, as of the newest sample; raises ``MeterFailed``."""
        if self._closed:
            raise closed(self.name)
        self._power.catch_up()
        if self._integral.fault is not None:
            raise MeterFailed(str(self._integral.fault), cause=self._integral.fault.cause)
        return self._integral.energy_j

    def sampling95_j(self, start_s: float, end_s: float) -> float | None:
        """Half width of the 95 % interval that sampling alone gives the energy between two times."""
        return self._integral.sampling95_j(start_s, end_s)

    def close(self) -> None:
        """Let go of the GPU; the last meter of a sampler ends it."""
        if not self._closed:
            self._closed = True
            self._nvml.close()
            self._power.close_one()

    def conditions(self, *, powers: bool = True) -> Conditions:
        """Clocks, temperature, power, limits, slowdown reasons and strangers on the GPU, as far as it tells."""
        return self._nvml.ask_together(lambda: self._device.conditions(self._own_pids, powers=powers)) or Conditions()

    def facts(self) -> DeviceFacts:
        """What the GPU is and how it is set up."""
        return self._nvml.ask_together(lambda: self._device.facts(self._gpu)) or DeviceFacts(name=self._gpu.name)


def open_power_meters(
    gpus: Sequence[GpuHandle], indices: Sequence[int], own_pids: frozenset[int] | None, sampler: Sampler
) -> tuple[NvmlPowerMeter, ...]:
    """One meter per GPU behind one sampler of them all; raises ``MeterUnavailable``."""
    names = [f"nvml:{index} ({gpu.name})" for gpu, index in zip(gpus, indices, strict=True)]
    power = SampledPower(sampler, names, _usage_averaging_s(gpus, names))
    with ExitStack() as on_error:
        on_error.callback(sampler.stop)
        meters: list[NvmlPowerMeter] = []
        for place, (gpu, index) in enumerate(zip(gpus, indices, strict=True)):
            meters.append(NvmlPowerMeter(gpu, index, own_pids, power, place))
            on_error.callback(meters[-1].close)
        on_error.pop_all()
    return tuple(meters)


def _usage_averaging_s(gpus: Sequence[GpuHandle], names: Sequence[str]) -> list[float]:
    """Over how long each GPU's nvmlDeviceGetPowerUsage is a trailing mean; raises ``MeterUnavailable``."""
    with open_nvml(timeout_s=CALL_TIMEOUT_S) as nvml:
        devices = [device_of(nvml, gpu, name) for gpu, name in zip(gpus, names, strict=True)]
        answers = [nvml.ask_together(device.usage_averaging_s) for device in devices]
    return [MEAN_S if averaging_s is None else averaging_s for averaging_s in answers]
