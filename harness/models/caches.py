"""What a model remembers between steps: its name in the forward call, its size, and going back to an earlier point.

transformers' dynamic attention layers never write into the tensors they hold: each update concatenates into new
ones. Going back is then a matter of slicing (full attention) or of putting the old tensors back (sliding windows).
State-space and other layers update in place, so their state is copied.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DummyLayer, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

_CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")  # attention and hybrids, Mamba, RWKV


def cache_argument(model: torch.nn.Module) -> str | None:
    """The argument of ``forward``, and field of its output, that carries the cache; None if there is none."""
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in _CACHE_ARGUMENTS if name in parameters), None)


def cached_elements(cache: object) -> int:
    """Elements of all tensors in a cache, whatever its layers are made of."""
    if isinstance(cache, torch.Tensor):
        return cache.numel()
    if isinstance(cache, dict):
        return sum(cached_elements(item) for item in cache.values())
    if isinstance(cache, (list, tuple)):
        return sum(cached_elements(item) for item in cache)
    public = {name: item for name, item in getattr(cache, "__dict__", {}).items() if not name.startswith("_")}
    return 0 if isinstance(cache, type) else cached_elements(public)


@dataclass(frozen=True, slots=True)
class CacheMark:
    """A point in a decode that can be gone back to any number of times."""

    restored: Callable[[], Any]  # puts the cache back and returns it


def mark_cache(cache: Any, tokens: int) -> CacheMark:
    """Remember a cache that holds ``tokens`` tokens of each sequence.

    Going back costs nothing for attention caches, and one copy of the state for state-space and hybrid layers.
    """
    if type(cache) is not DynamicCache:
        saved = copy.deepcopy(cache)
        return CacheMark(lambda: copy.deepcopy(saved))
    undo = [_mark_layer(layer, tokens) for layer in cache.layers]

    def restored() -> DynamicCache:
        for undo_layer in undo:
            undo_layer()
        return cache

    return CacheMark(restored)


def _mark_layer(layer: Any, tokens: int) -> Callable[[], None]:
    if type(layer) is DynamicLayer:
        return lambda: _crop(layer, tokens)
    if type(layer) is DummyLayer:
        return lambda: None
    saved = copy.deepcopy(vars(layer))
    if type(layer) is DynamicSlidingWindowLayer:
        return lambda: vars(layer).update(saved)
    return lambda: vars(layer).update(copy.deepcopy(saved))


def _crop(layer: DynamicLayer, tokens: int) -> None:
    if layer.keys is not None and layer.values is not None:
        layer.keys = layer.keys[..., :tokens, :]  # [batch, kv_heads, tokens, head_dim]
        layer.values = layer.values[..., :tokens, :]
