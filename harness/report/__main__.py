"""Write the page about an existing dataset folder again, with grams of CO2 if a grid intensity is given."""

import argparse
import sys
from pathlib import Path

from harness.carbon import AVERAGE_PUE, CarbonFactors, GridIntensity, Pue, Stated, parse_stated
from harness.errors import HarnessError, UsageError
from harness.streams import Forgiving, speak_any_encoding


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    from harness.report.page import REPORT_NAME, write_report  # not before --help: it takes a second

    speak_any_encoding()
    try:
        page = write_report(options.folder, options.out or options.folder / REPORT_NAME, _carbon(options))
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    output = Forgiving(sys.stdout)
    output.write(f"{page}\n")
    output.flush()
    return 0


def _carbon(options: argparse.Namespace) -> CarbonFactors | None:
    """The factors asked for; None without an intensity. Raises ``UsageError`` for what cannot be."""
    if options.grid_intensity is None:
        given = [name for name in ("pue", "grid_source", "grid_date") if getattr(options, name) is not None]
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} means nothing without the intensity of the grid.\n"
                "Add --grid-intensity, for example --grid-intensity 56±10 (gCO2e per kWh)."
            )
        return None
    grid = GridIntensity(
        g_per_kwh=options.grid_intensity,
        source=options.grid_source or "given on the command line, source not stated",
        date=options.grid_date,
    )
    pue = options.pue
    return CarbonFactors(
        grid=grid, pue=AVERAGE_PUE if pue is None else Pue(ratio=pue, source="given on the command line")
    )


def _stated(text: str) -> Stated:
    """A number of the command line, whose error argparse shows in full."""
    try:
        return parse_stated(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.report",
        description="Write the page about a dataset folder: one HTML file that opens anywhere, offline.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="dataset folder, as named with --out of harness.run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: DIR/report.html)")
    carbon = parser.add_argument_group("carbon", "Without an intensity the page shows joules only.")
    carbon.add_argument(
        "--grid-intensity",
        type=_stated,
        metavar="G",
        help="average gCO2e per kWh of the grid where and when the runs were made, with the half width of its 95 %% "
        "interval: 56±10 (or 56+-10)",
    )
    carbon.add_argument("--grid-source", metavar="TEXT", help="who says so; it is shown beside the grams")
    carbon.add_argument("--grid-date", metavar="TEXT", help="what it is the average of: 2025, 2026-11-24, an hour")
    carbon.add_argument(
        "--pue",
        type=_stated,
        metavar="RATIO",
        help="energy of the data centre over that of its machines, 1.2 or 1.2±0.05 "
        f"(default: {AVERAGE_PUE.ratio.value:g}; {AVERAGE_PUE.source})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
