"""Machines to calibrate: virtual GPUs drawn at random, and a device in miniature whose power lingers."""

import math
import random
from collections.abc import Callable

from harness.campaign.virtual_load import VirtualLoad
from harness.hardware import find
from harness.measuring.calibration_lengths import Lengths
from harness.measuring.calibration_watch import Busy
from harness.meters.base import Conditions, ManualClock
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank
from harness.virtual.gpu import Load, Sensor, VirtualGpu
from harness.virtual.machine import VirtualMachine

# As short as a calibration can be: what is asserted of it has wide margins.
SHORT = Lengths(
    idle_s=1.5,
    idle_periods=10,
    slow_bursts=2,
    slow_rest_s=2.0,
    fast_bursts=8,
    beats=(1.0,),
    beat_s=0.3,
    beat_periods=6,
    load_s=4.0,
    cool_s=2.0,
)


def random_gpu(seed: int) -> VirtualGpu:
    """Periods of 10 to 200 ms, windows of 25 ms to 1 s, duty cycles of 25 to 100 %, idle power of 30 to 250 W."""
    draw = random.Random(seed)
    idle_w = draw.uniform(30.0, 250.0)
    period_s = 10 ** draw.uniform(-2.0, math.log10(0.2))
    load = Load(
        hardware=find("NVIDIA H100 80GB HBM3"),
        flop_efficiency=0.7,
        bytes_efficiency=0.8,
        launch_s=2e-6,
        idle_power_w=idle_w,
        bare_idle_power_w=draw.uniform(0.4, 0.9) * idle_w,
        busy_w=draw.uniform(50.0, 150.0),
        pj_per_flop=0.6,
        pj_per_byte=60.0,
        wait_w=90.0,
        gap_w=40.0,
        leakage_w=draw.uniform(0.0, 20.0),
        leakage_per_c=0.012,
        power_limit_w=draw.choice([450.0, 700.0]),
        clock_mhz=1980.0,
        lowest_clock_mhz=210.0,
        time_constant_s=draw.uniform(10.0, 40.0),
        rank_spread=draw.uniform(0.0, 0.02),
    )
    sensor = Sensor(
        counter_period_s=period_s,
        counter_jitter_s=draw.choice([0.0, 0.02 * period_s]),
        counter_sampled=draw.random() < 0.5,
        duty_cycle=draw.choice([0.25, 0.5, 0.75, 1.0]),
        duty_period_s=draw.choice([0.05, 0.1]),
        noise_w=draw.choice([0.5, 2.0, 5.0]),
        average_window_s=10 ** draw.uniform(math.log10(0.025), 0.0),
        average_period_s=draw.choice([0.02, 0.05, 0.1]),
        instant_period_s=draw.choice([0.02, 0.05, 0.1]),
        read_latency_s=1e-4,
        read_latency_jitter_s=5e-5,
    )
    return VirtualGpu(name="random", load=load, sensor=sensor)


class Virtual:
    """A virtual machine with what calibrates it."""

    def __init__(self, gpu: VirtualGpu, *, gpus: int = 1, seed: int = 0) -> None:
        self.machine = VirtualMachine(gpu, gpus=gpus, seed=seed)
        self.clock = self.machine.clock
        self.bank = MeterBank(self.machine.meters(), self.clock, why="virtual")
        self.load = VirtualLoad(self.machine)


def seen_window_s(sensor: Sensor, window_s: float) -> float:
    """What a trailing mean averages over: all of its window, but of a single look only the part that is open."""
    return window_s * sensor.duty_cycle if round(window_s / sensor.duty_period_s) <= 1 else window_s


class PausingManualClock(ManualClock):
    """A manual clock that can also wait."""

    def pause(self, duration_s: float) -> None:
        self.advance(duration_s)


class Lingering(Profile):
    """Power that falls, after a load, from ``idle_w`` + ``share`` × the load's step, exponentially."""

    def __init__(self, *, idle_w: float, step_w: float, share: float, tau_s: float, lag_s: float) -> None:
        self._idle_w, self._step_w = idle_w, step_w
        self._share, self._tau_s, self._lag_s = share, tau_s, lag_s
        self.bursts: list[Busy] = []

    def energy_j(self, t_s: float) -> float:
        # Rounded, so that a counter that stands still does so to the last digit.
        return round(self._idle_w * t_s + self._step_w * sum(self._equal_s(burst, t_s) for burst in self.bursts), 6)

    def _equal_s(self, burst: Busy, t_s: float) -> float:
        """Time at full load that a burst has amounted to, what lingers included."""
        at_s = t_s - self._lag_s
        if at_s <= burst.started_s:
            return 0.0
        lingering_s = max(0.0, at_s - burst.ended_s)
        tail_s = self._share * self._tau_s * (1 - math.exp(-lingering_s / self._tau_s)) if self._tau_s else 0.0
        return min(at_s, burst.ended_s) - burst.started_s + tail_s


class LingeringDevice:
    """One device with a counter and a load; its powers are known in closed form."""

    name = "lingering"
    has_context = False

    def __init__(self, *, share: float = 0.0, tau_s: float = 0.02, lag_s: float = 0.0, period_s: float = 0.1) -> None:
        self.clock = PausingManualClock(per_read_s=1e-5)
        self.profile = Lingering(idle_w=100.0, step_w=400.0, share=share, tau_s=tau_s, lag_s=lag_s)
        meter = ReplayMeter(self.profile, self.clock, step_s=period_s, conditions=lambda: Conditions())
        self.bank = MeterBank((meter,), self.clock, why="replay")

    def prepare(self) -> None:
        """Nothing to set up."""

    def run(self, duration_s: float, look: Callable[[], None], every_s: float) -> Busy:
        started_s = self.clock.now_s()
        busy = Busy(started_s=started_s, ended_s=started_s + duration_s)
        self.profile.bursts.append(busy)
        while (left_s := busy.ended_s - self.clock.now_s()) > 0:
            look()
            self.clock.advance(min(every_s, max(left_s - 1e-5, 1e-6)))
        return busy


def lingering_share(*, share: float, tau_s: float, period_s: float) -> float:
    """Of the power above idle, what lingers until the counter's next move, over all phases of the end alike.

    Energy that lingered τ after the end is share·tau·(1 − e^(−τ/tau)); both it and τ averaged over 0 … T.
    """
    mean_s = share * tau_s * (1 - tau_s / period_s * (1 - math.exp(-period_s / tau_s)))
    return mean_s / (period_s / 2)
