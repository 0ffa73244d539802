"""The meters of virtual GPUs, and the load that calibrates them."""

from collections.abc import Callable

import numpy as np

from harness.measuring.calibration_watch import Busy
from harness.meters.selection import MeterBank
from harness.virtual.machine import Program, VirtualMachine
from harness.virtual.program import MATRIX_DTYPE, Segments

_PASS_S = 2.5e-4  # fine enough for a burst of a few milliseconds
_COMPUTE_SHARE = 0.4  # of a pass in which the arithmetic units work: below the power limit of common boards
_LABEL = "calibration"


def bank_of(machine: VirtualMachine) -> MeterBank:
    """The meters of a virtual machine."""
    return MeterBank(machine.meters(), machine.clock, why="virtual GPUs: simulated, never measured")


class VirtualLoad:
    """A kernel that is bound by memory, again and again on every GPU of a virtual machine."""

    name = "virtual kernel bound by memory"
    has_context = True

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine = machine
        self._program: Program | None = None

    def prepare(self) -> None:
        """Load the context and make the kernel ready; raises ``UsageError`` for hardware without the figures."""
        self._machine.load_context()
        self._program = self._machine.compile(self._segments())

    def run(self, duration_s: float, look: Callable[[], None], every_s: float) -> Busy:
        """A whole number of passes, at least one."""
        if self._program is None:
            raise RuntimeError("prepare() comes before run()")
        pass_s = self._machine.timeline(self._program).pass_s
        passes = max(1, round(duration_s / pass_s))
        ran = self._machine.run(self._program, passes, label=_LABEL, meanwhile=look, every_s=every_s)
        return Busy(started_s=ran.started_s, ended_s=ran.started_s + ran.duration_s)

    def _segments(self) -> Segments:
        load = self._machine.gpu.load
        hardware = load.hardware
        bytes_per_s = load.bytes_efficiency * (hardware.peak_bytes_per_s or 0.0)
        flop_per_s = load.flop_efficiency * (hardware.peak_flop_per_s.bfloat16 or 0.0)
        return Segments(
            kernels=(_LABEL,),
            collective=(False,),
            dtypes=(MATRIX_DTYPE,),
            kernel=np.zeros(1, dtype=np.int64),
            launches=np.ones(1),
            flop=np.full(1, _COMPUTE_SHARE * _PASS_S * flop_per_s),
            traffic_bytes=np.full(1, _PASS_S * bytes_per_s),
            link_bytes=np.zeros(1),
        )
