"""NVIDIA's energy counter through NVML: one meter per GPU, found by its UUID.

The counter (``nvmlDeviceGetTotalEnergyConsumption``) holds millijoules since the driver was loaded, on Volta and newer,
for the whole device: a slice of a GPU (MIG) reads its parent. It moves every 20 to 100 ms; ``step_s`` says 100 ms until
it has been measured.
"""

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from harness.errors import MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import Conditions, DeviceFacts, closed
from harness.meters.visible import VARIABLE, visible_indices, visible_slices
from harness.records import Provenance
from harness.units import J_PER_MJ, W_PER_MW

STEP_S: Final = 0.1

# By NVML return code: why, and what to do.
_ADVICE: Final[Mapping[str, tuple[str, str]]] = {
    "UNINITIALIZED": (
        "another part of this process shut NVML down",
        "Open the meter again, and close every NVML user in the order it was opened.",
    ),
    "NOT_SUPPORTED": (
        "this GPU does not have it: energy counters came with Volta, and virtual GPUs (vGPU) hide them",
        "Use a Volta or newer GPU, passed through whole.",
    ),
    "NO_PERMISSION": (
        "the driver keeps it for the administrator",
        "Run as a user who may read it, or ask the administrator to lift the restriction.",
    ),
    "NOT_FOUND": ("no GPU answers to that name", f"Check `nvidia-smi -L` against {VARIABLE}."),
    "DRIVER_NOT_LOADED": (
        "the NVIDIA kernel driver is not running",
        "Load it with `sudo modprobe nvidia`, or install the driver; `nvidia-smi` must work first.",
    ),
    "LIBRARY_NOT_FOUND": (
        "libnvidia-ml.so.1, which the NVIDIA driver brings, is not installed here",
        "Install the NVIDIA driver; in a container start it with `--gpus all`.",
    ),
    "FUNCTION_NOT_FOUND": ("this driver is older than the function", "Update the NVIDIA driver."),
    "GPU_IS_LOST": (
        "the GPU fell off the bus or was taken away",
        "Look for Xid messages in `dmesg`; reset the GPU or reboot, then run again: finished runs are kept.",
    ),
    "RESET_REQUIRED": ("the GPU hangs until it is reset", "Reset it with `sudo nvidia-smi --gpu-reset` or reboot."),
    "LIB_RM_VERSION_MISMATCH": (
        "the driver was updated and its kernel half is still the old one",
        "Reboot, or reload the NVIDIA kernel modules.",
    ),
}
_NO_ADVICE: Final = ("NVML gives no further reason", "See whether `nvidia-smi -q` answers; if not, reboot.")
_TOPOLOGY: Final = {0: "same board", 10: "PCIe switch", 20: "PCIe switches", 30: "host bridge", 40: "NUMA node"}
# The kernel's number for the first process namespace (PROC_PID_INIT_INO in Linux' proc_ns.h).
_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHandle:
    """One GPU, or one slice of a GPU, that CUDA will use."""

    uuid: str  # as CUDA addresses it: GPU-… or MIG-…
    board_uuid: str  # the whole GPU, whose counter counts
    name: str
    memory_bytes: int | None


class Nvml:
    """The NVML library, initialised; the only place where its errors become ours."""

    def __init__(self) -> None:
        self.api: Any = importlib.import_module("pynvml")
        self._closed = False
        self.call("nvmlInit", failure=MeterUnavailable)

    def call(
        self, function: str, *arguments: Any, device: str = "NVML", failure: type[MeterError] = MeterFailed
    ) -> Any:
        """The function's answer; raises ``failure`` with what NVML said, why, and what to do."""
        try:
            return getattr(self.api, function)(*arguments)
        except self.api.NVMLError as error:
            why, remedy = self._advice(error.value)
            raise failure(f"{device}: {function} answered {str(error)!r} ({error.value}): {why}.\n{remedy}") from error

    def ask(self, function: str, *arguments: Any) -> Any | None:
        """The function's answer; ``None`` where this GPU or this driver has none."""
        try:
            return getattr(self.api, function)(*arguments)
        except (self.api.NVMLError, self.api.NVMLLibraryMismatchError):
            return None

    def ask_first(self, functions: Sequence[str], *arguments: Any) -> Any | None:
        """The answer of the first of several names of one function: drivers renamed some."""
        return next((found for name in functions if (found := self.ask(name, *arguments)) is not None), None)

    def close(self) -> None:
        """Let go of the library; NVML counts its users."""
        if not self._closed:
            self._closed = True
            self.ask("nvmlShutdown")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _advice(self, code: int) -> tuple[str, str]:
        known = (advice for name, advice in _ADVICE.items() if getattr(self.api, f"NVML_ERROR_{name}") == code)
        return next(known, _NO_ADVICE)


