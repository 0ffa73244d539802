"""Plain facts of a model, from its config alone: the model is built on the meta device, which holds no weights."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from harness.errors import UnknownModel
from harness.models.caches import cache_argument, cached_elements
from harness.models.checkpoint import config_sha256, read_config
from harness.models.dtypes import dtype_bytes
from harness.models.meta import meta_model
from harness.models.quiet import quiet_transformers
from harness.models.source import ModelSource
from harness.records import Weights

ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "context_length")
_TOP_K_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "top_k_experts", "moe_k")
# What transformers raises for a config that makes no sense. It is somebody else's file, so it can be any of these.
_CONFIG_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
_EIGHT_BIT = ("fp8", "int8", "8bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Sizes of a model. Parameters shared by two modules are counted once; None means that the config says nothing."""

    model_type: str
    parameters: int
    active_parameters: int | None  # used for one token; below ``parameters`` in a mixture of experts
    embedding_parameters: int
    lm_head_parameters: int  # 0 where the head shares the embedding's weights
    layers: int
    hidden_size: int
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    kv_elements_per_token: int
    state_elements_per_sequence: int  # state of fixed size in state-space and other linear attention layers
    context_tokens: int | None
    vocabulary_tokens: int
    config_sha256: str
    quantization: str | None  # method of the checkpoint as it is stored: gptq, awq, fp8, …
    quantized_bits: int | None  # bits of a weight in a linear layer, where the method states it
    attentions: tuple[str, ...]  # implementations that the architecture has, the best default first

    def weight_bytes(self, dtype: str) -> int:
        """Memory of the weights. Quantised layers are counted at their bits, without scales and zero points."""
        if self.quantized_bits is None:
            return self.parameters * dtype_bytes(dtype)
        kept = self.embedding_parameters + self.lm_head_parameters
        return kept * dtype_bytes(dtype) + (self.parameters - kept) * self.quantized_bits // 8

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Growth of the KV cache per sequence and token, summed over the layers.

        An upper bound for sliding-window layers, which stop growing at their window. State-space and other linear
        attention layers do not grow; see ``state_bytes_per_sequence``.
        """
        return self.kv_elements_per_token * dtype_bytes(dtype)

    @property
    def state_bytes_per_sequence(self) -> int:
        """Fixed-size state of a sequence; counted as float32, which is what most models keep it in."""
        return 4 * self.state_elements_per_sequence


def unquantised_config(source: ModelSource) -> Any:
    """The transformers config of a source, without its quantisation. Raises UnknownModel."""
    read_config(source.config_path)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(
                source.location, trust_remote_code=source.trust_remote_code, local_files_only=True
            )
    except _CONFIG_ERRORS as error:
        raise _unusable(source, error) from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def model_facts(source: ModelSource) -> ModelFacts:
    """Facts of a model, without loading weights (a second or so). Raises UnknownModel for an unusable config."""
    raw = read_config(source.config_path)
    config = unquantised_config(source)
    quantization = raw.get("quantization_config")
    method = quantization if isinstance(quantization, dict) and source.weights is not Weights.RANDOM else {}
    try:
        model = meta_model(config, dtype=torch.bfloat16, trust_remote_code=source.trust_remote_code).model
        return _facts(model, config, config_sha256(raw), method)
    except _CONFIG_ERRORS as error:
        raise _unusable(source, error) from error


def _facts(model: Any, config: Any, sha256: str, method: dict[str, object]) -> ModelFacts:
    text = config.get_text_config(decoder=True)
    cache = _cache_size(model, text)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    return ModelFacts(
        model_type=str(config.model_type),
        parameters=_count(model),
        active_parameters=_active_parameters(model, text),
        embedding_parameters=embedding.numel(),
        lm_head_parameters=0 if head is None or head.weight is embedding else head.weight.numel(),
        layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        heads=_first_int(text, ("num_attention_heads",)),
        kv_heads=_kv_heads(text),
        head_dim=_head_dim(text),
        kv_elements_per_token=cache.growth_elements,
        state_elements_per_sequence=cache.state_elements,
        context_tokens=context_tokens_of(text),
        vocabulary_tokens=int(text.vocab_size),
        config_sha256=sha256,
        quantization=str(method.get("quant_method", "unknown")) if method else None,
        quantized_bits=_bits(method),
        attentions=attentions_of(model),
    )


def _unusable(source: ModelSource, error: Exception) -> UnknownModel:
    reason = " ".join((str(error) or type(error).__name__).split())[:300]
    return UnknownModel(
        f"No model can be built from {source.config_path}: {reason}\n"
        "Correct the config, or upgrade transformers if the architecture is newer."
    )


def attentions_of(model: Any) -> tuple[str, ...]:
    """Attention implementations that a model, or its class, has in transformers, the best default first."""
    flash = getattr(model, "_supports_flash_attn", False) or getattr(model, "_supports_flash_attn_2", False)
    offered = {"sdpa": getattr(model, "_supports_sdpa", False), "eager": True, "flash_attention_2": flash}
    return tuple(name for name in ATTENTIONS if offered[name])


def context_tokens_of(text: Any) -> int | None:
    """Longest context by a model's text config; None where it says nothing."""
    return _first_int(text, _CONTEXT_KEYS)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _active_parameters(model: Any, text: Any) -> int | None:
    """Parameters that one token passes through: of the routed experts only the chosen ones."""
    idle = 0.0
    top_k = _first_int(text, _TOP_K_KEYS)
    for routed, experts in _routed_experts(model):
        if top_k is None:
            return None
        idle += routed * (1 - min(top_k, experts) / experts)
    return _count(model) - round(idle)


