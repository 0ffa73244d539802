"""SQLite exports of Nsight Systems: every device kernel with the phase, step and module it was launched for.

A second source of kernel timelines beside torch's (``harness.tracing.kineto``). Record a worker and export the report:

    nsys profile --trace=cuda,nvtx --cuda-graph-trace=node -o run COMMAND
    nsys export --type sqlite -o run.sqlite run.nsys-rep
    python -m harness.tracing.nsys run.sqlite

A kernel's correlation id names the runtime call that launched it, within its process; the NVTX ranges around that call
on its thread are the kernel's place. ``read_export`` gives the same to a program, and ``harness.tracing.nsys_places``
the rows of the ``kernels`` table. Exports are untrusted. Nothing here loads torch.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import number_up_to
from harness.errors import HarnessError
from harness.streams import Forgiving, speak_any_encoding
from harness.tracing.kineto_summary import collective_groups, stream_times, times_by_kind
from harness.tracing.kineto_tables import (
    NAME_WIDTH,
    collective_table,
    kind_table,
    percent,
    show,
    stream_table,
    table,
)
from harness.tracing.nsys_export import MOST_EVENTS, NsysExport, NsysProcess, read_export
from harness.tracing.nsys_file import LARGEST_FILE_BYTES
from harness.tracing.nsys_places import PlaceTime, placed, times_by_place, unplaced_groups
from harness.units import si

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 40  # rows of a table; the JSON has all
_SHOWN_UNPLACED = 20


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    speak_any_encoding()
    try:
        export = read_export(
            options.export, largest_bytes=options.largest_mib * 1024**2, most_events=options.most_events
        )
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    output = Forgiving(sys.stdout)
    if options.json:
        output.write(_json(export) + "\n")
    else:
        show(_tables(export), output)
    output.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.tracing.nsys",
        description="Show the phases, steps and modules that the device kernels of an Nsight Systems report belong to.",
    )
    parser.add_argument("export", type=Path, metavar="FILE", help="what nsys export --type sqlite wrote")
    parser.add_argument("--json", action="store_true", help="print JSON with all groups instead of tables")
    parser.add_argument(
        "--largest-mib",
        type=number_up_to(2**20),
        default=LARGEST_FILE_BYTES // 1024**2,
        metavar="N",
        help="largest file read (default: %(default)s MiB)",
    )
    parser.add_argument(
        "--most-events",
        type=number_up_to(10**9),
        default=MOST_EVENTS,
        metavar="N",
        help="kernels, calls and ranges held in memory at most (default: %(default)s)",
    )
    return parser


def _json(export: NsysExport) -> str:
    return json.dumps(
        {
            "export": export.name,
            "product_version": export.product_version,
            "schema_version": export.schema_version,
            "gpus": export.gpus,
            "processes": [
                {
                    "process_id": process.process_id,
                    "name": process.name,
                    "rank": process.trace.rank,
                    "split_ranges": process.split_ranges,
                    "whole_graphs": process.whole_graphs,
                    "placed": asdict(placed(process.trace)),
                    "unplaced": [asdict(group) for group in unplaced_groups(process.trace)],
                    "kernels": [asdict(time) for time in times_by_place(process.trace)],
                    "kinds": [asdict(time) for time in times_by_kind(process.trace)],
                    "collectives": [asdict(group) for group in collective_groups(process.trace)],
                    "streams": [asdict(time) for time in stream_times(process.trace)],
                }
                for process in export.processes
            ],
        },
        indent=2,
    )


def _tables(export: NsysExport) -> "Iterator[Table]":
    for process in export.processes:
        yield _placed_table(export, process)
        yield _unplaced_table(process)
        yield _place_table(process)
        for make in (kind_table, collective_table, stream_table):
            yield make(process.trace)


def _placed_table(export: NsysExport, process: NsysProcess) -> "Table":
    found = placed(process.trace)
    counts = [
        ("device kernels, copies and fills", found.kernels),
        ("with the runtime call that launched them", found.with_call),
        ("in a run of the harness", found.in_run),
        ("  in a phase", found.in_phase),
        ("  in a decode step", found.in_step),
        ("  in a traced pass", found.in_trace),
        ("  in a module", found.in_module),
        ("collectives", found.collectives),
    ]
    if process.whole_graphs:
        counts.append(("CUDA graphs without their kernels: record with --cuda-graph-trace=node", process.whole_graphs))
    rows = [(name, f"{count:,}", percent(count / found.kernels)) for name, count in counts]
    if process.split_ranges:
        rows.append(("NVTX ranges not used: begun and ended on different threads", f"{process.split_ranges:,}", "–"))
    return table(f"{export.name}, {_who(process)}: places", ("", "count", "share"), rows)


def _who(process: NsysProcess) -> str:
    rank = "" if process.trace.rank is None else f", rank {process.trace.rank}"
    return f"process {process.process_id}{rank}"


def _unplaced_table(process: NsysProcess) -> "Table":
    groups = unplaced_groups(process.trace)
    rows = [
        (group.name[:NAME_WIDTH], f"{group.count:,}", si(group.duration_s, "s"), group.why, (group.inside or "–")[:40])
        for group in groups[:_SHOWN_UNPLACED]
    ]
    title = _shortened("without a phase, by name and reason", len(groups), _SHOWN_UNPLACED)
    return table(title, ("kernel", "count", "time", "why", "launched in"), rows)


def _place_table(process: NsysProcess) -> "Table":
    times = times_by_place(process.trace)
    title = _shortened("time by phase, module and kernel", len(times), _SHOWN)
    columns = ("phase", "pass", "module", "kernel", "kind", "launches", "time", "share")
    return table(title, columns, map(_place_row, times[:_SHOWN]))


def _place_row(time: PlaceTime) -> tuple[str, ...]:
    return (
        time.phase or "–",
        "traced" if time.traced else "–",
        time.module or "–",
        time.name[:NAME_WIDTH],
        time.kind.value,
        f"{time.launches:,}",
        si(time.duration_s, "s"),
        percent(time.share),
    )


def _shortened(title: str, groups: int, shown: int) -> str:
    return f"{title}: {shown} of {groups}, the longest" if groups > shown else title


if __name__ == "__main__":
    sys.exit(main())
