"""Every error the harness raises on purpose, each with what happened, why, and what to do.

    HarnessError
    ├── UsageError              the command or plan asks for something impossible
    │   ├── UnknownModel        no such model here, or it is no causal language model
    │   ├── UnknownHardware     a device that is not in the hardware table
    │   └── MissingExtra        an optional dependency is not installed
    ├── MeterError              energy cannot be read
    │   ├── MeterUnavailable    this machine does not have that meter
    │   ├── MeterFailed         the meter was there and stopped answering, or went backwards
    │   └── WindowTooShort      the window is shorter than the meter resolves
    ├── CannotMeasure           the machine, not the run, is at fault: the campaign stops, and the run stays to be made
    ├── RunError                one run cannot be done; the campaign goes on
    │   ├── OutOfMemory
    │   └── WorkerDied
    ├── CannotCapture           the kernel graph of a model cannot be captured
    ├── InvalidGraph            a kernel graph contradicts itself
    └── DatasetError            a dataset folder that cannot be read or written
        ├── FolderBusy          another campaign is writing there
        ├── OtherCampaign       the folder holds a different campaign
        ├── NewerSchema         written by a later version of the harness
        ├── CorruptFile         a file that does not hold what it should
        └── CannotWrite         permission, a full disk

Commands print the message and exit with ``exit_code``; nobody sees a traceback for these. A ``MeterError`` also names
its ``cause``, so that a row can be flagged with it and code can tell one fault from another.
"""

from enum import StrEnum


class HarnessError(Exception):
    """Base of all expected errors; ``str(error)`` is meant for people."""

    exit_code = 1


class UsageError(HarnessError):
    """The command line or the plan asks for something impossible."""

    exit_code = 2


class UnknownModel(UsageError):
    """A model that cannot be found, or that is no causal language model."""


class UnknownHardware(UsageError):
    """A device name that is not in the hardware table. Never replaced by a similar device."""


class MissingExtra(UsageError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, package: str, command: str) -> None:
        super().__init__(
            f"{what} needs the package {package}, which is not installed here.\nInstall it with: {command}"
        )


class MeterCause(StrEnum):
    """Why energy cannot be read; the message beside it says more, and what to do."""

    # the driver's software
    LIBRARY_MISSING = "library missing"
    DRIVER_NOT_LOADED = "driver not loaded"
    VERSION_MISMATCH = "driver and library differ"
    FUNCTION_MISSING = "function missing"
    UNINITIALIZED = "library shut down"
    # the device
    DEVICE_NOT_FOUND = "device not found"
    NOT_SUPPORTED = "not supported"
    NO_PERMISSION = "permission refused"
    DEVICE_LOST = "device lost"
    RESET_REQUIRED = "device needs a reset"
    DRIVER_ERROR = "driver error"  # any other answer of the driver; the message has its number
    HUNG = "call hangs"
    # what the counter shows
    COUNTER_RESET = "counter reset"
    COUNTER_WRAPPED = "counter wrapped"
    COUNTER_WENT_BACK = "counter went back"
    COUNTER_STOOD_STILL = "counter stood still"
    COUNTER_JUMPED = "counter jumped"
    # the process that samples power
    SAMPLER_KILLED = "sampler killed"
    SAMPLER_FAILED = "sampler failed"
    SAMPLER_SILENT = "sampler silent"
    SAMPLER_FULL = "sampler full"
    SAMPLES_MISSING = "samples missing"
    # our side
    CLOSED = "meter closed"
    AMBIGUOUS_DEVICE = "device ambiguous"


# What spoils the run in which it happens and may be over: a new meter may well work. All else is the machine's fault.
PASSING_CAUSES = frozenset(
    {
        MeterCause.COUNTER_RESET,
        MeterCause.COUNTER_WRAPPED,
        MeterCause.COUNTER_WENT_BACK,
        MeterCause.COUNTER_STOOD_STILL,
        MeterCause.COUNTER_JUMPED,
        MeterCause.SAMPLER_KILLED,
        MeterCause.SAMPLES_MISSING,
    }
)


class MeterError(HarnessError):
    """Energy cannot be read; ``cause`` is None where nobody has named one."""

    def __init__(self, message: str, *, cause: MeterCause | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class MeterUnavailable(MeterError):
    """A meter that the machine does not have, or that may not be read."""


class MeterFailed(MeterError):
    """A meter that worked stopped answering, stood still under load or went backwards."""

    @property
    def passing(self) -> bool:
        """Whether only the run in which it happened is spoiled."""
        return self.cause in PASSING_CAUSES


class WindowTooShort(MeterError):
    """A window that the meter cannot resolve."""

    def __init__(self, meter: str, duration_s: float, shortest_s: float) -> None:
        super().__init__(
            f"{meter}: a window of {duration_s * 1e3:.1f} ms is shorter than the {shortest_s * 1e3:.0f} ms "
            f"this meter can resolve, so its energy would read as 0 J or as a whole counter step.\n"
            f"Repeat the work inside one window until it lasts at least {shortest_s:.2g} s."
        )


class CannotMeasure(HarnessError):
    """A meter or a package failed in a worker. The campaign stops, and the same command goes on once it is mended."""


class RunError(HarnessError):
    """One run cannot be done. It is recorded, and the campaign goes on."""


class OutOfMemory(RunError):
    """The run needs more memory than the device (or its own limit) has."""


class WorkerDied(RunError):
    """A worker process ended without handing over a measurement."""


class CannotCapture(HarnessError):
    """The kernel graph of a model cannot be captured without running it."""


class InvalidGraph(HarnessError):
    """A kernel graph that contradicts itself; the message names the kernel."""


class DatasetError(HarnessError):
    """A dataset folder cannot be read or written."""


class FolderBusy(DatasetError):
    """Another process holds the lock of this folder."""


class OtherCampaign(DatasetError):
    """The folder holds a campaign with a different plan."""


class NewerSchema(DatasetError):
    """The dataset was written by a later version of the harness."""


class CorruptFile(DatasetError):
    """A file does not hold what its name promises."""


class CannotWrite(DatasetError):
    """The file system refused: permission, a full disk, a path that is no folder."""
