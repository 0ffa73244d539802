"""The kernels of a placed graph as a table for terminals, and the sums below it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.report.graph_names import gpu_text, kernel_name, op_name, request_text, shape_name
from harness.report.graph_totals import amount, intensity_text, share_text, totals
from harness.report.text import count, plain, plural
from harness.tracing.placement import PlacedGraph, PlacedKernel
from harness.units import si

FULL_WIDTH = 240  # of output that no terminal shows: nothing is left out there, and no line is broken
_NARROW_NAME = 27


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    title: str
    text: Callable[[PlacedKernel], str]
    number: bool = True
    from_width: int = 0  # of the terminal, from which on there is room for it
    below_width: int = FULL_WIDTH + 1


_COLUMNS = (
    _Column(title="kernel", text=lambda one: kernel_name(one.kernel, _NARROW_NAME), number=False, below_width=130),
    _Column(title="op", text=lambda one: op_name(one.kernel.op), number=False, from_width=130),
    _Column(title="kind", text=lambda one: str(one.kernel.kind), number=False, from_width=96),
    _Column(title="module", text=lambda one: plain(one.kernel.module), number=False, from_width=130),
    _Column(title="shape", text=lambda one: shape_name(one.kernel), number=False, from_width=190),
    _Column(title="launches", text=lambda one: count(one.kernel.launches)),
    _Column(title="FLOP", text=lambda one: amount(one.kernel.flop, "")),
    _Column(title="bytes", text=lambda one: amount(one.kernel.traffic_bytes, "B")),
    _Column(title="FLOP/B", text=lambda one: intensity_text(one.kernel)),
    _Column(title="bound", text=lambda one: str(one.side), number=False),
    _Column(title="time", text=lambda one: si(one.time_s, "s"), from_width=96),
    _Column(title="share", text=lambda one: share_text(one.share)),
)


def graph_table(placed: PlacedGraph, *, top: int, assumed: bool, width: int) -> RenderableType:
    """Heading, the ``top`` kernels with the largest shares (0: all), and sums; fits ``width`` columns from 80 on."""
    columns = [column for column in _COLUMNS if column.from_width <= width < column.below_width]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.number else "left", no_wrap=True, overflow="ellipsis")
    shown = placed.by_share[: top or None]
    for index in shown:
        table.add_row(*(Text(column.text(placed.kernels[index])) for column in columns))
    rest = placed.by_share[len(shown) :]
    share = sum(placed.kernels[index].share for index in rest)
    more = f"{plural(len(rest), 'more kernel')}, {share_text(share)} of the time; --top 0 shows all"
    return Group(_heading(placed, assumed=assumed), table, *([Text(more, style="dim")] if rest else []), _sums(placed))


def _heading(placed: PlacedGraph, *, assumed: bool) -> Text:
    graph = placed.graph
    text = Text()
    text.append(f"{plain(graph.model)} · {graph.phase}\n", style="bold")
    text.append(f"{request_text(graph)}\n")
    text.append(f"{gpu_text(placed.hardware, assumed=assumed)}\n")
    text.append("Times are Roofline bounds, not measurements.\n")
    return text


def _sums(placed: PlacedGraph) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    for total in totals(placed):
        grid.add_row(Text(total.title), Text(total.value, style="bold"), Text(total.note, style="dim"))
    return Group(Text(""), grid, Text(f"graph {placed.graph.graph_id}", style="dim"), Text(""))


def print_graphs(file: IO[str], placed: Sequence[PlacedGraph], *, top: int, assumed: bool) -> None:
    """Print graphs as wide as the terminal is, or in full where the output goes elsewhere."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=FULL_WIDTH)
    for graph in placed:
        console.print(graph_table(graph, top=top, assumed=assumed, width=console.width))
