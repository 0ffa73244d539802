"""Which GPUs CUDA will use, as NVML's handles, and how they are linked."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.errors import MeterCause, MeterUnavailable
from harness.meters.nvml import open_nvml
from harness.meters.nvml_device import GpuHandle
from harness.meters.nvml_library import CALL_TIMEOUT_S, START_TIMEOUT_S, Nvml
from harness.meters.visible import (
    ORDER_VARIABLE,
    PCI_ORDER,
    VARIABLE,
    order_is_certain,
    visible_indices,
    visible_slices,
)

_TOPOLOGY: Final = {0: "same board", 10: "PCIe switch", 20: "PCIe switches", 30: "host bridge", 40: "NUMA node"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSearch:
    """The GPUs that CUDA will use, or why there are none."""

    gpus: tuple[GpuHandle, ...]
    why_none: str | None  # null: there are some


def find_gpus(environ: Mapping[str, str] = os.environ) -> GpuSearch:
    """Look for GPUs without importing torch; never raises for their absence."""
    try:
        gpus = visible_gpus(environ)
    except MeterUnavailable as error:
        return GpuSearch(gpus=(), why_none=str(error))
    if gpus:
        return GpuSearch(gpus=gpus, why_none=None)
    hidden = f"{VARIABLE}={environ[VARIABLE]!r} hides all GPUs" if VARIABLE in environ else "the driver lists no GPU"
    return GpuSearch(gpus=(), why_none=f"NVML works, but {hidden}.")


def visible_gpus(
    environ: Mapping[str, str] = os.environ, *, timeout_s: float = START_TIMEOUT_S
) -> tuple[GpuHandle, ...]:
    """The GPUs that CUDA will use, in its order; empty if none is visible.

    GPUs that this user or job may not use are not among them, as for CUDA. Raises ``MeterUnavailable`` where there is
    no working driver, or a visible GPU does not answer.
    """
    value = environ.get(VARIABLE)
    with open_nvml(timeout_s=timeout_s) as nvml:
        if slices := visible_slices(value):
            return _slices(nvml, slices)
        count = nvml.call("nvmlDeviceGetCount", failure=MeterUnavailable)
        boards = [found for i in range(count) if (found := _found(nvml, i)) is not None]
        uuids = [found.uuid if isinstance(found, GpuHandle) else "" for found in boards]
        return tuple(_there(boards[i]) for i in visible_indices(value, uuids))


def chosen_gpus(indices: Sequence[int], environ: Mapping[str, str] = os.environ) -> tuple[GpuHandle, ...]:
    """The GPUs that CUDA numbers so, each with a counter of its own; raises ``MeterUnavailable``."""
    return choose(visible_gpus(environ), indices, environ)


def choose(gpus: Sequence[GpuHandle], indices: Sequence[int], environ: Mapping[str, str]) -> tuple[GpuHandle, ...]:
    """Some of the visible GPUs; raises ``MeterUnavailable`` where it is not certain which counter is whose."""
    missing = [index for index in indices if not 0 <= index < len(gpus)]
    if missing:
        raise MeterUnavailable(
            f"GPU {', '.join(map(str, missing))} cannot be metered: {len(gpus)} GPU(s) are visible ({VARIABLE}="
            f"{environ.get(VARIABLE, 'unset')}).\nAsk for fewer GPUs or make more visible.",
            cause=MeterCause.DEVICE_NOT_FOUND,
        )
    if not order_is_certain(environ, [gpu.name for gpu in gpus]):
        raise MeterUnavailable(
            "The visible GPUs are of different models, which CUDA numbers by speed and NVML by bus, so energy could "
            f"be read from the wrong one.\nSet {ORDER_VARIABLE}={PCI_ORDER}, or name the GPUs by UUID in {VARIABLE}.",
            cause=MeterCause.AMBIGUOUS_DEVICE,
        )
    chosen = tuple(gpus[index] for index in indices)
    if any(gpu.cut for gpu in chosen):
        raise MeterUnavailable(
            "A chosen GPU is cut into slices (MIG), and CUDA would use the first of them, so it cannot be told what "
            f"would be measured.\nName one slice by its UUID (`nvidia-smi -L`) in {VARIABLE}, or switch MIG off.",
            cause=MeterCause.AMBIGUOUS_DEVICE,
        )
    if len({gpu.board_uuid for gpu in chosen}) < len(chosen):
        raise MeterUnavailable(
            "Two of the chosen devices are slices of one GPU, which has one counter for all of them, so their energy "
            "would be counted twice.\nUse one slice per GPU, or whole GPUs.",
            cause=MeterCause.AMBIGUOUS_DEVICE,
        )
    return chosen


def topology(gpus: Sequence[GpuHandle]) -> str | None:
    """How the GPUs are linked, e.g. ``nvlink: 0-1; NUMA node: 0-2 1-2``; ``None`` for one GPU or where not known."""
    pairs: dict[str, list[str]] = {}
    with open_nvml(timeout_s=CALL_TIMEOUT_S) as nvml:
        devices = [nvml.ask("nvmlDeviceGetHandleByUUID", gpu.board_uuid) for gpu in gpus]
        for i, first in enumerate(devices):
            for j, second in enumerate(devices[i + 1 :], start=i + 1):
                pairs.setdefault(_link(nvml, first, second), []).append(f"{i}-{j}")
    return "; ".join(f"{link}: {' '.join(between)}" for link, between in pairs.items()) or None


def _found(nvml: Nvml, index: int) -> GpuHandle | MeterUnavailable | None:
    """NVML's GPU of that index, or why it does not answer; ``None``: not for us, and so not among CUDA's either."""
    try:
        return _board(nvml, nvml.call("nvmlDeviceGetHandleByIndex", index, failure=MeterUnavailable))
    except MeterUnavailable as error:
        return None if error.cause is MeterCause.NO_PERMISSION else error


def _there(found: GpuHandle | MeterUnavailable) -> GpuHandle:
    if isinstance(found, MeterUnavailable):
        raise found
    return found


def _board(nvml: Nvml, device: Any) -> GpuHandle:
    uuid = nvml.call("nvmlDeviceGetUUID", device, failure=MeterUnavailable)
    name = nvml.call("nvmlDeviceGetName", device, failure=MeterUnavailable)
    mode = nvml.ask("nvmlDeviceGetMigMode", device)
    return GpuHandle(
        uuid=uuid,
        board_uuid=uuid,
        name=name,
        memory_bytes=_memory_bytes(nvml, device),
        cut=mode is not None and mode[0] == nvml.api.NVML_DEVICE_MIG_ENABLE,
    )


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
