from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.models.prompts import prompt_token_ids
from harness.models.steps import DecodeState, Stepper

STEPS = 6


def stepped(stepper: Stepper, state: DecodeState, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [batch, steps + 1] and logits [batch, steps + 1, vocabulary] from here on."""
    tokens, logits = [state.next_token], [state.logits]
    for _ in range(steps):
        stepper.step(state)
        tokens.append(state.next_token)
        logits.append(state.logits)
    return torch.cat(tokens, dim=1), torch.stack(logits, dim=1)


def test_prefill_and_steps_give_the_logits_of_a_full_recompute(
    architecture: str, load_tiny: Callable[..., Any]
) -> None:
    loaded = load_tiny(architecture)
    prompt = prompt_token_ids(loaded, 2, 12, seed=3)
    stepper = Stepper(loaded)

    state = stepper.prefill(prompt)
    tokens, logits = stepped(stepper, state, STEPS)

    with torch.inference_mode():
        full = loaded.model(torch.cat([prompt, tokens], dim=1), use_cache=False).logits
    assert state.context_tokens == 12 + STEPS
    torch.testing.assert_close(logits, full[:, 11:-1], atol=1e-4, rtol=0)
    assert torch.equal(tokens, logits.argmax(dim=-1))


def test_a_context_filled_in_chunks_is_the_context_filled_at_once(
    architecture: str, load_tiny: Callable[..., Any]
) -> None:
    loaded = load_tiny(architecture)
    prompt = prompt_token_ids(loaded, 2, 12, seed=3)
    stepper = Stepper(loaded)

    filled, whole = stepper.fill(prompt, chunk_tokens=5), stepper.prefill(prompt)

    assert filled.context_tokens == whole.context_tokens == 12
    torch.testing.assert_close(filled.logits, whole.logits, atol=1e-4, rtol=0)
    tokens, logits = stepped(stepper, filled, STEPS)
    expected_tokens, expected_logits = stepped(stepper, whole, STEPS)
    assert torch.equal(tokens, expected_tokens)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=0)


def test_after_a_rewind_every_step_repeats_bit_by_bit(architecture: str, load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny(architecture)
    stepper = Stepper(loaded)
    state = stepper.prefill(prompt_token_ids(loaded, 2, 12, seed=3))
    mark = stepper.mark(state)
    tokens, logits = stepped(stepper, state, STEPS)

    for _ in range(3):
        stepper.rewind(state, mark)
        assert state.context_tokens == 12
        again, again_logits = stepped(stepper, state, STEPS)
        assert torch.equal(again, tokens)
        assert torch.equal(again_logits, logits)


def test_a_mark_in_the_middle_of_a_decode_is_a_place_to_come_back_to(
    architecture: str, load_tiny: Callable[..., Any]
) -> None:
    loaded = load_tiny(architecture)
    stepper = Stepper(loaded)
    state = stepper.prefill(prompt_token_ids(loaded, 1, 5, seed=3))
    start = stepper.mark(state)
    tokens, _ = stepped(stepper, state, 4)
    middle = stepper.mark(state)
    tail, _ = stepped(stepper, state, 4)

    stepper.rewind(state, middle)
    assert state.context_tokens == 9
    assert torch.equal(stepped(stepper, state, 4)[0], tail)
    stepper.rewind(state, start)
    assert torch.equal(stepped(stepper, state, 4)[0], tokens)
    stepper.rewind(state, middle)
    assert torch.equal(stepped(stepper, state, 4)[0], tail)


def test_a_mark_ahead_of_the_state_is_refused(load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny("llama")
    stepper = Stepper(loaded)
    state = stepper.prefill(prompt_token_ids(loaded, 1, 5, seed=3))
    start = stepper.mark(state)
    stepper.step(state)
    ahead = stepper.mark(state)
    stepper.rewind(state, start)
    with pytest.raises(ValueError, match="the mark is at 6 tokens, the state at 5"):
        stepper.rewind(state, ahead)


def test_without_a_kv_cache_the_same_tokens_come_out(load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny("llama")
    prompt = prompt_token_ids(loaded, 2, 12, seed=3)
    cached, recomputing = Stepper(loaded), Stepper(loaded, kv_cache=False)
    expected, _ = stepped(cached, cached.prefill(prompt), STEPS)

    state = recomputing.prefill(prompt)
    mark = recomputing.mark(state)

    assert state.cache is None
    assert torch.equal(stepped(recomputing, state, STEPS)[0], expected)
    recomputing.rewind(state, mark)
    assert state.context_tokens == 12
    assert torch.equal(stepped(recomputing, state, STEPS)[0], expected)


def test_the_prefill_computes_logits_of_the_last_position_only(load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny("llama")
    rows: list[int] = []
    hook = loaded.model.lm_head.register_forward_hook(lambda _module, _inputs, output: rows.append(output.shape[1]))

    Stepper(loaded).prefill(prompt_token_ids(loaded, 2, 12, seed=3))

    hook.remove()
    assert rows == [1]


def test_an_end_of_sequence_token_stops_nothing(load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny("llama")
    loaded.model.config.eos_token_id = list(range(300))
    stepper = Stepper(loaded)
    state = stepper.prefill(prompt_token_ids(loaded, 1, 4, seed=0))
    stepped(stepper, state, STEPS)
    assert state.context_tokens == 4 + STEPS


def test_a_model_that_hands_out_no_cache_is_refused_before_a_decode(load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny("openai-gpt")
    with pytest.raises(UsageError, match="no cache"):
        Stepper(loaded)

    stepper = Stepper(loaded, kv_cache=False)
    state = stepper.prefill(prompt_token_ids(loaded, 1, 4, seed=0))
    stepper.step(state)
    assert state.context_tokens == 5


def test_going_back_in_an_attention_cache_copies_nothing(load_tiny: Callable[..., Any]) -> None:
    loaded = load_tiny("llama")
    stepper = Stepper(loaded)
    state = stepper.prefill(prompt_token_ids(loaded, 1, 12, seed=3))
    mark = stepper.mark(state)
    stepped(stepper, state, STEPS)
    grown = state.cache.layers[0].keys

    stepper.rewind(state, mark)

    assert state.cache.layers[0].keys.shape[-2] == 12
    assert state.cache.layers[0].keys.data_ptr() == grown.data_ptr()