def _routed_experts(model: Any) -> Iterator[tuple[int, int]]:
    """Of each group of routed experts its parameters and how many experts share them."""
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if "shared" in last or not (last == "experts" or "Experts" in type(module).__name__):
            continue
        first = next(module.parameters(), None)
        if isinstance(module, torch.nn.ModuleList):
            yield _count(module), len(module)
        elif first is not None:
            yield _count(module), int(first.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _CacheSize:
    growth_elements: int  # per token
    state_elements: int


def _cache_size(model: Any, text: Any) -> _CacheSize:
    """What a sequence leaves in the cache, by running one and two tokens on the meta device.

    A model that the meta device cannot run is counted as plain attention, which is an upper bound.
    """
    name = cache_argument(model)
    sizes = []
    try:
        with torch.inference_mode(), quiet_transformers():
            for tokens in (1, 2):
                prompt = torch.zeros((1, tokens), dtype=torch.int64, device="meta")  # [1, tokens]
                sizes.append(cached_elements(getattr(model(prompt, use_cache=True), name or "", None)))
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
        sizes = [0, 0]
    growth = sizes[1] - sizes[0]
    if sizes[1] == 0:
        growth = 2 * int(text.num_hidden_layers) * (_kv_heads(text) or 0) * (_head_dim(text) or 0)
        return _CacheSize(growth_elements=growth, state_elements=0)
    return _CacheSize(growth_elements=growth, state_elements=sizes[0] - growth)


def _kv_heads(text: Any) -> int | None:
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        return 1
    return _first_int(text, ("num_key_value_heads", "num_kv_heads", "num_attention_heads"))


def _head_dim(text: Any) -> int | None:
    heads = _first_int(text, ("num_attention_heads",))
    stated = _first_int(text, ("attention_head_dim", "head_dim"))
    return stated or (int(text.hidden_size) // heads if heads else None)


def _first_int(text: Any, keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = getattr(text, key, None)
        if type(value) is int and value > 0:
            return value
    return None


def _bits(method: dict[str, object]) -> int | None:
    """Bits per weight that a quantization_config states."""
    stated = method.get("bits")
    if isinstance(stated, int):
        return stated
    text = str(method)
    if method.get("load_in_4bit") or "mxfp4" in text:
        return 4
    match = re.search(r"'num_bits': (\d+)", text)
    if match is not None:
        return int(match[1])
    return 8 if method.get("load_in_8bit") or any(name in text for name in _EIGHT_BIT) else None
