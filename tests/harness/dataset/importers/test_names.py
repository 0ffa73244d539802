"""Sizes of models against their configs, variants of GPUs by their power, and what a generation computes."""

import json
from typing import Any

import pytest

from harness.dataset.importers.names import DecoderSize, gpu_named, size_of, variant_by_power, within_limit
from harness.dataset.importers.repeats_cache import (
    CacheReading,
    Generation,
    generation_flop,
    rate_flop_per_s,
    reading_that_fits,
)
from harness.hardware import find
from harness.models.shipped import shipped_config

A100_40GB = ("NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-40GB")
TINY = DecoderSize(layers=2, hidden=8, kv_width=4, mlp_width=16, mlp_matrices=3)


@pytest.mark.parametrize(
    "model",
    ["facebook/opt-1.3b", "Qwen/Qwen2-1.5B", "meta-llama/Llama-2-13b-chat-hf", "mistralai/Mistral-7B-v0.1"],
)
def test_sizes_are_those_of_the_models_config(model: str) -> None:
    size, path = size_of(model), shipped_config(model)
    assert size is not None
    assert path is not None
    config: dict[str, Any] = json.loads(path.read_text())

    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    assert (size.layers, size.hidden) == (config["num_hidden_layers"], config["hidden_size"])
    assert size.kv_width == config["hidden_size"] // heads * kv_heads
    assert size.mlp_width == config.get("intermediate_size", config.get("ffn_dim"))


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("openai-community/gpt2", 0.085),
        ("tiiuae/falcon-7b", 6.6),
        ("tiiuae/falcon-40b", 40.8),
        ("bigscience/bloom", 172.6),
    ],
)
def test_parameters_of_the_layers_are_the_published_ones_less_embeddings(model: str, billions: float) -> None:
    size = size_of(model)

    assert size is not None
    assert size.parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_a_model_that_is_not_in_the_table_has_no_size() -> None:
    assert size_of("somebody/model") is None


def test_parameters_and_flop_by_hand() -> None:
    # per layer: q and o 2 × 64, k and v 2 × 32, three of 8 × 16
    assert TINY.parameters == 2 * (128 + 64 + 384)
    assert TINY.forward_flop(3, 10) == 3 * (2 * 1152 * 10 + 2 * 2 * 8 * 100)
    assert TINY.step_flop(3, 10) == 3 * (2 * 1152 + 4 * 2 * 8 * 10)


def test_without_a_cache_every_token_computes_the_whole_context_anew() -> None:
    generation = Generation(prompt_tokens=7, output_tokens=5, duration_s=1.0)

    flop = generation_flop(TINY, generation, CacheReading(batch_size=3, kv_cache=False))

    assert flop == pytest.approx(sum(TINY.forward_flop(3, 7 + step) for step in range(5)))


def test_with_a_cache_every_further_token_is_one_step() -> None:
    generation = Generation(prompt_tokens=7, output_tokens=5, duration_s=2.0)
    reading = CacheReading(batch_size=3, kv_cache=True)

    flop = generation_flop(TINY, generation, reading)

    assert flop == pytest.approx(
        TINY.forward_flop(3, 7) + sum(TINY.step_flop(3, 7 + step) for step in range(1, 5)), rel=0.01
    )
    assert rate_flop_per_s(TINY, generation, reading) == pytest.approx(flop / 2)


def _took(prompt: int, output: int, reading: CacheReading, flop_per_s: float) -> Generation:
    size = size_of("mistralai/Mistral-7B-v0.1")
    assert size is not None
    asked = Generation(prompt_tokens=prompt, output_tokens=output, duration_s=1.0)
    duration_s = generation_flop(size, asked, reading) / flop_per_s
    return Generation(prompt_tokens=prompt, output_tokens=output, duration_s=duration_s)


def test_single_sequences_without_a_cache_are_told_from_the_stated_batch_by_their_times() -> None:
    size, truth = size_of("mistralai/Mistral-7B-v0.1"), CacheReading(batch_size=1, kv_cache=False)
    assert size is not None

    found = reading_that_fits(
        size,
        _took(2048, 32, truth, 170e12),
        _took(33, 4096, truth, 150e12),
        stated_batch=32,
        peak_flop_per_s=312e12,
    )

    assert found == truth


def test_where_two_readings_stay_below_the_peak_none_is_chosen() -> None:
    size, truth = size_of("mistralai/Mistral-7B-v0.1"), CacheReading(batch_size=4, kv_cache=False)
    assert size is not None

    found = reading_that_fits(
        size,
        _took(2048, 32, truth, 170e12),
        _took(33, 4096, truth, 150e12),
        stated_batch=4,
        peak_flop_per_s=312e12,
    )

    assert found is None


def test_a_sweep_with_a_cache_is_not_taken_for_one_without() -> None:
    size, truth = size_of("mistralai/Mistral-7B-v0.1"), CacheReading(batch_size=32, kv_cache=True)
    assert size is not None

    found = reading_that_fits(
        size,
        _took(2048, 32, truth, 150e12),
        _took(33, 4096, truth, 10e12),  # decode is bound by memory
        stated_batch=32,
        peak_flop_per_s=312e12,
    )

    assert found is None or found.kv_cache


def test_the_variant_of_a_gpu_follows_from_the_power_it_reaches() -> None:
    assert variant_by_power(A100_40GB, 248.0) == find("NVIDIA A100-PCIE-40GB")
    assert variant_by_power(A100_40GB, 395.0) == find("NVIDIA A100-SXM4-40GB")
    assert variant_by_power(A100_40GB, 450.0) is None
    assert not within_limit(find("NVIDIA A100-PCIE-40GB"), 260.0)


def test_a_name_that_several_devices_share_finds_none() -> None:
    assert gpu_named("A100") is None
    assert gpu_named("H200") == find("NVIDIA H200")
