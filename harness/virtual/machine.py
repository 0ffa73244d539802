"""A machine with virtual GPUs, its clock, and what they are made to do."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.virtual.evolution import Evolution, Stretch
from harness.virtual.faults import Fault
from harness.virtual.gpu import VirtualGpu
from harness.virtual.meter import VirtualMeter
from harness.virtual.physics import Piece, by_kernel, pieces_of
from harness.virtual.program import FloatArray, Segments
from harness.virtual.timeline import BLOCKS_KEPT
from harness.virtual.truth import Truth


class VirtualClock:
    """The machine's time, in which an hour takes no time. It moves only when it is told to.

    ``idle_on`` lets the GPUs idle from one time on, and gives the time up to which that holds.
    """

    __slots__ = ("_idle_on", "_now_s", "_settled_s")

    def __init__(self, idle_on: Callable[[float], float]) -> None:
        self._idle_on = idle_on
        self._now_s = 0.0
        self._settled_s = idle_on(0.0)  # what the GPUs do is settled up to here

    def now_s(self) -> float:
        """Seconds since the machine was made."""
        return self._now_s

    def pause(self, duration_s: float) -> None:
        """Let time pass: the GPUs idle meanwhile, or go on with what they run. ``ValueError`` if negative."""
        if not 0 <= duration_s < math.inf:
            raise ValueError(f"a monotonic clock goes on by a finite time, not by {duration_s} s")
        self.reach(self._now_s + duration_s)

    def reach(self, at_s: float) -> None:
        """Let time pass up to a time; nothing if that is over."""
        if at_s > self._now_s:
            self._now_s = at_s
            while self._settled_s < at_s:
                self._settled_s = self._idle_on(self._settled_s)

    def settle(self, from_s: float) -> None:
        """The GPUs idle from a time on, not before now: they have been given something else to do until then."""
        self._settled_s = self._idle_on(from_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Work made ready for one machine."""

    machine: "VirtualMachine"
    segments: Segments
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """When some passes ran, by the virtual clock."""

    started_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What a tracer would see of one pass on each GPU. Time in a collective includes waiting for the last GPU."""

    kernels: tuple[str, ...]  # [K]
    launches: FloatArray  # [K]
    duration_s: FloatArray  # [G, K]
    wait_s: FloatArray  # [G, K]
    gap_s: FloatArray  # [G]
    pass_s: float


class VirtualMachine:
    """GPUs of one kind that work in step. Nothing about it is random but what follows from the seed.

    ``host_s_per_launch`` is how long the host takes to launch one kernel; ``faults`` happen at their times. There is no
    context at first; the first run makes one, as with CUDA.
    """

    def __init__(
        self,
        gpu: VirtualGpu,
        *,
        gpus: int,
        seed: int,
        host_s_per_launch: float = 0.0,
        faults: Sequence[Fault] = (),
    ) -> None:
        if gpus < 1 or seed < 0 or host_s_per_launch < 0:
            raise ValueError("a machine has at least 1 GPU, a seed from 0, and a host that takes no negative time")
        if any(fault.gpu >= gpus for fault in faults):
            raise ValueError(f"a fault names a GPU that is not among the {gpus} of this machine")
        self.gpu, self.gpus, self.seed = gpu, gpus, seed
        self._host_s = host_s_per_launch
        self._speeds: FloatArray = 1 - gpu.load.rank_spread * np.random.default_rng((seed, 0)).uniform(size=gpus)
        self._context = False
        self._running = False
        self._evolution = Evolution(gpu.load, gpus, faults)
        self.clock = VirtualClock(lambda now_s: self._evolution.idle(now_s, context=self._context))
        self.truth = Truth(self._evolution.timeline)
        self._meters = tuple(
            VirtualMeter(
                gpu,
                index,
                seed=seed,
                clock=self.clock,
                evolution=self._evolution,
                faults=tuple(fault for fault in faults if fault.gpu == index),
            )
            for index in range(gpus)
        )

    def meters(self) -> tuple[VirtualMeter, ...]:
        """One per GPU, open; the same ones at every call."""
        for meter in self._meters:
            meter.open()
        return self._meters

    def load_context(self) -> None:
        """From now on a context is resident on every GPU: idle power rises."""
        self._set_context(True)

    def unload_context(self) -> None:
        """From now on none is."""
        self._set_context(False)

    def compile(self, segments: Segments, *, host_s_per_launch: float | None = None, late_s: float = 0.0) -> Program:
        """Make work ready to run; raises ``UsageError`` for a figure that the hardware table lacks.

        ``host_s_per_launch`` replaces the machine's own: 0 for launches without the host in between (CUDA graphs). The
        last GPU comes to every collective ``late_s`` after its time; another kernel has to come before it.
        """
        host_s = self._host_s if host_s_per_launch is None else host_s_per_launch
        pieces = pieces_of(segments, self.gpu.load, self._speeds, host_s, late_s)
        return Program(machine=self, segments=segments, pieces=pieces)

    def run(
        self,
        program: Program,
        passes: int,
        *,
        label: str,
        meanwhile: Callable[[], None] | None = None,
        every_s: float = 0.1,
    ) -> Ran:
        """Every GPU runs the program so many times, in step; the clock stands at the end afterwards.

        ``meanwhile`` is called every ``every_s`` of virtual time while they run, as another process that reads the
        meters would. Truth is added to what is known under ``label``.
        """
        if passes < 1 or every_s <= 0:
            raise ValueError("a program runs at least once, and every_s is above 0")
        if self._running:
            raise ValueError("the GPUs are at work, so nothing else can start")
        if program.machine is not self:
            raise ValueError("this program was compiled for another machine")
        self.truth.claim(label, program.segments.kernels)
        self._context = True
        start_s = self.clock.now_s()
        stretches = self._stretches(program, passes, start_s)
        end_s = stretches[-1].end_s
        self.truth.record(label, program.segments.kernels, passes, stretches)
        self.clock.settle(end_s)
        try:
            if meanwhile is not None:
                self._call(meanwhile, every_s, end_s)
        finally:
            self.clock.reach(end_s)  # what has been launched runs to its end
        self._forget()
        return Ran(started_s=start_s, duration_s=end_s - start_s)

    def timeline(self, program: Program) -> Timings:
        """What a tracer would see of one pass, if it started now; no time passes."""
        now_s = self.clock.now_s()
        cycles = [self._evolution.cycle_now(piece, now_s) for piece in program.pieces]
        segments = program.segments
        return Timings(
            kernels=segments.kernels,
            launches=by_kernel(segments.kernel, segments.launches, len(segments.kernels)),
            duration_s=np.sum([cycle.kernel_s for cycle in cycles], axis=0),
            wait_s=np.sum([cycle.wait_s for cycle in cycles], axis=0),
            gap_s=np.sum([cycle.gap_s for cycle in cycles], axis=0),
            pass_s=sum(cycle.period_s for cycle in cycles),
        )

    def _stretches(self, program: Program, passes: int, start_s: float) -> list[Stretch]:
        """Work that is one piece goes on until clocks may change; of several pieces each is reconsidered."""
        stretches: list[Stretch] = []
        now_s, left = start_s, passes
        while left:
            for piece in program.pieces:
                stretch = self._evolution.work(piece, now_s, left if len(program.pieces) == 1 else 1)
                stretches.append(stretch)
                now_s = stretch.end_s
            left -= stretch.count
        return stretches

    def _call(self, meanwhile: Callable[[], None], every_s: float, end_s: float) -> None:
        self._running = True
        try:
            due_s = self.clock.now_s() + every_s
            while due_s < end_s:
                self.clock.reach(due_s)
                meanwhile()
                due_s += every_s
        finally:
            self._running = False

    def _set_context(self, context: bool) -> None:
        if self._running:
            raise ValueError("the GPUs are at work, so their context stays as it is")
        if context != self._context:
            self._context = context
            self.clock.settle(self.clock.now_s())

    def _forget(self) -> None:
        """Drop the older half of a long past, once the sensors have seen it."""
        timeline = self._evolution.timeline
        if timeline.blocks > BLOCKS_KEPT:
            timeline.forget_before(min(timeline.middle_s(), *(meter.catch_up() for meter in self._meters)))
