"""How far a meter's readings can be trusted, as far as its maker or a calibration says (type B of the GUM)."""

from dataclasses import dataclass
from typing import Final

# NVML documents power readings as accurate within ±5 % (nvml.h, nvmlDeviceGetPowerUsage), and "Part-time power
# measurements" (arXiv 2312.02741) found gains of up to 5 % on data-centre boards.
_NVML_GAIN95: Final = 0.05
_NVML_QUANTUM_J: Final = 1e-3  # nvmlDeviceGetTotalEnergyConsumption counts millijoules


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What is known of a meter before anything is measured with it. Half widths are those of 95 % intervals."""

    gain95: float | None = None  # relative, the same for all readings of one device; None: nobody states it
    offset95_w: float = 0.0
    tail95: float = 0.25  # share of the load's power above idle that may linger through the tail of a window
    lag_s: float = 0.0  # the counter shows energy this much later than it was used
    sampled_share: float = 1.0  # of the time in which the sensor looks; the counter stands for the rest too
    quantum_j: float = 0.0  # the counter shows whole multiples of it, rounded down
    source: str = "nobody states it"

    def systematic95_j(self, energy_j: float, duration_s: float) -> float:
        """Half width that gain and offset give an energy read over a duration on one device.

        √((g·E)² + (o·t)²), g and o being independent and each the same in all readings of the device. A gain that
        nobody states adds nothing: then ``source`` says so, and the interval is that of everything else.
        """
        return float(((self.gain95 or 0.0) ** 2 * energy_j**2 + (self.offset95_w * duration_s) ** 2) ** 0.5)


def precision_of(method: str) -> Precision:
    """What is known of the meters of a method without a calibration."""
    if method.startswith("nvml-"):
        return Precision(gain95=_NVML_GAIN95, quantum_j=_NVML_QUANTUM_J, source="nvml.h: accurate within 5 %")
    return Precision()
