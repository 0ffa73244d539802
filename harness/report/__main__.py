"""Write the page about an existing dataset folder again."""

import argparse
import sys
from pathlib import Path

from harness.errors import HarnessError
from harness.streams import Forgiving, speak_any_encoding


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    from harness.report.page import REPORT_NAME, write_report  # not before --help: it takes a second

    speak_any_encoding()
    try:
        page = write_report(options.folder, options.out or options.folder / REPORT_NAME)
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    output = Forgiving(sys.stdout)
    output.write(f"{page}\n")
    output.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.report",
        description="Write the page about a dataset folder: one HTML file that opens anywhere, offline.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="dataset folder, as named with --out of harness.run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: DIR/report.html)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
