"""CPU and RAM energy by codecarbon's power model, for machines that can read nothing.

It is a model, not a measurement: provenance is ``estimated``. Power is (codecarbon 3.3, ``cpu_load``, whole machine)

    P = TDP × (0.1 + 0.9 × load³) + P_ram

with ``load`` the share of all cores' time that was busy, other people's processes included, and ``P_ram`` a constant
from the number of memory modules that such a machine usually has. TDP comes from codecarbon's table of CPUs, else it
is 4 W per thread. Idle states, clocks, vector units and memory traffic do not enter: compare such energies between
runs on one machine at most.

Energy is power × time. Operating systems count busy time in steps of 10 ms, so load over less than ``step_s`` is
noise: the counter stands still until a tenth of a second has passed since its last move, then takes the mean load of
the whole span since then. A window whose ends are both moves is therefore exact in time; and because load enters by
its cube, a window that mixes busy and idle reads lower than its parts would.
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from harness.errors import MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import Clock, Conditions, DeviceFacts, MonotonicClock, closed
from harness.meters.host import host_facts
from harness.records import Provenance

STEP_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """What the estimate rests on."""

    tdp_w: float
    tdp_known: bool  # false: codecarbon's 4 W per thread, for a CPU that is not in its table
    ram_w: float
    cpu_power_w: Callable[[], float]  # mean power of the CPU since the last call

    def __str__(self) -> str:
        tdp = "TDP" if self.tdp_known else "generic TDP"
        return f"{tdp} {self.tdp_w:g} W, RAM {self.ram_w:g} W"


class EstimateMeter:
    """Estimated energy of the machine's CPU and RAM since the meter was opened."""

    method = "codecarbon-cpu-load"
    provenance = Provenance.ESTIMATED

    def __init__(self, model: PowerModel, clock: Clock) -> None:
        self.name = f"codecarbon-cpu-load ({model})"
        self.step_s = STEP_S
        self._model = model
        self._clock = clock
        self._energy_j = 0.0
        self._moved_s = clock.now_s()
        self._closed = False

    @classmethod
    def of_this_machine(cls, clock: Clock | None = None) -> "EstimateMeter":
        """Open codecarbon's model of this machine; raises ``MeterUnavailable``."""
        return cls(codecarbon_model(), clock or MonotonicClock())

    def read_j(self) -> float:
        """Joules since the meter was opened; stands still for ``step_s`` after each move."""
        if self._closed:
            raise closed(self.name)
        now_s = self._clock.now_s()
        span_s = now_s - self._moved_s
        if span_s >= STEP_S:
            self._energy_j += (self._cpu_power_w() + self._model.ram_w) * span_s
            self._moved_s = now_s
        return self._energy_j

    def close(self) -> None:
        """Stop counting."""
        self._closed = True

    def conditions(self, *, powers: bool = True) -> Conditions:  # noqa: ARG002  as every meter
        """The model knows no state of the device."""
        return Conditions()

    def facts(self) -> DeviceFacts:
        """The CPU."""
        host = host_facts()
        return DeviceFacts(name=host.cpu, memory_bytes=host.memory_bytes)

    def _cpu_power_w(self) -> float:
        power_w = self._model.cpu_power_w()
        if not 0 < power_w < float("inf"):
            raise MeterFailed(
                f"{self.name}: the model answered {power_w} W, which no running machine draws.\n"
                "Check that the operating system reports CPU times (psutil.cpu_times())."
            )
        return power_w


def codecarbon_model() -> PowerModel:
    """Codecarbon's model of this machine's CPU and RAM; raises ``MeterUnavailable``.

    Takes half a second (a table of CPUs and one look at this CPU); reads no network and writes no file.
    """
    with _codecarbon("look up this machine", MeterUnavailable):
        # Imported late: heavy, and importing it sets up its log.
        tables: Any = importlib.import_module("codecarbon.core.cpu")
        hardware: Any = importlib.import_module("codecarbon.external.hardware")
        memory: Any = importlib.import_module("codecarbon.external.ram")

        tdp = tables.TDP()
        known = tdp._get_cpu_power_from_registry(tdp.model) is not None
        cpu = hardware.CPU.from_utils("", hardware.MODE_CPU_LOAD, model=tdp.model, tdp=tdp.tdp)
        ram_w = float(memory.RAM(tracking_mode="machine").total_power().W)
        cpu.start()
    if ram_w <= 0:  # codecarbon says 0 W when it could not find out
        raise MeterUnavailable(
            "codecarbon found no memory size, so it cannot model the power of the RAM.\n"
            "Check that the operating system reports memory (psutil.virtual_memory())."
        )
    return PowerModel(tdp_w=float(cpu._tdp), tdp_known=known, ram_w=ram_w, cpu_power_w=_Load(cpu))


@dataclass(frozen=True, slots=True)
class _Load:
    """Codecarbon's CPU as a function of nothing."""

    cpu: Any

    def __call__(self) -> float:
        with _codecarbon("read the CPU load", MeterFailed):
            return float(self.cpu.total_power().W)


@contextmanager
def _codecarbon(purpose: str, failure: type[MeterError]) -> Iterator[None]:
    """Keep codecarbon's log off the screen; the one place where its errors become ours."""
    logger = logging.getLogger("codecarbon")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    except Exception as error:  # codecarbon and the libraries below it raise bare Exception too
        raise failure(
            f"codecarbon could not {purpose}: {type(error).__name__}: {error}.\n"
            "Reinstall it (pip install codecarbon), or use a machine with a counter (RAPL, NVML)."
        ) from error
    finally:
        logger.disabled = was_disabled
