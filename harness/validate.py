"""``python -m harness.validate DIR``: whether a dataset folder can be trusted, each doubt with its place and remedy.

Nothing heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.arguments import Parser
from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer

_SEVERITIES = ("error", "warning", "note")
_WIDEST = 120
_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    folder: Path | None  # None: the rules are asked for, not a dataset
    reference: Path | None
    fail_on: str
    json: bool
    markdown: bool
    memory_bytes: int | None  # None: the default


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    if given.rules == (given.folder is not None):
        raise UsageError("Name the dataset folder to validate, or ask for --rules.\nOne of the two, not both.")
    if given.markdown and not given.rules:
        raise UsageError("--markdown is for --rules.\nUse --json for a report that programs read.")
    if given.json and given.rules:
        raise UsageError("--json is for the report on a dataset.\nThe rules come as text, or with --markdown.")
    return Options(
        folder=given.folder,
        reference=given.reference,
        fail_on=given.fail_on,
        json=given.json,
        markdown=given.markdown,
        memory_bytes=given.memory,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.validate",
        description="Whether a dataset folder can be trusted: files, keys, physics, provenance, statistics.",
        epilog="Exit code: 0 if nothing as bad as --fail-on was found, 1 if something was, or nothing can be read, "
        "2 for a command line that makes no sense.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="DIR", help="folder of a campaign, a release or an import")
    add("--reference", type=Path, metavar="DIR", help="another dataset, whose comparable runs these are held against")
    add("--fail-on", choices=_SEVERITIES, default="error", help="what makes the exit code 1 (default: error)")
    add("--json", action="store_true", help="print the report as one JSON object")
    add("--rules", action="store_true", help="print all rules, with tolerances and remedies, instead")
    add("--markdown", action="store_true", help="with --rules: as the page docs/validation.md")
    add("--memory", type=_memory, metavar="SIZE", help="for sorting and joining, e.g. 500MB (default: 1GB)")
    return parser


def _memory(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})(MB|GB|MiB|GiB)", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no size: write 500MB or 2GiB")
    return int(match[1]) * _UNITS[match[2]]


def _run(options: Options) -> int:
    output = Forgiving(sys.stdout)
    width = min(_WIDEST, shutil.get_terminal_size((100, 24)).columns)
    if options.folder is None:
        failed = _print_rules(output, options, width)
    else:
        failed = _print_report(output, options, options.folder, width)
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(
            f"Not everything could be printed: {output.failure.strerror}.\nFree space, or print elsewhere."
        )
    return int(failed)


def _print_rules(output: Forgiving, options: Options, width: int) -> bool:
    from harness.dataset.validation.wording import rules_markdown, rules_text

    output.write(rules_markdown() if options.markdown else rules_text(width=width))
    return False


def _print_report(output: Forgiving, options: Options, folder: Path, width: int) -> bool:
    from harness.dataset.validation.check import MEMORY_BYTES, validate
    from harness.dataset.validation.findings import Severity
    from harness.dataset.validation.wording import report_json, report_text

    report = validate(folder, memory_bytes=options.memory_bytes or MEMORY_BYTES, reference=options.reference)
    output.write(report_json(report) if options.json else report_text(report, width=width))
    return report.fails(Severity(options.fail_on))


if __name__ == "__main__":
    sys.exit(main())
