"""Whether generations were run with a KV cache, and how many at once: found from how long they took."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.dataset.importers.names import DecoderSize

# Under the right reading rates differ by shapes and launches only; under a wrong one by 10 or more.
_AGREEMENT: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One request of a sweep, and how long it took."""

    prompt_tokens: int
    output_tokens: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReading:
    """One way to read a sweep: so many sequences at once, with a KV cache or without."""

    batch_size: int
    kv_cache: bool


def generation_flop(size: DecoderSize, generation: Generation, reading: CacheReading) -> float:
    """FLOP of one request under a reading. Without a cache the whole context is computed anew for every token."""
    prompt, passes = generation.prompt_tokens, generation.output_tokens
    if reading.kv_cache:
        steps, mean_context = passes - 1, prompt + passes / 2
        prefill = size.forward_flop(reading.batch_size, prompt)
        return prefill + steps * size.step_flop(reading.batch_size, mean_context)
    tokens = passes * prompt + passes * (passes - 1) / 2  # Σ t for the passes over t = prompt … prompt + passes − 1
    squares = passes * prompt**2 + prompt * passes * (passes - 1) + (passes - 1) * passes * (2 * passes - 1) / 6  # Σ t²
    return reading.batch_size * (size.flop_per_token * tokens + size.flop_per_token_squared * squares)


def rate_flop_per_s(size: DecoderSize, generation: Generation, reading: CacheReading) -> float:
    """FLOP/s that a reading implies."""
    return generation_flop(size, generation, reading) / generation.duration_s


def reading_that_fits(
    size: DecoderSize, long_prompt: Generation, long_output: Generation, *, stated_batch: int, peak_flop_per_s: float
) -> CacheReading | None:
    """The one reading under which a long prompt and a long output are computed at about the same rate.

    Both keep a GPU busy with the same matrices, so their FLOP/s have to agree (within a factor of two) and stay below
    the peak of the GPUs at work. Candidates: one sequence at once, or as many as are stated; with a cache, or
    without. None: no reading fits, or several do.
    """
    fitting = []
    for reading in _readings(stated_batch):
        rates = [rate_flop_per_s(size, generation, reading) for generation in (long_prompt, long_output)]
        if max(rates) <= peak_flop_per_s and min(rates) >= _AGREEMENT * max(rates):
            fitting.append(reading)
    return fitting[0] if len(fitting) == 1 else None


def _readings(stated_batch: int) -> Iterator[CacheReading]:
    for batch_size in sorted({1, stated_batch}):
        for kv_cache in (False, True):
            yield CacheReading(batch_size=batch_size, kv_cache=kv_cache)
