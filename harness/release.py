"""``python -m harness.release``: dataset folders into a release that others can load, cite and check.

Nothing heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser
from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer

if TYPE_CHECKING:
    from harness.dataset.release.hub import Pushed, Target
    from harness.dataset.release.record import ReleaseRecord
    from harness.dataset.release.terms import Inclusion
    from harness.dataset.release.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    folders: tuple[Path, ...]
    version: str
    out: Path | None  # null: named after the version and what is included
    include: str | None
    since: Path | None
    changes: tuple[str, ...]
    date: date
    url: str | None
    push: str | None
    branch: str | None
    pull_request: bool
    private: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    if given.push is None and (given.branch or given.pull_request or given.private):
        raise UsageError("--branch, --pull-request and --private say how to push.\nAdd --push OWNER/NAME.")
    if given.branch and given.pull_request:
        raise UsageError("--branch and --pull-request exclude each other.\nLeave one out.")
    return Options(
        folders=tuple(given.folders),
        version=given.version,
        out=given.out,
        include=given.include,
        since=given.since,
        changes=tuple(given.changes),
        date=given.date or datetime.now(UTC).date(),
        url=given.url,
        push=given.push,
        branch=given.branch,
        pull_request=given.pull_request,
        private=given.private,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.release",
        description="Make a release of dataset folders: checked, merged, sorted by GPU, with card, Croissant, "
        "datasheet, citation, changes and licence. Simulated, estimated, quick, failed and unlicensed runs are left "
        "out unless --include names them.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="dataset folders: campaigns, imports, earlier releases; "
        "a release of this version alone, with --push: push it as it is",
    )
    add("--version", required=True, metavar="X.Y.Z", help="semantic version of the release")
    add("--out", type=Path, metavar="REL", help="new folder (default: joulegraph-dataset-X.Y.Z and the words included)")
    add(
        "--include",
        metavar="WORDS",
        help="also runs that are simulated, estimated, quick, failed or unlicensed: one or more, with commas; "
        "title, card and file names then say so",
    )
    add("--since", type=Path, metavar="OLDREL", help="the release this one continues: none of its runs may be missing")
    add("--changes", action="append", default=[], metavar="TEXT", help="a line for the change log; may be repeated")
    add("--date", type=_day, metavar="YYYY-MM-DD", help="date of the release (default: today, UTC)")
    add("--url", metavar="URL", help="where it is published (default: with --push its page on the Hub)")
    push = parser.add_argument_group(
        "publishing on the Hugging Face Hub", "Never to main: people load that by default."
    )
    push.add_argument("--push", metavar="OWNER/NAME", help="upload it to this dataset repository")
    push.add_argument("--branch", metavar="NAME", help="to this new branch (default: release-X.Y.Z)")
    push.add_argument("--pull-request", action="store_true", help="as a pull request")
    push.add_argument("--private", action="store_true", help="a repository that does not exist yet becomes private")
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no date: write 2026-11-30") from None


def _run(options: Options) -> int:
    from harness.dataset.release.terms import Inclusion, read_inclusions
    from harness.dataset.release.version import Version

    version = Version.read(options.version)
    included = read_inclusions(options.include) if options.include is not None else frozenset[Inclusion]()
    _refuse_to_publish(options, included)
    target = _target(options, version=str(version))
    output = Forgiving(sys.stdout)
    folder = _made_before(options, version=str(version))
    if folder is None:
        folder = _make(options, version, included, output)
    if target is not None:
        pushed = _push(folder, target, version=str(version))
        output.write(f"{pushed.files} files pushed: {pushed.address}\n")
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(f"Not everything could be printed: {output.failure.strerror}.\nThe release is complete.")
    return 0


def _made_before(options: Options, *, version: str) -> Path | None:
    """A release that is only to be pushed: it is named itself, with its own version and no other folder."""
    from harness.dataset.release.record import RECORD, read_record

    if options.push is None or options.out is not None or len(options.folders) != 1:
        return None
    (folder,) = options.folders
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder)
    _refuse_to_publish(options, record.included)
    return folder if record.version == version else None


def _refuse_to_publish(options: Options, included: "Collection[Inclusion]") -> None:
    from harness.dataset.release.terms import Inclusion

    if Inclusion.UNLICENSED in included and options.push and not options.private:
        raise UsageError(
            "Runs whose source states no licence must not be published.\nPush to a --private repository, or make a "
            "release without --include unlicensed."
        )


def _make(options: Options, version: "Version", included: "frozenset[Inclusion]", output: Forgiving) -> Path:
    from harness.dataset.release.hub import dataset_url
    from harness.dataset.release.releasing import Wanted, release
    from harness.dataset.release.titles import folder_name

    out = options.out or Path(folder_name(str(version), tuple(included)))
    wanted = Wanted(
        folders=options.folders,
        out=out,
        version=version,
        date=options.date,
        included=included,
        since=options.since,
        changes=options.changes,
        url=options.url or (dataset_url(options.push) if options.push else None),
    )
    record = release(wanted)
    output.writelines(f"{line}\n" for line in _lines(out, record))
    output.flush()
    return out


def _target(options: Options, *, version: str) -> "Target | None":
    """Where to push, checked before anything is made."""
    if options.push is None:
        return None
    from harness.dataset.release.hub import Target

    branch = None if options.pull_request else options.branch or f"release-{version}"
    return Target(repository=options.push, branch=branch, private=options.private)


def _push(folder: Path, target: "Target", *, version: str) -> "Pushed":
    from harness.dataset.release.hub import push

    return push(folder, target, message=f"Release {version}")


def _lines(out: Path, record: "ReleaseRecord") -> Iterator[str]:
    """What was made, for people."""
    from harness.dataset.release.facts import collect_facts
    from harness.dataset.release.titles import title

    facts = collect_facts(out)
    yield f"{out}: {title(facts)}, version {record.version}"
    for size in facts.tables:
        if size.rows:
            yield f"  {size.table.title:<16} {size.rows:>12,} rows in {size.files} files, {size.size_bytes:,} bytes"
    for left in record.left_out:
        yield f"  left out: {left.runs:,} runs that need --include {','.join(left.needs)}"


if __name__ == "__main__":
    sys.exit(main())
