"""Requests become possible, with the reason; nothing changes that need not."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.clipping import MEMORY_SHARE, PlannedRun, WantedRun, clip
from harness.campaign.estimate import Machine, ModelSize, ProtocolCost, memory_bytes
from harness.campaign.passes import FormulaPasses
from harness.requests import Deployment, Request

SIZE = ModelSize(weight_bytes=2000, kv_bytes_per_token=10)
MACHINE = Machine(
    peak_flop_per_s=2000.0,  # one token of one sequence takes one second
    peak_bytes_per_s=1e15,
    memory_bytes=10**9,
    idle_power_w=1,
    load_power_w=2,
    flop_efficiency=1.0,
)
ONCE = ProtocolCost(load_s=0, warmup_s=0, idle_s=0, window_s=0, trials=1)


def passes(machine: Machine) -> FormulaPasses:
    return FormulaPasses(
        parameters=1000,
        active_parameters=1000,
        weight_bytes=2000,
        kv_bytes_per_token=10,
        attention_flop_per_pair=0,
        activation_bytes_per_token=0,
        launches=1,
        machine=machine,
    )


def wanted(
    batch: int = 1,
    prompt: int = 100,
    output: int = 11,
    size: ModelSize = SIZE,
    machine: Machine = MACHINE,
    protocol: ProtocolCost = ONCE,
    n_gpus: int = 0,
) -> WantedRun:
    return WantedRun(
        request=Request(model="m", batch_size=batch, prompt_tokens=prompt, output_tokens=output, dtype="float32"),
        deployment=Deployment(device="cuda" if n_gpus else "cpu", n_gpus=n_gpus),
        sampling_weight=1.0,
        size=size,
        passes=passes(machine),
        machine=machine,
        protocol=protocol,
    )


def lengths(planned: Sequence[PlannedRun]) -> list[tuple[int, int]]:
    return [(run.request.prompt_tokens, run.request.output_tokens) for run in planned]


def test_what_is_possible_is_left_alone() -> None:
    runs = [wanted(), wanted(prompt=50)]
    planned = clip(runs, time_budget_s=10_000)
    assert [run.request for run in planned] == [run.request for run in runs]
    assert all(run.clipped is None and run.skipped is None for run in planned)


def test_a_request_is_shortened_to_the_context_in_proportion() -> None:
    (run,) = clip([wanted(prompt=300, output=101, size=replace(SIZE, context_tokens=200))])
    assert run.request.context_tokens <= 200
    assert lengths([run]) == [(151, 50)]
    assert run.clipped == "prompt 300 to 151, output 101 to 50 tokens: the model's context is 200 tokens"


def test_a_context_that_is_exactly_filled_is_not_shortened() -> None:
    (run,) = clip([wanted(prompt=100, output=101, size=replace(SIZE, context_tokens=200))])
    assert run.clipped is None


def test_a_request_is_shortened_to_memory() -> None:
    machine = replace(MACHINE, memory_bytes=10_000)
    (run,) = clip([wanted(batch=4, prompt=1000, output=100, machine=machine)])
    limit = MEMORY_SHARE * 10_000
    assert memory_bytes(run.request, SIZE, run.wanted.passes) <= limit
    assert memory_bytes(run.request, SIZE, run.wanted.passes) > limit - 4 * 10 * 3, (
        "no shorter than needed, to a token of each"
    )
    assert "memory" in str(run.clipped)


def test_a_request_that_can_never_fit_is_skipped_with_the_reason() -> None:
    (run,) = clip([wanted(batch=8, machine=replace(MACHINE, memory_bytes=2300))])
    assert "batch 8 need" in str(run.skipped)
    assert "90% of the memory" in str(run.skipped)
    assert run.clipped is None
    assert run.request == wanted(batch=8).request


def test_only_the_longest_runs_are_shortened_for_the_time_budget() -> None:
    runs = [wanted(prompt=10, output=2), wanted(prompt=1000, output=2), wanted(prompt=20, output=2)]
    planned = clip(runs, time_budget_s=300)
    assert lengths(planned)[0] == (10, 2)
    assert lengths(planned)[2] == (20, 2)
    assert 200 < sum(run.cost_s for run in planned) <= 300
    assert "the time budget is 5 min 0 s" in str(planned[1].clipped)


def test_runs_above_the_cap_all_come_down_to_it() -> None:
    runs = [wanted(prompt=p, output=40) for p in (400, 600, 800, 10)]
    planned = clip(runs, time_budget_s=900)
    costs = [run.cost_s for run in planned]
    assert costs[3] == runs[3].cost_s(runs[3].request)
    assert max(costs[:3]) - min(costs[:3]) < 10
    assert 870 < sum(costs) <= 900


def test_runs_for_which_no_time_is_left_are_skipped_from_the_end() -> None:
    protocol = replace(ONCE, load_s=100)
    planned = clip([wanted(prompt=p, protocol=protocol) for p in (30, 40, 50)], time_budget_s=250)
    assert [run.skipped is None for run in planned] == [True, True, False]
    assert "no time left" in str(planned[2].skipped)
    assert sum(run.cost_s for run in planned[:2]) <= 250


def test_requests_keep_a_decode_phase_if_they_had_one() -> None:
    planned = clip([wanted(prompt=500, output=5), wanted(prompt=500, output=1)], time_budget_s=30)
    assert planned[0].request.output_tokens == 2
    assert planned[1].request.output_tokens == 1


def test_two_requests_that_become_the_same_are_told_apart_by_a_token() -> None:
    size = replace(SIZE, context_tokens=100)
    planned = clip([wanted(prompt=400, output=2, size=size), wanted(prompt=800, output=2, size=size)])
    assert lengths(planned) == [(99, 2), (98, 2)]
    assert "to differ from another run" in str(planned[1].clipped)


def test_an_unchanged_request_keeps_its_place_against_a_shortened_one() -> None:
    size = replace(SIZE, context_tokens=100)
    planned = clip([wanted(prompt=400, output=2, size=size), wanted(prompt=99, output=2, size=size)])
    assert lengths(planned) == [(98, 2), (99, 2)]
    assert planned[1].clipped is None


def test_a_request_that_cannot_differ_is_skipped() -> None:
    size = replace(SIZE, context_tokens=2)
    planned = clip([wanted(prompt=p, output=2, size=size) for p in (8, 9)])
    assert lengths(planned)[0] == (1, 2)
    assert "already in the plan, because it was shortened" in str(planned[1].skipped)


def test_the_same_request_on_another_deployment_is_another_run() -> None:
    planned = clip([wanted(n_gpus=1), wanted(n_gpus=2)])
    assert all(run.skipped is None and run.clipped is None for run in planned)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 500), st.integers(1, 60)),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    context=st.none() | st.integers(1, 300),
    memory=st.integers(2000, 20_000),
    budget_s=st.none() | st.floats(1, 3000),
)
def test_whatever_is_wanted_the_outcome_is_possible_and_no_run_is_there_twice(
    sizes: list[tuple[int, int, int]], context: int | None, memory: int, budget_s: float | None
) -> None:
    size, machine = replace(SIZE, context_tokens=context), replace(MACHINE, memory_bytes=memory)
    runs = [wanted(batch=b, prompt=p, output=o, size=size, machine=machine) for b, p, o in sizes]
    planned = clip(runs, budget_s)

    kept = [run for run in planned if run.skipped is None]
    assert [run.wanted for run in planned] == runs
    assert len({run.request for run in planned}) == len(planned), "kept and skipped runs have ids of their own"
    for run in kept:
        assert context is None or run.request.context_tokens <= context
        assert memory_bytes(run.request, size, run.wanted.passes) <= MEMORY_SHARE * memory
        assert 1 <= run.request.prompt_tokens <= run.wanted.request.prompt_tokens
        assert 1 <= run.request.output_tokens <= run.wanted.request.output_tokens
        assert (run.clipped is None) == (run.request == run.wanted.request)
    if budget_s is not None:
        assert sum(run.cost_s for run in kept) <= budget_s * (1 + 1e-9)


def test_a_longer_budget_never_shortens_more() -> None:
    runs = [wanted(prompt=p, output=20) for p in (50, 300, 700)]
    sums = [sum(run.request.prompt_tokens for run in clip(runs, budget)) for budget in (300, 900, 2000, 4000)]
    assert sums == sorted(sums)
    assert sums[-1] == pytest.approx(1050)
