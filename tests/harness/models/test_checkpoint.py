import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UnknownModel
from harness.models.checkpoint import (
    MAX_CONFIG_BYTES,
    check_causal_lm,
    config_sha256,
    has_tokenizer,
    read_config,
    weights_problem,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    content=st.one_of(
        st.binary(),
        (st.integers() | st.dictionaries(st.text(), st.text() | st.integers())).map(lambda x: json.dumps(x).encode()),
    )
)
def test_whatever_a_config_file_holds_reading_it_gives_an_object_or_a_clear_error(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert read_config(path) == expected
    else:
        with pytest.raises(UnknownModel, match=r"config\.json"):
            read_config(path)


@pytest.mark.parametrize("content", ['{"a": ' + "[" * 100_000, " " * (MAX_CONFIG_BYTES + 1), "[]", "{", "\xff"])
def test_a_config_that_is_too_deep_too_large_or_no_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UnknownModel):
        read_config(path)


def test_the_hash_ignores_key_order_and_what_changes_with_each_saving() -> None:
    one = {"hidden_size": 8, "text_config": {"layers": 2, "transformers_version": "5.1"}, "transformers_version": "5.1"}
    other = {"_name_or_path": "/home/me/x", "text_config": {"layers": 2}, "hidden_size": 8}
    assert config_sha256(one) == config_sha256(other)
    assert config_sha256(one) != config_sha256(one | {"hidden_size": 9})


@pytest.mark.parametrize(
    ("config", "sign"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "bert"}, "an encoder"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "'clip'"),
        (
            {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClassification",
        ),
        ({"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}, "BartForConditionalGeneration"),
        ({"model_type": ["llama"]}, "model_type"),
        ({}, "None"),
        ({"model_type": "new", "auto_map": {"AutoModelForCausalLM": "modeling.New"}}, "--trust-remote-code"),
    ],
)
def test_a_config_without_a_causal_language_model_is_refused_and_named(config: dict[str, Any], sign: str) -> None:
    with pytest.raises(UnknownModel, match=sign):
        check_causal_lm(config, Path("config.json"), trust_remote_code=False)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        {"model_type": "llama"},
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
    ],
)
def test_a_config_of_a_causal_language_model_is_accepted(config: dict[str, Any]) -> None:
    check_causal_lm(config, Path("config.json"), trust_remote_code=False)


def test_code_of_the_repository_is_accepted_only_where_it_is_trusted() -> None:
    config: dict[str, object] = {"model_type": "new", "auto_map": {"AutoModelForCausalLM": "modeling.New"}}
    check_causal_lm(config, Path("config.json"), trust_remote_code=True)


@pytest.mark.parametrize(
    ("files", "sign"),
    [
        (["pytorch_model.bin"], "pickled"),
        (["model.gguf"], "GGUF"),
        (["training_args.bin"], "no weights"),
        ([], "no weights"),
    ],
)
def test_weights_that_are_not_safetensors_are_named_for_what_they_are(
    tmp_path: Path, files: list[str], sign: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert sign in str(weights_problem(tmp_path))


@pytest.mark.parametrize(
    ("index", "sign"),
    [
        ({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}, "1 of its 2 weight files"),
        ({"weight_map": {"a": "../model-1.safetensors"}}, "no safetensors of this folder"),
        ({"weight_map": ["model-1.safetensors"]}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_an_index_must_name_shards_that_are_there(tmp_path: Path, index: object, sign: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").touch()
    assert sign in str(weights_problem(tmp_path))


def test_complete_weights_have_no_problem(tmp_path: Path, tiny_llama_folder: Path) -> None:
    assert weights_problem(tiny_llama_folder) is None
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    (tmp_path / "model-1.safetensors").touch()
    assert weights_problem(tmp_path) is None


def test_a_tokenizer_is_seen_by_its_files(tiny_llama_folder: Path, tiny_config: Callable[..., Path]) -> None:
    assert has_tokenizer(tiny_llama_folder)
    assert not has_tokenizer(tiny_config("llama").parent)
