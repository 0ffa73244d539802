"""Random weights for models too large to be built whole: one module at a time, of which only a part may be kept.

Each module gets its own seed from the model's seed and its path, so that every rank computes the same whole module and
keeps its part of it. What a family does to its modules' weights as they stand in the whole model, such as scaling the
output projections with the depth, is left out.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import initialization

_STD = 0.02  # transformers' own default, for parameters that a family forgets to initialise


def fill_randomly(
    model: Any,
    *,
    seed: int,
    device_of: Callable[[str], torch.device],
    keep: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Give a model on the meta device weights, in place.

    ``device_of`` says where the module at a path is computed; ``keep`` gets each whole parameter with its path and
    returns what is kept of it. At no time is more than one module whole.
    """
    filled: dict[int, torch.nn.Parameter] = {}  # by identity of the placeholder: shared parameters stay shared
    with torch.no_grad(), initialization.guard_torch_init_functions():
        for path, module, family in _children_first("", model, model):
            device = device_of(path)
            placeholders = {name: held for name, held in module._parameters.items() if held is not None}
            for name, placeholder in placeholders.items():
                known = filled.get(id(placeholder))
                module._parameters[name] = _empty(placeholder, device) if known is None else known
            _materialise_buffers(module, device)
            _initialise(module, family, seed, path, device)
            for name, placeholder in placeholders.items():
                if id(placeholder) not in filled:
                    whole = _complete(module._parameters[name])
                    part = torch.nn.Parameter(keep(f"{path}.{name}" if path else name, whole), requires_grad=False)
                    part._is_hf_initialized = True  # type: ignore[attr-defined]  # so that parents leave it alone
                    filled[id(placeholder)] = part
                module._parameters[name] = filled[id(placeholder)]


def _children_first(path: str, module: Any, family: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every module with its path and the model within the model that knows how to initialise it."""
    family = module if hasattr(module, "_init_weights") else family
    for name, child in module.named_children():
        yield from _children_first(f"{path}.{name}" if path else name, child, family)
    yield path, module, family


def _empty(placeholder: torch.Tensor, device: torch.device) -> torch.nn.Parameter:
    whole = torch.empty(placeholder.shape, dtype=placeholder.dtype, device=device)
    if whole.is_floating_point():
        whole.fill_(torch.nan)  # to see what stays untouched
    return torch.nn.Parameter(whole, requires_grad=False)


def _materialise_buffers(module: Any, device: torch.device) -> None:
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_meta:
            module._buffers[name] = torch.zeros_like(buffer, device=device)


def _initialise(module: Any, family: Any, seed: int, path: str, device: torch.device) -> None:
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(int.from_bytes(digest[:7]))
        family._init_weights(module)


def _complete(parameter: torch.Tensor) -> torch.Tensor:
    whole = parameter.detach()
    if whole.is_floating_point() and bool(whole.isnan().any()):
        whole.normal_(std=_STD)
    return whole
