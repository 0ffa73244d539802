"""Costs that can be worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.campaign.estimate import (
    Estimate,
    Machine,
    ModelSize,
    ProtocolCost,
    estimate_request,
    estimate_run_s,
    memory_bytes,
)
from harness.campaign.passes import FormulaPasses
from harness.requests import Request

MODEL = ModelSize(weight_bytes=2000, kv_bytes_per_token=10)
COMPUTE_BOUND = Machine(
    peak_flop_per_s=1000,
    peak_bytes_per_s=1e12,
    memory_bytes=10**9,
    idle_power_w=10,
    load_power_w=110,
    flop_efficiency=0.5,
    bytes_efficiency=1.0,
)
MEMORY_BOUND = Machine(
    peak_flop_per_s=1e12,
    peak_bytes_per_s=1000,
    memory_bytes=10**9,
    idle_power_w=10,
    load_power_w=110,
    flop_efficiency=1.0,
    bytes_efficiency=0.5,
)


def passes(machine: Machine = COMPUTE_BOUND, active: int = 1000, per_pair: int = 4, kv: int = 10) -> FormulaPasses:
    return FormulaPasses(
        parameters=1000,
        active_parameters=active,
        weight_bytes=2000,
        kv_bytes_per_token=kv,
        attention_flop_per_pair=per_pair,
        activation_bytes_per_token=3,
        launches=100,
        machine=machine,
    )


def request(batch: int = 2, prompt: int = 10, output: int = 4) -> Request:
    return Request(model="m", batch_size=batch, prompt_tokens=prompt, output_tokens=output, dtype="float32")


def test_a_compute_bound_request_takes_its_arithmetic_over_the_peak() -> None:
    found = estimate_request(request(), MODEL, passes(), COMPUTE_BOUND)
    # prefill: 2 × 10 tokens × 2,000 FLOP and 2 × (1 + … + 10) pairs × 4 FLOP, at 500 FLOP/s
    assert found.prefill_s == pytest.approx((20 * 2000 + 2 * 55 * 4) / 500)
    # decode: three passes of 2 tokens, in contexts of 11, 12 and 13
    assert found.decode_s == pytest.approx((3 * 2 * 2000 + 2 * (11 + 12 + 13) * 4) / 500)
    assert found.duration_s == found.prefill_s + found.decode_s
    assert found.energy_j == pytest.approx(110 * found.duration_s)


def test_a_memory_bound_request_takes_its_traffic_over_the_bandwidth() -> None:
    found = estimate_request(request(), MODEL, passes(MEMORY_BOUND), MEMORY_BOUND)
    assert found.prefill_s == pytest.approx((2000 + 2 * 10 * 10) / 500)
    assert found.decode_s == pytest.approx((3 * 2000 + 2 * (11 + 12 + 13) * 10) / 500)


def test_passes_shorter_than_their_launch_wait_for_the_host_at_idle_power() -> None:
    slow_host = Machine(
        peak_flop_per_s=1e12,
        peak_bytes_per_s=1e12,
        memory_bytes=10**9,
        idle_power_w=10,
        load_power_w=110,
        host_s_per_launch=0.005,
    )
    found = estimate_request(request(output=4), MODEL, passes(slow_host), slow_host)
    assert found.prefill_s == 0.5
    assert found.decode_s == pytest.approx(1.5)
    assert found.energy_j == pytest.approx(10 * 2.0, rel=1e-3)


def test_a_single_output_token_is_a_prefill_alone() -> None:
    assert estimate_request(request(output=1), MODEL, passes(), COMPUTE_BOUND).decode_s == 0


def test_without_a_cache_every_token_recomputes_the_context() -> None:
    found = estimate_request(request(output=2), MODEL, passes(), COMPUTE_BOUND, kv_cache=False)
    assert found.decode_s == pytest.approx((2 * 11 * 2000 + 2 * 66 * 4) / 500)
    assert memory_bytes(request(output=2), MODEL, passes(), kv_cache=False) == 2000 + 2 * 11 * 3


def test_a_token_reads_the_weights_of_its_own_experts_and_many_tokens_read_them_all() -> None:
    experts = passes(MEMORY_BOUND, active=100, per_pair=0, kv=0)
    one = estimate_request(request(batch=1, prompt=1, output=1), MODEL, experts, MEMORY_BOUND).prefill_s
    many = estimate_request(request(batch=1, prompt=500, output=1), MODEL, experts, MEMORY_BOUND).prefill_s
    assert one == pytest.approx(200 / 500)
    assert many == pytest.approx(2000 / 500)


def test_memory_is_weights_and_what_every_sequence_keeps() -> None:
    # contexts end at 10 + 3 tokens: the last token is never fed back
    assert memory_bytes(request(), MODEL, passes()) == 2000 + 2 * (13 * 10 + 10 * 3)


@given(
    batch=st.integers(1, 64),
    prompt=st.integers(1, 4000),
    output=st.integers(2, 2000),
    flop_per_s=st.floats(1e3, 1e9),
    bytes_per_s=st.floats(1e3, 1e9),
)
def test_decode_is_the_sum_over_its_passes(
    batch: int, prompt: int, output: int, flop_per_s: float, bytes_per_s: float
) -> None:
    machine = Machine(
        peak_flop_per_s=flop_per_s,
        peak_bytes_per_s=bytes_per_s,
        memory_bytes=10**9,
        idle_power_w=10,
        load_power_w=110,
        flop_efficiency=1.0,
        bytes_efficiency=1.0,
    )
    contexts = range(prompt + 1, prompt + output)
    one_by_one = sum(max(batch * (2000 + 4 * c) / flop_per_s, (2000 + batch * c * 10) / bytes_per_s) for c in contexts)
    found = estimate_request(request(batch, prompt, output), MODEL, passes(machine), machine)
    assert found.decode_s == pytest.approx(one_by_one, rel=0.15)  # the sum is exact unless the roof changes on the way


def test_a_run_is_its_overhead_and_its_windows() -> None:
    estimate = Estimate(prefill_s=1.0, decode_s=8.0, busy_s=9.0, memory_bytes=0, energy_j=0.0)
    protocol = ProtocolCost(load_s=10, warmup_s=30, idle_s=20, window_s=5, trials=3, traced_requests=2)
    # prefill repeats until its window is full; decode and the request are longer than a window
    assert estimate_run_s(estimate, protocol) == 10 + 30 + 20 + 3 * (5 + 8 + 9) + 2 * 9