class NvmlMeter:
    """The energy counter of one GPU; raises ``MeterUnavailable`` if it has none.

    ``index`` is the GPU's place among those in use, ``own_pids`` are the processes of this run (default: this one).
    """

    method = "nvml-counter"
    provenance = Provenance.MEASURED

    def __init__(self, gpu: GpuHandle, index: int = 0, own_pids: frozenset[int] | None = None) -> None:
        self.name = f"nvml:{index}"
        self.step_s = STEP_S
        self._gpu = gpu
        self._own_pids = own_pids if own_pids is not None else frozenset({os.getpid()})
        self._label = f"{self.name} ({gpu.name})"
        self._closed = False
        self._nvml = Nvml()
        try:
            self._device = self._nvml.call(
                "nvmlDeviceGetHandleByUUID", gpu.board_uuid, device=self._label, failure=MeterUnavailable
            )
            self._last_mj = self._read_mj(MeterUnavailable)
        except MeterError:
            self._nvml.close()
            raise

    def read_j(self) -> float:
        """Joules since the driver was loaded; raises ``MeterFailed``, also if the counter went back."""
        if self._closed:
            raise closed(self.name)
        now_mj = self._read_mj(MeterFailed)
        if now_mj < self._last_mj:
            raise MeterFailed(
                f"{self._label}: the energy counter went back from {self._last_mj} to {now_mj} mJ: "
                "the driver was reloaded or the GPU reset.\nRun again: finished runs are kept."
            )
        self._last_mj = now_mj
        return now_mj * J_PER_MJ

    def close(self) -> None:
        """Let go of NVML."""
        self._closed = True
        self._nvml.close()

    def conditions(self) -> Conditions:
        """Clocks, temperature, power, slowdown reasons and strangers on the GPU, as far as it tells."""
        api, device = self._nvml.api, self._device
        ask, ask_first = self._nvml.ask, self._nvml.ask_first
        reasons = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        temperatures = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
        return Conditions(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", device, api.NVML_CLOCK_SM),
            memory_clock_mhz=ask("nvmlDeviceGetClockInfo", device, api.NVML_CLOCK_MEM),
            temperature_c=ask_first(temperatures, device, api.NVML_TEMPERATURE_GPU),
            power_w=self._instant_power_w(),
            reported_power_w=_watts(ask("nvmlDeviceGetPowerUsage", device)),
            throttle_reasons=ask_first(reasons, device),
            other_processes=self._other_processes(),
        )

    def facts(self) -> DeviceFacts:
        """What the GPU is and how it is set up."""
        ask, device = self._nvml.ask, self._device
        return DeviceFacts(
            name=self._gpu.name,
            uuid_sha256=hashlib.sha256(self._gpu.uuid.encode()).hexdigest(),
            driver=ask("nvmlSystemGetDriverVersion"),
            vbios=ask("nvmlDeviceGetVbiosVersion", device),
            power_limit_w=_watts(ask("nvmlDeviceGetEnforcedPowerLimit", device)),
            ecc=_current(ask("nvmlDeviceGetEccMode", device)),
            mig=_current(ask("nvmlDeviceGetMigMode", device)),
            persistence_mode=_current([ask("nvmlDeviceGetPersistenceMode", device)]),
            memory_bytes=self._gpu.memory_bytes,
        )

    def _read_mj(self, failure: type[MeterError]) -> int:
        function = "nvmlDeviceGetTotalEnergyConsumption"
        return int(self._nvml.call(function, self._device, device=self._label, failure=failure))

    def _instant_power_w(self) -> float | None:
        fields = self._nvml.ask("nvmlDeviceGetFieldValues", self._device, [self._nvml.api.NVML_FI_DEV_POWER_INSTANT])
        if fields is None or fields[0].nvmlReturn != self._nvml.api.NVML_SUCCESS:
            return None
        return _watts(fields[0].value.uiVal or None)  # polled too fast, some GPUs answer 0

    def _other_processes(self) -> int | None:
        running = self._nvml.ask("nvmlDeviceGetComputeRunningProcesses", self._device)
        if running is None:
            return None
        strangers = [entry.pid for entry in running if not _is_one_of(entry.pid, self._own_pids)]
        if len(strangers) == len(running) > 0 and not _pids_are_the_drivers():
            return None  # in a container the driver may number processes as the host does: ours among them
        return len(strangers)


