"""Which works a run is made of, in words that every rank understands alike."""

from dataclasses import dataclass

from harness.records import Part
from harness.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSpec:
    """One work, in words that every rank understands alike."""

    part: Part
    context_tokens: int = 0  # decode: tokens in the context at the first step
    steps: int = 0  # decode: how many


def traced_steps(request: Request) -> WorkSpec:
    """The decode steps that are traced: the one in the middle, or both, where their number is even."""
    steps = 2 - request.decode_steps % 2
    first = request.prompt_tokens + (request.decode_steps - steps) // 2
    return WorkSpec(part=Part.DECODE, context_tokens=first, steps=steps)
