"""Requests to Qwen3-8B as loads of a given length: a prefill, then decode steps, again and again."""

from collections.abc import Callable
from typing import Final

from harness.campaign.graph_rows import captured
from harness.kernels import Phase
from harness.models.source import resolve
from harness.virtual.machine import Program, VirtualMachine
from harness.virtual.program import Segments, joined, segments_of

MODEL: Final = "Qwen/Qwen3-8B"
BATCH_SIZE: Final = 8
PROMPT_TOKENS: Final = 512
_LAYERS: Final = 36  # over which the launches of a pass are spread
_REQUEST_S: Final = 1.0  # longer loads are several requests


def requests(machine: VirtualMachine, length_s: float) -> tuple[Program, int]:
    """One request as a program, and how many of them last about so long."""
    times = max(1, round(length_s / _REQUEST_S))
    prefill, step = (_segments(phase, machine.gpus) for phase in (Phase.PREFILL, Phase.DECODE))
    prefill_s, step_s = (machine.timeline(machine.compile(each)).pass_s for each in (prefill, step))
    steps = max(1, round((length_s / times - prefill_s) / step_s))
    return machine.compile(joined([prefill, *[step] * steps])), times


def _segments(phase: Phase, ranks: int) -> Segments:
    source = resolve(MODEL, random_weights=True, download=False)
    graph = captured(source, "bfloat16", "sdpa", ranks, phase, BATCH_SIZE, PROMPT_TOKENS, kv_cache=True)
    name: Callable[[int], str] = lambda index: f"{phase.value}/{index}"  # noqa: E731
    return segments_of(graph, name=name, rounds=_LAYERS)
