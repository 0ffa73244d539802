"""What the predictor's parts are worth: ``python -m benchmarks.ablations --data DIR… --out docs/ablations.md``.

Variants of the pass model (``benchmarks.ablation_models``) are fitted to the same measured runs with the same splits,
and scored on what was left out. The kernel network is that of a checkpoint, learned from kernels measured alone; it is
the same for all variants. Takes about an hour on two cores.
"""

import argparse
import hashlib
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.ablation_data import Lessons, Split, lessons_of, splits
from benchmarks.ablation_models import Variant, drawn, fitted, fitted_figures
from benchmarks.ablation_page import page
from benchmarks.ablation_scores import Outcome, cells, outcome
from predictor.checkpoint import SHIPPED, read_checkpoint

_HELD: list[Lessons] = []  # what worker processes inherit: more than should travel to each


def main(arguments: Sequence[str]) -> int:
    """Print the page, and write it."""
    options = _arguments(arguments)
    begun_s = time.perf_counter()
    lessons = lessons_of(options.data, read_checkpoint(options.checkpoint).kernels)
    _say(f"{len(lessons.runs)} runs as graphs", begun_s)
    every = list(splits(lessons))
    outcomes: list[Outcome] = []
    for number, found in enumerate(fits(lessons, every, seeds=options.seeds, steps=options.steps, jobs=options.jobs)):
        outcomes.extend(found)
        _say(f"{number + 1} of {len(every)}: {every[number].task}", begun_s)
    text = page(
        list(cells(lessons, every, outcomes)),
        seeds=options.seeds,
        steps=options.steps,
        kernels=named(options.checkpoint),
    )
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


def named(checkpoint: Path) -> str:
    """A checkpoint by its content."""
    return f"`{checkpoint.name}`, SHA-256 {hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16]}"


def fits(lessons: Lessons, every: Sequence[Split], *, seeds: int, steps: int, jobs: int) -> Iterator[list[Outcome]]:
    """What came of each split, in order."""
    context = multiprocessing.get_context("fork")
    numbers = range(len(every))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(lessons,)) as workers:
        yield from workers.map(_outcomes, every, numbers, [seeds] * len(every), [steps] * len(every))


def _begin(lessons: Lessons) -> None:
    torch.set_num_threads(1)
    _HELD[:] = [lessons]


def _outcomes(split: Split, number: int, seeds: int, steps: int) -> list[Outcome]:
    """All variants and seeds on one split."""
    lessons = _HELD[0]
    learned, scored = lessons.some(split.learned), lessons.some(split.scored)
    figures = fitted_figures(learned)
    found = []
    for seed in range(seeds):
        pieces = drawn(learned, seed)
        for variant in Variant:
            if seed and variant is Variant.PHYSICS:  # nothing in it is drawn
                continue
            model = fitted(variant, learned, pieces, figures, seed=seed, steps=steps)
            found.append(outcome(lessons, model.sums(scored), split, number=number, variant=variant, seed=seed))
    return found


def _say(text: str, begun_s: float) -> None:
    print(f"{time.perf_counter() - begun_s:6.0f} s  {text}", file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", metavar="DIR", required=True, help="dataset folders with runs")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", default=SHIPPED, help="whose kernels (the shipped)")
    parser.add_argument("--seeds", type=int, default=5, help="fits of each variant on each split (default 5)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each fit of a correction (default 300)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
