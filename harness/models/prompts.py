"""Prompts of exactly the wanted length: real text, tokenised by the model's own tokenizer."""

from enum import StrEnum
from importlib.resources import files
from typing import Any

import torch

from harness.errors import UsageError
from harness.models.loading import LoadedModel


class PromptKind(StrEnum):
    """What prompts are made of."""

    TEXT = "text"
    RANDOM = "random"  # token ids drawn evenly from the vocabulary, for a model without a tokenizer


def prompt_kind(loaded: LoadedModel) -> PromptKind:
    """What ``prompt_token_ids`` gives for this model."""
    return PromptKind.RANDOM if loaded.tokenizer is None else PromptKind.TEXT


def prompt_token_ids(loaded: LoadedModel, batch_size: int, prompt_tokens: int, seed: int) -> torch.Tensor:
    """Token ids of a batch of prompts, int64 of shape [batch_size, prompt_tokens], on the model's device.

    Each row starts at another place of the text and goes round it as often as needed, after the tokens that the
    tokenizer puts first (BOS). The same seed gives the same prompts. Raises UsageError for counts below 1 and for a
    tokenizer that does not belong to the model.
    """
    if batch_size < 1 or prompt_tokens < 1:
        raise UsageError(
            f"A batch of {batch_size} prompts of {prompt_tokens} tokens is empty; both must be at least 1."
        )
    generator = torch.Generator().manual_seed(seed)
    if loaded.tokenizer is None:
        shape = (batch_size, prompt_tokens)
        return torch.randint(loaded.facts.vocabulary_tokens, shape, generator=generator).to(loaded.device)
    first, text = _text_tokens(loaded, loaded.tokenizer)
    starts = torch.randperm(len(text), generator=generator).repeat(-(-batch_size // len(text)))  # [≥ batch_size]
    body = max(0, prompt_tokens - len(first))
    places = (starts[:batch_size, None] + torch.arange(body)) % len(text)  # [batch_size, body]
    rows = torch.cat([first.expand(batch_size, -1), text[places]], dim=1)
    return rows[:, :prompt_tokens].to(loaded.device)


def _text_tokens(loaded: LoadedModel, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What the tokenizer puts before any text, shape [first], and the tokens of the shipped text, shape [text]."""
    prose = (files("harness") / "data" / "prompts.txt").read_text(encoding="utf-8")
    text: list[int] = tokenizer(prose, add_special_tokens=False, verbose=False).input_ids
    full: list[int] = tokenizer(prose, verbose=False).input_ids
    first = full[: _find(full, text)]
    if max(full) >= loaded.facts.vocabulary_tokens:
        raise UsageError(
            f"The tokenizer of {loaded.source.name} gives token {max(full)}, but the model has "
            f"{loaded.facts.vocabulary_tokens} tokens: they do not belong together.\nRepair the model folder."
        )
    return torch.tensor(first, dtype=torch.int64), torch.tensor(text, dtype=torch.int64)


def _find(tokens: list[int], part: list[int]) -> int:
    """Where ``part`` begins in ``tokens``; 0 if it is not there as a whole."""
    places = range(len(tokens) - len(part) + 1)
    return next((place for place in places if tokens[place : place + len(part)] == part), 0)
