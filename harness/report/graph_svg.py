"""The kernel graph as SVG: hand-written, no scripts, colours by CSS classes."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise

from harness.kernels import KernelKind
from harness.report.graph_layout import Box, Frame, Layout, Route, Size, lay_out
from harness.report.graph_names import brief_shape, describe, kernel_name, op_name, request_text
from harness.report.graph_segments import segments
from harness.report.text import percent, plain
from harness.tracing.placement import PlacedGraph, PlacedKernel
from harness.units import si

_CHARACTER = 6.65  # width of one in the nodes' monospace font, 11 px; the widest such fonts have 0.602 em
_LONGEST_NAME = 26
_NARROWEST = 104.0
_PADDING = 8.0
_SMALL, _LARGE = 22.0, 46.0  # heights
_LARGE_SHARE = 0.01  # from here on a node has a second line and a bar
_SHOWN_SHARE = 0.0005
_HEADING = 58.0  # height of the title of a drawing that stands alone
_SPACE = 48.0  # between the drawings of a prefill and a decode
_LEGEND_ROW = 20.0
_ARROW = 8.0  # length of an edge's straight end


def drawing_css() -> str:
    """Style of the drawings; it has light and dark colours."""
    return files("harness.report").joinpath("graph.css").read_text(encoding="utf-8")


def graph_layout(placed: PlacedGraph) -> Layout:
    """The layout of a placed graph."""
    parts = segments(placed.graph)
    repeats = [part.repeats for part in parts for _ in range(part.start, part.end)]
    sizes = [_size(kernel, times) for kernel, times in zip(placed.kernels, repeats, strict=True)]
    return lay_out(sizes, placed.graph.edges, parts)


def graph_svg(placed: PlacedGraph) -> str:
    """One graph as an ``<svg>`` element for a page that has the style already."""
    layout = graph_layout(placed)
    title = escape(f"Kernel graph of {plain(placed.graph.model)}, {placed.graph.phase}")
    size = f'width="{layout.width:.0f}" height="{layout.height:.0f}"'
    return (
        f'<svg class="graph" {size} viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" role="group" '
        f'aria-label="{title}">{_drawing(placed, layout, "")}</svg>'
    )


def standalone_svg(placed: Sequence[PlacedGraph], *, gpu: str) -> str:
    """One or two graphs side by side as an SVG file: title, legend, style inside, nothing fetched."""
    layouts = [graph_layout(graph) for graph in placed]
    kinds = [kind for kind in KernelKind if any(graph.graph.of_kind(kind) for graph in placed)]
    widths = [max(layout.width, 430.0) for layout in layouts]
    width = sum(widths) + _SPACE * (len(layouts) - 1)
    legend, legend_height = _legend(kinds, width)
    top = _HEADING + legend_height
    height = top + max(layout.height for layout in layouts)
    parts, x = [], 0.0
    for number, (graph, layout, room) in enumerate(zip(placed, layouts, widths, strict=True)):
        parts.append(_heading(graph, x, gpu))
        shift = x + (room - layout.width) / 2
        parts.append(f'<g transform="translate({shift:.1f} {top:.1f})">{_drawing(graph, layout, f"-{number}")}</g>')
        x += room + _SPACE
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph alone" {size}>\n<style>{drawing_css()}</style>\n'
        f'<rect class="paper" width="100%" height="100%"/>\n{"".join(parts)}{legend}</svg>\n'
    )


def _heading(placed: PlacedGraph, x: float, gpu: str) -> str:
    graph = placed.graph
    lines = (
        (22, "heading", f"{plain(graph.model)} · {graph.phase}"),
        (40, "note", request_text(graph)),
        (54, "note", f"Roofline bound {si(placed.time_s, 's')}, not measured · {gpu}"),
    )
    return "".join(f'<text class="{name}" x="{x + 8:.1f}" y="{y}">{escape(text)}</text>' for y, name, text in lines)


def _legend(kinds: Sequence[KernelKind], width: float) -> tuple[str, float]:
    x, y, parts = 8.0, _HEADING + 14, []
    for kind in kinds:
        room = 24 + _CHARACTER * len(kind)
        if x + room > width and x > 8:
            x, y = 8.0, y + _LEGEND_ROW
        parts.append(f'<rect class="fill {kind}" x="{x:.1f}" y="{y - 10:.1f}" width="12" height="12" rx="2"/>')
        parts.append(f'<text class="name" x="{x + 17:.1f}" y="{y:.1f}">{kind}</text>')
        x += room
    return f'<g class="legend">{"".join(parts)}</g>', y - _HEADING + 10


def _drawing(placed: PlacedGraph, layout: Layout, suffix: str) -> str:
    """Frames first, then edges, titles, and nodes on top."""
    arrow = f"arrow{suffix}-{placed.graph.phase}"
    repeats = {
        index: frame.segment.repeats
        for frame in layout.frames
        for index in range(frame.segment.start, frame.segment.end)
    }
    most = max(kernel.share for kernel in placed.kernels)
    return "\n".join(
        (
            f'<defs><marker id="{arrow}" class="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5L8 4L0 7.5Z"/></marker></defs>',
            *(_frame(frame) for frame in layout.frames),
            *(_edge(route, arrow) for route in layout.routes),
            *(_title(frame) for frame in layout.frames),
            *(
                _node(index, kernel, box, repeats.get(index, 1), most)
                for index, (kernel, box) in enumerate(zip(placed.kernels, layout.nodes, strict=True))
            ),
        )
    )


def _size(placed: PlacedKernel, repeats: int) -> Size:
    characters = len(kernel_name(placed.kernel, _LONGEST_NAME)) + len(_count_text(placed, repeats))
    characters += len(_share_text(placed)) + 1
    large = placed.share >= _LARGE_SHARE
    if large:
        characters = max(characters, len(brief_shape(placed.kernel)))
    return Size(
        width=max(_NARROWEST, _CHARACTER * characters + 2 * _PADDING + 4),
        height=_LARGE if large else _SMALL,
    )


def _count_text(placed: PlacedKernel, repeats: int) -> str:
    """Launches per run of the frame."""
    times = placed.kernel.launches // repeats
    return f" ×{times}" if times > 1 else ""


def _share_text(placed: PlacedKernel) -> str:
    return percent(placed.share) if placed.share >= _SHOWN_SHARE else ""


def _frame(frame: Frame) -> str:
    return f'<rect class="frame" {_corners(frame.box)} rx="10"/>'


def _title(frame: Frame) -> str:
    title = escape(plain(frame.segment.title))
    return f'<text class="frame-title" x="{frame.title_x:.1f}" y="{frame.box.y + 21:.1f}">{title}</text>'


def _edge(route: Route, arrow: str) -> str:
    """Vertical through rows, curved between them, and straight into the arrow."""
    first, last = route.legs[0], route.legs[-1]
    path = [f"M{first.x:.1f} {first.top:.1f}"]
    for leg, following in pairwise(route.legs):
        if abs(leg.x - following.x) < 0.05:
            continue
        end = min(following.top, last.bottom - _ARROW) if following is last else following.top
        if leg.bottom > first.top:
            path.append(f"V{leg.bottom:.1f}")
        middle = (leg.bottom + end) / 2
        path.append(f"C{leg.x:.1f} {middle:.1f} {following.x:.1f} {middle:.1f} {following.x:.1f} {end:.1f}")
    path.append(f"V{last.bottom:.1f}")
    ends = f'data-source="{route.edge.source}" data-target="{route.edge.target}"'
    return f'<path class="edge" {ends} d="{"".join(path)}" marker-end="url(#{arrow})"/>'


def _node(index: int, placed: PlacedKernel, box: Box, repeats: int, most: float) -> str:
    kernel = placed.kernel
    op = op_name(kernel.op)
    name = kernel_name(kernel, _LONGEST_NAME)
    module = name.removesuffix(op).rstrip() if name.endswith(op) else ""
    large = placed.share >= _LARGE_SHARE
    baseline = box.y + (18 if large else 15)
    left, right = box.x + _PADDING + 4, box.right - _PADDING
    text = f'<tspan class="module">{escape(module)} </tspan>' if module else ""
    parts = [
        f'<rect class="node" {_corners(box)} rx="5"/>',
        f'<path class="fill {kernel.kind}" d="{_stripe(box)}"/>',
        f'<text class="name" x="{left:.1f}" y="{baseline:.1f}">{text}{escape(op)}{_count_text(placed, repeats)}</text>',
        f'<text class="share" x="{right:.1f}" y="{baseline:.1f}">{_share_text(placed)}</text>',
    ]
    if large:
        parts.append(f'<text class="shape" x="{left:.1f}" y="{box.y + 33:.1f}">{escape(brief_shape(kernel))}</text>')
        length = (right - left) * placed.share / most
        bar = _corners(Box(x=left, y=box.y + 38, width=length, height=4))
        parts.append(f'<rect class="fill {kernel.kind}" {bar} rx="1.5"/>')
    title = escape(describe(placed))
    return (
        f'<g class="kernel" data-kernel="{index}" tabindex="0" role="img" aria-label="{title}">'
        f"<title>{title}</title>{''.join(parts)}</g>"
    )


def _corners(box: Box) -> str:
    return f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'


def _stripe(box: Box) -> str:
    """The coloured left side of a node, with its rounded corners."""
    x, y, bottom = box.x, box.y, box.bottom
    corner, side = x + 5, x + 6
    return (
        f"M{corner:.1f} {y:.1f}H{side:.1f}V{bottom:.1f}H{corner:.1f}Q{x:.1f} {bottom:.1f} {x:.1f} {bottom - 5:.1f}"
        f"V{y + 5:.1f}Q{x:.1f} {y:.1f} {corner:.1f} {y:.1f}Z"
    )
