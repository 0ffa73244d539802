"""What loops of kernels used: the windows of one work, on the devices of one rank, as energy and time of one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.kernels import KernelCount, Phase
from harness.measuring.results import SessionResult, TakenWindow, reading95_j, systematic95, work_energy_j
from harness.measuring.statistics import Mean, Trial, mean_of
from harness.records import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One pass of a loop on one rank's share of its devices. Energies are gross."""

    kernels: tuple[KernelCount, ...]
    energy_j: Mean
    duration_s: Mean
    clock_mhz: float | None = None  # SM clock right after the work, over windows and devices

    @property
    def power_w(self) -> Mean:
        """Mean gross power; time is known much better than energy, so its interval is left out."""
        return self.energy_j.times(1 / self.duration_s.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCounter:
    """The counters that a rank's energy is read from: one, or several where one rank uses several devices in turn.

    A CPU's is shared by ``sharing`` ranks, to each of which it counts evenly.
    """

    devices: tuple[int, ...]
    sharing: int = 1

    def idle_w(self, session: SessionResult) -> float:
        """The rank's share of the mean idle power of the run."""
        return sum(session.idle.mean_powers_w[device] for device in self.devices) / self.sharing


def loop_of(session: SessionResult, part: Part, kernels: Sequence[KernelCount], counter: RankCounter) -> Loop | None:
    """The loop of these kernels, or a whole part of the run for none; None where no window of it can be used.

    Energy of a pass = mean over the windows of (counter between two of its steps − idle power × lead and tail) /
    passes; its interval is that of ``mean_of``. Assumes that a long loop is a steady state: start and end of the loop
    are a few launches out of many thousands.
    """
    wanted = tuple(kernels)
    used = [
        taken
        for taken in session.windows
        if taken.part is part and taken.kernels == wanted and taken.rejected is None and taken.passes
    ]
    if not used:
        return None
    # Parts of the run are repeated until they are known well enough; loops as often as planned.
    energy = mean_of([_trial(taken, session, counter) for taken in used], planned=session.planned)
    systematic_j = systematic95(used, session.precision, counter.devices) * abs(energy.value)
    return Loop(
        kernels=wanted,
        energy_j=energy.with_systematic(systematic_j),
        duration_s=mean_of([Trial(value=taken.window.work_s / taken.passes) for taken in used]),
        clock_mhz=clock_mhz(used, counter),
    )


def clock_mhz(used: Sequence[TakenWindow], counter: RankCounter) -> float | None:
    """Mean SM clock right after the work; None where it is not known everywhere."""
    clocks = [taken.window.after[device].sm_clock_mhz for taken in used for device in counter.devices]
    known = [clock for clock in clocks if clock is not None]
    return fmean(known) if known and len(known) == len(clocks) else None


def clock_of_phase_mhz(session: SessionResult, phase: Phase, counter: RankCounter) -> float | None:
    """Mean SM clock right after the windows of a phase; None where it is not known."""
    part = Part(phase.value)
    return clock_mhz([each for each in session.windows if each.part is part and each.rejected is None], counter)


def clock_ratio(there_mhz: float | None, here_mhz: float | None) -> float:
    """By how much the clock there is higher than here; 1 where either is not known."""
    return there_mhz / here_mhz if there_mhz is not None and here_mhz else 1.0


def active_energy_j(taken: TakenWindow, session: SessionResult, counter: RankCounter) -> float:
    """Energy of a window's work above idle power at that time, the rank's share of it."""
    idle = session.idle
    idle_w = sum(idle.device_power_w(device, taken.window.middle_s) for device in counter.devices)
    gross_j = sum(work_energy_j(taken.window, idle, device) for device in counter.devices)
    return (gross_j - idle_w * taken.window.work_s) / counter.sharing


def _trial(taken: TakenWindow, session: SessionResult, counter: RankCounter) -> Trial:
    scale = 1 / (counter.sharing * taken.passes)
    half = reading95_j(taken.window, session.idle, session.precision, step_s=session.step_s, devices=counter.devices)
    return Trial(
        value=sum(work_energy_j(taken.window, session.idle, device) for device in counter.devices) * scale,
        random95=half.random_j * scale,
        common95=half.common_j * scale,
    )
