"""What NVML tells about one GPU beside its energy counter: its state, its set-up, its power.

All of this runs where NVML's calls are made: inside ``Nvml.together``, or in a process of its own.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.meters.base import Clock, Conditions, DeviceFacts
from harness.meters.nvml_errors import FUNCTION_MISSING, NOT_SUPPORTED
from harness.meters.nvml_library import Nvml
from harness.meters.power import PowerSample
from harness.units import W_PER_MW

_REASONS: Final = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
_TEMPERATURES: Final = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
_MOST_POWER_MW: Final = 100_000_000  # 0xFFFFFFFF and the like are no power; no device draws 100 kW
# Member of the union nvmlValue_t by nvmlValueType_t.
_MEMBERS: Final[Mapping[int, str]] = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal"}
# The kernel's number for the first process namespace (PROC_PID_INIT_INO in Linux' proc_ns.h).
_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC
# nvmlDeviceGetPowerUsage: "On Ampere (except GA100) or newer GPUs, the API returns power averaged over 1 sec interval.
# On GA100 and older architectures, instantaneous power is returned" (nvml.h). GA100 is A100, A800 and A30.
_AMPERE: Final = 7
_GA100: Final = ("A100", "A800", "A30")
MEAN_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHandle:
    """One GPU, or one slice of a GPU, that CUDA will use."""

    uuid: str  # as CUDA addresses it: GPU-… or MIG-…
    board_uuid: str  # the whole GPU, whose counter counts
    name: str
    memory_bytes: int | None
    cut: bool = False  # into slices (MIG), of which CUDA would use the first


class NvmlDevice:
    """A GPU behind an NVML handle."""

    def __init__(self, nvml: Nvml, handle: Any) -> None:
        self._nvml = nvml
        self._api = nvml.api
        self._handle = handle

    def energy_mj(self) -> int:
        """What the counter shows; raises pynvml's errors."""
        return int(self._api.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def conditions(self, own_pids: frozenset[int], *, powers: bool = True) -> Conditions:
        """Clocks, temperature, power, limits, slowdown reasons and strangers on the GPU, as far as it tells."""
        api, ask, handle = self._api, self._nvml.ask, self._handle
        instant_w, average_w = self._field_powers_w(ask) if powers else (None, None)
        return Conditions(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, api.NVML_CLOCK_SM),
            memory_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, api.NVML_CLOCK_MEM),
            temperature_c=_first(ask, _TEMPERATURES, handle, api.NVML_TEMPERATURE_GPU),
            power_w=instant_w,
            reported_power_w=watts(ask("nvmlDeviceGetPowerUsage", handle)) if powers else None,
            throttle_reasons=_first(ask, _REASONS, handle),
            other_processes=self._other_processes(own_pids),
            average_power_w=average_w,
            power_limit_w=watts(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            set_power_limit_w=watts(ask("nvmlDeviceGetPowerManagementLimit", handle)),
            performance_state=ask("nvmlDeviceGetPerformanceState", handle),
        )

    def facts(self, gpu: GpuHandle) -> DeviceFacts:
        """What the GPU is and how it is set up."""
        ask, handle = self._nvml.ask, self._handle
        return DeviceFacts(
            name=gpu.name,
            uuid_sha256=hashlib.sha256(gpu.uuid.encode()).hexdigest(),
            driver=ask("nvmlSystemGetDriverVersion"),
            vbios=ask("nvmlDeviceGetVbiosVersion", handle),
            power_limit_w=watts(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            ecc=_current(ask("nvmlDeviceGetEccMode", handle)),
            mig=_current(ask("nvmlDeviceGetMigMode", handle)),
            persistence_mode=_current([ask("nvmlDeviceGetPersistenceMode", handle)]),
            memory_bytes=gpu.memory_bytes,
            set_power_limit_w=watts(ask("nvmlDeviceGetPowerManagementLimit", handle)),
            most_power_w=self.most_power_w(),
        )

    def most_power_w(self) -> float | None:
        """The highest power limit that can be set, or the one in force."""
        constraints = self._nvml.ask("nvmlDeviceGetPowerManagementLimitConstraints", self._handle) or [None, None]
        limits_w = [watts(constraints[1]), watts(self._nvml.ask("nvmlDeviceGetEnforcedPowerLimit", self._handle))]
        return max((limit_w for limit_w in limits_w if limit_w is not None), default=None)

    def usage_averaging_s(self) -> float:
        """Over how long nvmlDeviceGetPowerUsage is a trailing mean on this GPU; 0: it is instantaneous."""
        architecture = self._nvml.ask("nvmlDeviceGetArchitecture", self._handle)
        words = str(self._nvml.ask("nvmlDeviceGetName", self._handle) or "").replace("-", " ").split()
        instant = architecture is not None and (architecture < _AMPERE or any(word in _GA100 for word in words))
        return 0.0 if instant else MEAN_S

    def sample(self, place: int, clock: Clock) -> PowerSample:
        """One look at power, clock, temperature and slowdown reasons; what fails is ``None``, never an error."""
        api, handle = self._api, self._handle
        ask = _Asker(api)
        before_s = clock.now_s()
        instant_w, average_w = self._field_powers_w(ask)
        after_s = clock.now_s()
        return PowerSample(
            device=place,
            at_s=(before_s + after_s) / 2,
            latency_s=after_s - before_s,
            power_w=instant_w,
            average_power_w=average_w,
            reported_power_w=watts(ask("nvmlDeviceGetPowerUsage", handle)),
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", handle, api.NVML_CLOCK_SM),
            temperature_c=_first(ask, _TEMPERATURES, handle, api.NVML_TEMPERATURE_GPU),
            throttle_reasons=_first(ask, _REASONS, handle),
            power_limit_w=watts(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            problem=ask.problem,
        )

    def _field_powers_w(self, ask: Callable[..., Any]) -> tuple[float | None, float | None]:
        """Instantaneous and average power."""
        wanted = [self._api.NVML_FI_DEV_POWER_INSTANT, self._api.NVML_FI_DEV_POWER_AVERAGE]
        fields = ask("nvmlDeviceGetFieldValues", self._handle, wanted)
        if fields is None:
            return None, None
        return _field_w(fields[0]), _field_w(fields[1])

    def _other_processes(self, own_pids: frozenset[int]) -> int | None:
        running = self._nvml.ask("nvmlDeviceGetComputeRunningProcesses", self._handle)
        if running is None:
            return None
        strangers = [entry.pid for entry in running if not _is_one_of(entry.pid, own_pids)]
        if len(strangers) == len(running) > 0 and not pids_are_the_drivers():
            return None  # in a container the driver may number processes as the host does: ours among them
        return len(strangers)


class _Asker:
    """Asks and keeps the first error that says more than that the GPU or the driver does not have it."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.problem: int | None = None

    def __call__(self, function: str, *arguments: Any) -> Any | None:
        try:
            return getattr(self._api, function)(*arguments)
        except self._api.NVMLError as error:
            if error.value not in (NOT_SUPPORTED, FUNCTION_MISSING) and self.problem is None:
                self.problem = error.value
            return None


def watts(milliwatts: int | None) -> float | None:
    """A power; polled too fast, some GPUs answer 0, which no GPU draws."""
    return milliwatts * W_PER_MW if milliwatts is not None and 0 < milliwatts < _MOST_POWER_MW else None


def _field_w(field: Any) -> float | None:
    if field.nvmlReturn != 0 or field.valueType not in _MEMBERS:
        return None
    return watts(getattr(field.value, _MEMBERS[field.valueType]))


def _first(ask: Callable[..., Any], functions: Sequence[str], *arguments: Any) -> Any | None:
    """The answer of the first of several names of one function: drivers renamed some."""
    return next((found for name in functions if (found := ask(name, *arguments)) is not None), None)


def _current(mode: Sequence[int | None] | None) -> bool | None:
    """Of the pair (current, pending) that NVML gives for a mode, whether it is on now."""
    return None if mode is None or mode[0] is None else mode[0] == 1


def _is_one_of(pid: int, own_pids: frozenset[int]) -> bool:
    """Whether a process is ours; some drivers give the number of a thread."""
    return pid in own_pids or any(Path(f"/proc/{own}/task/{pid}").exists() for own in own_pids)


def pids_are_the_drivers() -> bool:
    """Whether process numbers mean the same here as in the driver: not so inside most containers."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False
