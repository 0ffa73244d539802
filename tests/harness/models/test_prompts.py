from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.models.loading import LoadedModel, load
from harness.models.prompts import PromptKind, prompt_kind, prompt_token_ids
from harness.models.source import resolve


@pytest.fixture(scope="module")
def tiny(tiny_llama_folder: Path) -> LoadedModel:
    return load(resolve(str(tiny_llama_folder)), dtype="float32", attention="sdpa", device="cpu", seed=0)


def shipped_text() -> str:
    return (files("harness") / "data" / "prompts.txt").read_text(encoding="utf-8")


def test_the_shipped_text_is_long_english_prose() -> None:
    text = shipped_text()
    assert len(text) >= 12_000
    assert text.startswith("When in the Course of human events")


@pytest.mark.parametrize(("batch_size", "prompt_tokens"), [(1, 1), (1, 2), (3, 7), (2, 300), (1, 40_000)])
def test_a_prompt_has_exactly_the_wanted_number_of_tokens(
    tiny: LoadedModel, batch_size: int, prompt_tokens: int
) -> None:
    prompt = prompt_token_ids(tiny, batch_size, prompt_tokens, seed=0)
    assert prompt.shape == (batch_size, prompt_tokens)
    assert prompt.dtype == torch.int64
    assert prompt.min() >= 0
    assert prompt.max() < tiny.facts.vocabulary_tokens


def test_each_row_is_another_part_of_the_text_behind_the_first_token_of_a_sequence(tiny: LoadedModel) -> None:
    rows = prompt_token_ids(tiny, 8, 200, seed=0)

    endless = shipped_text() * 2
    texts = [tiny.tokenizer.decode(row[1:]) for row in rows]  # type: ignore[union-attr]
    assert prompt_kind(tiny) is PromptKind.TEXT
    assert set(rows[:, 0].tolist()) == {0}
    assert len(set(texts)) == 8
    assert all(text in endless for text in texts)


def test_a_prompt_longer_than_the_text_goes_round_it(tiny: LoadedModel) -> None:
    length = len(shipped_text().encode())
    row = prompt_token_ids(tiny, 1, 2 * length + 1, seed=0)[0, 1:]
    assert torch.equal(row[:length], row[length:])


def test_more_rows_than_places_to_start_from_are_still_prompts(tiny: LoadedModel) -> None:
    batch_size = len(shipped_text().encode()) + 5
    assert prompt_token_ids(tiny, batch_size, 2, seed=0).shape == (batch_size, 2)


def test_the_seed_decides_the_prompt(tiny: LoadedModel) -> None:
    one = prompt_token_ids(tiny, 2, 50, seed=1)
    assert torch.equal(one, prompt_token_ids(tiny, 2, 50, seed=1))
    assert not torch.equal(one, prompt_token_ids(tiny, 2, 50, seed=2))


def test_without_a_tokenizer_ids_are_drawn_from_the_vocabulary_and_called_random(
    load_tiny: Callable[..., Any],
) -> None:
    loaded = load_tiny("llama")
    prompt = prompt_token_ids(loaded, 4, 500, seed=1)
    assert prompt_kind(loaded) is PromptKind.RANDOM
    assert torch.equal(prompt, prompt_token_ids(loaded, 4, 500, seed=1))
    assert prompt.max() < 300
    assert len(set(prompt.flatten().tolist())) > 250


@pytest.mark.parametrize(("batch_size", "prompt_tokens"), [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_prompt_is_an_error(tiny: LoadedModel, batch_size: int, prompt_tokens: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        prompt_token_ids(tiny, batch_size, prompt_tokens, seed=0)


def test_a_tokenizer_of_another_model_is_an_error(tiny: LoadedModel) -> None:
    smaller = replace(tiny, facts=replace(tiny.facts, vocabulary_tokens=50))
    with pytest.raises(UsageError, match="do not belong together"):
        prompt_token_ids(smaller, 1, 5, seed=0)
