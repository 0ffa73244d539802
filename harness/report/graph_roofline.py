"""The Roofline plot of a graph as SVG: hand-written, no scripts, colours by CSS classes."""

import math
from collections.abc import Iterator
from html import escape

from harness.report.graph_names import describe
from harness.report.graph_plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Dot, Label, RooflinePlot, roof_text
from harness.tracing.placement import PlacedGraph
from harness.units import si


def roofline_svg(placed: PlacedGraph) -> str:
    """The plot as an ``<svg>`` element for a page that has the style of drawings; every kernel with FLOP is a dot.

    Empty where no kernel has FLOP.
    """
    if not placed.graph.flop:
        return ""
    plot = RooflinePlot(placed)
    parts = (*_axes(plot), *_roofs(plot), *map(_dot, plot.dots), *map(_label, plot.labels))
    name = escape(f"Roofline plot of {placed.graph.phase} on {placed.hardware.name}")
    return (
        f'<svg class="roofline" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="group" aria-label="{name}">'
        f"{''.join(parts)}</svg>"
    )


def _axes(plot: RooflinePlot) -> Iterator[str]:
    for power in plot.x_axis.ticks():
        x = plot.x(10.0**power)
        yield f'<path class="grid" d="M{x:.1f} {TOP}V{BOTTOM}"/>'
        yield f'<text class="tick middle" x="{x:.1f}" y="{BOTTOM + 16}">{10.0**power:g}</text>'
    for power in plot.y_axis.ticks():
        y = plot.y(10.0**power)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        yield f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{si(10.0**power, "").rstrip()}</text>'
    middle = (LEFT + RIGHT) / 2
    yield f'<text class="axis middle" x="{middle}" y="{HEIGHT - 8}">arithmetic intensity, FLOP per byte</text>'
    yield '<text class="axis" x="6" y="14">FLOP/s at best</text>'


def _roofs(plot: RooflinePlot) -> Iterator[str]:
    highest = plot.roofs[-1]
    # The slope starts at the left side of the plot, or where it enters through the bottom.
    lowest = max(plot.x_axis.value(0), plot.y_axis.value(0) / plot.bytes_per_s)
    foot = (plot.x(lowest), plot.y(lowest * plot.bytes_per_s))
    top = (plot.x(highest.ridge), plot.y(highest.flop_per_s))
    yield f'<path class="roof" d="M{foot[0]:.1f} {foot[1]:.1f}L{top[0]:.1f} {top[1]:.1f}H{RIGHT}"/>'
    for roof in plot.roofs:
        y = plot.y(roof.flop_per_s)
        if roof is not highest:
            yield f'<path class="roof lower" d="M{plot.x(roof.ridge):.1f} {y:.1f}H{RIGHT}"/>'
        text, text_y = escape(roof_text(roof)), plot.roof_text_y(roof)
        yield f'<text class="roof-text end" x="{RIGHT}" y="{text_y:.1f}">{text}</text>'
    angle = math.degrees(math.atan2(top[1] - foot[1], top[0] - foot[0]))
    x, y = (foot[0] + top[0]) / 2, (foot[1] + top[1]) / 2
    yield (
        f'<text class="roof-text middle" transform="translate({x:.1f} {y:.1f}) rotate({angle:.1f})" y="-8">'
        f"memory {si(plot.bytes_per_s, 'B/s')}</text>"
    )


def _dot(dot: Dot) -> str:
    return (
        f'<circle class="dot fill {dot.placed.kernel.kind}" data-kernel="{dot.index}" cx="{dot.x:.1f}" '
        f'cy="{dot.y:.1f}" r="{dot.radius:.1f}"><title>{escape(describe(dot.placed))}</title></circle>'
    )


def _label(label: Label) -> str:
    return f'<text class="label" x="{label.x:.1f}" y="{label.y:.1f}">{escape(label.text)}</text>'
