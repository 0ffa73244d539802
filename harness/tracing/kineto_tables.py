"""Tables of device traces for people: where the time went, by kind, collective and stream."""

from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, cast

from harness.streams import Forgiving
from harness.tracing.kineto_records import DeviceTrace
from harness.tracing.kineto_summary import collective_groups, stream_times, times_by_kind
from harness.units import si

if TYPE_CHECKING:
    from rich.table import Table

NAME_WIDTH = 60
_WORDS = frozenset(
    {"", "kernel", "why", "launched in", "kind", "collective", "source", "phase", "pass", "module"}
)  # columns of text


def show(tables: Iterable["Table"], output: Forgiving) -> None:
    """Print those tables that have rows."""
    from rich.console import Console  # not before --help

    console = Console(
        file=cast("IO[str]", output), highlight=False, markup=False, width=None if output.isatty() else 140
    )
    for each in tables:
        if each.row_count:
            console.print(each)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """A table whose cells come from a file: none of them may steer the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(_printable(title)), title_justify="left", box=box.SIMPLE)
    for column in columns:
        made.add_column(Text(column), overflow="fold", justify="left" if column in _WORDS else "right")
    for row in rows:
        made.add_row(*(Text(_printable(cell)) for cell in row))
    return made


def kind_table(trace: DeviceTrace) -> "Table":
    """Time by kind of kernel."""
    rows = [
        (time.kind.value, f"{time.kernels:,}", si(time.duration_s, "s"), percent(time.share))
        for time in times_by_kind(trace)
    ]
    return table("time by kind (each kernel for itself)", ("kind", "kernels", "time", "share"), rows)


def collective_table(trace: DeviceTrace) -> "Table":
    """What was communicated, as far as the trace says."""
    rows = [
        (
            group.name[:NAME_WIDTH],
            f"{group.count:,}",
            "?" if group.ranks is None else str(group.ranks),
            "?" if group.size_bytes is None else si(group.size_bytes, "B"),
            f"{group.with_bytes:,}",
            si(group.duration_s, "s"),
            "?" if group.bus_bytes_per_s is None else si(group.bus_bytes_per_s, "B/s"),
            f"bytes: {group.bytes_source or 'not stated'}; ranks: {group.ranks_source or 'not stated'}",
        )
        for group in collective_groups(trace)
    ]
    columns = ("collective", "count", "ranks", "bytes", "with bytes", "time", "bus bandwidth ≥", "source")
    return table("collectives (time includes waiting for other ranks)", columns, rows)


def stream_table(trace: DeviceTrace) -> "Table":
    """How busy each device and stream was, and how much communication was hidden."""
    rows = [
        (
            f"{'?' if time.device is None else time.device} / {'all' if time.stream is None else time.stream}",
            f"{time.kernels:,}",
            si(time.busy_s, "s"),
            si(time.communication_s, "s"),
            si(time.hidden_s, "s"),
            percent(time.hidden_s / time.communication_s if time.communication_s else None),
        )
        for time in stream_times(trace)
    ]
    columns = ("device / stream", "kernels", "busy", "communicating", "of it while computing", "hidden")
    return table("streams", columns, rows)


def percent(share: float | None) -> str:
    """A share of 1; a dash where there is none."""
    return "–" if share is None else f"{share:.2%}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
