"""``python -m harness.submit DIR --lab NAME``: your measurements into the public dataset.

Checks the folder, writes one file with what will be published, shows it, and opens a pull request; without network it
says how to do that by hand. Nothing heavy is imported before the command line has been understood, so ``--help``
answers at once.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser
from harness.errors import CannotWrite, DatasetError, UsageError
from harness.streams import Forgiving, answer

if TYPE_CHECKING:
    from harness.dataset.contributions.offering import Offer, Repository
    from harness.dataset.contributions.submitting import Prepared, Submission

_EPILOG = "A rehearsal without a GPU: harness.run --reference-pack --device virtual:a100-sxm, then --include simulated."


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    folder: Path
    pack: Path | None
    lab: str
    contact: str | None
    gpu: str | None
    hide: tuple[str, ...]
    include: frozenset[str]
    out: Path
    repository: str | None
    offline: bool
    yes: bool


def main(arguments: Sequence[str] | None = None, *, hub: "Repository | None" = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised. ``hub`` is for tests."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments), hub))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    out: Path = given.out
    if not (out if out.is_dir() else out.parent).is_dir():
        raise UsageError(f"--out {out} is in no folder.\nName a folder that exists, or a file in one.")
    return Options(
        folder=given.folder,
        pack=given.pack,
        lab=given.lab,
        contact=given.contact,
        gpu=given.gpu,
        hide=tuple(given.hide),
        include=read_include(given.include),
        out=out,
        repository=given.repository,
        offline=given.offline,
        yes=given.yes,
    )


def read_include(text: str) -> frozenset[str]:
    """Read ``simulated,quick``; raises ``UsageError`` for other words."""
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    unknown = sorted(words - {"simulated", "quick"})
    if unknown:
        raise UsageError(f"--include {unknown[0][:40]!r} is not known.\nWrite simulated, quick or both.")
    return words


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.submit",
        description="Check a dataset folder, write what can be published of it as one file, and offer it.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="dataset folder that harness.run wrote")
    add("--lab", required=True, metavar="NAME", help="the name under which you publish, such as green-lab")
    add("--pack", type=Path, metavar="DIR", help="folder of the reference pack, if DIR does not hold it")
    add("--gpu", metavar="NAME", help="the device, if DIR holds several")
    add("--contact", metavar="TEXT", help="how to reach you; it is published")
    add("--hide", nargs="+", default=[], metavar="WORD", help="words to remove beside what is removed anyway")
    add("--include", default="", metavar="WORDS", help="simulated, quick: for rehearsals; no public dataset takes them")
    add("--out", type=Path, default=Path(), metavar="FILE", help="file or folder for the bundle (default: here)")
    add("--repository", metavar="OWNER/NAME", help="dataset on the Hugging Face Hub to open a pull request on")
    add("--offline", action="store_true", help="write the bundle and say what to do with it")
    add("--yes", action="store_true", help="do not ask before the pull request is opened")
    return parser


def _run(options: Options, hub: "Repository | None") -> int:
    from harness.dataset.contributions.identity import this_machine
    from harness.dataset.contributions.offering import HubRepository, offer_of, steps_by_hand
    from harness.dataset.contributions.submitting import prepare

    prepared = prepare(_submission(options), this_machine(options.hide))
    output = Forgiving(sys.stdout)
    output.writelines(f"{line}\n" for line in _lines(prepared))
    output.flush()
    offer = offer_of(prepared.written.path, prepared.written.bundle)
    if options.offline or options.repository is None:
        output.writelines(f"{line}\n" for line in ("", *steps_by_hand(offer, options.repository)))
    elif not options.yes and not _agreed(output, options.repository):
        output.write("Nothing was sent. The bundle stays where it is.\n")
    else:
        address = _opened(hub or HubRepository(name=options.repository), offer, options.repository, output)
        output.write(f"pull request  {address}\n")
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(f"Not everything could be printed: {output.failure.strerror}.\nThe bundle is written.")
    return 0


def _submission(options: Options) -> "Submission":
    from harness.dataset.contributions.submitting import Submission

    return Submission(
        folders=(options.folder, *([] if options.pack is None else [options.pack])),
        lab=options.lab,
        contact=options.contact,
        gpu=options.gpu,
        include=options.include,
        out=options.out,
    )


def _opened(hub: "Repository", offer: "Offer", repository: str, output: Forgiving) -> str:
    from harness.dataset.contributions.offering import steps_by_hand

    try:
        return hub.open_pull_request(offer)
    except DatasetError:
        output.writelines(f"{line}\n" for line in ("", *steps_by_hand(offer, repository)))
        output.flush()
        raise


def _agreed(output: Forgiving, repository: str) -> bool:
    """Whether somebody at a terminal says yes; where nobody is asked, nobody has."""
    if not sys.stdin.isatty():
        output.write("Nobody can be asked here; add --yes to open the pull request.\n")
        return False
    output.write(f"Open a pull request with this on {repository}? [y/N] ")
    output.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _lines(prepared: "Prepared") -> Iterator[str]:
    """What will be published, and what will not."""
    bundle, chosen = prepared.written.bundle, prepared.chosen
    yield f"bundle  {prepared.written.path} ({prepared.written.size_bytes / 1e6:.2f} MB)"
    yield f"by      {bundle.lab}{'' if bundle.contact is None else f', {bundle.contact}'}, under CC-BY-4.0"
    yield f"on      {bundle.gpu}"
    yield "\nPublished"
    yield from (f"  {file.table.title:<16} {file.rows:>10,} rows" for file in bundle.files)
    provenances = sorted({run.provenance.value for run in chosen.runs})
    yield f"  energies are {', '.join(provenances)}"
    machines = (
        f"  machine: {row.device_name}, {row.cpu}, {row.os}, driver {row.driver or '–'}, torch {row.torch}"
        for row in prepared.environments
    )
    yield from dict.fromkeys(machines)
    yield "\nLeft out or replaced"
    yield from (f"  {each.runs} runs: {each.reason}" for each in chosen.left_out)
    yield from (f"  {kind}: in {count} texts" for kind, count in sorted(prepared.written.removed.items()))
    yield "  ids of devices, campaigns and runs: hashed with the name of the lab"
    for warning in prepared.warnings:
        yield f"  ! {warning.rule}: {warning.reason}"


if __name__ == "__main__":
    sys.exit(main())
