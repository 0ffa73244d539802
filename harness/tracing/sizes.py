"""Tensors in the arguments of an operator, and the bytes they show."""

from collections.abc import Sequence
from typing import Any

import torch

from harness.tracing.operands import PROFILER_NAMES, Tensor


def operands(tensors: Sequence[torch.Tensor]) -> tuple[Tensor, ...]:
    """Tensors as the cost formulas take them."""
    return tuple(Tensor(shape=tuple(tensor.shape), dtype=profiler_dtype(tensor.dtype)) for tensor in tensors)


def profiler_dtype(dtype: torch.dtype) -> str:
    """A dtype as the profiler spells it; as torch does where the profiler has no name for it."""
    name = dtype_name(dtype)
    return PROFILER_NAMES.get(name, name)


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype without its namespace: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor in nested arguments, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def unique_bytes(tensor: torch.Tensor) -> int:
    """Bytes that a tensor shows, each once: an expanded dimension shows the same ones again."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride or size == 0 else 1
    return elements * tensor.element_size()


def storage_of(tensor: torch.Tensor) -> int:
    """Identity of the memory behind a tensor, which its views share."""
    return int(tensor.untyped_storage()._cdata)


def touched_share(experts: int, rows: int, tokens: int) -> float:
    """Share of the experts that some row goes to, expected under even, independent routing of tokens.

    Each token gives ``rows / tokens`` rows to as many different experts, so one token touches exactly its own.

    >>> touched_share(experts=8, rows=2, tokens=1)
    0.25
    """
    each = rows / tokens if rows % tokens == 0 else 1.0
    independent = tokens if rows % tokens == 0 else rows
    return float(1 - (1 - min(1.0, each / experts)) ** independent)