def visible_gpus(environ: Mapping[str, str] = os.environ) -> tuple[GpuHandle, ...]:
    """The GPUs that CUDA will use, in its order; empty if none is visible.

    Raises ``MeterUnavailable`` where there is no working driver.
    """
    value = environ.get(VARIABLE)
    with Nvml() as nvml:
        count = nvml.call("nvmlDeviceGetCount", failure=MeterUnavailable)
        boards = [
            _board(nvml, nvml.call("nvmlDeviceGetHandleByIndex", i, failure=MeterUnavailable)) for i in range(count)
        ]
        if slices := visible_slices(value):
            return _slices(nvml, slices)
        return tuple(boards[i] for i in visible_indices(value, [board.uuid for board in boards]))


def topology(gpus: Sequence[GpuHandle]) -> str | None:
    """How the GPUs are linked, e.g. ``nvlink: 0-1; NUMA node: 0-2 1-2``; ``None`` for one GPU or where not known."""
    pairs: dict[str, list[str]] = {}
    with Nvml() as nvml:
        devices = [nvml.ask("nvmlDeviceGetHandleByUUID", gpu.board_uuid) for gpu in gpus]
        for i, first in enumerate(devices):
            for j, second in enumerate(devices[i + 1 :], start=i + 1):
                pairs.setdefault(_link(nvml, first, second), []).append(f"{i}-{j}")
    return "; ".join(f"{link}: {' '.join(between)}" for link, between in pairs.items()) or None


def _board(nvml: Nvml, device: Any) -> GpuHandle:
    uuid = nvml.call("nvmlDeviceGetUUID", device, failure=MeterUnavailable)
    name = nvml.call("nvmlDeviceGetName", device, failure=MeterUnavailable)
    return GpuHandle(uuid=uuid, board_uuid=uuid, name=name, memory_bytes=_memory_bytes(nvml, device))


def _memory_bytes(nvml: Nvml, device: Any) -> int | None:
    memory = nvml.ask("nvmlDeviceGetMemoryInfo", device)
    return None if memory is None else int(memory.total)


def _slices(nvml: Nvml, uuids: Sequence[str]) -> tuple[GpuHandle, ...]:
    """Slices of GPUs (MIG); the list ends at the first that does not exist, as CUDA's does."""
    found: list[GpuHandle] = []
    for uuid in uuids:
        device = nvml.ask("nvmlDeviceGetHandleByUUID", uuid)
        if device is None:
            break
        board = _board(
            nvml, nvml.call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, failure=MeterUnavailable)
        )
        # The slice's own name: the board's would pass for a whole GPU in the hardware table.
        name = nvml.ask("nvmlDeviceGetName", device) or f"{board.name} MIG"
        memory_bytes = _memory_bytes(nvml, device)
        found.append(GpuHandle(uuid=uuid, board_uuid=board.uuid, name=name, memory_bytes=memory_bytes))
    return tuple(found)


def _link(nvml: Nvml, first: Any, second: Any) -> str:
    nvlink = nvml.ask("nvmlDeviceGetP2PStatus", first, second, nvml.api.NVML_P2P_CAPS_INDEX_NVLINK)
    if nvlink == nvml.api.NVML_P2P_STATUS_OK:
        return "nvlink"
    level = nvml.ask("nvmlDeviceGetTopologyCommonAncestor", first, second)
    return "unknown" if level is None else _TOPOLOGY.get(level, "between sockets")


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts * W_PER_MW


def _current(mode: Sequence[int | None] | None) -> bool | None:
    """Of the pair (current, pending) that NVML gives for a mode, whether it is on now."""
    return None if mode is None or mode[0] is None else mode[0] == 1


def _is_one_of(pid: int, own_pids: frozenset[int]) -> bool:
    """Whether a process is ours; some drivers give the number of a thread."""
    return pid in own_pids or any(Path(f"/proc/{own}/task/{pid}").exists() for own in own_pids)


def _pids_are_the_drivers() -> bool:
    """Whether process numbers mean the same here as in the driver: not so inside most containers."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False
