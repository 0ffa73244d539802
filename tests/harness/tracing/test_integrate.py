"""A whole decode is the sum of its steps, not the last one so many times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, MistralConfig

from harness.kernels import Phase
from harness.tracing.capture import GraphCapture
from harness.tracing.integrate import decode_totals, over_contexts, request_totals

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


@given(
    first=st.integers(1, 3000),
    length=st.integers(1, 3000),
    window=st.integers(1, 4000),
    slope=st.integers(0, 9),
    base=st.integers(0, 99),
)
def test_counts_that_stop_growing_at_a_window_are_summed_exactly(
    first: int, length: int, window: int, slope: int, base: int
) -> None:
    contexts = range(first, first + length)

    def step(context: int) -> list[float]:
        return [base + slope * min(context, window), context]

    found = over_contexts(step, contexts[0], contexts[-1])

    assert found[0] == pytest.approx(sum(base + slope * min(context, window) for context in contexts), rel=1e-5)
    assert found[1] == pytest.approx(sum(contexts))


def test_few_steps_are_looked_at_where_counts_are_linear() -> None:
    asked = []

    def step(context: int) -> list[float]:
        asked.append(context)
        return [3.0 * context]

    over_contexts(step, 1, 100_000)

    assert len(asked) == 3


def test_a_decode_is_the_sum_of_its_steps() -> None:
    capture = GraphCapture(LlamaConfig(**SIZES), model="llama", dtype="float32")
    graphs = [capture.capture(Phase.DECODE, batch_size=3, tokens=20 + step) for step in range(9)]

    found = decode_totals(capture, batch_size=3, first=20, steps=9)

    assert found.passes == 9
    assert found.flop == sum(graph.flop for graph in graphs) < 9 * graphs[-1].flop
    assert found.traffic_bytes == sum(graph.traffic_bytes for graph in graphs)
    assert found.launches == sum(graph.launches for graph in graphs)


def test_a_sliding_window_that_fills_up_during_the_decode_is_seen() -> None:
    capture = GraphCapture(MistralConfig(**SIZES, sliding_window=16), model="mistral", dtype="float32")
    graphs = [capture.capture(Phase.DECODE, batch_size=1, tokens=8 + step) for step in range(20)]

    assert decode_totals(capture, batch_size=1, first=8, steps=20).flop == sum(graph.flop for graph in graphs)


def test_a_request_is_its_prefill_and_the_steps_after_the_first_token() -> None:
    capture = GraphCapture(LlamaConfig(**SIZES), model="llama", dtype="float32")
    prefill = capture.capture(Phase.PREFILL, batch_size=2, tokens=16)

    assert request_totals(capture, batch_size=2, prompt_tokens=16, output_tokens=1).flop == prefill.flop
    whole = request_totals(capture, batch_size=2, prompt_tokens=16, output_tokens=5)
    assert whole.passes == 5
    assert whole.flop == prefill.flop + decode_totals(capture, batch_size=2, first=16, steps=4).flop
