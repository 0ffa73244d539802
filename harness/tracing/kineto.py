"""Traces that torch.profiler saved on a GPU: every device kernel with the operator that launched it.

``python -m harness.tracing.kineto TRACE`` shows what was matched and what was not, where the time went, and what
communication cost. ``read_trace`` gives the same to a program, and ``harness.tracing.launches`` turns it into the rows
of the ``kernels`` table. Traces are untrusted: sizes are limited and every value is checked. Nothing here loads torch.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import number_up_to
from harness.errors import HarnessError, RunError
from harness.streams import Forgiving, speak_any_encoding
from harness.tracing.kineto_events import parse
from harness.tracing.kineto_file import LARGEST_JSON_BYTES, json_bytes
from harness.tracing.kineto_links import linked
from harness.tracing.kineto_records import DeviceTrace
from harness.tracing.kineto_summary import collective_groups, matching, stream_times, times_by_kind
from harness.tracing.kineto_tables import (
    NAME_WIDTH,
    collective_table,
    kind_table,
    percent,
    show,
    stream_table,
    table,
)
from harness.units import si

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 20  # groups of unmatched kernels; the JSON has all


def read_trace(path: Path, *, largest_json_bytes: int = LARGEST_JSON_BYTES) -> DeviceTrace:
    """Read a trace, plain or gzip. Raises UsageError without such a file, CorruptFile where it is no whole trace.

    A trace of the host alone has no kernels and is no error here.
    """
    return linked(parse(json_bytes(path, largest_json_bytes), path.name), path.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    speak_any_encoding()
    try:
        trace = read_trace(options.trace, largest_json_bytes=options.largest_mib * 1024**2)
        if not trace.kernels:
            raise RunError(
                f"{options.trace} holds no device kernel: only the host was recorded, or another profiler held the "
                "GPU's counters.\nRecord it with ProfilerActivity.CUDA."
            )
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    output = Forgiving(sys.stdout)
    if options.json:
        output.write(_json(trace) + "\n")
    else:
        _show(trace, output)
    output.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.tracing.kineto",
        description="Show which operators launched the device kernels of a trace saved by torch.profiler.",
    )
    parser.add_argument("trace", type=Path, metavar="TRACE", help="Chrome trace JSON, plain or gzip")
    parser.add_argument("--json", action="store_true", help="print JSON with all groups instead of tables")
    parser.add_argument(
        "--largest-mib",
        type=number_up_to(2**20),
        default=LARGEST_JSON_BYTES // 1024**2,
        metavar="N",
        help="largest JSON read, unpacked (default: %(default)s MiB)",
    )
    return parser


def _json(trace: DeviceTrace) -> str:
    matched = matching(trace)
    return json.dumps(
        {
            "trace": trace.name,
            "rank": trace.rank,
            "world_size": trace.world_size,
            "matching": asdict(matched) | {"share": matched.share},
            "kinds": [asdict(time) for time in times_by_kind(trace)],
            "collectives": [asdict(group) for group in collective_groups(trace)],
            "streams": [asdict(time) for time in stream_times(trace)],
        },
        indent=2,
    )


def _show(trace: DeviceTrace, output: Forgiving) -> None:
    tables = (_matching_table, _unmatched_table, kind_table, collective_table, stream_table)
    show((make(trace) for make in tables), output)


def _matching_table(trace: DeviceTrace) -> "Table":
    found = matching(trace)
    counts = (
        ("device kernels, copies and fills", found.kernels),
        ("with the runtime call that launched them", found.with_runtime),
        ("with an operator", found.with_operator),
        ("  by external id", found.by_external_id),
        ("  by time nesting", found.by_nesting),
        ("collectives", found.collectives),
    )
    rows = [(name, f"{count:,}", percent(count / found.kernels)) for name, count in counts]
    of_rank = "" if trace.rank is None else f" (rank {trace.rank} of {trace.world_size})"
    return table(f"{trace.name}{of_rank}: matching", ("", "count", "share"), rows)


def _unmatched_table(trace: DeviceTrace) -> "Table":
    groups = matching(trace).unmatched
    title = "without an operator, by name and reason"
    if len(groups) > _SHOWN:
        title += f": {_SHOWN} of {len(groups)}, the longest"
    rows = [
        (group.name[:NAME_WIDTH], f"{group.count:,}", si(group.duration_s, "s"), group.why, (group.inside or "–")[:40])
        for group in groups[:_SHOWN]
    ]
    return table(title, ("kernel", "count", "time", "why", "launched in"), rows)


if __name__ == "__main__":
    sys.exit(main())
