"""Kernels that are one call on a device and that torch would take apart on the meta device: attention, experts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

from harness.kernels import KernelKind
from harness.tracing.costs import cost_of
from harness.tracing.operands import Cost, OpCall
from harness.tracing.sizes import operands, tensors_in, touched_share, unique_bytes
from harness.tracing.values import Values

ATTENTION = "aten::scaled_dot_product_attention"
FLASH_ATTENTION = "flash_attn::_flash_attn_forward"
GROUPED_GEMM = "aten::_grouped_mm"
Launch = Callable[[str, Sequence[torch.Tensor], Sequence[torch.Tensor], Cost], None]


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
    """FlashAttention as ``FusedOps`` sees it; [batch, heads, tokens, dim] in, [batch, tokens, heads, dim] out."""
    if not has_torch_function((query, key, value)):
        raise RuntimeError("FlashAttention on the meta device is for capturing graphs only")
    output: torch.Tensor = handle_torch_function(flash_attention, (query, key, value), query, key, value, window)
    return output


class FusedOps(TorchFunctionMode):
    """Sees these calls before torch does, says what they cost, and answers with a tensor of the right shape."""

    def __init__(self, launch: Launch, values: Values, *, tokens: int) -> None:
        """``tokens`` go through the model in this pass, over all sequences."""
        super().__init__()
        self._launch = launch
        self._values = values
        self._tokens = tokens

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer fused calls, pass on all others."""
        if func is flash_attention:
            return self._flash(*args)
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attention(tensors_in((args, kwargs or {})))
        if func is torch._grouped_mm or func is torch.nn.functional.grouped_mm:
            return self._grouped_gemm(tensors_in((args, kwargs or {})))
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        if func is torch.Tensor.tolist and (listed := self._values.as_list(args[0])) is not None:
            return listed
        return func(*args, **(kwargs or {}))

    def _attention(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        query, _, value = inputs[:3]
        output = _laid_out_by_token(query, value).transpose(1, 2) if query.dim() == 4 else _rows_of(query, value)
        self._launch(ATTENTION, inputs, [output], _attention_cost(inputs, output, window=None))
        return output

    def _flash(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
        inputs, output = [query, key, value], _laid_out_by_token(query, value)
        self._launch(FLASH_ATTENTION, inputs, [output], _attention_cost(inputs, output, window=window))
        return output

    def _grouped_gemm(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        rows, experts = inputs[:2]
        output = _rows_of(rows, experts)
        found = cost_of(OpCall(op="_grouped_mm", tensors=operands([rows, experts])))
        share = touched_share(experts.shape[0], rows.shape[0], self._tokens)
        read = sum(map(unique_bytes, inputs)) - round((1 - share) * unique_bytes(experts))
        cost = Cost(
            kind=found.kind, shape=found.shape, flop=found.flop, read_bytes=read, write_bytes=unique_bytes(output)
        )
        self._launch(GROUPED_GEMM, inputs, [output], cost)
        return output


def _one_hot(index: torch.Tensor, num_classes: int) -> torch.Tensor:
    """As devices compute it; on the meta device torch compares instead."""
    zeros = torch.zeros((*index.shape, num_classes), dtype=torch.int64, device=index.device)
    return zeros.scatter_(-1, index.unsqueeze(-1), 1)


def _rows_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return _empty((*first.shape[:-1], second.shape[-1]), first)


def _laid_out_by_token(query: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """As attention kernels write it: [batch, tokens, heads, dim]."""
    batch, heads, tokens, _ = query.shape
    return _empty((batch, tokens, heads, value.shape[-1]), query)


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _attention_cost(inputs: list[torch.Tensor], output: torch.Tensor, *, window: int | None) -> Cost:
    """The full square of query and context, but for a kernel that is told of a window and skips the rest."""
    query, key, value = inputs[:3]
    heads, width = (query.shape[1], query.shape[-1]) if query.dim() == 4 else (1, query.shape[-1])
    batch, query_tokens, context = query.shape[0], query.shape[-2], key.shape[-2]
    seen = context if window is None else min(context, window)
    kv_heads = key.shape[1] if key.dim() == 4 else 1
    shape = {
        "batch": batch,
        "query_tokens": query_tokens,
        "context_tokens": context,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": width,
    }
    return Cost(
        kind=KernelKind.ATTENTION,
        shape=shape if seen == context else shape | {"window_tokens": seen},
        flop=2 * batch * heads * query_tokens * seen * (width + value.shape[-1]),
        read_bytes=sum(map(unique_bytes, inputs)),
        write_bytes=unique_bytes(output),
    )
