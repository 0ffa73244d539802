"""The loads that calibrate real machines: matrix products on GPUs, hashing on a CPU.

Imports torch only when a GPU is to be loaded.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from harness.errors import CannotMeasure
from harness.measuring.calibration_watch import Busy
from harness.meters.base import Clock

_SIDES: Final = (1024, 1536, 2048, 3072, 4096, 6144, 8192)
_PASS_S: Final = 4e-4  # wanted of one product: fine enough for bursts of a few milliseconds, coarse enough to launch
_TIMED: Final = 50
_AHEAD_S: Final = 0.02  # of work queued on each device: looking at meters may take that long
_HASHED_BYTES: Final = 1 << 18


class CudaLoad:
    """The same product of two random matrices, again and again on every GPU, launched from this thread.

    Launches run ahead of the devices by 20 ms of work, so that a look at the meters does not let them starve.
    """

    has_context = True

    def __init__(self, devices: Sequence[int], clock: Clock) -> None:
        self._devices, self._clock = tuple(devices), clock
        self._works: list[_Products] = []
        self.name = "torch matmul"

    def prepare(self) -> None:
        """Load torch and CUDA, and choose a size of which one product takes about 0.4 ms.

        Raises ``CannotMeasure`` where CUDA does not work.
        """
        torch = import_module("torch")
        try:
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
            self._works = [_Products(torch, device, dtype, self._clock) for device in self._devices]
        except (RuntimeError, AssertionError) as error:  # what torch raises without driver, device or memory
            raise CannotMeasure(
                f"CUDA cannot be loaded: {error}.\nSee what works here with `python -m harness.doctor`."
            ) from error
        self.name = f"torch matmul {self._works[0].side}³, {str(dtype).removeprefix('torch.')}, random values"

    def run(self, duration_s: float, look: Callable[[], None], every_s: float) -> Busy:
        """So many products on each device as should take that long."""
        if not self._works:
            raise RuntimeError("prepare() comes before run()")
        for work in self._works:
            work.synchronize()
        started_s = self._clock.now_s()
        for work in self._works:
            work.start(duration_s)
        due_s = started_s + every_s
        busy = list(self._works)
        while busy:
            busy = [work for work in busy if not work.launch_on()]
            if self._clock.now_s() >= due_s:
                look()
                due_s = self._clock.now_s() + every_s
        for work in self._works:
            work.synchronize()
        ended_s = self._clock.now_s()
        for work in self._works:
            work.learn(ended_s - started_s)
        return Busy(started_s=started_s, ended_s=ended_s)


class _Products:
    """Matrix products on one GPU."""

    def __init__(self, torch: Any, device: int, dtype: Any, clock: Clock) -> None:
        self._torch, self._clock = torch, clock
        self._place = torch.device("cuda", device)
        self._left = 0
        self._wanted = 0
        self._pending: deque[Any] = deque()
        for side in _SIDES:
            self.side = side
            self._matrices = [torch.randn(side, side, device=self._place).to(dtype) for _ in range(3)]
            self.pass_s = self._timed_s()
            if self.pass_s >= _PASS_S / 2:
                break

    def start(self, duration_s: float) -> None:
        """Plan products for that long."""
        self._wanted = self._left = max(1, round(duration_s / self.pass_s))

    def launch_on(self) -> bool:
        """Launch what may be queued; whether the device has done all."""
        while self._pending and self._pending[0].query():
            self._pending.popleft()
        while self._left and len(self._pending) < max(2, round(_AHEAD_S / self.pass_s)):
            self._launch()
            event = self._torch.cuda.Event()
            event.record(self._torch.cuda.current_stream(self._place))
            self._pending.append(event)
            self._left -= 1
        return not self._left and not self._pending

    def learn(self, took_s: float) -> None:
        """Clocks change: how long a product takes is taken from the last burst that was long enough to tell."""
        if self._wanted >= _TIMED:
            self.pass_s = took_s / self._wanted

    def synchronize(self) -> None:
        """Wait for the device."""
        self._torch.cuda.synchronize(self._place)

    def _launch(self) -> None:
        with self._torch.cuda.device(self._place):
            self._torch.mm(self._matrices[0], self._matrices[1], out=self._matrices[2])

    def _timed_s(self) -> float:
        for _ in range(_TIMED // 5):
            self._launch()
        self.synchronize()
        begun_s = self._clock.now_s()
        for _ in range(_TIMED):
            self._launch()
        self.synchronize()
        return (self._clock.now_s() - begun_s) / _TIMED


class CpuLoad:
    """SHA-256 of the same 256 KiB on every core: it releases the interpreter's lock, and stops within a millisecond."""

    has_context = False

    def __init__(self, clock: Clock, pause: Callable[[float], None], threads: int | None = None) -> None:
        self._clock, self._pause = clock, pause
        self._threads = threads or len(os.sched_getaffinity(0))
        self.name = f"SHA-256 on {self._threads} threads"

    def prepare(self) -> None:
        """Nothing to set up."""

    def run(self, duration_s: float, look: Callable[[], None], every_s: float) -> Busy:
        """Hash until the time is over."""
        over = threading.Event()
        workers = [threading.Thread(target=_hash_until, args=(over,), daemon=True) for _ in range(self._threads)]
        started_s = self._clock.now_s()
        for worker in workers:
            worker.start()
        try:
            while (left_s := started_s + duration_s - self._clock.now_s()) > 0:
                look()
                self._pause(min(every_s, left_s))
        finally:
            over.set()
        for worker in workers:
            worker.join()
        return Busy(started_s=started_s, ended_s=self._clock.now_s())


def _hash_until(over: threading.Event) -> None:
    data = bytes(_HASHED_BYTES)
    while not over.is_set():
        hashlib.sha256(data).digest()
