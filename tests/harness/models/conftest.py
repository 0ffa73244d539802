import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
GPT: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 300}
MAMBA: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 300, "state_size": 8}
MOE: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
# What each architecture needs beside its model_type to be tiny. Sliding windows are shorter than the tests' contexts.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": TINY,
    "qwen2": TINY,
    "qwen3": TINY | {"head_dim": 16},
    "phi3": TINY,
    "gpt2": GPT,
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300},
    "falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300},
    "gpt_neox": {key: size for key, size in TINY.items() if key != "num_key_value_heads"},
    "opt": {key: size for key, size in TINY.items() if key != "num_key_value_heads"}
    | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "mistral": TINY | {"sliding_window": 8},
    "gemma2": TINY | {"head_dim": 16, "sliding_window": 8},
    "gemma3_text": TINY | {"head_dim": 16, "sliding_window": 8, "num_hidden_layers": 6},
    "gpt_oss": TINY | MOE | {"head_dim": 16, "sliding_window": 8},
    "mixtral": TINY | MOE,
    "qwen3_moe": TINY | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "deepseek_v3": TINY
    | {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 8,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    },
    "mamba": MAMBA,
    "mamba2": MAMBA | {"num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "jamba": TINY
    | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
    },
    "lfm2": TINY | {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": TINY
    | {
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "minimax": TINY | MOE | {"head_dim": 16, "block_size": 8},
}
# What does not take part in the tests of all architectures.
OTHERS: dict[str, dict[str, Any]] = {
    "openai-gpt": GPT,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``architecture`` runs once for each of them."""
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", list(ARCHITECTURES))


@pytest.fixture(scope="session")
def write_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a config.json into a folder of its own and return its path."""

    def write(**config: Any) -> Path:
        path = tmp_path_factory.mktemp("config") / "config.json"
        path.write_text(json.dumps(config))
        return path

    return write


@pytest.fixture(scope="session")
def tiny_config(write_config: Callable[..., Path]) -> Callable[..., Path]:
    """config.json of a tiny model of one architecture, with whatever is to be different."""

    def write(architecture: str, **changes: Any) -> Path:
        return write_config(model_type=architecture, **((ARCHITECTURES | OTHERS)[architecture] | changes))

    return write


@pytest.fixture(scope="session")
def load_tiny(tiny_config: Callable[..., Path]) -> Callable[..., Any]:
    """Load a tiny random model of one architecture in float32 on the CPU, with the attention it prefers."""
    from harness.models.facts import model_facts
    from harness.models.loading import load
    from harness.models.source import resolve

    def tiny(architecture: str, **changes: Any) -> Any:
        source = resolve(str(tiny_config(architecture, **changes)), random_weights=True)
        return load(source, dtype="float32", attention=model_facts(source).attentions[0], device="cpu", seed=1)

    return tiny


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder: a two-layer llama with random weights, and a tokenizer of bytes that puts BOS first."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    fast_tokenizer: Any = PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(folder)
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast_tokenizer(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder
