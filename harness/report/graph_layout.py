"""Where to draw the kernels of a graph: layers from top to bottom by longest path, few crossings, nothing overlapping.

Sugiyama's method: kernels get a row by the longest path to them, edges that span several rows get a place in each of
them, the order within a row comes from the mean of the neighbours, and x from a least-squares fit that keeps order and
distance. Each part of the graph (``Segment``) has rows of its own, so that a frame fits around a repeated layer.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.report.graph_columns import columns
from harness.report.graph_order import Item, ordered
from harness.report.graph_segments import Segment
from harness.tracing.graph import Edge

_MARGIN = 8.0
_ARROW_GAP = 15.0  # between rows whose edges run straight
_LARGEST_GAP = 40.0
_STRIP = 34.0  # at the top of a frame, for its title
_FRAME_SIDE = 14.0
_FRAME_GAP = 16.0
_CHARACTER = 7.8  # of a frame's title: monospace, bold, 12 px, and a little room


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Width and height of a node in px."""

    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle, in px from the top left corner of the drawing."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower side."""
        return self.y + self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """The straight vertical part of an edge in one row; between rows it bends."""

    x: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way of an edge, row by row downwards."""

    edge: Edge
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The box around a segment; the title starts at ``title_x``, where no edge passes."""

    segment: Segment
    box: Box
    title_x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A drawing: nodes in the graph's order."""

    width: float
    height: float
    nodes: tuple[Box, ...]
    routes: tuple[Route, ...]
    frames: tuple[Frame, ...]


def lay_out(sizes: Sequence[Size], edges: Sequence[Edge], parts: Sequence[Segment]) -> Layout:
    """Lay out the nodes of a graph; ``edges`` lead to nodes of larger index, ``parts`` cover all nodes in order."""
    row_of = _rows(edges, parts)
    rows = _Rows(sizes, edges, row_of)
    levels = _levels(rows, parts, row_of)
    nodes = tuple(rows.box(index, levels[row_of[index]]) for index in range(len(sizes)))
    routes = tuple(Route(edge=edge, legs=rows.legs(edge, levels, nodes)) for edge in edges)
    frames = tuple(_frame(part, row_of, rows, levels, routes) for part in parts if part.title is not None)
    return _shifted(nodes, routes, frames)


def _rows(edges: Sequence[Edge], parts: Sequence[Segment]) -> list[int]:
    """The row of each node: longest path within its part, parts below one another."""
    sources, targets = defaultdict(list), defaultdict(list)
    for edge in edges:
        sources[edge.target].append(edge.source)
        targets[edge.source].append(edge.target)
    row_of: list[int] = []
    first = 0
    for part in parts:
        for node in range(part.start, part.end):
            above = [row_of[source] for source in sources[node] if source >= part.start]
            # What reads nothing that is drawn starts beside the kernel that was launched just before it.
            beside = row_of[node - 1] if node > part.start else first
            row_of.append(max(above) + 1 if above else beside)
        for node in range(part.end - 1, part.start, -1):  # what waits for nothing comes just before it is needed
            below = [row_of[target] for target in targets[node] if target < part.end]
            if below and not sources[node]:
                row_of[node] = min(below) - 1
        first = max(row_of[part.start : part.end]) + 1
    return row_of


