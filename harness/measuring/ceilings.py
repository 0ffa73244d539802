"""What this CPU can do, probed: a hardware table of all CPUs would be out of date the day it was written."""

import time
from collections.abc import Callable

import torch

from harness.measuring.attribution import Ceilings

_PROBE_S = 0.15
_SIDE = 1024  # large enough for full speed, small enough for a quarter second on two slow cores
_COPIED_BYTES = 128 * 1024**2  # several times the last-level cache of common machines


def probe_cpu(dtype: str, threads: int = 0) -> Ceilings:
    """FLOP/s of a square matrix product and bytes/s of a large copy, on ``threads`` threads (0: torch's default).

    The best of the repeats that fit in 0.15 s each; a copy reads and writes every byte.
    """
    if threads:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        left = torch.randn(_SIDE, _SIDE).to(getattr(torch, dtype))  # [side, side]
        source = torch.ones(_COPIED_BYTES // 4)  # [n] float32
        target = torch.empty_like(source)
        product_s = _fastest_s(lambda: left @ left)
        copy_s = _fastest_s(lambda: target.copy_(source))
    return Ceilings(
        flop_per_s=_two_digits(2 * _SIDE**3 / product_s), bytes_per_s=_two_digits(2 * _COPIED_BYTES / copy_s)
    )


def _two_digits(rate: float) -> float:
    """A probe repeats to a few percent; more digits would make every run a machine of its own."""
    return float(f"{rate:.2g}")


def _fastest_s(work: Callable[[], object]) -> float:
    work()
    fastest_s, begun_s = float("inf"), time.perf_counter()
    while time.perf_counter() - begun_s < _PROBE_S:
        start_s = time.perf_counter()
        work()
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
    return fastest_s
