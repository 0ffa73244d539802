"""``python -m harness.accept BUNDLE --into REL``: a contribution into a release, or the reasons why not.

The bundle is read as what it may be, a stranger's attempt to do harm (see ``harness.dataset.contributions``). Nothing
heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser
from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer
from harness.submit import read_include

if TYPE_CHECKING:
    from harness.dataset.contributions.accepting import Acceptance
    from harness.dataset.contributions.objections import Objection

_SHORTEST_REASON = 10  # characters of a reason that somebody can follow a year later


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    bundle: Path
    release: Path
    version: str | None
    override: str | None
    include: frozenset[str]
    dry_run: bool
    json: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 taken, 1 refused. Expected errors are printed, never raised."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    override: str | None = given.override
    if override is not None and (len(override.strip()) < _SHORTEST_REASON or not override.isprintable()):
        raise UsageError("--override needs the reason, in one line.\nIt is published in the change log of the release.")
    return Options(
        bundle=given.bundle,
        release=given.into,
        version=given.version,
        override=override,
        include=read_include(given.include),
        dry_run=given.dry_run,
        json=given.json,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.accept",
        description="Check a bundle from somebody else as if it were hostile, and add its rows to a release.",
        epilog="Exit code 0: taken (or it would be, with --dry-run); 1: refused. No existing file of rows is changed.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="file that harness.submit wrote")
    add("--into", type=Path, required=True, metavar="REL", help="release folder that harness.release made")
    add("--version", metavar="X.Y.Z", help="of the release with the new rows (default: the next minor one)")
    add("--override", metavar="REASON", help="take runs that are far from comparable ones; published in the change log")
    add("--include", default="", metavar="WORDS", help="simulated, quick: for rehearsals")
    add("--dry-run", action="store_true", help="only check")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _run(options: Options) -> int:
    from harness.dataset.contributions.accepting import Terms, accept

    terms = Terms(
        include=options.include,
        override=options.override,
        version=options.version,
        today=datetime.now(UTC).date(),
        dry_run=options.dry_run,
    )
    done = accept(options.bundle, options.release, terms)
    output = Forgiving(sys.stdout)
    if options.json:
        output.write(json.dumps(_fields(done), indent=2, ensure_ascii=True) + "\n")
    else:
        output.writelines(f"{line}\n" for line in _lines(done, options))
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(f"Not everything could be printed: {output.failure.strerror}.\nThe release is complete.")
    return 1 if done.refused else 0


def _lines(done: "Acceptance", options: Options) -> Iterator[str]:
    bundle = done.bundle
    runs = sum(file.rows for file in bundle.files if file.table.title == "runs")
    yield f"bundle  {_shown(options.bundle.name)}, sha256 {done.sha256}"
    yield f"from    {bundle.lab}{'' if bundle.contact is None else f', {_shown(bundle.contact)}'}"
    yield f"holds   {runs:,} runs on {_shown(bundle.gpu)}"
    if done.comparisons:
        yield f"beside  {len(done.comparisons):,} of them have comparable runs in the release"
    yield from (f"look at {each.rule}: {_shown(each.reason)}" for each in done.warnings)
    if done.refused:
        yield "\nRefused"
        for each in done.refused:
            yield f"  {each.rule}: {_shown(each.reason)}\n    {each.remedy}"
        return
    yield from (f"taken in spite of {each.rule}: {_shown(each.reason)}" for each in done.overridden)
    if options.dry_run:
        yield "\nIt would be taken. Nothing was written."
    elif done.already:
        yield f"\nIts runs are in the release already, version {done.version}; no rows were added."
    elif done.merged is not None:
        yield f"\nTaken. {options.release} is now version {done.version}; new files:"
        yield from (f"  {file.path}  {file.rows:,} rows" for file in done.merged.files)


def _shown(text: str) -> str:
    """Text of a stranger on somebody's terminal: one line, no control sequences, not endless."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:500]


def _fields(done: "Acceptance") -> dict[str, object]:
    return {
        "taken": not done.refused,
        "already": done.already,
        "version": done.version,
        "sha256": done.sha256,
        "lab": done.bundle.lab,
        "gpu": done.bundle.gpu,
        "rows": {file.table.title: file.rows for file in done.bundle.files},
        "files": [] if done.merged is None else [file.path for file in done.merged.files],
        "refused": [_told(each) for each in done.refused],
        "overridden": [_told(each) for each in done.overridden],
        "warnings": [{"rule": each.rule, "reason": each.reason, "remedy": each.remedy} for each in done.warnings],
        "comparisons": [
            {
                "run_id": each.run_id,
                "runs": each.runs,
                "labs": each.labs,
                "energy_ratio": each.energy_ratio,
                "time_ratio": each.time_ratio,
            }
            for each in done.comparisons
        ],
    }


def _told(each: "Objection") -> dict[str, object]:
    return {"rule": each.rule, "reason": each.reason, "remedy": each.remedy, "overridable": each.overridable}


if __name__ == "__main__":
    sys.exit(main())
