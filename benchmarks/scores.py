"""How well the reference predictor predicts what it was not trained on, beside its rivals and the bars.

    python -m benchmarks.scores --data DIR … --seeds 5 --out docs/scores.json --page docs/scores.md

Trains one predictor for each split and seed: hours with five seeds on two cores; ``--quick`` takes a fifth of the
kernels, short trainings and one seed. Scores already in --out stay where they are not computed again, so that a long
run can be done in parts (``--only``, ``--first-seed``), also at the same time into several files (``--join``).
Datasets are those that ``python -m harness.convert`` writes of public sources.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from benchmarks.scores_page import page
from benchmarks.scores_records import Scores, read_json, write_json
from benchmarks.scores_summary import lines
from harness.errors import HarnessError, UsageError
from predictor.kernel_training import KernelSettings, kernel_batches
from predictor.pass_training import PassSettings
from predictor.score_table import placed, read_lines, table
from predictor.training import Lessons, TrainSettings, gather

if TYPE_CHECKING:
    from benchmarks.scores_kernels import Found
    from benchmarks.scores_networks import Shelf

_SECTIONS: Final = ("kernels", "requests")
_NO_RIVALS: Final = (
    "lightgbm and scikit-learn are not installed here, so there are no rivals to score beside.\n"
    "Install them: pip install lightgbm scikit-learn. Pages are written from existing scores without them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is computed."""

    kernels_per_gpu: int
    batch: int  # of kernels: a network takes thousands of steps, of fewer rows where there are fewer
    epochs: int
    left_out_epochs: int
    steps: int
    servers: int
    folds: int


QUICK = Size(kernels_per_gpu=100_000, batch=512, epochs=8, left_out_epochs=4, steps=500, servers=400, folds=4)
FULL = Size(kernels_per_gpu=500_000, batch=2048, epochs=16, left_out_epochs=6, steps=1200, servers=800, folds=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score, write and print; 2 for what cannot be read or written."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        found = _previous(options)
        if options.data:
            found = _scored(options, found)
        _write(options, found)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(lines(found)))
    return 0


def _previous(options: argparse.Namespace) -> Scores:
    found = Scores(settings={}, folds=(), scores=())
    for path in (options.out, *options.join):
        if path.is_file():
            found = found.joined(read_json(path))
    return found


def _scored(options: argparse.Namespace, found: Scores) -> Scores:
    if any(importlib.util.find_spec(name) is None for name in ("lightgbm", "sklearn")):
        raise UsageError(_NO_RIVALS)
    from benchmarks.scores_networks import Shelf

    begun_s = time.perf_counter()

    def told(text: str) -> None:
        print(f"{time.perf_counter() - begun_s:6.0f} s  {text}", file=sys.stderr, flush=True)

    size = _size(options)
    settings = TrainSettings(most_kernels_per_gpu=size.kernels_per_gpu, allow_unlicensed=True)
    lessons = gather(options.data, settings, told)
    if lessons.kernels is None:
        raise UsageError("There are no kernels measured alone in these datasets.\nAdd aiconfigurator.")
    data = kernel_batches(lessons.kernels)
    seeds = options.seeds or (1 if options.quick else 5)
    for seed in range(options.first_seed, options.first_seed + seeds):
        shelf = Shelf(
            examples=lessons.kernels,
            data=data,
            settings=KernelSettings(epochs=size.epochs, batch=size.batch, seed=seed),
            left_out_epochs=size.left_out_epochs,
            told=told,
            stored=options.checkpoint,
        )
        for part in _parts(options, size, lessons, shelf, seed):
            found = found.joined(Scores(settings=_told_settings(size), folds=part.folds, scores=part.scores))
            _write(options, found)
    return found


def _parts(options: argparse.Namespace, size: Size, lessons: Lessons, shelf: "Shelf", seed: int) -> Iterator["Found"]:
    from benchmarks.rivals_kernels import RIVALS
    from benchmarks.rivals_requests import REQUEST_RIVALS
    from benchmarks.scores_kernels import score_kernels
    from benchmarks.scores_requests import RequestPlan, pool_of, score_requests

    with_rivals = seed < options.rival_seeds
    if "kernels" in options.only:
        yield score_kernels(shelf, RIVALS if with_rivals else ())
    if "requests" in options.only:
        plan = RequestPlan(
            passes=replace(PassSettings(), steps=size.steps),
            folds=size.folds,
            intervals=seed == 0,
            rivals=REQUEST_RIVALS if with_rivals else (),
        )
        yield from score_requests(pool_of(lessons, most=size.servers), shelf, plan)


def _told_settings(size: Size) -> dict[str, str]:
    return {
        "kernels": f"at most {size.kernels_per_gpu:,} of each GPU, by a hash of their shapes; "
        f"{size.epochs} epochs of batches of {size.batch:,}, "
        f"{size.left_out_epochs} where a GPU is left out",
        "requests": f"{size.steps} steps; at most {size.servers:,} runs of a source that is only trained on, by a hash",
        "families of models": "each left out alone" if size.folds == 0 else f"left out in {size.folds} groups",
        "intervals": "of requests with seed 0 only",
    }


def _write(options: argparse.Namespace, found: Scores) -> None:
    write_json(found, options.out, lines(found))
    found, every = read_json(options.out), read_lines(options.out)  # rounded, as all who read the file see them
    if options.page is not None:
        options.page.write_text(page(found), encoding="utf-8")
    for path in options.into:
        path.write_text(placed(path.read_text(encoding="utf-8"), table(every)), encoding="utf-8")


def _size(options: argparse.Namespace) -> Size:
    size = QUICK if options.quick else FULL
    given = {name: getattr(options, name) for name in Size.__slots__ if getattr(options, name) is not None}
    return replace(size, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scores",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, nargs="+", metavar="DIR", help="datasets; without: write pages again")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="scores as JSON; those in it are kept")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page to write")
    parser.add_argument("--into", type=Path, nargs="+", metavar="FILE", default=[], help="pages with a marked table")
    parser.add_argument("--join", type=Path, nargs="+", metavar="FILE", default=[], help="more scores to put beside")
    parser.add_argument("--quick", action="store_true", help="fewer kernels, short trainings, fewer groups of models")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many (5; with --quick 1)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first of them (0)")
    parser.add_argument("--rival-seeds", type=int, default=5, metavar="N", help="seeds with rivals (5)")
    parser.add_argument("--only", nargs="+", choices=_SECTIONS, default=list(_SECTIONS), help="parts to score")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the trainings (1)")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights of a kernel network trained on the training side of the split by shapes, instead of training it",
    )
    for name in Size.__slots__:
        default = f"({getattr(FULL, name):,}; with --quick {getattr(QUICK, name):,})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=default)
    return parser


if __name__ == "__main__":
    sys.exit(main())
