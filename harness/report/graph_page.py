"""The page about a model's kernel graphs: drawing, Roofline plot and table, in one HTML file without a network."""

import base64
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2

from harness import __version__
from harness.errors import CannotWrite
from harness.kernels import Phase
from harness.report.graph_names import gpu_text, op_name, request_text, shape_name
from harness.report.graph_roofline import roofline_svg
from harness.report.graph_svg import drawing_css, graph_layout, graph_svg
from harness.report.graph_totals import KindShare, Total, amount, intensity_text, kind_shares, share_text, totals
from harness.report.text import count, percent, plain, plural
from harness.tracing.placement import PlacedGraph, PlacedKernel
from harness.units import si

_SHRINK = 0.75  # a wide drawing is shrunk so far before it scrolls
METHODS = (
    "A box is a kernel: all launches of one operator, in one module, on one shape. Its bar and its percentage are its "
    "share of the Roofline time; ×n says how often it runs each time its frame runs.",
    "A dashed frame is a layer that repeats; its edges are those inside one layer and to what comes before and after.",
    "The Roofline time of a kernel is the longest of FLOP ÷ peak, memory traffic ÷ bandwidth and link traffic ÷ link "
    "bandwidth. Matrix products and attention are held against the dense peak of their dtype, other arithmetic against "
    "the float32 peak outside tensor cores. Kernels are taken one after another.",
    "A multiply-add is 2 FLOP; attention counts the full square, masked or not. Traffic is every input read once and "
    "every output written once, as if no cache kept anything from one kernel to the next.",
    "What a bound leaves out: launch overhead (microseconds each, unless CUDA graphs or fusion hide it), peaks that "
    "real kernels do not reach, waiting for other ranks.",
    "Kernels without FLOP (copies, table lookups) are in the drawing and the table, and have no place in the plot.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    title: str
    number: bool = True
    note: str = ""


_COLUMNS = (
    _Column(title="kernel", note="place in the graph"),
    _Column(title="op", number=False),
    _Column(title="kind", number=False),
    _Column(title="module", number=False, note="* stands for the layer's number"),
    _Column(title="share", note="of the Roofline time"),
    _Column(title="time", note="at least, over all launches"),
    _Column(title="bound by", number=False),
    _Column(title="launches"),
    _Column(title="FLOP"),
    _Column(title="FLOP/B", note="arithmetic intensity"),
    _Column(title="read"),
    _Column(title="written"),
    _Column(title="weights", note="part of what is read"),
    _Column(title="link", note="bytes that this rank sends"),
    _Column(title="dtype", number=False),
    _Column(title="shape", number=False, note="of one launch"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    text: str
    key: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    index: int
    cells: tuple[_Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PhasePart:
    name: str
    title: str
    request: str
    tiles: tuple[Total, ...]
    graph: str
    roofline: str
    outside: str
    kinds: tuple[KindShare, ...]
    caption: str
    rows: tuple[_Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    title: str
    subtitle: str
    banner: str
    gpu: str
    phases: tuple[_PhasePart, ...]
    columns: tuple[_Column, ...]
    methods: tuple[str, ...]
    footer: str


def graph_page(placed: Sequence[PlacedGraph], *, assumed: bool) -> str:
    """The page as HTML; every text in it is escaped. ``assumed``: nobody chose the GPU.

    All graphs are of one model on one GPU.
    """
    graph, hardware = placed[0].graph, placed[0].hardware
    page = _Page(
        title=f"Kernel graph of {plain(graph.model)}",
        subtitle=f"What runs on the GPU{'' if graph.tensor_parallel == 1 else ' of one rank'} in one forward pass",
        banner=f"Times are what physics asks at least of {gpu_text(hardware, assumed=assumed)}: published peaks, each "
        "kernel on its own. The graph is captured from the model's code on its config, without weights or GPU.",
        gpu=hardware.name,
        phases=tuple(_phase(one, number) for number, one in enumerate(placed)),
        columns=_COLUMNS,
        methods=METHODS,
        footer=f"joulegraph {__version__}",
    )
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": _own_file("graph_template.html")}),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = _Inlined("".join((_own_file("style.css"), drawing_css(), _own_file("graph_page.css"), _widths(placed))))
    scripts = tuple(_Inlined(_own_file(name)) for name in ("report.js", "graph.js"))
    return environment.get_template("page").render(page=page, style=style, scripts=scripts)


def write_text(text: str, out: Path) -> None:
    """Write a file, at once or not at all; raises ``CannotWrite``."""
    if not out.name or out.is_dir():
        raise CannotWrite(f"{out} is a folder.\nName a file.")
    unfinished = out.with_name(out.name + ".tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise CannotWrite(
            f"{out} cannot be written: {error.strerror}.\nName a file in a folder that exists and may be written."
        ) from error


class _Inlined:
    """A script or style of the page. Its hash is in the page's policy, so that browsers take these and no others."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _own_file(name: str) -> str:
    return files("harness.report").joinpath(name).read_text(encoding="utf-8")


def _widths(placed: Sequence[PlacedGraph]) -> str:
    """How far each drawing may shrink before it scrolls."""
    rules = []
    for number, graph in enumerate(placed):
        width = graph_layout(graph).width
        rules.append(f"#{_name(graph, number)} .graph {{ width: 100%; max-width: {width:.0f}px; ")
        rules.append(f"min-width: {_SHRINK * width:.0f}px; }}\n")
    return "".join(rules)


def _name(placed: PlacedGraph, number: int) -> str:
    return f"{placed.graph.phase}-{number}" if number > 1 else str(placed.graph.phase)


def _phase(placed: PlacedGraph, number: int) -> _PhasePart:
    title = "Prefill" if placed.graph.phase is Phase.PREFILL else "Decode, one step"
    kernels = placed.kernels
    return _PhasePart(
        name=_name(placed, number),
        title=title,
        request=request_text(placed.graph),
        tiles=totals(placed),
        graph=graph_svg(placed),
        roofline=roofline_svg(placed),
        outside=_outside_text(kernels),
        kinds=kind_shares(placed),
        caption=f"{plural(len(kernels), 'kernel')} of the {placed.graph.phase}, graph {placed.graph.graph_id}",
        rows=tuple(_Row(index=index, cells=_cells(index, kernels[index])) for index in placed.by_share),
    )


def _outside_text(kernels: Sequence[PlacedKernel]) -> str:
    outside = [kernel for kernel in kernels if kernel.peak_flop_per_s is None]
    if not outside:
        return ""
    share = percent(sum(kernel.share for kernel in outside))
    return f"Not in the plot: {plural(len(outside), 'kernel')} without FLOP, {share} of the time."


def _cells(index: int, placed: PlacedKernel) -> tuple[_Cell, ...]:
    kernel = placed.kernel
    return (
        _Cell(text=str(index), key=index),
        _Cell(text=op_name(kernel.op)),
        _Cell(text=str(kernel.kind)),
        _Cell(text=plain(kernel.module)),
        _Cell(text=share_text(placed.share), key=placed.share),
        _Cell(text=si(placed.time_s, "s"), key=placed.time_s),
        _Cell(text=str(placed.side)),
        _Cell(text=count(kernel.launches), key=kernel.launches),
        _Cell(text=amount(kernel.flop, "FLOP"), key=kernel.flop),
        _Cell(text=intensity_text(kernel), key=kernel.arithmetic_intensity),
        *(
            _Cell(text=amount(size, "B"), key=size)
            for size in (kernel.read_bytes, kernel.write_bytes, kernel.weight_bytes, kernel.link_bytes)
        ),
        _Cell(text=plain(kernel.dtype)),
        _Cell(text=shape_name(kernel)),
    )
