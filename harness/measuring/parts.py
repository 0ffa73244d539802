"""The parts of a run as repeatable work: prefill, decode and the whole request.

Decode starts after the first token, which the prefill yields. A decode pass that fits a few windows is run whole;
a longer one is run at three stated contexts (start, middle, end) that lie symmetrically, a line is fitted over the
context, and the line at the middle times the steps is the whole decode, since energy per step grows linearly with the
KV cache that is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.models.steps import DecodeState, Mark, Stepper
from harness.records import Part
from harness.requests import Request
from harness.tracing.ranges import marked

_CHUNK_TOKENS = 64  # a cache is filled in passes of at least so many tokens: their activations are small anyway
PromptSource = Callable[[int], Any]  # tokens of context -> Tensor  # [batch, tokens] int64


class PrefillWork:
    """One forward pass over the prompt, yielding the first token."""

    part = Part.PREFILL
    kernels = ()
    share = 1.0
    mean_context_tokens = None

    def __init__(self, stepper: Stepper, prompt: PromptSource, request: Request) -> None:
        self._stepper = stepper
        self._prompt = prompt(request.prompt_tokens)
        self.context_start_tokens = None

    def prepare(self, passes: int) -> None:
        """Nothing to set up: every pass starts from an empty cache."""

    def run(self, passes: int) -> None:
        """Run the prefill ``passes`` times."""
        with marked("phase:prefill"):
            for _ in range(passes):
                self._stepper.prefill(self._prompt)
            self._stepper.synchronize()

    def release(self) -> None:
        """Nothing is held between passes."""


@dataclass(slots=True, kw_only=True)
class _Start:
    """A filled cache, and the way back to it where more than one pass starts from it."""

    state: DecodeState
    mark: Mark | None
    fresh: bool = True  # no pass has left the start yet


class DecodeWork:
    """Some or all decode steps of a request, from one context."""

    part = Part.DECODE
    kernels = ()

    def __init__(
        self, stepper: Stepper, prompt: PromptSource, request: Request, *, context_tokens: int, steps: int
    ) -> None:
        self._stepper = stepper
        self._prompt = prompt
        self._steps = steps
        self._chunk_tokens = max(_CHUNK_TOKENS, request.prompt_tokens)
        self.share = steps / request.decode_steps
        self.context_start_tokens = context_tokens
        self.mean_context_tokens = context_tokens + (steps + 1) / 2
        self._start: _Start | None = None

    def prepare(self, passes: int) -> None:
        """Fill the cache up to the first step's context."""
        state = self._stepper.fill(self._prompt(self.context_start_tokens), chunk_tokens=self._chunk_tokens)
        mark = self._stepper.mark(state) if passes > 1 else None
        self._start = _Start(state=state, mark=mark)
        self._stepper.synchronize()

    def run(self, passes: int) -> None:
        """Run the steps ``passes`` times, each time from the same context, whatever was run before.

        Raises ``RuntimeError`` without a ``prepare`` for as many passes.
        """
        start = self._start
        if start is None or (start.mark is None and (passes > 1 or not start.fresh)):
            raise RuntimeError(f"prepare({passes}) comes before run({passes})")
        with marked("phase:decode"):
            for _ in range(passes):
                if start.mark is not None and not start.fresh:
                    self._stepper.rewind(start.state, start.mark)
                start.fresh = False
                for step in range(self._steps):
                    with marked(f"step:{step}"):
                        self._stepper.step(start.state)
            self._stepper.synchronize()

    def release(self) -> None:
        """Drop the cache."""
        self._start = None


class RequestWork:
    """Prefill and every decode step as one request."""

    part = Part.RUN
    kernels = ()
    share = 1.0
    mean_context_tokens = None

    def __init__(self, stepper: Stepper, prompt: PromptSource, request: Request) -> None:
        self._stepper = stepper
        self._prompt = prompt(request.prompt_tokens)
        self._steps = request.decode_steps
        self.context_start_tokens = None

    def prepare(self, passes: int) -> None:
        """Nothing to set up: every request starts from its prompt."""

    def run(self, passes: int) -> None:
        """Answer the request ``passes`` times."""
        for _ in range(passes):
            with marked("phase:prefill"):
                state = self._stepper.prefill(self._prompt)
            with marked("phase:decode"):
                for step in range(self._steps):
                    with marked(f"step:{step}"):
                        self._stepper.step(state)
            self._stepper.synchronize()

    def release(self) -> None:
        """Nothing is held between requests."""


def decode_contexts(request: Request, *, segment_steps: int | None) -> Sequence[int]:
    """First contexts of the decode windows: the prompt alone for a whole decode, else start, middle and end.

    The segments lie symmetrically around the middle of the decode, so that their mean context is its mean context.
    """
    if segment_steps is None:
        return (request.prompt_tokens,)
    last = request.prompt_tokens + request.decode_steps - segment_steps
    return (request.prompt_tokens, (request.prompt_tokens + last) // 2, last)
