"""Tiny executable configs of every causal-LM type that transformers registers.

A tiny config has two layers of every kind that the type's default config has: widths, heads, experts and vocabulary
shrink by the name of the attribute, per-layer lists to what they say about the layers kept. ``tiny_exceptions`` has
what names cannot tell.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from harness.errors import UnknownModel
from harness.models.quiet import quiet_transformers
from harness.models.tiny_exceptions import EXACT, NOT_EXECUTABLE, TYPICAL

__all__ = [
    "NOT_EXECUTABLE",
    "SPECIAL_TOKENS",
    "causal_lm_types",
    "default_config",
    "tiny_config",
    "tiny_model",
    "tiny_prompt",
]
_AUTO_MODEL: Any = AutoModelForCausalLM  # its class methods carry no types
SPECIAL_TOKENS = 32  # token ids below this stand for padding, images and the like: no text
LAYERS_OF_A_KIND = 2  # so that a layer is repeated, and repeated layers are told apart from others
WIDTH, HEADS, FEWER_HEADS = 64, 4, 2
WIDE_HEAD = 24  # where heads together are wider or narrower than the model

# Sizes by the name of the attribute. Each is distinct where a model allows it, so that a mix-up of two shows.
_SIZES: dict[str, int] = {
    name: size
    for size, names in (
        (320, "vocab_size vocab_size_per_layer_input decoder_vocab_size encoder_hash_byte_group_vocab"),
        (320, "pronunciation_vocab_size shape_vocab_size ngram_vocab_size_base"),
        (WIDTH, "hidden_size d_model n_embd emb_dim embedding_dim embed_dim lru_width word_embed_proj_dim"),
        (WIDTH, "backbone_hidden_size hidden_size_global ple_embed_dim out_hidden_size text_hidden_size"),
        (WIDTH, "adapter_in_dim adapter_out_dim adapter_input_size output_proj_dims projection_dim vision_output_dim"),
        (2 * WIDTH, "mamba_d_ssm"),
        (48, "embedding_size input_embedding_size pronunciation_embed_dim moe_intermediate_size"),
        (48, "expert_ffn_hidden_size output_channels nemo_conv_channels ext_pw_out_channel"),
        (80, "output_embedding_size"),
        (40, "shared_expert_intermediate_size shared_intermediate_size moe_shared_expert_intermediate_size"),
        (40, "shared_experts_intermediate_size shape_embed_dim"),
        (96, "intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim ffn_hidden_size d_inner dff dim_ff n_inner"),
        (96, "feed_forward_size dense_intermediate_size intermediate_size_mlp mlp_dim"),
        (HEADS, "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads"),
        (HEADS, "encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads linear_num_heads"),
        (HEADS, "swa_num_attention_heads n_mamba_heads num_query_groups linear_num_value_heads"),
        (HEADS, "conf_num_attention_heads index_n_heads indexer_n_heads"),
        (FEWER_HEADS, "linear_num_key_heads"),
        (16, "head_dim attention_head_size d_head dim_head kv_channels swa_head_dim linear_key_head_dim"),
        (16, "linear_head_dim qk_nope_head_dim index_head_dim adapter_rank hc_lowrank"),
        (16, "mamba_d_head mamba_head_dim mamba_headdim hidden_size_per_layer_input"),
        (12, "v_head_dim linear_value_head_dim"),
        (8, "qk_rope_head_dim rotary_dim laurel_rank gated_norm_rank d_rel num_experts n_routed_experts"),
        (8, "num_local_experts moe_num_experts mamba_n_heads mamba_num_heads state_size ssm_state_size mamba_d_state"),
        (24, "q_lora_rank o_lora_rank qk_head_dim indexer_head_dim router_hidden_size num_centroids"),
        (20, "kv_lora_rank"),
        (6, "time_step_rank mamba_dt_rank"),
        (4, "zero_expert_num prompt_length centroid_intermediate_top_k indexer_compress_ratio"),
        (2, "num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts"),
        (2, "n_group num_expert_group n_groups mamba_n_groups mamba_ngroups"),
        (1, "topk_group split_ngram_parts"),
        # windows, chunks and choices of context: all shorter than a prompt of two dozen tokens
        (8, "sliding_window sliding_window_size local_attention attention_window_size window_size block_size"),
        (8, "attention_chunk_size local_attention_window_len keep_window_size chunk_size mamba_chunk_size"),
        (8, "local_attn_chunk_length lsh_attn_chunk_length index_topk index_block_size indexer_budget"),
        (2, "index_topk_blocks"),
        (128, "max_position_embeddings n_positions max_seq_len model_max_length n_ctx context_length"),
        (128, "max_target_positions max_source_positions original_max_position_embeddings position_embedding_size"),
    )
    for name in names.split()
}
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "kv_n_heads")
_LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers", "num_blocks"),
    *("encoder_layers", "num_encoder_layers", "depth", "conf_num_hidden_layers"),
)
_FIRST_LAYERS = ("first_k_dense_replace", "num_dense_layers")  # so many at the start are of another kind
_LAST_LAYERS = ("num_kv_shared_layers",)  # and so many at the end


def causal_lm_types() -> tuple[str, ...]:
    """Every ``model_type`` that transformers registers as a causal language model."""
    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str) -> Any:
    """A transformers config of ``model_type`` whose model has some hundred thousand parameters.

    ``AutoModelForCausalLM.from_config`` takes it, also where it is the config of a larger whole (an encoder-decoder, a
    model of images and text). Raises UnknownModel for a type that is no causal language model, and whatever
    transformers raises for a config it cannot make.
    """
    with quiet_transformers():
        return _shrunk(default_config(model_type), TYPICAL.get(model_type, {}), iter(range(SPECIAL_TOKENS)))


def default_config(model_type: str) -> Any:
    """The config of ``model_type`` as transformers has it, with what it omits and checkpoints state."""
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnknownModel(
            f"transformers registers no causal language model of type {model_type!r}.\n"
            "Name one of harness.models.tiny.causal_lm_types()."
        )
    with quiet_transformers():
        return CONFIG_MAPPING[model_type](**TYPICAL.get(model_type, {}))


def tiny_model(model_type: str, *, seed: int) -> Any:
    """A float32 model on the CPU with random weights, in eval mode, with the attention transformers prefers.

    Matrices that transformers starts at a constant (a router at zero sends every token to the same experts) are random
    too. Raises what ``tiny_config`` and building a model raise.
    """
    config = tiny_config(model_type)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = _AUTO_MODEL.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                torch.nn.init.normal_(parameter, std=0.02)
    return model.eval().requires_grad_(False)


def tiny_prompt(model: Any, *, batch_size: int, prompt_tokens: int, seed: int) -> torch.Tensor:
    """Random token ids of a ``tiny_model``, int64 of shape [batch_size, prompt_tokens], none of them special."""
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SPECIAL_TOKENS, vocabulary, (batch_size, prompt_tokens), generator=generator)


def _shrunk(config: Any, stated: dict[str, Any], tokens: Iterator[int]) -> Any:
    """A config, and what was stated to make it, made again from smaller values.

    ``tokens`` are ids for the special tokens outside the vocabulary.
    """
    stored = vars(config)
    values = {name: stored.get(config.attribute_map.get(name, name)) for name in type(config).__dataclass_fields__}
    layers = next((value for name in _LAYERS if type(value := values.get(name)) is int), 0)
    kept = _kept_layers(values, layers)
    changes = dict(stated)
    for name, value in values.items():
        if _is_per_layer(value, layers):
            small: Any = [_small(name, value[layer], values, tokens) for layer in kept]
        elif type(value) is int and name in (*_LAYERS, *_FIRST_LAYERS, *_LAST_LAYERS):
            small = sum(_marked(name, value, layers)[layer] for layer in kept)
        else:
            small = _small(name, value, values, tokens)
        if small is not value or name in stated:
            changes[name] = small
    if "is_decoder" in values:  # encoders are causal language models only if they are told so
        changes["is_decoder"] = True
    return type(config)(**changes | EXACT.get(config.model_type, {}))


def _part(config: Any, tokens: Iterator[int]) -> Any:
    """The tiny config of a part of a model, with what the whole states about it."""
    default = vars(type(config)())
    stated = {
        name: value
        for name, value in vars(config).items()
        if name in type(config).__dataclass_fields__ and not hasattr(value, "model_type") and value != default.get(name)
    } | TYPICAL.get(config.model_type, {})
    return _shrunk(type(config)(**stated), stated, tokens)


def _is_per_layer(value: object, layers: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == layers > 1


def _marked(name: str, count: int, layers: int) -> list[bool]:
    """Which layers a count of layers means: the first, the last, or all of them."""
    if name in _LAST_LAYERS:
        return [layer >= layers - count for layer in range(layers)]
    return [layer < count for layer in range(layers)]


def _kept_layers(values: dict[str, Any], layers: int) -> list[int]:
    """The first two layers of each kind; per-layer lists and counts of layers say of what kind a layer is."""
    marks = [value for value in values.values() if _is_per_layer(value, layers)]
    counts = {name: values[name] for name in (*_FIRST_LAYERS, *_LAST_LAYERS) if type(values.get(name)) is int}
    marks += [_marked(name, count, layers) for name, count in counts.items()]
    seen: dict[str, list[int]] = {}
    for layer in range(layers):
        seen.setdefault(str([mark[layer] for mark in marks]), []).append(layer)
    return sorted(layer for alike in seen.values() for layer in alike[:LAYERS_OF_A_KIND])


def _small(name: str, value: Any, values: dict[str, Any], tokens: Iterator[int]) -> Any:
    if hasattr(value, "model_type"):
        return _part(value, tokens)
    if type(value) is not int or value <= 0:
        return value
    if name in _KV_HEADS:
        return _kv_heads(value, values)
    if name == "head_dim" and value == values.get("qk_rope_head_dim"):  # of the rotated part alone
        name = "qk_rope_head_dim"
    if name == "head_dim" and value * (values.get("num_attention_heads") or 0) != values.get("hidden_size"):
        return min(value, WIDE_HEAD)
    if name in ("embedding_size", "input_embedding_size") and value == values.get("hidden_size"):
        name = "hidden_size"
    if name.endswith(("_token_id", "_token_index")) and value >= SPECIAL_TOKENS:
        return next(tokens)
    return min(value, _SIZES.get(name, value))


def _kv_heads(value: int, values: dict[str, Any]) -> int:
    """As many as heads, or one, or fewer: as it was."""
    if value in (values.get("num_attention_heads"), values.get("swa_num_attention_heads")):
        return HEADS
    return min(value, FEWER_HEADS)
