"""Memory of the device: how much is free, how much was used, and running out of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from harness.errors import OutOfMemory

# What torch says when memory ends without raising OutOfMemoryError: its CPU allocator, and cuBLAS workspaces.
_SIGNS = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@contextmanager
def translate_out_of_memory(what: str) -> Iterator[None]:
    """Turn every way of running out of memory into OutOfMemory. ``what`` says what was being done."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not _means_out_of_memory(error):
            raise
        reason = (str(error) or "no memory left").splitlines()[0]
        raise OutOfMemory(
            f"Out of memory while {what}: {reason}\n"
            "Use a smaller batch, shorter lengths, a smaller dtype or a smaller model."
        ) from error


def _means_out_of_memory(error: RuntimeError) -> bool:
    return any(sign in str(error) for sign in _SIGNS)


def available_memory_bytes(device: torch.device) -> int:
    """Memory that a model could still take: free on the GPU, or available to this process on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    limit, used = (_control_group_bytes(name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, limit - used)


def _control_group_bytes(name: str) -> int | None:
    """A number of this process's control group (v2), as a container sees it; None if there is none."""
    try:
        text = (Path("/sys/fs/cgroup") / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def peak_memory_bytes(devices: Sequence[torch.device]) -> int | None:
    """Most memory used so far: of torch's allocator over the GPUs, of this process on the CPU; None if not known."""
    if devices[0].type == "cuda":
        return sum(int(torch.cuda.max_memory_allocated(device)) for device in devices)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else None
