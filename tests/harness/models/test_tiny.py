from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from harness.errors import UnknownModel
from harness.models.quiet import quiet_transformers
from harness.models.tiny import (
    NOT_EXECUTABLE,
    SPECIAL_TOKENS,
    causal_lm_types,
    tiny_config,
    tiny_model,
    tiny_prompt,
)
from harness.models.tiny_exceptions import EXACT, TYPICAL

AUTO_MODEL: Any = AutoModelForCausalLM
MOST_PARAMETERS = 1_000_000


def on_meta(config: Any) -> Any:
    with quiet_transformers(), torch.device("meta"):
        return AUTO_MODEL.from_config(config)


def problems() -> Iterator[tuple[str, str]]:
    for model_type in causal_lm_types():
        try:
            parameters = sum(parameter.numel() for parameter in on_meta(tiny_config(model_type)).parameters())
        except Exception as error:  # noqa: BLE001  somebody else's code can raise anything
            yield model_type, repr(error)
        else:
            if parameters > MOST_PARAMETERS:
                yield model_type, f"{parameters:,} parameters"


def test_every_registered_type_has_a_tiny_model_or_a_stated_reason_why_not() -> None:
    found = dict(problems())

    assert found.keys() == NOT_EXECUTABLE.keys(), found


@pytest.mark.parametrize(
    "model_type",
    [
        *("deepseek_v3", "gemma3n_text", "granitemoehybrid", "jamba", "lfm2_moe", "mimo_v2_flash", "nemotron_h"),
        *("qwen3_next", "recurrent_gemma", "zamba2"),
    ],
)
def test_a_tiny_model_has_every_kind_of_module_that_the_default_has(model_type: str) -> None:
    tiny = on_meta(tiny_config(model_type))
    default = on_meta(CONFIG_MAPPING[model_type](**TYPICAL.get(model_type, {})))

    kinds, wanted = ({type(module).__name__ for module in model.modules()} for model in (tiny, default))
    assert wanted <= kinds


def test_two_layers_of_each_kind_are_kept_in_their_order() -> None:
    assert tiny_config("qwen3_next").layer_types == ["linear_attention"] * 2 + ["full_attention"] * 2
    assert tiny_config("llama").num_hidden_layers == 2


def test_layers_that_only_a_count_tells_apart_are_kept_too() -> None:
    config = tiny_config("deepseek_v3")

    assert (config.num_hidden_layers, config.first_k_dense_replace) == (4, 2)


def test_heads_share_keys_as_in_the_default() -> None:
    plain, grouped, single = (tiny_config(name) for name in ("olmo", "mistral", "gemma3n_text"))

    assert plain.num_key_value_heads == plain.num_attention_heads == 4
    assert grouped.num_key_value_heads == 2
    assert single.num_key_value_heads == 2
    assert tiny_config("deepseek_v4").num_key_value_heads == 1


def test_windows_are_shorter_than_a_prompt_of_two_dozen_tokens() -> None:
    assert tiny_config("mistral").sliding_window == 8
    assert tiny_config("mamba2").chunk_size == 8
    assert tiny_config("qwen2").sliding_window is None  # as in its default


def test_parts_of_a_larger_model_are_tiny_and_keep_what_the_whole_says_of_them() -> None:
    whole = tiny_config("got_ocr2")

    assert whole.text_config.hidden_size == 64
    assert whole.image_token_id < SPECIAL_TOKENS


def test_an_encoder_is_told_that_it_is_a_decoder() -> None:
    assert tiny_config("bert").is_decoder


def test_a_type_that_is_no_causal_language_model_is_refused() -> None:
    with pytest.raises(UnknownModel, match="'vit'"):
        tiny_config("vit")


def test_exceptions_name_types_that_exist() -> None:
    known = set(CONFIG_MAPPING) | {"mllama_text_model", "qwen4_exp_text"}

    assert (TYPICAL.keys() | EXACT.keys() | NOT_EXECUTABLE.keys()) <= known


def test_weights_are_repeatable_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    first, same, other = (tiny_model("llama", seed=seed).lm_head.weight for seed in (3, 3, 4))

    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(1), wanted)


def test_a_router_that_starts_at_zero_is_made_to_spread_the_tokens() -> None:
    model = tiny_model("afmoe", seed=0)

    assert all(module.router.gate.weight.std() > 0 for module in model.modules() if hasattr(module, "router"))


def test_prompts_hold_no_special_tokens() -> None:
    prompt = tiny_prompt(tiny_model("llama", seed=0), batch_size=3, prompt_tokens=50, seed=7)

    assert prompt.shape == (3, 50)
    assert int(prompt.min()) >= SPECIAL_TOKENS
    assert int(prompt.max()) < 320
