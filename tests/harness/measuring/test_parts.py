from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measuring.parts import DecodeWork, PrefillWork, RequestWork, decode_contexts
from harness.models.steps import DecodeState, Stepper
from harness.records import Part
from harness.requests import Request

REQUEST = Request(model="a", batch_size=2, prompt_tokens=100, output_tokens=31, dtype="float32")


class Recorder:
    """A stepper that writes down what it is asked for; a prompt is its length."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.chunks: list[int] = []

    def prompt(self, tokens: int) -> Any:
        return tokens

    def prefill(self, prompt: int) -> DecodeState:
        self.calls.append(("prefill", prompt))
        none = cast("Any", None)
        return DecodeState(context_tokens=prompt, next_token=none, logits=none, cache=None, tokens=None)

    def fill(self, tokens: int, *, chunk_tokens: int) -> DecodeState:
        self.chunks.append(chunk_tokens)
        return self.prefill(tokens)

    def step(self, state: DecodeState) -> None:
        self.calls.append(("step", state.context_tokens))
        state.context_tokens += 1

    def mark(self, state: DecodeState) -> int:
        self.calls.append(("mark", state.context_tokens))
        return state.context_tokens

    def rewind(self, state: DecodeState, mark: int) -> None:
        self.calls.append(("rewind", mark))
        state.context_tokens = mark

    def synchronize(self) -> None:
        self.calls.append(("synchronize", 0))

    @property
    def stepper(self) -> Stepper:
        return cast("Stepper", self)


def decode(recorder: Recorder, *, context_tokens: int = 100, steps: int = 3, all_steps: int = 30) -> DecodeWork:
    request = Request(model="m", batch_size=1, prompt_tokens=80, output_tokens=all_steps + 1, dtype="float32")
    return DecodeWork(recorder.stepper, recorder.prompt, request, context_tokens=context_tokens, steps=steps)


def test_a_prefill_runs_the_prompt_as_often_as_wanted_and_waits_at_the_end() -> None:
    recorder = Recorder()
    work = PrefillWork(recorder.stepper, recorder.prompt, REQUEST)
    work.prepare(3)
    work.run(3)
    work.release()
    assert recorder.calls == [("prefill", 100)] * 3 + [("synchronize", 0)]
    assert (work.part, work.share, work.context_start_tokens) == (Part.PREFILL, 1.0, None)


def test_a_request_is_a_prefill_and_all_its_steps() -> None:
    recorder = Recorder()
    work = RequestWork(recorder.stepper, recorder.prompt, REQUEST)
    work.prepare(2)
    work.run(2)
    one = [("prefill", 100), *(("step", context) for context in range(100, 130)), ("synchronize", 0)]
    assert recorder.calls == one * 2
    assert (work.part, work.share) == (Part.RUN, 1.0)


@pytest.mark.parametrize("output_tokens", [0, 1])
def test_a_request_without_decode_is_a_prefill_alone(output_tokens: int) -> None:
    recorder = Recorder()
    request = Request(model="a", batch_size=1, prompt_tokens=7, output_tokens=output_tokens, dtype="float32")
    RequestWork(recorder.stepper, recorder.prompt, request).run(1)
    assert recorder.calls == [("prefill", 7), ("synchronize", 0)]


def test_every_pass_of_a_decode_starts_from_the_same_context() -> None:
    recorder = Recorder()
    work = decode(recorder)
    work.prepare(3)
    assert recorder.calls == [("prefill", 100), ("mark", 100), ("synchronize", 0)]
    recorder.calls.clear()

    work.run(3)

    steps = [("step", 100), ("step", 101), ("step", 102)]
    assert recorder.calls == [*steps, ("rewind", 100), *steps, ("rewind", 100), *steps, ("synchronize", 0)]


def test_a_decode_that_is_run_again_starts_from_the_same_context_again() -> None:
    recorder = Recorder()
    work = decode(recorder, steps=1)
    work.prepare(2)
    work.run(1)
    recorder.calls.clear()
    work.run(1)
    assert recorder.calls == [("rewind", 100), ("step", 100), ("synchronize", 0)]


def test_a_single_pass_needs_no_mark() -> None:
    recorder = Recorder()
    work = decode(recorder)
    work.prepare(1)
    work.run(1)
    assert ("mark", 100) not in recorder.calls
    assert [call for call, _ in recorder.calls].count("step") == 3


def test_a_decode_that_is_not_prepared_for_its_passes_is_refused() -> None:
    recorder = Recorder()
    work = decode(recorder)
    with pytest.raises(RuntimeError, match="prepare"):
        work.run(1)
    work.prepare(1)
    with pytest.raises(RuntimeError, match=r"prepare\(2\) comes before run\(2\)"):
        work.run(2)
    work.run(1)
    with pytest.raises(RuntimeError, match="prepare"):
        work.run(1)
    work.prepare(1)
    work.release()
    with pytest.raises(RuntimeError, match="prepare"):
        work.run(1)


def test_a_segment_states_its_share_and_its_mean_context() -> None:
    work = decode(Recorder(), context_tokens=110, steps=3, all_steps=30)
    assert work.share == pytest.approx(0.1)
    assert work.context_start_tokens == 110
    assert work.mean_context_tokens == 112  # steps see 111, 112 and 113 tokens, their own included


def test_a_whole_decode_starts_at_the_prompt() -> None:
    assert decode_contexts(REQUEST, segment_steps=None) == (100,)


@given(st.integers(1, 5000), st.integers(3, 5000), st.data())
def test_segments_lie_within_the_decode_and_symmetrically(prompt: int, steps: int, data: st.DataObject) -> None:
    request = Request(model="a", batch_size=1, prompt_tokens=prompt, output_tokens=steps + 1, dtype="float32")
    segment = data.draw(st.integers(1, steps // 3))

    first, middle, last = decode_contexts(request, segment_steps=segment)

    assert first == prompt
    assert last + segment == request.context_tokens
    assert first < middle < last or segment == steps
    assert 0 <= first + last - 2 * middle <= 1
    # The mean context of the outer segments is that of the whole decode.
    outer = [decode(Recorder(), context_tokens=at, steps=segment).mean_context_tokens for at in (first, last)]
    whole = decode(Recorder(), context_tokens=prompt, steps=steps).mean_context_tokens
    assert sum(outer) / 2 == pytest.approx(whole)


def test_a_long_context_is_filled_in_passes_no_longer_than_the_prompt_so_that_it_fits_where_the_request_does() -> None:
    recorder = Recorder()
    decode(recorder, context_tokens=2000).prepare(1)

    assert recorder.chunks == [80]
