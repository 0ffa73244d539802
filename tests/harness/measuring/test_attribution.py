import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.kernels import KernelKind
from harness.measuring.attribution import (
    BUSY_SHARE,
    COMPUTE_SHARE,
    MEMORY_SHARE,
    Apportionment,
    Ceilings,
    apportion,
    untraced_durations_s,
)
from harness.tracing.timeline import TracedKernel

CEILINGS = Ceilings(flop_per_s=1e12, bytes_per_s=1e11)
GEMM = TracedKernel(
    kernel_id="k0000",
    kind=KernelKind.GEMM,
    op="aten::mm",
    module="lm_head",
    dtype="float32",
    shape="{}",
    launches=1,
    flop=None,
    read_bytes=None,
    write_bytes=None,
    traced_duration_s=0.1,
)

COUNTS = st.none() | st.integers(0, 10**13)
KERNELS = st.lists(
    st.builds(
        lambda flop, read, write, time_s: replace(
            GEMM, flop=flop, read_bytes=read, write_bytes=write, traced_duration_s=time_s
        ),
        COUNTS,
        COUNTS,
        COUNTS,
        st.floats(0, 2),
    ),
    max_size=12,
)
RATES = st.none() | st.floats(1e9, 1e15)


def split(kernels: list[TracedKernel], **given: Any) -> Apportionment:
    known: dict[str, Any] = {
        "energy_j": 200.0,
        "duration_s": 1.0,
        "idle_power_w": 50.0,
        "ceilings": CEILINGS,
        "host_is_device": False,
    }
    return apportion(kernels, **(known | given))


@given(
    KERNELS,
    st.floats(1e-3, 1e4),
    st.floats(1e-4, 1e3),
    st.floats(0, 2),
    st.builds(Ceilings, flop_per_s=RATES, bytes_per_s=RATES),
    st.booleans(),
)
def test_kernels_and_gaps_fill_the_phase_and_nothing_is_negative(
    kernels: list[TracedKernel], power_w: float, duration_s: float, idle: float, ceilings: Ceilings, host: bool
) -> None:
    energy_j, idle_power_w = power_w * duration_s, power_w * idle
    found = split(
        kernels,
        energy_j=energy_j,
        duration_s=duration_s,
        idle_power_w=idle_power_w,
        ceilings=ceilings,
        host_is_device=host,
    )

    filled = math.fsum([share.energy_j for share in found.kernels] + [found.host_gap_energy_j])
    assert filled == pytest.approx(energy_j, rel=1e-12)
    assert math.fsum([share.duration_s for share in found.kernels] + [found.host_gap_s]) == pytest.approx(
        duration_s, rel=1e-9
    )
    assert all(share.energy_j >= 0 for share in found.kernels)
    assert found.host_gap_energy_j >= 0
    for share in found.kernels:
        assert share.energy_j == pytest.approx(
            share.active_energy_j + idle_power_w * share.duration_s, rel=1e-9, abs=1e-12 * energy_j
        )
        if energy_j >= idle_power_w * duration_s:
            assert share.active_energy_j >= 0


def test_power_goes_by_how_busy_the_units_are() -> None:
    at_peak = replace(GEMM, flop=10**11, read_bytes=0, write_bytes=0)  # 0.1 s at 1e12 FLOP/s
    streaming = replace(GEMM, flop=0, read_bytes=5 * 10**9, write_bytes=5 * 10**9)  # 0.1 s at 1e11 bytes/s

    compute, memory = split([at_peak, streaming]).kernels

    assert compute.active_energy_j / memory.active_energy_j == pytest.approx(
        (BUSY_SHARE + COMPUTE_SHARE) / (BUSY_SHARE + MEMORY_SHARE)
    )
    assert compute.active_energy_j + memory.active_energy_j == pytest.approx(150)
    assert compute.energy_j == pytest.approx(compute.active_energy_j + 5)


def test_a_kernel_cannot_be_faster_than_its_ceilings() -> None:
    impossible = replace(GEMM, flop=10**15, read_bytes=10**15, write_bytes=10**15)
    at_both = replace(GEMM, flop=10**11, read_bytes=10**10, write_bytes=0)
    first, second = split([impossible, at_both]).kernels
    assert first.active_energy_j == pytest.approx(second.active_energy_j)


def test_on_a_gpu_a_host_gap_draws_idle_power_only() -> None:
    found = split([GEMM])
    assert found.host_gap_s == pytest.approx(0.9)
    assert found.host_gap_energy_j == pytest.approx(45)
    assert found.kernels[0].energy_j == pytest.approx(155)


def test_on_a_cpu_the_gap_is_busy_too() -> None:
    found = split([GEMM], host_is_device=True)
    assert found.host_gap_energy_j == pytest.approx(200 * 0.9)
    assert found.kernels[0].energy_j == pytest.approx(20)


@pytest.mark.parametrize(
    "kernel",
    [
        GEMM,
        replace(GEMM, flop=10**11, read_bytes=10**9),  # without what it writes, bytes are not known
    ],
)
@pytest.mark.parametrize("ceilings", [Ceilings(flop_per_s=None, bytes_per_s=None), CEILINGS])
def test_what_is_not_known_takes_no_share(kernel: TracedKernel, ceilings: Ceilings) -> None:
    known = kernel.flop is not None and ceilings.flop_per_s is not None
    idle_kernel, other = split([GEMM, kernel], ceilings=ceilings).kernels
    ratio = (BUSY_SHARE + COMPUTE_SHARE) / BUSY_SHARE if known else 1.0
    assert other.active_energy_j / idle_kernel.active_energy_j == pytest.approx(ratio)


def test_without_kernels_all_is_gap() -> None:
    found = split([])
    assert found.kernels == ()
    assert found.host_gap_energy_j == pytest.approx(200)
    assert found.host_gap_s == 1.0


def test_kernels_that_took_no_time_took_no_energy() -> None:
    found = split([replace(GEMM, traced_duration_s=0.0)])
    assert found.kernels[0].energy_j == 0
    assert found.host_gap_energy_j == pytest.approx(200)


def test_an_energy_below_idle_is_shared_by_time() -> None:
    found = split([GEMM], energy_j=40.0)
    assert found.kernels[0].energy_j == pytest.approx(4)
    assert found.kernels[0].active_energy_j == pytest.approx(-1)
    assert found.host_gap_energy_j == pytest.approx(36)


def test_traced_times_are_shortened_only_where_they_do_not_fit() -> None:
    kernels = [GEMM, replace(GEMM, traced_duration_s=0.3)]
    assert untraced_durations_s(kernels, 1.0) == (0.1, 0.3)
    assert untraced_durations_s(kernels, 0.2) == pytest.approx((0.05, 0.15))
    assert untraced_durations_s([], 1.0) == ()
