"""Zeus and codecarbon beside our meter, on one driver whose truth is known.

    python -m benchmarks.zeus_comparison --write docs/zeus.md

Takes about twelve minutes: the loads are run through in real time, because that is what Zeus and codecarbon read. Needs
gcc, and Zeus, which nothing else here does: ``tox -e zeus`` installs it. Everything is simulated.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.zeus_driver import build_library, library_first
from benchmarks.zeus_records import SCENARIOS, TRIALS, Comparison, Plan
from benchmarks.zeus_table import page_of, text_of
from benchmarks.zeus_windows import compare
from harness.errors import UsageError

NO_ZEUS: Final = (
    "Zeus is not installed here, so there is nothing to compare with.\n"
    "Run `tox -e zeus`, which installs it beside the package and writes docs/zeus.md; it is no dependency of anything "
    "else."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out every scenario, print its table and write the page; 2 where Zeus or gcc is missing."""
    options = _parser().parse_args(arguments)
    if not zeus_is_here():
        print(NO_ZEUS, file=sys.stderr)
        return 2
    try:
        comparisons = _carried_out(options.trials, options.seed)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    if options.write is not None:
        options.write.write_text(page_of(comparisons, trials=options.trials, seed=options.seed), encoding="utf-8")
    return 0


def zeus_is_here() -> bool:
    """Whether the package that measures energy is installed: other packages are imported as ``zeus`` too."""
    try:
        return importlib.util.find_spec("zeus.monitor") is not None and bool(importlib.metadata.version("zeus"))
    except ModuleNotFoundError:  # PackageNotFoundError is one too
        return False


def _carried_out(trials: int, seed: int) -> list[Comparison]:
    from benchmarks.zeus_loads import requests  # heavy, and the processes that measure import this module
    from benchmarks.zeus_machine import plan_of

    found = []
    with TemporaryDirectory() as folder:
        build_library(Path(folder))
        for scenario in SCENARIOS:
            plan = plan_of(scenario, requests, trials=trials, seed=seed)
            print(f"{scenario.name}: {len(plan.loads)} loads in {plan.duration_s:.0f} s …", file=sys.stderr, flush=True)
            found.append(carry_out(plan, Path(folder)))
            print(text_of(found[-1]), flush=True)
    return found


def carry_out(plan: Plan, library: Path) -> Comparison:
    """Measure a plan in a process of its own, which finds the library in that folder first."""
    gpus = library / "gpus.txt"
    with library_first(library, gpus), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(compare, plan, gpus).result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zeus_comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="page to write")
    parser.add_argument("--trials", type=_count, default=TRIALS, metavar="N", help=f"rounds of windows ({TRIALS})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is random (0)")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of rounds: at least 1 is needed")
    return number


if __name__ == "__main__":
    sys.exit(main())
