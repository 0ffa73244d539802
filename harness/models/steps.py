"""The prefill and the decode step, as thin as a forward call allows: this is the loop whose energy is read."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import UsageError
from harness.models.caches import CacheMark, cache_argument, mark_cache
from harness.models.loading import LoadedModel


@dataclass(slots=True, kw_only=True)
class DecodeState:
    """Where a request stands. A step moves it on in place."""

    context_tokens: int  # tokens that have gone through the model, per sequence
    next_token: torch.Tensor  # [batch, 1] int64, chosen greedily, not yet in the context
    logits: torch.Tensor  # [batch, vocabulary], of the last position
    cache: Any  # the model's cache; None without a KV cache
    tokens: torch.Tensor | None  # [batch, context_tokens] without a KV cache, else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point of a decode to come back to, from ``Stepper.mark``."""

    context_tokens: int
    next_token: torch.Tensor  # [batch, 1]
    logits: torch.Tensor  # [batch, vocabulary]
    cache: CacheMark | None
    tokens: torch.Tensor | None  # [batch, context_tokens]


def forward_options(model: torch.nn.Module, *, kv_cache: bool) -> dict[str, Any]:
    """Arguments of every forward pass beside tokens and cache.

    Logits of every position of a long prompt can be larger than the model; most models can leave them out.
    """
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"use_cache": kv_cache} | ({"logits_to_keep": 1} if keeps else {})


class Stepper:
    """Runs a model token by token. Greedy; never stops at an end-of-sequence token."""

    def __init__(self, loaded: LoadedModel, *, kv_cache: bool = True) -> None:
        self._model = loaded.model
        self._devices = loaded.devices
        self._cache_argument = cache_argument(loaded.model) if kv_cache else None
        if kv_cache and self._cache_argument is None:
            raise _no_cache(loaded.source.name)
        self._name = loaded.source.name
        self._has_state = loaded.facts.state_elements_per_sequence > 0
        self._options = forward_options(loaded.model, kv_cache=kv_cache)

    @torch.inference_mode()
    def prefill(self, prompt: torch.Tensor) -> DecodeState:
        """One forward pass over a prompt of shape [batch, prompt_tokens], which gives the first output token."""
        output = self._model(prompt, **self._options)
        cache = None
        if self._cache_argument is not None:
            cache = getattr(output, self._cache_argument, None)
            if cache is None:
                raise _no_cache(self._name)
        logits = output.logits[:, -1]
        return DecodeState(
            context_tokens=prompt.shape[1],
            next_token=logits.argmax(dim=-1, keepdim=True),
            logits=logits,
            cache=cache,
            tokens=prompt if cache is None else None,
        )

    def fill(self, tokens: torch.Tensor, *, chunk_tokens: int) -> DecodeState:
        """A state whose context is ``tokens``, of shape [batch, n], computed in passes of at most ``chunk_tokens``.

        A context longer than the request's prompt is never computed in one pass by the request itself, so it may not
        cost the memory of one here. State-space models take more than one token at a time only at the start, and have
        no large activations; without a cache every step is a whole pass anyway: both are filled in one.
        """
        if self._cache_argument is None or self._has_state:
            return self.prefill(tokens)
        state = self.prefill(tokens[:, :chunk_tokens])
        for start in range(chunk_tokens, tokens.shape[1], chunk_tokens):
            self._advance(state, tokens[:, start : start + chunk_tokens])
        return state

    def step(self, state: DecodeState) -> None:
        """One forward pass that puts ``next_token`` into the context and chooses the one after it."""
        self._advance(state, state.next_token)

    @torch.inference_mode()
    def _advance(self, state: DecodeState, tokens: torch.Tensor) -> None:  # tokens: [batch, n]
        if state.tokens is None:
            output = self._model(tokens, **{str(self._cache_argument): state.cache}, **self._options)
            state.cache = getattr(output, str(self._cache_argument))
        else:
            state.tokens = torch.cat([state.tokens, tokens], dim=1)
            output = self._model(state.tokens, **self._options)
        state.context_tokens += tokens.shape[1]
        state.logits = output.logits[:, -1]
        state.next_token = state.logits.argmax(dim=-1, keepdim=True)

    @torch.inference_mode()
    def mark(self, state: DecodeState) -> Mark:
        """Remember this point. Call it outside energy windows: some caches are copied."""
        return Mark(
            context_tokens=state.context_tokens,
            next_token=state.next_token,
            logits=state.logits,
            cache=None if state.cache is None else mark_cache(state.cache, state.context_tokens),
            tokens=state.tokens,
        )

    @torch.inference_mode()
    def rewind(self, state: DecodeState, mark: Mark) -> None:
        """Go back to a mark of this same state, as often as wanted; the steps from there repeat exactly.

        Free for attention caches; for state-space and hybrid models one copy of the state, little beside a step. Only
        back: raises ValueError for a mark that lies ahead of the state.
        """
        if mark.context_tokens > state.context_tokens:
            raise ValueError(f"the mark is at {mark.context_tokens} tokens, the state at {state.context_tokens}")
        state.context_tokens = mark.context_tokens
        state.next_token = mark.next_token
        state.logits = mark.logits
        state.cache = None if mark.cache is None else mark.cache.restored()
        state.tokens = mark.tokens

    def synchronize(self) -> None:
        """Wait until every device of the model has done all that was asked of it."""
        for device in self._devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)


def _no_cache(name: str) -> UsageError:
    return UsageError(
        f"{name} hands out no cache between forward passes, so its decode cannot be stepped.\n"
        "Add --no-kv-cache to recompute the whole context at every token."
    )
