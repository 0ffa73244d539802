"""FlashAttention for models on the meta device, where the package flash-attn need not be installed."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

NAME = "joulegraph_fused"  # no "flash": transformers would ask for the package
Fused = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int | None], torch.Tensor]


def register_flash_stand_in(fused: Fused) -> str:
    """Register ``fused(query, key, value, window)`` as an attention implementation and return its name.

    Tensors are [batch, heads, tokens, head_dim], the output [batch, tokens, heads, head_dim]. Like FlashAttention it
    builds no mask, repeats no KV heads, and is told the sliding window.
    """

    def attend(
        _module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        _attention_mask: torch.Tensor | None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        return fused(query, key, value, sliding_window), None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    return NAME
