"""What measuring costs, beside the bare loop of the same forward calls: ``tox -e bench``.

The two loops alternate in one process, so that a noisy machine disturbs both alike; their ratio is taken pair by pair.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.measuring.parts import DecodeWork, PrefillWork
from harness.measuring.results import Work
from harness.measuring.windows import SteadyClock, WindowTaker
from harness.meters.selection import meters_for
from harness.models.loading import LoadedModel, load
from harness.models.prompts import prompt_token_ids
from harness.models.source import DEFAULT_CPU_MODEL, resolve
from harness.models.steps import Stepper
from harness.requests import Request

PAIRS = 15
PROMPT_TOKENS, PREFILLS, STEPS = 64, 8, 24  # about a second each
OVERHEAD_BAR = 0.01
HELP_BAR_S = 0.5


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """The default CPU model, on one thread: what is left of the machine is for whoever else is there."""
    torch.set_num_threads(1)
    return load(resolve(DEFAULT_CPU_MODEL), dtype="float32", attention="sdpa", device="cpu", seed=0)


@torch.inference_mode()
def bare_prefill_s(model: Any, prompt: torch.Tensor) -> float:
    """Prefills as anybody would write them."""
    begun_s = time.perf_counter()
    for _ in range(PREFILLS):
        logits = model(prompt, use_cache=True, logits_to_keep=1).logits[:, -1]
        logits.argmax(dim=-1, keepdim=True)
    return time.perf_counter() - begun_s


@torch.inference_mode()
def bare_decode_s(model: Any, prompt: torch.Tensor) -> float:
    """The decode steps of one request as anybody would write them."""
    output = model(prompt, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1].argmax(dim=-1, keepdim=True)
    begun_s = time.perf_counter()
    for _ in range(STEPS):
        output = model(token, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1].argmax(dim=-1, keepdim=True)
    return time.perf_counter() - begun_s


@pytest.mark.parametrize("part", ["prefill", "decode"])
def test_measuring_costs_little_beside_the_bare_loop(
    part: str, loaded: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """Time of the work inside a window ÷ time of the bare loop."""
    request = Request(model="m", batch_size=1, prompt_tokens=PROMPT_TOKENS, output_tokens=STEPS + 1, dtype="float32")
    prompt = prompt_token_ids(loaded, 1, PROMPT_TOKENS, seed=0)  # [1, PROMPT_TOKENS]
    work, passes = _work(part, Stepper(loaded), prompt, request), PREFILLS if part == "prefill" else 1
    bank = meters_for("cpu")
    taker = WindowTaker(bank, SteadyClock(), shortest_s=0.0)
    bare_s = bare_prefill_s if part == "prefill" else bare_decode_s
    ratios = []
    for pair in range(PAIRS + 2):
        work.prepare(passes)
        measured_s = taker.take(lambda: work.run(passes)).work_s
        ratio = measured_s / bare_s(loaded.model, prompt)
        if pair >= 2:  # the first ones pay for allocations
            ratios.append(ratio)
    overhead = statistics.median(ratios) - 1
    low, _, high = statistics.quantiles(ratios, n=4)
    with capsys.disabled():
        print(
            f"\n{part}: measured ÷ bare = {1 + overhead:.4f} (quartiles {low:.3f}–{high:.3f}, {PAIRS} pairs);"
            f" bar {1 + OVERHEAD_BAR:.2f}: {'reached' if overhead <= OVERHEAD_BAR else 'MISSED'}"
        )


def _work(part: str, stepper: Stepper, prompt: torch.Tensor, request: Request) -> Work:
    if part == "prefill":
        return PrefillWork(stepper, lambda _: prompt, request)
    return DecodeWork(stepper, lambda _: prompt, request, context_tokens=PROMPT_TOKENS, steps=STEPS)


def test_help_answers_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Wall time of ``python -m harness.run --help``, beside that of an empty Python."""
    root = Path(__file__).resolve().parents[1]
    help_s = [_wall_s([sys.executable, "-m", "harness.run", "--help"], root) for _ in range(7)]
    empty_s = [_wall_s([sys.executable, "-c", "pass"], root) for _ in range(7)]
    median_s = statistics.median(help_s)
    with capsys.disabled():
        print(
            f"\n--help: {median_s:.3f} s, {median_s / statistics.median(empty_s):.1f} × an empty Python;"
            f" bar {HELP_BAR_S} s: {'reached' if median_s < HELP_BAR_S else 'MISSED'}"
        )


def _wall_s(command: list[str], root: Path) -> float:
    begun_s = time.perf_counter()
    subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun_s
