"""Places in the Roofline plot: axes, roofs, a dot for every kernel with FLOP, and labels where there is room.

Both axes are logarithmic. A kernel lies on the roof that binds it: on the slope where memory does, on a level where
arithmetic does, below both where a link does. Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.report.graph_names import module_name, op_name
from harness.report.text import percent
from harness.tracing.placement import PlacedGraph, PlacedKernel, is_matrix_product
from harness.units import si

WIDTH, HEIGHT = 560.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, WIDTH - 16.0, 30.0, HEIGHT - 46.0  # of the area between the axes
_SMALLEST, _LARGEST = 3.5, 15.0  # radii; the area is the share
_LABELLED_SHARE = 0.02
_MOST_LABELS = 7
_MOST_NAMES = 2  # in one label
_CHARACTER = 6.4  # width of one in the labels' sans-serif font, 11 px, on the safe side
_ASCENT, _DESCENT = 10.0, 4.0
_SAME_PLACE = 5.0  # px; kernels this near share a label
_FINE_DECADES = 5  # axes that span more have a line every other decade
# How many lines the baseline of a label may be below the middle of its dot; right of it, left of it or under it.
_LINES_DOWN = (0.35, 1.4, 2.0, 2.4, 3.0, 3.5, 4.7, -0.8)
_LINE = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decades:
    """A logarithmic axis from 10 ** low to 10 ** high."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "Decades":
        """The axis that shows all values, with some room above."""
        powers = [math.log10(value) for value in values]
        return cls(low=math.floor(2 * min(powers) - 0.2) / 2, high=math.floor(2 * max(powers)) / 2 + 0.75)

    def part(self, value: float) -> float:
        """How far along the axis a value is, from 0 to 1."""
        return (math.log10(value) - self.low) / (self.high - self.low)

    def value(self, part: float) -> float:
        """Inverse of ``part``."""
        return float(10 ** (self.low + part * (self.high - self.low)))

    def ticks(self) -> range:
        """Powers of ten with a line."""
        first, last = math.ceil(self.low), math.floor(self.high)
        return range(first, last + 1, 1 if last - first <= _FINE_DECADES else 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """A level that arithmetic cannot exceed; ``ridge`` is the intensity from which on it binds instead of memory."""

    flop_per_s: float
    ridge: float  # FLOP per byte
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A kernel in the plot, in px."""

    index: int  # in the graph
    x: float
    y: float
    radius: float
    placed: PlacedKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A text: left end, baseline and width in px."""

    text: str
    x: float
    y: float
    width: float

    def meets(self, left: float, top: float, right: float, bottom: float) -> bool:
        """Whether it overlaps a rectangle."""
        return self.x < right and left < self.x + self.width and self.y - _ASCENT < bottom and top < self.y + _DESCENT


class RooflinePlot:
    """Where things are in the plot of a graph. Kernels without FLOP (copies, lookups) have no place in it."""

    def __init__(self, placed: PlacedGraph) -> None:
        """``placed`` has FLOP; without any there is nothing to draw."""
        drawn = {index: kernel for index, kernel in enumerate(placed.kernels) if kernel.peak_flop_per_s is not None}
        self.bytes_per_s = placed.hardware.peak_bytes_per_s or 1.0  # placing needed it wherever there is traffic
        self.roofs = _roofs(list(drawn.values()), self.bytes_per_s)
        ridges = [roof.ridge for roof in self.roofs]
        self.x_axis = Decades.around([*map(_intensity, drawn.values()), *ridges])
        self.y_axis = Decades.around([*map(_rate, drawn.values()), *(roof.flop_per_s for roof in self.roofs)])
        most = max(kernel.share for kernel in drawn.values())
        dots = [self._dot(index, kernel, most) for index, kernel in drawn.items()]
        self.dots = tuple(sorted(dots, key=lambda dot: -dot.radius))
        self.labels = tuple(self._labelled())

    def _dot(self, index: int, placed: PlacedKernel, most: float) -> Dot:
        radius = max(_SMALLEST, _LARGEST * math.sqrt(placed.share / most))
        return Dot(index=index, x=self.x(_intensity(placed)), y=self.y(_rate(placed)), radius=radius, placed=placed)

    def x(self, flop_per_byte: float) -> float:
        """Place of an arithmetic intensity."""
        return LEFT + (RIGHT - LEFT) * self.x_axis.part(flop_per_byte)

    def y(self, flop_per_s: float) -> float:
        """Place of a rate."""
        return BOTTOM - (BOTTOM - TOP) * self.y_axis.part(flop_per_s)

    def slope_y(self, x: float) -> float:
        """Height of the memory roof over a place on the x axis, however far it reaches."""
        intensity = self.x_axis.value((x - LEFT) / (RIGHT - LEFT))
        return self.y(intensity * self.bytes_per_s)

    def roof_text_y(self, roof: Roof) -> float:
        """Baseline of the text on a roof: above the dots that lie there."""
        level = self.y(roof.flop_per_s)
        left = RIGHT - _CHARACTER * len(roof_text(roof))
        below = [dot for dot in self.dots if dot.x + dot.radius > left and abs(dot.y - level) < dot.radius + _ASCENT]
        return min([level - 6, *(dot.y - dot.radius - _DESCENT for dot in below)])

    def _labelled(self) -> Iterator[Label]:
        """Names of the places with the largest shares, where there is room for them."""
        taken: list[Label] = []
        for dots in self._places():
            text = _label_text(dots)
            if text is None or len(taken) == _MOST_LABELS:
                return
            label = next((label for label in _around(dots[0], text) if self._is_free(label, dots[0], taken)), None)
            if label is not None:
                taken.append(label)
                yield label

    def _places(self) -> list[list[Dot]]:
        """Dots that lie over one another, the group with the largest share first."""
        groups: list[list[Dot]] = []
        for dot in self.dots:
            near = [group for group in groups if math.dist((group[0].x, group[0].y), (dot.x, dot.y)) < _SAME_PLACE]
            if near:
                near[0].append(dot)
            else:
                groups.append([dot])
        return sorted(groups, key=_share, reverse=True)

    def _is_free(self, label: Label, own: Dot, taken: Sequence[Label]) -> bool:
        inside = label.x >= LEFT and label.x + label.width <= WIDTH and label.y - _ASCENT > TOP and label.y < BOTTOM
        if not inside or self._on_a_roof(label):
            return False
        if any(label.meets(other.x, other.y - _ASCENT, other.x + other.width, other.y + _DESCENT) for other in taken):
            return False
        return not any(
            label.meets(dot.x - dot.radius, dot.y - dot.radius, dot.x + dot.radius, dot.y + dot.radius)
            for dot in self.dots
            if dot.index != own.index and dot.radius > _SMALLEST
        )

    def _on_a_roof(self, label: Label) -> bool:
        """Whether a roof or its text, which stands on the roof's right end, runs through a label."""
        for roof in self.roofs:
            level = self.y(roof.flop_per_s)
            if label.meets(self.x(roof.ridge), level - 2, RIGHT, level + 2):
                return True
            if label.meets(RIGHT - _CHARACTER * len(roof_text(roof)), self.roof_text_y(roof) - _ASCENT, RIGHT, level):
                return True
        top = self.y(max(roof.flop_per_s for roof in self.roofs))
        heights = [self.slope_y(label.x), self.slope_y(label.x + label.width)]
        return label.meets(-math.inf, max(min(heights), top) - 2, math.inf, max(heights) + 2)


def roof_text(roof: Roof) -> str:
    """What stands on a roof."""
    return f"{roof.name} {si(roof.flop_per_s, 'FLOP/s')}"


def _around(dot: Dot, text: str) -> Iterator[Label]:
    width, reach = _CHARACTER * len(text), dot.radius + 4
    for lines in _LINES_DOWN:
        under = min(dot.x - width / 2, WIDTH - 2 - width)
        places = [dot.x + reach, dot.x - reach - width]
        if lines * _LINE - _ASCENT > dot.radius:
            places.append(under)
        for x in places:
            yield Label(text=text, x=x, y=dot.y + lines * _LINE, width=width)


def _label_text(dots: Sequence[Dot]) -> str | None:
    """Names and share of dots in one place; None where they are not worth a label."""
    names = list(dict.fromkeys(_dot_name(dot.placed) for dot in dots))
    more = f" +{len(names) - _MOST_NAMES}" if len(names) > _MOST_NAMES else ""
    text = f"{', '.join(names[:_MOST_NAMES])}{more} {percent(_share(dots))}"
    return text if _share(dots) >= _LABELLED_SHARE else None


def _dot_name(placed: PlacedKernel) -> str:
    kernel = placed.kernel
    return module_name(kernel.module) if kernel.weight_bytes and is_matrix_product(kernel) else op_name(kernel.op)


def _share(dots: Sequence[Dot]) -> float:
    return sum(dot.placed.share for dot in dots)


def _intensity(placed: PlacedKernel) -> float:
    """FLOP per byte; a kernel without traffic would lie at infinity, and counts one byte."""
    return placed.kernel.flop / max(placed.kernel.traffic_bytes, 1)


def _rate(placed: PlacedKernel) -> float:
    return placed.kernel.flop / placed.time_s


def _roofs(kernels: Sequence[PlacedKernel], bytes_per_s: float) -> tuple[Roof, ...]:
    names: dict[float, list[str]] = {}
    for placed in kernels:
        if placed.peak_flop_per_s is not None:
            product = is_matrix_product(placed.kernel)
            name = f"{placed.kernel.dtype} products" if product else "other arithmetic"
            names.setdefault(placed.peak_flop_per_s, []).append(name)
    return tuple(
        Roof(flop_per_s=peak, ridge=peak / bytes_per_s, name=", ".join(dict.fromkeys(found)))
        for peak, found in sorted(names.items())
    )
