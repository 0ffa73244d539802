import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import HarnessError, MissingExtra, OutOfMemory, UnknownModel, UsageError
from harness.models import loading
from harness.models.loading import load
from harness.models.source import resolve

CPU: dict[str, Any] = {"attention": "sdpa", "device": "cpu", "seed": 0}


def test_a_folder_loads_with_its_weights_and_its_tokenizer(tiny_llama_folder: Path) -> None:
    from transformers import LlamaForCausalLM

    loaded = load(resolve(str(tiny_llama_folder)), dtype="float32", **CPU)

    expected = LlamaForCausalLM.from_pretrained(tiny_llama_folder).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert loaded.tokenizer is not None
    assert loaded.facts.parameters == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("random_weights", [True, False])
def test_parameters_have_the_wanted_dtype(tiny_llama_folder: Path, dtype: str, random_weights: bool) -> None:
    source = resolve(str(tiny_llama_folder), random_weights=random_weights)
    loaded = load(source, dtype=dtype, **CPU)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.dtype == dtype


def test_random_weights_repeat_with_the_seed_and_leave_the_global_generator_alone(
    tiny_config: Callable[..., Path],
) -> None:
    source = resolve(str(tiny_config("llama")), random_weights=True)
    state = torch.random.get_rng_state()

    first, same, other = (load(source, dtype="float32", **{**CPU, "seed": seed}).model for seed in (1, 1, 2))

    assert torch.equal(first.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_weights_of_a_folder_are_not_its_weights_but_keep_its_tokenizer(tiny_llama_folder: Path) -> None:
    own = load(resolve(str(tiny_llama_folder)), dtype="float32", **CPU)
    random = load(resolve(str(tiny_llama_folder), random_weights=True), dtype="float32", **{**CPU, "seed": 7})
    assert not torch.equal(own.model.lm_head.weight, random.model.lm_head.weight)
    assert random.tokenizer is not None


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_that_was_asked_for_is_the_one_that_runs(tiny_llama_folder: Path, attention: str) -> None:
    loaded = load(resolve(str(tiny_llama_folder)), dtype="float32", **{**CPU, "attention": attention})
    assert loaded.model.config._attn_implementation == loaded.attention == attention


@pytest.mark.parametrize(
    ("asked", "sign"),
    [
        ({"attention": "flash_attention_2"}, "needs a GPU"),
        ({"attention": "magic"}, "sdpa, eager, flash_attention_2"),
        ({"dtype": "int3"}, "float32, float16, bfloat16"),
    ],
)
def test_what_cannot_be_had_is_a_usage_error(tiny_llama_folder: Path, asked: dict[str, str], sign: str) -> None:
    with pytest.raises(UsageError, match=sign):
        load(resolve(str(tiny_llama_folder)), **{"dtype": "float32", **CPU, **asked})


def test_flash_attention_that_is_not_installed_names_its_package(
    tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match="pip install flash-attn"):
        load(resolve(str(tiny_llama_folder)), dtype="float16", attention="flash_attention_2", device="cuda", seed=0)


def test_an_architecture_without_sdpa_says_so(tiny_config: Callable[..., Path]) -> None:
    source = resolve(str(tiny_config("bloom")), random_weights=True)
    with pytest.raises(UsageError, match="Use --attention eager"):
        load(source, dtype="float32", **CPU)
    assert load(source, dtype="float32", **{**CPU, "attention": "eager"}).attention == "eager"


def test_weights_that_cannot_fit_are_out_of_memory_before_anything_is_allocated(
    tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "available_memory_bytes", lambda _device: 1000)
    with pytest.raises(OutOfMemory, match="weights alone need"):
        load(resolve(str(tiny_llama_folder)), dtype="float32", **CPU)


@pytest.fixture
def broken(tiny_llama_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_folder, tmp_path / "broken"))


def test_a_truncated_weight_file_is_a_clear_error(broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UnknownModel, match="weights of broken cannot be loaded"):
        load(resolve(str(broken)), dtype="float32", **CPU)


@pytest.mark.parametrize("change", [{"hidden_size": 128}, {"num_hidden_layers": 3}, {"attention_bias": True}])
def test_weights_that_are_not_those_of_the_config_are_an_error_and_not_filled_in(
    broken: Path, change: dict[str, int]
) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UnknownModel, match="weights of broken cannot be loaded"):
        load(resolve(str(broken)), dtype="float32", **CPU)


def test_a_broken_tokenizer_is_a_clear_error(broken: Path) -> None:
    (broken / "tokenizer.json").write_text('{"model": 5}')
    with pytest.raises(HarnessError, match="tokenizer of broken"):
        load(resolve(str(broken)), dtype="float32", **CPU)