class _Rows:
    """The items of each row with their x; an edge is an item of every row that it passes."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[Edge], row_of: Sequence[int]) -> None:
        self._sizes = sizes
        self._row_of = row_of
        chains = [self._chain(edge) for edge in edges]
        nodes = [self._node(node) for node in range(len(sizes))]
        # Edges of one source share their way, so what they pass is there once.
        items = dict.fromkeys([*nodes, *(item for chain in chains for item in chain)])
        links = tuple(dict.fromkeys(link for chain in chains for link in pairwise(chain)))
        rows: list[list[Item]] = [[] for _ in range(max(row_of) + 1)]
        for item in items:
            rows[item.row].append(item)
        self.items = ordered(rows, links)
        self.x = columns(self.items, links)
        self._shift = [0.0] * len(rows)
        for upper, lower in links:
            self._shift[upper.row] = max(self._shift[upper.row], abs(self.x[upper] - self.x[lower]))

    def _chain(self, edge: Edge) -> list[Item]:
        first, last = self._row_of[edge.source], self._row_of[edge.target]
        passing = (Item(row=row, node=edge.source, width=0.0) for row in range(first + 1, last))
        return [self._node(edge.source), *passing, self._node(edge.target)]

    def _node(self, node: int) -> Item:
        return Item(row=self._row_of[node], node=node, width=self._sizes[node].width)

    def height(self, row: int) -> float:
        """That of the tallest node."""
        return max((self._sizes[item.node].height for item in self.items[row] if item.width), default=0.0)

    def gap_below(self, row: int) -> float:
        """Room for the bends of the edges between a row and the next."""
        shift = self._shift[row]
        return _ARROW_GAP if shift < 1 else min(_LARGEST_GAP, _ARROW_GAP + 5 + 0.1 * shift)

    def box(self, node: int, level: "_Level") -> Box:
        """Where a node is: in the middle of its row."""
        size, x = self._sizes[node], self.x[self._node(node)]
        y = level.top + (level.bottom - level.top - size.height) / 2
        return Box(x=x - size.width / 2, y=y, width=size.width, height=size.height)

    def legs(self, edge: Edge, levels: Sequence["_Level"], nodes: Sequence[Box]) -> tuple[Leg, ...]:
        """The vertical parts of an edge."""
        legs = []
        for item in self._chain(edge):
            level = levels[item.row]
            top = nodes[edge.source].bottom if item.row == self._row_of[edge.source] else level.enter
            bottom = nodes[edge.target].y if item.row == self._row_of[edge.target] else level.leave
            legs.append(Leg(x=self.x[item], top=top, bottom=bottom))
        return tuple(legs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Heights of a row: nodes are between ``top`` and ``bottom``, edges are vertical from ``enter`` to ``leave``."""

    enter: float
    top: float
    bottom: float
    leave: float


def _levels(rows: _Rows, parts: Sequence[Segment], row_of: Sequence[int]) -> list[_Level]:
    firsts = {row_of[part.start] for part in parts if part.title}
    lasts = {max(row_of[part.start : part.end]) for part in parts if part.title}
    levels: list[_Level] = []
    y = 0.0
    for row in range(len(rows.items)):
        enter = y + (_FRAME_GAP if row in firsts and row else 0.0)
        top = enter + (_STRIP if row in firsts else 0.0)
        bottom = top + rows.height(row)
        leave = bottom + (_FRAME_SIDE if row in lasts else 0.0)
        levels.append(_Level(enter=enter, top=top, bottom=bottom, leave=leave))
        y = leave + rows.gap_below(row) + (_FRAME_GAP if row in lasts else 0.0)
    return levels


def _frame(
    part: Segment, row_of: Sequence[int], rows: _Rows, levels: Sequence[_Level], routes: Sequence[Route]
) -> Frame:
    first, last = row_of[part.start], max(row_of[part.start : part.end])
    inside = [(rows.x[item], item.width) for row in range(first, last + 1) for item in rows.items[row]]
    left = min(x - width / 2 for x, width in inside) - _FRAME_SIDE
    right = max(x + width / 2 for x, width in inside) + _FRAME_SIDE
    top = levels[first].enter
    passing = sorted({leg.x for route in routes for leg in route.legs if leg.top <= top < leg.bottom})
    title_x = _free_x(passing, left + 10, _CHARACTER * len(part.title or ""))
    right = max(right, title_x + _CHARACTER * len(part.title or "") + 10)
    return Frame(
        segment=part,
        box=Box(x=left, y=top, width=right - left, height=levels[last].leave - top),
        title_x=title_x,
    )


def _free_x(passing: Sequence[float], start: float, width: float) -> float:
    """The first x from ``start`` on from which ``width`` is free of edges."""
    for x in passing:
        if x - start >= width:
            break
        start = max(start, x + 8)
    return start


def _shifted(nodes: tuple[Box, ...], routes: tuple[Route, ...], frames: tuple[Frame, ...]) -> Layout:
    """The same drawing with its top left corner at the origin."""
    boxes = [*nodes, *(frame.box for frame in frames)]
    xs = [leg.x for route in routes for leg in route.legs]
    left = _MARGIN - min([box.x for box in boxes] + xs)
    top = _MARGIN - min(box.y for box in boxes)
    return Layout(
        width=left + max([box.right for box in boxes] + xs) + _MARGIN,
        height=top + max(box.bottom for box in boxes) + _MARGIN,
        nodes=tuple(_moved(box, left, top) for box in nodes),
        routes=tuple(
            Route(
                edge=route.edge,
                legs=tuple(Leg(x=leg.x + left, top=leg.top + top, bottom=leg.bottom + top) for leg in route.legs),
            )
            for route in routes
        ),
        frames=tuple(
            Frame(segment=frame.segment, box=_moved(frame.box, left, top), title_x=frame.title_x + left)
            for frame in frames
        ),
    )


def _moved(box: Box, right: float, down: float) -> Box:
    return Box(x=box.x + right, y=box.y + down, width=box.width, height=box.height)
