"""How far from the truth the joules are, on random virtual GPUs.

    python -m benchmarks.joules --write docs/joules.md

Every machine is measured as ``harness.run`` measures a run, with meters, windows and loops that know nothing of the
truth, and every number is held against what the machine really used. All machines are measured twice: with a sensor
whose gain and offset are off, for the intervals, and with one that is exact in both, for the errors: no software can
see a gain, it is stated as a systematic half width. Naive methods read the same exact machines.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from benchmarks.joules_case import CaseResult, score
from benchmarks.joules_machines import Case
from benchmarks.joules_table import bars_of, page_of, rows_of

MACHINES = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Score all cases, print the table, and write page and figures; 1 where a bar is missed."""
    options = _parser().parse_args(arguments)
    results = list(_progress(score_all(options.machines, options.seed, options.processes), 2 * options.machines))
    rows = rows_of(results)
    for row in rows:
        print(f"{row.quantity:70}  {row.bar:>24}  {row.found:>28}  {row.verdict}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], default=str))
    if options.write is not None:
        options.write.write_text(page_of(results, rows))
    return 0 if all(bar.met for bar in bars_of(rows)) else 1


def score_all(machines: int, seed: int, processes: int) -> Iterator[CaseResult]:
    """Every machine twice, inexact and exact; in order."""
    cases = [Case(number=n, seed=seed, exact=exact) for n in range(machines) for exact in (False, True)]
    if processes == 1:
        yield from map(score, cases)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(score, cases)


def _progress(results: Iterator[CaseResult], whole: int) -> Iterator[CaseResult]:
    for number, result in enumerate(results, start=1):
        if sys.stderr.isatty() or number % 20 == 0:
            print(f"{number}/{whole}", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
        yield result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joules", description=__doc__, allow_abbrev=False)
    parser.add_argument("--machines", type=int, default=MACHINES, metavar="N", help=f"random machines ({MACHINES})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is random (0)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="at once (as many as there are cores)"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="page to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every number, for looking closer")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
