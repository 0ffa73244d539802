"""How long it takes to capture a graph in a process that has captured one before: ``tox -e bench``.

A time here is that of a whole capture: the model is built anew on the meta device, sharded, run and recorded. That is
one thread that never waits, so its processor time is the wall time of a free machine, and hardly changes on a busy one;
the bars are held against it, and wall times are printed beside it. The two models take turns, so that a busy machine
disturbs both alike; the shortest of each is compared, since whatever else runs only ever adds.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.graph_comparison import Counter, config_of
from benchmarks.handwritten_counts import Pass, analyser_flop
from harness.kernels import Phase
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph

LLAMA_70B, LLAMA_405B = "meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-405B"
RANKS, BATCH, TOKENS, ROUNDS = 8, 8, 512, 15
CAPTURE_BAR_S = 0.25
KERNELS_BAR = 200
RATIO_BAR = 1.2


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Imports and first calls are paid once per process, whatever is captured."""
    torch.set_num_threads(1)
    captured(config_of(LLAMA_70B), Phase.PREFILL)


def captured(config: Any, phase: Phase) -> KernelGraph:
    """The whole way from a config to a graph."""
    return GraphCapture(config, model="timed", tensor_parallel=RANKS).capture(phase, batch_size=BATCH, tokens=TOKENS)


@dataclass(frozen=True, slots=True)
class Times:
    """What one piece of work took."""

    processor_s: float
    wall_s: float

    @classmethod
    def of(cls, work: Callable[[], object]) -> "Times":
        """Do it once."""
        begun_s, wall_begun_s = time.process_time(), time.perf_counter()
        work()
        return cls(time.process_time() - begun_s, time.perf_counter() - wall_begun_s)

    @classmethod
    def shortest(cls, times: Iterable["Times"]) -> "Times":
        """Of several times of the same work."""
        several = list(times)
        return cls(min(each.processor_s for each in several), min(each.wall_s for each in several))


@pytest.mark.parametrize("phase", Phase)
def test_a_graph_of_a_large_model_is_captured_at_once_however_many_layers(
    phase: Phase, capsys: pytest.CaptureFixture[str]
) -> None:
    """70B on 8 ranks within the bar, and 405B, with 126 layers instead of 80, in hardly more."""
    configs = [config_of(LLAMA_70B), config_of(LLAMA_405B)]
    taken = [[Times.of(partial(captured, config, phase)) for config in configs] for _ in range(ROUNDS)]
    smaller, larger = (Times.shortest(times) for times in zip(*taken, strict=True))
    ratio = larger.processor_s / smaller.processor_s
    kernels = len(captured(configs[0], phase).kernels)
    with capsys.disabled():
        print(
            f"\n{phase}: 70B, 80 layers, tp {RANKS}: {smaller.processor_s:.3f} s (wall {smaller.wall_s:.3f} s; "
            f"bar {CAPTURE_BAR_S} s), {kernels} kernels (bar {KERNELS_BAR}); 405B ÷ 70B = {ratio:.2f} (bar {RATIO_BAR})"
        )

    assert kernels <= KERNELS_BAR
    assert smaller.processor_s <= CAPTURE_BAR_S
    assert ratio <= RATIO_BAR


def test_capturing_beside_counting_every_layer_and_beside_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    """Prefill and decode of the 70B model on one rank: this, FlopCounterMode, and an analyser's formulas."""
    graph, counter, formulas = (
        Times.shortest(Times.of(work) for _ in range(3)).processor_s for work in (_both_graphs, _both_counts, _formulas)
    )
    with capsys.disabled():
        print(
            f"\n70B, two phases: graphs {graph:.3f} s, FlopCounterMode {counter:.3f} s ({counter / graph:.1f} ×), "
            f"formulas {formulas * 1e6:.0f} µs"
        )

    assert graph < counter


def _both_graphs() -> None:
    capture = GraphCapture(config_of(LLAMA_70B), model="timed")
    for phase in Phase:
        capture.capture(phase, batch_size=BATCH, tokens=TOKENS)


def _both_counts() -> None:
    Counter(config_of(LLAMA_70B), "sdpa").flop(TOKENS)


def _formulas() -> None:
    for phase, query in ((Phase.PREFILL, TOKENS), (Phase.DECODE, 1)):
        analyser_flop(config_of(LLAMA_70B), Pass(phase=phase, batch=BATCH, query=query, context=TOKENS))


@pytest.mark.parametrize("phase", Phase)
def test_capture(benchmark: Any, phase: Phase) -> None:
    """For the table of ``--benchmark-enable``."""
    graph = benchmark(captured, config_of(LLAMA_70B), phase)

    assert graph.tensor_parallel == RANKS
