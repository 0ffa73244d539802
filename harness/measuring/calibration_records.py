"""What a calibration writes down of one device. None: it could not be measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with the half width of its 95 % interval; None: the spread is not known."""

    value: float
    ci95: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterTraits:
    """How the energy counter behaves."""

    period_s: float | None  # between two moves, on the average
    median_s: float | None  # … and in the median
    spread_s: float | None  # between the 5th and the 95th percentile
    jitter_s: float | None  # rms deviation of moves from an even beat, the looks' own blur taken out
    quantum_j: float | None  # what it counts in; 1 µJ: that or finer
    read_median_s: float | None
    read_p99_s: float | None
    lag_s: Estimate | None  # by how much energy shows later than it was used
    sampled_share: Estimate | None  # of the time that it looks at the power; 1: it sees everything
    looks: int | None  # in one period
    misfit: float | None  # rms of what this description leaves unexplained, relative to the load's power above idle

    @property
    def edge_share(self) -> float | None:
        """The share that counts where a load begins or ends: what is hidden lies between two looks."""
        if self.sampled_share is None:
            return None
        return 1 - (1 - min(1.0, self.sampled_share.value)) / (self.looks or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldTraits:
    """How a power field behaves."""

    period_s: float | None  # between two renewals
    jitter_s: float | None
    window_s: Estimate | None  # that a value averages over
    looks: int | None  # in that window
    sampled_share: float | None  # of all time that ends up in some value
    lag_s: Estimate | None
    rise_s: float | None  # in which the answer to a step goes from 10 % to 90 %
    misfit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliasing:
    """A load that is on and off in step with the counter, at eight phases."""

    load_period_s: float
    phases: int
    worst: float  # largest relative deviation of a phase from the mean of all phases
    resolution: float  # what noise and reading make of it where there is no aliasing
    bias: float  # mean over the phases, against what the powers of long bursts said; a device that warmed up shows here
    polled_worst: float | None = None  # the same of instant power, polled and integrated

    @property
    def seen(self) -> bool:
        """Whether the counter aliases with the load."""
        return self.worst > 2 * self.resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleTraits:
    """Power at rest. The intervals are those of repeating; the meter's gain is not in them."""

    bare_w: Estimate | None  # nothing of this process on the device
    context_w: Estimate | None  # context resident, before the load has run
    settle_s: float | None  # after a load, until power stays within 2 % of the load's step from where it ends up
    tail_share: Estimate | None  # of the load's power above idle that lingers until the counter's next move
    w_per_c: Estimate | None  # rise of idle power with temperature
    time_constant_s: float | None  # of the temperature after a load


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCalibration:
    """One device and its meter."""

    meter: str
    name: str
    uuid_sha256: str | None
    counter: CounterTraits | None
    instant: FieldTraits | None  # NVML_FI_DEV_POWER_INSTANT
    reported: FieldTraits | None  # NVML's PowerUsage
    average: FieldTraits | None  # NVML_FI_DEV_POWER_AVERAGE
    aliasing: tuple[Aliasing, ...]
    load_gap: Estimate | None  # integrated instant power relative to the counter, less 1, under load
    idle_gap: Estimate | None  # … and at rest
    load_w: Estimate | None  # power under the load
    noise_w: float | None  # standard deviation of the mean power of one counter period, under steady load
    idle: IdleTraits
    notes: tuple[str, ...] = ()

    @property
    def gaps_found(self) -> tuple[Estimate, ...]:
        """The gaps that could be measured."""
        return tuple(gap for gap in (self.load_gap, self.idle_gap) if gap is not None)
