"""What a tiny config needs beyond the general rules of ``tiny``, by model_type, each with its reason."""

from typing import Any

# What published checkpoints state and the type's own defaults leave out. Sizes are shrunk like any other.
TYPICAL: dict[str, dict[str, Any]] = {
    # experts: none or not chosen by default
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "deepseek_v2": {"num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "gemma4_text": {
        "enable_moe_block": True,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
        "num_kv_shared_layers": 2,
    },
    "doge": {"is_moe": True},
    "hunyuan_v1_moe": {"num_experts": 64, "moe_topk": 8, "head_dim": 128},
    # one kind of layer by default, in an architecture of two
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 16},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "laguna": {
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"] * 10,
        "num_attention_heads_per_layer": [48, 64, 64, 64] * 10,
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 20,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 16,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 64,
        "ple_layer_ids": [1],
        "eos_token_id": 0,
    },
    # no width of a head, no number of key heads, no language of its adapters: the defaults alone do not build
    "hunyuan_v1_dense": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "xmod": {"default_language": "en_XX"},
}

# Sizes that must fit each other, and layers whose kind no list tells.
EXACT: dict[str, dict[str, Any]] = {
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "mamba2": {"num_heads": 8, "head_dim": 16},  # heads × width of a head = expand × hidden size
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},  # widths of keys and values are rounded up to 64
    "reformer": {"axial_pos_shape": [8, 16], "axial_pos_embds_dim": [24, 40]},  # product: positions; sum: width
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}},
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]},
    "ernie4_5_moe": {"num_hidden_layers": 4, "moe_layer_start_index": 2, "moe_layer_end_index": 3},
    "nemotron_h": {
        "num_hidden_layers": 8,
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"] * 2,
    },
    "flint": {"num_hidden_layers": 4},  # the first two have no experts
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "recurrent_gemma": {"num_hidden_layers": 6},  # two recurrent ones, then attention
    "jamba": {  # Mamba with and without experts, then attention
        "num_hidden_layers": 8,
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "llama4_text": {
        "num_hidden_layers": 8,
        "no_rope_layers": [1, 1, 1, 0] * 2,
        "layer_types": ["chunked_attention", "chunked_attention", "chunked_attention", "full_attention"] * 2,
        "moe_layers": [1, 3, 5, 7],
    },
    "laguna": {"num_attention_heads_per_layer": [4, 8, 8, 4, 4]},
    "mllama_text_model": {"num_hidden_layers": 4, "cross_attention_layers": [1, 3]},
    "doge": {"num_experts": 16},  # pairs of keys: a square
    "big_bird": {"block_size": 2},  # shorter prompts than eleven blocks get full attention
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "dots3_note_text": {
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 2,
        "swa_q_lora_rank": 24,
        "swa_kv_lora_rank": 28,
        "swa_head_dim": 24,
        "swa_qk_nope_head_dim": 16,
        "swa_v_head_dim": 20,
    },
}

# Types of which no tiny model can be executed on its own, and why.
NOT_EXECUTABLE: dict[str, str] = {
    "gemma3n": "its vision tower is built by timm, which is not installed; its text model is gemma3n_text",
    "gemma4_assistant": "it continues from the hidden state and the KV cache of another model",
    "gemma4_unified_assistant": "it continues from the hidden state and the KV cache of another model",
    "musicgen": "AutoModelForCausalLM hands the config of the whole to the decoder, which needs its own",
    "musicgen_melody": "AutoModelForCausalLM hands the config of the whole to the decoder, which needs its own",
}
