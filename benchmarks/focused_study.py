"""How many runs focused sampling saves: ``python -m benchmarks.focused_study --write docs/focused.md``.

Campaigns are played from requests that have been measured: those of co2-meter (public, not part of this repository;
left out where ``--co2-meter`` is not there), and those of two virtual GPUs, which are measured here first. Each way of
choosing requests gets the same model, refitted after every round, and is scored on the same held-out requests of the
trace. Takes about four minutes on two cores.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.focused_cells import VIRTUAL, Cell, co2_meter_cells, virtual_cell
from benchmarks.focused_curves import Way, errors
from benchmarks.focused_page import Curves, page

_FIRST_SEED = 100  # those below were used to choose constants
_CO2_METER = Path(__file__).resolve().parents[2] / "shared" / "data" / "co2-meter"


def main(arguments: Sequence[str]) -> int:
    """Print the page, and write it."""
    options = _arguments(arguments)
    begun_s = time.perf_counter()
    cells: list[Cell] = []
    for gpu, model in VIRTUAL:
        cells.append(virtual_cell(gpu, model, runs=options.virtual_runs, seed=options.seed))
        print(f"{cells[-1].name}: measured after {time.perf_counter() - begun_s:.0f} s", file=sys.stderr)
    left_out = None
    if options.co2_meter.is_dir():
        cells += co2_meter_cells(options.co2_meter)
    else:
        left_out = "The measurements of co2-meter are not on this machine, so they are left out."
        print(left_out, file=sys.stderr)
    curves = [_curves(cell, options.seeds) for cell in cells]
    text = page(curves, seeds=options.seeds, virtual_runs=options.virtual_runs, left_out=left_out)
    print(text)
    print(f"{time.perf_counter() - begun_s:.0f} s", file=sys.stderr)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
    return 0


def _curves(cell: Cell, seeds: int) -> Curves:
    return Curves(
        cell=cell,
        errors={way: tuple(errors(cell, way, seed) for seed in range(_FIRST_SEED, _FIRST_SEED + seeds)) for way in Way},
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.focused_study", description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="campaigns of each way in each cell (default 12)")
    parser.add_argument(
        "--virtual-runs", type=int, default=240, help="requests of the trace measured on each virtual GPU"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the virtual GPUs and their requests")
    parser.add_argument("--co2-meter", type=Path, metavar="DIR", default=_CO2_METER, help="its raw data")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
