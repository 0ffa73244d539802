"""What NVML's error codes mean: which cause, why, and what to do.

The numbers are those of ``nvmlReturn_t`` in ``nvml.h``, which never change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import MeterCause
from harness.meters.visible import VARIABLE

LOST: Final = 15
NOT_SUPPORTED: Final = 3
FUNCTION_MISSING: Final = 13


@dataclass(frozen=True, slots=True)
class Meaning:
    """One error code, for code and for people."""

    cause: MeterCause
    why: str
    remedy: str


_MEANINGS: Final[Mapping[int, Meaning]] = {
    1: Meaning(
        MeterCause.UNINITIALIZED,
        "another part of this process shut NVML down",
        "Open the meter again, and close every NVML user in the order it was opened.",
    ),
    NOT_SUPPORTED: Meaning(
        MeterCause.NOT_SUPPORTED,
        "this GPU does not have it: energy counters came with Volta, and virtual GPUs (vGPU) hide them",
        "Use a Volta or newer GPU, passed through whole, or allow energy to be integrated from sampled power.",
    ),
    4: Meaning(
        MeterCause.NO_PERMISSION,
        "the driver keeps it for the administrator",
        "Run as a user who may read it, or ask the administrator to lift the restriction.",
    ),
    6: Meaning(
        MeterCause.DEVICE_NOT_FOUND, "no GPU answers to that name", f"Check `nvidia-smi -L` against {VARIABLE}."
    ),
    8: Meaning(
        MeterCause.DRIVER_ERROR, "a power cable of the GPU is not attached", "Attach it, or have the machine seen to."
    ),
    9: Meaning(
        MeterCause.DRIVER_NOT_LOADED,
        "the NVIDIA kernel driver is not running",
        "Load it with `sudo modprobe nvidia`, or install the driver; `nvidia-smi` must work first.",
    ),
    12: Meaning(
        MeterCause.LIBRARY_MISSING,
        "libnvidia-ml.so.1, which the NVIDIA driver brings, is not installed here",
        "Install the NVIDIA driver; in a container start it with `--gpus all`.",
    ),
    FUNCTION_MISSING: Meaning(
        MeterCause.FUNCTION_MISSING, "this driver is older than the function", "Update the NVIDIA driver."
    ),
    LOST: Meaning(
        MeterCause.DEVICE_LOST,
        "the GPU fell off the bus or was taken away",
        "Look for Xid messages in `dmesg`; reset the GPU or reboot, then run again: finished runs are kept.",
    ),
    16: Meaning(
        MeterCause.RESET_REQUIRED,
        "the GPU hangs until it is reset",
        "Reset it with `sudo nvidia-smi --gpu-reset` or reboot.",
    ),
    17: Meaning(
        MeterCause.NO_PERMISSION,
        "the operating system blocks the device, by its control groups perhaps",
        "Let this job or container have the GPU's device files (/dev/nvidia*, /dev/nvidiactl).",
    ),
    18: Meaning(
        MeterCause.VERSION_MISMATCH,
        "the driver was updated and its kernel half is still the old one",
        "Reboot, or reload the NVIDIA kernel modules.",
    ),
    22: Meaning(
        MeterCause.NOT_SUPPORTED, "this virtual GPU (vGPU) does not have it", "Use a GPU that is passed through whole."
    ),
    26: Meaning(
        MeterCause.FUNCTION_MISSING, "this driver no longer has the function", "Update the package nvidia-ml-py."
    ),
    28: Meaning(
        MeterCause.DEVICE_NOT_FOUND, "the driver finds no GPU it can use", "See what `nvidia-smi -L` and `dmesg` say."
    ),
}


def meaning(code: int) -> Meaning:
    """What an error code means; a code without an entry is a driver error of which no more is known."""
    return _MEANINGS.get(code) or Meaning(
        MeterCause.DRIVER_ERROR,
        "NVML gives no further reason",
        "See whether `nvidia-smi -q` answers; if not, reboot.",
    )


HUNG: Final = Meaning(
    MeterCause.HUNG,
    "the driver does not answer",
    "Look for Xid messages in `dmesg`; reset the GPU or reboot, then run again: finished runs are kept.",
)
NO_PACKAGE: Final = Meaning(
    MeterCause.LIBRARY_MISSING,
    "the package nvidia-ml-py is not installed",
    "Install it with `pip install nvidia-ml-py`.",
)
