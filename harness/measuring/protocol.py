"""How long windows last and how often they are repeated, for each quality.

Sources of the standard numbers: the counter of an NVIDIA GPU moves every 20–100 ms (Zeus; PETSc manual), so a window
of 5 s or 50 steps keeps an aligned reading's error well below 1 %; idle floor and warm-up follow the practice of
arXiv 2312.02741. Quick is for trying out: its rows are marked and never released.
"""

from dataclasses import dataclass

from harness.records import Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Lengths and counts of one quality. Times in seconds, spreads relative."""

    quality: Quality
    window_s: float  # shortest window
    window_steps: int  # … and at least this many steps of the counter
    warm_up_s: float  # longest warm-up at load
    settled_c_per_s: float  # a warm-up ends early below this slope of the temperature
    idle_s: float  # idle floor before and after
    idle_every_s: float  # … and again where so long has passed since
    trials_min: int
    trials_max: int
    half_width_target: float  # stop when the 95 % half width of every part is below this share of it
    clock_drift_max: float  # a window whose SM clock is this far from the median is rejected
    kernel_window_share: float  # windows of kernels, relative to those of the run's parts
    whole_decode_windows: float  # decode all steps while one pass is at most this many windows long, else fit contexts

    def shortest_window_s(self, step_s: float) -> float:
        """Window length for a counter that moves every ``step_s`` seconds."""
        return max(self.window_s, self.window_steps * step_s)


STANDARD = Protocol(
    quality=Quality.STANDARD,
    window_s=5.0,
    window_steps=50,
    warm_up_s=30.0,
    settled_c_per_s=0.1,
    idle_s=10.0,
    idle_every_s=600.0,
    trials_min=5,
    trials_max=20,
    half_width_target=0.02,
    clock_drift_max=0.03,
    kernel_window_share=0.5,
    whole_decode_windows=4.0,
)
QUICK = Protocol(
    quality=Quality.QUICK,
    window_s=1.0,
    window_steps=5,
    warm_up_s=0.0,
    settled_c_per_s=0.1,
    idle_s=1.0,
    idle_every_s=600.0,
    trials_min=3,
    trials_max=3,
    half_width_target=0.02,
    clock_drift_max=0.03,
    kernel_window_share=0.5,
    whole_decode_windows=4.0,
)


def protocol_of(quality: Quality) -> Protocol:
    """The protocol of a quality."""
    return {Quality.STANDARD: STANDARD, Quality.QUICK: QUICK}[quality]
