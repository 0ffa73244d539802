"""Small figures as SVG text, without a plotting library: what a page shows without running anything."""

from dataclasses import dataclass, field
from html import escape

INK, FAINT, PAPER = "#1c2733", "#d5dce3", "#ffffff"
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif'"
_LETTER = 0.63  # mean width of a letter, in sizes of the font


@dataclass(slots=True)
class Drawing:
    """Shapes on white paper, in the order drawn. Lengths are pixels; text and labels are escaped."""

    width: float
    height: float
    title: str
    _shapes: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        anchor: str = "start",
        colour: str = INK,
        turn: int = 0,
    ) -> None:
        """Text whose baseline is at ``y``; ``turn`` in degrees around its own point."""
        turned = f" transform='rotate({turn} {x:.1f} {y:.1f})'" if turn else ""
        self._shapes.append(
            f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size:g}' text-anchor='{anchor}' fill='{colour}'{turned}>"
            f"{_clean(text)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, colour: str = FAINT, width: float = 1) -> None:
        """A straight line."""
        self._shapes.append(
            f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' "
            f"stroke-width='{width:g}'/>"
        )

    def rectangle(
        self, x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "none", tip: str = ""
    ) -> None:
        """A rectangle; ``tip`` is shown where a pointer rests on it."""
        self._shapes.append(
            f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' fill='{fill}' "
            f"stroke='{stroke}'>{_tip(tip)}</rect>"
        )

    def dot(self, x: float, y: float, radius: float, *, colour: str, filled: float, tip: str = "") -> None:
        """A circle; ``filled`` from 0 to 1 is how much of the colour its inside has."""
        self._shapes.append(
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:g}' {_painted(colour, filled)}>{_tip(tip)}</circle>"
        )

    def diamond(self, x: float, y: float, radius: float, *, colour: str, filled: float, tip: str = "") -> None:
        """A square on its corner; ``filled`` as in ``dot``."""
        points = f"{x:.1f},{y - radius:.1f} {x + radius:.1f},{y:.1f} {x:.1f},{y + radius:.1f} {x - radius:.1f},{y:.1f}"
        self._shapes.append(f"<polygon points='{points}' {_painted(colour, filled)}>{_tip(tip)}</polygon>")

    def svg(self) -> str:
        """The file."""
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.width:.0f} {self.height:.0f}' "
            f"width='{self.width:.0f}' height='{self.height:.0f}' role='img' {_FONT}>\n"
            f"<title>{_clean(self.title)}</title>\n<rect width='100%' height='100%' fill='{PAPER}'/>\n"
            + "\n".join(self._shapes)
            + "\n</svg>\n"
        )


def text_width(text: str, size: float = 12) -> float:
    """About how wide a text is, in pixels."""
    return _LETTER * size * len(text)


def shortened(text: str, letters: int) -> str:
    """A label that is not too long; what is left out is in the middle, where names differ least.

    >>> shortened("NVIDIA RTX PRO 6000 Blackwell Server Edition", 24)
    'NVIDIA RTX P…ver Edition'
    """
    if len(text) <= letters:
        return text
    kept = letters - 1
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def _painted(colour: str, filled: float) -> str:
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    inside = "".join(f"{round(255 + (channel - 255) * filled):02x}" for channel in channels)
    return f"fill='#{inside}' stroke='{colour}' stroke-width='1.6'"


def _tip(text: str) -> str:
    return f"<title>{_clean(text)}</title>" if text else ""


def _clean(text: str) -> str:
    """Text that XML can hold."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text), quote=True)
