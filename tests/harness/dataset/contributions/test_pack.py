"""The reference pack: what it is, and when it is there."""

from dataclasses import replace
from typing import Any

import pytest

from harness.campaign.plan import Plan
from harness.dataset.contributions.pack import PackPart, reference_pack
from harness.models.shipped import shipped_config
from harness.records import Quality, RunRow, Status, Weights
from tests.harness.dataset.contributions.measured import GPU, pack_measurements

PACK = reference_pack()


def runs() -> tuple[RunRow, ...]:
    return tuple(made.run for made in pack_measurements())


@pytest.mark.parametrize("part", [PACK.on_gpu, PACK.on_cpu], ids=["gpu", "cpu"])
def test_the_pack_is_a_plan_that_needs_no_download(part: PackPart) -> None:
    plan = Plan.from_table(part.plan)

    assert plan.random_weights
    assert len(plan.requests) == len(part.requests)
    assert {(r.batch_size, r.prompt_tokens, r.output_tokens) for r in plan.requests} == {
        (r.batch_size, r.prompt_tokens, r.output_tokens) for r in part.requests
    }
    assert all(shipped_config(model) for model in plan.models)
    assert (plan.quality, plan.attention, plan.seed) == (Quality.STANDARD, part.attention, 0)


def test_this_is_version_1() -> None:
    """Who changes the pack makes another one: other rows can no longer be compared with these."""
    assert PACK.name == "reference-pack-1"
    assert list(map(str, PACK.on_gpu.requests)) == [
        "Qwen/Qwen2.5-1.5B 1x2048x16",
        "Qwen/Qwen2.5-1.5B 1x128x256",
        "Qwen/Qwen2.5-1.5B 32x512x16",
        "Qwen/Qwen2.5-1.5B 32x128x256",
    ]
    assert list(map(str, PACK.on_cpu.requests)) == [
        "HuggingFaceTB/SmolLM2-135M-Instruct 1x256x8",
        "HuggingFaceTB/SmolLM2-135M-Instruct 1x32x32",
        "HuggingFaceTB/SmolLM2-135M-Instruct 4x64x16",
    ]


def test_nothing_is_missing_where_every_request_was_answered() -> None:
    assert PACK.missing(runs(), GPU) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"status": Status.OOM},
        {"quality": Quality.QUICK},
        {"weights": Weights.PRETRAINED},
        {"attention": "eager"},
        {"kv_cache": False},
        {"runtime": "vllm"},
        {"dtype": "float32"},
        {"n_gpus": 2},
        {"gpu": "NVIDIA L4"},
        {"clipped": "output: 256 → 16 tokens"},
        {"output_tokens": 15},
        {"energy_j": None},
        {"model": None},
    ],
)
def test_a_run_that_differs_does_not_count(change: dict[str, Any]) -> None:
    first, *others = runs()

    assert PACK.missing([replace(first, **change), *others], GPU) == (PACK.on_gpu.requests[0],)


def test_quick_runs_count_in_a_rehearsal() -> None:
    quick = [replace(run, quality=Quality.QUICK) for run in runs()]

    assert len(PACK.missing(quick, GPU)) == 4
    assert PACK.missing(quick, GPU, frozenset(Quality)) == ()


def test_a_cpu_has_a_pack_of_its_own() -> None:
    assert PACK.part_for("cpu: Example CPU") is PACK.on_cpu
    assert PACK.part_for(GPU) is PACK.part_for("virtual: NVIDIA L4") is PACK.on_gpu
