"""NVIDIA's energy counter through NVML: one meter per GPU, found by its UUID.

The counter (``nvmlDeviceGetTotalEnergyConsumption``) holds millijoules since the driver was loaded, on Volta and newer,
for the whole device: a slice of a GPU (MIG) reads its parent. It moves every 10 to 200 ms; ``step_s`` says 100 ms until
it has been measured.

Every call has a time-out (``harness.meters.guard``), and what the counter shows is watched
(``harness.meters.counter``): a fault raises ``MeterFailed`` with its cause, and the meter then stays failed.
"""

import importlib
import os
from dataclasses import dataclass
from typing import Final

from harness.errors import MeterError, MeterUnavailable
from harness.meters.base import Clock, Conditions, CounterRead, DeviceFacts, MonotonicClock, closed
from harness.meters.counter import CounterWatch
from harness.meters.nvml_device import GpuHandle, NvmlDevice
from harness.meters.nvml_errors import NO_PACKAGE
from harness.meters.nvml_library import CALL_TIMEOUT_S, Nvml
from harness.records import Provenance

__all__ = ["STEP_S", "GpuHandle", "NvmlMeter", "device_of", "open_nvml"]

STEP_S: Final = 0.1
_COUNTER: Final = "nvmlDeviceGetTotalEnergyConsumption"


def open_nvml(*, timeout_s: float = CALL_TIMEOUT_S, guarded: bool = True) -> Nvml:
    """Initialise NVML; raises ``MeterUnavailable``. To be closed."""
    try:
        api = importlib.import_module("pynvml")
    except ModuleNotFoundError as error:
        raise MeterUnavailable(f"NVML: {NO_PACKAGE.why}.\n{NO_PACKAGE.remedy}", cause=NO_PACKAGE.cause) from error
    return Nvml(api, timeout_s=timeout_s, guarded=guarded)


def device_of(nvml: Nvml, gpu: GpuHandle, label: str) -> NvmlDevice:
    """The whole GPU that a handle means; raises ``MeterUnavailable``."""
    handle = nvml.call("nvmlDeviceGetHandleByUUID", gpu.board_uuid, device=label, failure=MeterUnavailable)
    return NvmlDevice(nvml, handle)


@dataclass(slots=True)
class _Look:
    energy_mj: int
    before_s: float
    after_s: float


class NvmlMeter:
    """The energy counter of one GPU; raises ``MeterUnavailable`` if it has none.

    ``index`` is the GPU's place among those in use, ``own_pids`` are the processes of this run (default: this one),
    ``timeout_s`` is how long a call may take before the meter is given up.
    """

    method = "nvml-counter"
    provenance = Provenance.MEASURED

    def __init__(
        self,
        gpu: GpuHandle,
        index: int = 0,
        own_pids: frozenset[int] | None = None,
        *,
        clock: Clock | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.name = f"nvml:{index}"
        self.step_s = STEP_S
        self._gpu = gpu
        self._own_pids = own_pids if own_pids is not None else frozenset({os.getpid()})
        self._label = f"{self.name} ({gpu.name})"
        self._clock = clock or MonotonicClock()
        self._closed = False
        self._nvml = open_nvml(timeout_s=timeout_s)
        try:
            self._device = device_of(self._nvml, gpu, self._label)
            limit_w = self._nvml.ask_together(self._device.most_power_w)
            now_mj = self._nvml.together(self._device.energy_mj, _COUNTER, device=self._label, failure=MeterUnavailable)
        except MeterError:
            self._nvml.close()
            raise
        self._watch = CounterWatch(self._label, now_mj, self._clock.now_s(), limit_w=limit_w)

    def read_j(self) -> float:
        """Joules since the driver was loaded; raises ``MeterFailed``, also for what no counter can honestly show."""
        return self.read_at(self._clock).energy_j

    def read_at(self, clock: Clock) -> CounterRead:
        """The same with the time of NVML's own call on ``clock``, without the hand-over to the thread that makes it."""
        if self._closed:
            raise closed(self.name)

        def looked() -> _Look:
            before_s = clock.now_s()
            energy_mj = self._device.energy_mj()
            return _Look(energy_mj, before_s, clock.now_s())

        look = self._nvml.together(looked, _COUNTER, device=self._label)
        return CounterRead(
            energy_j=self._watch.energy_j(look.energy_mj, self._clock.now_s()),
            at_s=(look.before_s + look.after_s) / 2,
            latency_s=look.after_s - look.before_s,
        )

    def close(self) -> None:
        """Let go of NVML."""
        self._closed = True
        self._nvml.close()

    def conditions(self, *, powers: bool = True) -> Conditions:
        """Clocks, temperature, power, limits, slowdown reasons and strangers on the GPU, as far as it tells."""
        return self._nvml.ask_together(lambda: self._device.conditions(self._own_pids, powers=powers)) or Conditions()

    def facts(self) -> DeviceFacts:
        """What the GPU is and how it is set up."""
        return self._nvml.ask_together(lambda: self._device.facts(self._gpu)) or DeviceFacts(name=self._gpu.name)
