"""``python -m harness.export``: a dataset in formats that other tools expect.

Nothing heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser
from harness.carbon import (
    AVERAGE_PUE,
    LIFETIME_YEARS,
    CarbonFactors,
    Embodied,
    GridIntensity,
    Pue,
    Stated,
    parse_stated,
)
from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer

if TYPE_CHECKING:
    from harness.dataset.export.leaving import Leaving
    from harness.dataset.export.sci import Scoring
    from harness.dataset.reading import Dataset

FORMATS = ("csv", "jsonl", "boamps", "sci", "eval-results")
_TABLE_FORMATS = ("csv", "jsonl")
_UNITS = ("output-token", "1000-output-tokens", "request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    folder: Path
    format: str
    out: Path
    tables: tuple[str, ...]  # of csv and jsonl; none: all
    include: str | None
    publisher: str
    country: str | None
    unit: str
    grid: GridIntensity | None
    pue: Pue
    embodied: Embodied | None
    benchmark: str | None
    revision: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    if given.format == "sci" and given.grid_intensity is None:
        raise UsageError(
            "The SCI score needs the carbon intensity of the grid, which is not guessed.\n"
            "Add --grid-intensity, for example --grid-intensity 56±10 (gCO2e per kWh)."
        )
    if given.format == "eval-results" and given.benchmark is None:
        raise UsageError("Results on a model's page name the dataset they are of.\nAdd --benchmark OWNER/NAME.")
    if given.table and given.format not in _TABLE_FORMATS:
        raise UsageError(f"--table is for {' and '.join(_TABLE_FORMATS)}.\nLeave it out.")
    return Options(
        folder=given.folder,
        format=given.format,
        out=given.out,
        tables=tuple(given.table),
        include=given.include,
        publisher=given.publisher,
        country=given.country,
        unit=given.unit,
        grid=_grid(given),
        pue=AVERAGE_PUE if given.pue is None else Pue(ratio=given.pue, source="given on the command line"),
        embodied=_embodied(given),
        benchmark=given.benchmark,
        revision=given.revision,
    )


def _grid(given: argparse.Namespace) -> GridIntensity | None:
    if given.grid_intensity is None:
        return None
    source = given.grid_source or "given on the command line, source not stated"
    return GridIntensity(g_per_kwh=given.grid_intensity, source=source, date=given.grid_date)


def _embodied(given: argparse.Namespace) -> Embodied | None:
    if given.embodied_kg is None:
        return None
    mass, years = given.embodied_kg, given.lifetime_years
    if not 0 <= mass.value < 1e6 or not 0.01 <= years.value <= 100:  # false for what is no number
        raise UsageError("--embodied-kg is kgCO2e from 0, --lifetime-years from 0.01 to 100.\nCheck both.")
    relative95 = None if mass.half_width is None or not mass.value else mass.half_width / mass.value
    return Embodied(
        gpu="every device",
        gpu_kg=mass.value,
        server_share_kg=0.0,
        lifetime_years=years.value,
        utilisation=1.0,
        source="given on the command line",
        relative95=relative95,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.export",
        description="A dataset in formats that other tools expect. Tables are written whole; the other formats leave "
        "out simulated, estimated, quick, failed and unlicensed runs unless --include names them, and say so.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="dataset folder or release")
    add(
        "--format",
        required=True,
        choices=FORMATS,
        help="csv and jsonl: tables; boamps: Boavizta's report of each run; sci: the score of ISO/IEC 21031; "
        "eval-results: YAML for the pages of models on the Hub",
    )
    add("--out", type=Path, required=True, metavar="OUT", help="new folder")
    add("--include", metavar="WORDS", help="also runs that are simulated, estimated, quick, failed or unlicensed")
    add("--table", action="append", default=[], metavar="NAME", help="csv, jsonl: this table only; may be repeated")
    report = parser.add_argument_group("boamps")
    report.add_argument("--publisher", default="Joulegraph", metavar="NAME", help="who reports (default: Joulegraph)")
    report.add_argument("--country", metavar="NAME", help="where the runs were made")
    score = parser.add_argument_group("sci")
    score.add_argument("--unit", choices=_UNITS, default=_UNITS[0], help="functional unit (default: output-token)")
    score.add_argument("--grid-intensity", type=_stated, metavar="G", help="gCO2e per kWh, with interval: 56±10")
    score.add_argument("--grid-source", metavar="TEXT", help="who says so")
    score.add_argument("--grid-date", metavar="TEXT", help="what it is the average of: 2025, 2026-11-24")
    score.add_argument(
        "--pue",
        type=_stated,
        metavar="RATIO",
        help=f"1.2 or 1.2±0.05 (default: {AVERAGE_PUE.ratio.value:g}, the average of data centres)",
    )
    score.add_argument(
        "--embodied-kg",
        type=_stated,
        metavar="KG",
        help="kgCO2e of making one device and its share of the server "
        "(default: what is published of the device; without it a run has no score)",
    )
    score.add_argument(
        "--lifetime-years",
        type=_stated,
        default=Stated(value=LIFETIME_YEARS),
        metavar="N",
        help=f"how long it serves, with --embodied-kg (default: {LIFETIME_YEARS:g})",
    )
    results = parser.add_argument_group("eval-results")
    results.add_argument("--benchmark", metavar="OWNER/NAME", help="the dataset on the Hub that the results are of")
    results.add_argument("--revision", metavar="COMMIT", help="its revision")
    return parser


def _stated(text: str) -> Stated:
    """A number of the command line, whose error argparse shows in full."""
    try:
        return parse_stated(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run(options: Options) -> int:
    from harness.dataset.export.writing import check_out
    from harness.dataset.reading import open_dataset

    check_out(options.out)
    dataset = open_dataset(options.folder)
    lines = _tables(options, dataset) if options.format in _TABLE_FORMATS else _runs(options, dataset)
    output = Forgiving(sys.stdout)
    output.writelines(f"{line}\n" for line in lines)
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(f"Not everything could be printed: {output.failure.strerror}.\nThe export is complete.")
    return 0


def _tables(options: Options, dataset: "Dataset") -> Iterator[str]:
    from harness.dataset.export.tables import Lines, export_tables
    from harness.dataset.schema import Table

    known = {table.title: table for table in Table}
    unknown = [name for name in options.tables if name not in known]
    if unknown:
        raise UsageError(f"There is no table {unknown[0][:40]!r}.\nThe tables are {', '.join(known)}.")
    tables = [known[name] for name in options.tables] or list(Table)
    for written in export_tables(dataset, tables, Lines(options.format), options.out):
        yield f"{written.path}: {written.rows:,} rows"


def _runs(options: Options, dataset: "Dataset") -> Iterator[str]:
    from harness.dataset.export.leaving import leaving_runs
    from harness.dataset.release.terms import Inclusion, read_inclusions

    asked = read_inclusions(options.include) if options.include is not None else frozenset[Inclusion]()
    leaving = leaving_runs(dataset, asked)
    if options.format == "sci":
        yield from _sci(options, leaving)
        return
    yield from _reports(options, leaving) if options.format == "boamps" else _results(options, leaving)
    yield from (f"  left out: {runs:,} runs: {reason}" for reason, runs in leaving.stayed.items())


def _reports(options: Options, leaving: "Leaving") -> Iterator[str]:
    from harness.dataset.export.boamps import Reporting, export_boamps

    reporting = Reporting(made_at=datetime.now(UTC), publisher=options.publisher, country=options.country)
    yield f"{options.out}: {len(export_boamps(leaving.runs, reporting, options.out)):,} reports"


def _results(options: Options, leaving: "Leaving") -> Iterator[str]:
    from harness.dataset.export.eval_results import Benchmark, export_eval_results

    benchmark = Benchmark(repository=options.benchmark or "", revision=options.revision)
    yield f"{options.out}: {len(export_eval_results(leaving, benchmark, options.out)):,} results"


def _sci(options: Options, leaving: "Leaving") -> Iterator[str]:
    from harness.dataset.export.sci import FILE, export_sci

    scored = export_sci(leaving, _scoring(options), options.out)
    yield f"{options.out / FILE}: {len(scored.scores):,} scores per {options.unit}"
    yield from (f"  without a score: {runs:,} runs: {reason}" for reason, runs in scored.without.items())


def _scoring(options: Options) -> "Scoring":
    from harness.dataset.export.sci import Scoring, Unit

    if options.grid is None:
        raise UsageError("The SCI score needs --grid-intensity.\nAdd it.")
    factors = CarbonFactors(grid=options.grid, pue=options.pue)
    return Scoring(factors=factors, unit=Unit(options.unit), embodied=options.embodied)


if __name__ == "__main__":
    sys.exit(main())
