"""Tiny models with random weights, traced on the CPU."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.kernels import Phase
from harness.tracing.timeline import TracedKernel, trace

BATCH, TOKENS, LAYERS, HEADS, KV_HEADS, HEAD_DIM, WIDTH, INNER, VOCABULARY = 2, 12, 3, 4, 2, 16, 64, 96, 300
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mixtral": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64, "vocab_size": VOCABULARY},
}


class Traced:
    """A tiny model and the kernels of its phases."""

    def __init__(self, architecture: str, dtype: str = "float32", attention: str = "sdpa") -> None:
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **CONFIGS[architecture])
        self.dtype = dtype
        self.model: Any = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=attention
        ).eval()
        self.tokens = torch.randint(0, VOCABULARY, (BATCH, TOKENS))  # [batch, tokens]

    def prefill(self) -> tuple[TracedKernel, ...]:
        self._forward(self.tokens)
        return trace(self.model, Phase.PREFILL, lambda: self._forward(self.tokens), dtype=self.dtype, device="cpu")

    def decode(self) -> tuple[TracedKernel, ...]:
        """One step after the prompt."""
        cache = self._forward(self.tokens).past_key_values
        token = self.tokens[:, :1]  # [batch, 1]
        return trace(
            self.model,
            Phase.DECODE,
            lambda: self._forward(token, past_key_values=cache),
            dtype=self.dtype,
            device="cpu",
        )

    @torch.inference_mode()
    def _forward(self, tokens: torch.Tensor, **options: Any) -> Any:
        return self.model(tokens, logits_to_keep=1, use_cache=True, **options)

    def linear_parameters(self, kind: type[torch.nn.Module] = torch.nn.Linear) -> int:
        """Weights of all linear modules but the head."""
        total = 0
        for name, module in self.model.named_modules():
            if isinstance(module, kind) and name != "lm_head":
                weight: Any = module.weight
                total += weight.numel()
        return total


@pytest.fixture(scope="session")
def traced() -> Callable[..., Traced]:
    return Traced


@pytest.fixture(scope="session")
def llama_prefill() -> Sequence[TracedKernel]:
    return Traced("llama").prefill()
