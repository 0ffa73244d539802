from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import UnknownModel, UsageError
from harness.models.caches import cache_argument, cached_elements
from harness.models.facts import model_facts
from harness.models.source import ModelSource, SourceKind, resolve
from harness.records import Weights

LLAMA_3_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32768,
}


def test_the_sizes_of_llama_3_8b_are_the_published_ones(write_config: Callable[..., Path]) -> None:
    facts = model_facts(resolve(str(write_config(**LLAMA_3_8B)), random_weights=True))

    assert facts.parameters == facts.active_parameters == 8_030_261_248
    assert facts.embedding_parameters == facts.lm_head_parameters == 128256 * 4096
    assert (facts.layers, facts.hidden_size, facts.heads, facts.kv_heads, facts.head_dim) == (32, 4096, 32, 8, 128)
    assert facts.kv_bytes_per_token("bfloat16") == 131_072
    assert facts.weight_bytes("bfloat16") == 16_060_522_496
    assert (facts.context_tokens, facts.vocabulary_tokens) == (8192, 128256)


def test_mixtral_8x7b_uses_12_9_of_its_46_7_billion_parameters_for_a_token(write_config: Callable[..., Path]) -> None:
    facts = model_facts(resolve(str(write_config(**MIXTRAL_8X7B)), random_weights=True))

    assert facts.parameters == 46_702_792_704
    assert facts.active_parameters == pytest.approx(12.88e9, rel=1e-3)


def test_the_text_part_of_a_multimodal_config_is_what_counts(write_config: Callable[..., Path]) -> None:
    text = {
        "model_type": "gemma3_text",
        "vocab_size": 300,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
    }
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    path = write_config(model_type="gemma3", text_config=text, vision_config=vision)

    facts = model_facts(resolve(str(path), random_weights=True))

    assert (facts.model_type, facts.layers, facts.hidden_size, facts.context_tokens) == ("gemma3", 2, 64, 512)
    assert facts.kv_elements_per_token == 2 * 2 * 2 * 16


def test_parameters_and_cache_growth_are_those_of_the_real_model(
    architecture: str, load_tiny: Callable[..., Any]
) -> None:
    loaded = load_tiny(architecture)
    name = str(cache_argument(loaded.model))

    def elements(tokens: int) -> int:
        with torch.inference_mode():
            output = loaded.model(torch.full((1, tokens), 7), use_cache=True)
        return cached_elements(getattr(output, name))

    growth = (elements(6) - elements(4)) / 2
    assert loaded.facts.parameters == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert loaded.facts.kv_elements_per_token == growth
    assert loaded.facts.state_elements_per_sequence == elements(4) - 4 * growth


@pytest.mark.parametrize("model_type", ["mamba", "mamba2"])
def test_a_state_space_model_has_a_state_and_no_growing_cache(model_type: str, load_tiny: Callable[..., Any]) -> None:
    facts = load_tiny(model_type).facts
    assert facts.kv_bytes_per_token("float32") == 0
    assert facts.state_bytes_per_sequence > 0
    assert facts.context_tokens is None


def quantised(folder: Path, method: dict[str, Any], write_config: Callable[..., Path]) -> ModelSource:
    location = write_config(**LLAMA_3_8B, quantization_config=method).parent
    return ModelSource(name="q", kind=SourceKind.FOLDER, location=location, revision=None, weights=Weights.PRETRAINED)


@pytest.mark.parametrize(
    ("method", "name", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq", 4),
        ({"quant_method": "awq", "bits": 4}, "awq", 4),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            "compressed-tensors",
            4,
        ),
        ({"quant_method": "unheard-of"}, "unheard-of", None),
    ],
)
def test_a_quantised_checkpoint_is_recorded_as_what_it_is(
    tmp_path: Path, write_config: Callable[..., Path], method: dict[str, Any], name: str, bits: int | None
) -> None:
    facts = model_facts(quantised(tmp_path, method, write_config))

    layers = 8_030_261_248 - 2 * 128256 * 4096
    assert (facts.quantization, facts.quantized_bits) == (name, bits)
    assert facts.parameters == 8_030_261_248
    assert facts.weight_bytes("bfloat16") == 2 * 2 * 128256 * 4096 + layers * (bits or 16) // 8


def test_random_weights_are_not_quantised(write_config: Callable[..., Path]) -> None:
    path = write_config(**LLAMA_3_8B, quantization_config={"quant_method": "gptq", "bits": 4})
    assert model_facts(resolve(str(path), random_weights=True)).quantization is None


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": -64},
        {"hidden_size": "large"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 0},
        {"vocab_size": -5},
        {"hidden_act": "nonsense"},
        {"rope_parameters": 5},
    ],
)
def test_a_config_that_makes_no_sense_is_a_clear_error(
    tiny_config: Callable[..., Path], changes: dict[str, Any]
) -> None:
    source = resolve(str(tiny_config("llama", **changes)), random_weights=True)
    with pytest.raises(UnknownModel, match="No model can be built from"):
        model_facts(source)


def test_an_unknown_dtype_names_the_known_ones(load_tiny: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="float32, float16, bfloat16"):
        load_tiny("llama").facts.weight_bytes("float8")
