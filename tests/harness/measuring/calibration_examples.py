"""Calibrations made up by hand, with round figures."""

from dataclasses import replace
from typing import Any

from harness.measuring.calibration import Calibration
from harness.measuring.calibration_records import (
    Aliasing,
    CounterTraits,
    DeviceCalibration,
    Estimate,
    FieldTraits,
    IdleTraits,
)
from harness.records import Provenance

COUNTER = CounterTraits(
    period_s=0.1,
    median_s=0.1001,
    spread_s=0.004,
    jitter_s=0.001,
    quantum_j=0.001,
    read_median_s=1e-4,
    read_p99_s=2e-4,
    lag_s=Estimate(value=0.002, ci95=0.001),
    sampled_share=Estimate(value=1.0, ci95=0.02),
    looks=1,
    misfit=0.01,
)
INSTANT = FieldTraits(
    period_s=0.1,
    jitter_s=None,
    window_s=Estimate(value=0.025, ci95=0.001),
    looks=1,
    sampled_share=0.25,
    lag_s=Estimate(value=0.0, ci95=0.001),
    rise_s=0.02,
    misfit=0.005,
)
IDLE = IdleTraits(
    bare_w=Estimate(value=60.0, ci95=0.5),
    context_w=Estimate(value=100.0, ci95=0.4),
    settle_s=0.3,
    tail_share=Estimate(value=0.02, ci95=0.01),
    w_per_c=Estimate(value=0.25, ci95=0.05),
    time_constant_s=25.0,
)
DEVICE = DeviceCalibration(
    meter="nvml:0",
    name="NVIDIA Example",
    uuid_sha256="ab" * 32,
    counter=COUNTER,
    instant=INSTANT,
    reported=replace(INSTANT, window_s=Estimate(value=1.0, ci95=0.01), looks=10),
    average=None,
    aliasing=(Aliasing(load_period_s=0.1, phases=8, worst=0.004, resolution=0.005, bias=0.001, polled_worst=0.3),),
    load_gap=Estimate(value=0.01, ci95=0.002),
    idle_gap=Estimate(value=-0.02, ci95=0.01),
    load_w=Estimate(value=600.0, ci95=1.0),
    noise_w=2.0,
    idle=IDLE,
    notes=("The driver gives no average power.",),
)


def a_calibration(*devices: DeviceCalibration, **changes: Any) -> Calibration:
    """One device unless others are given."""
    values: dict[str, Any] = {
        "calibrated_at_utc": "2026-11-24T10:00:00+00:00",
        "harness": "0.1",
        "provenance": Provenance.MEASURED,
        "method": "nvml-counter",
        "load": "torch matmul",
        "quick": False,
        "devices": devices or (DEVICE,),
    }
    return Calibration(**values | changes)
