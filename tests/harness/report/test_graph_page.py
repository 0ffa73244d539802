"""Drawing and page of a kernel graph: every kernel and edge once, all text escaped, silent in a browser."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import CannotWrite
from harness.hardware import find
from harness.kernels import KernelKind, Phase
from harness.report.graph_page import graph_page, write_text
from harness.report.graph_plot import BOTTOM, LEFT, RIGHT, TOP, RooflinePlot
from harness.report.graph_roofline import roofline_svg
from harness.report.graph_svg import graph_svg, standalone_svg
from harness.tracing.placement import PlacedGraph, place
from tests.example_graphs import GPU, a_graph, a_kernel, a_small_model
from tests.harness.report.test_browser import BROWSER, Visit, visit

MARKUP = "<img src=x onerror=alert(1)>\"'&</script>"
SVG = "{http://www.w3.org/2000/svg}"
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


def a_step(**values: object) -> PlacedGraph:
    graph = a_small_model(phase=Phase.DECODE, query_tokens=1, context_tokens=513, **values)
    return place(graph, GPU)


def hostile() -> PlacedGraph:
    kernels = [
        a_kernel(
            module=f"model.layers.*.{MARKUP}", op=f"aten::{MARKUP}", dtype=MARKUP if name else "bfloat16", flop=flop
        )
        for name, flop in ((False, 10**13), (True, 0))
    ]
    kinds = (kernels[0], replace(kernels[1], kind=KernelKind.COPY))
    return place(a_graph(*kinds, edges=((0, 1),), model=MARKUP), replace(GPU, name=f"GPU {MARKUP}"))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in (element.get("class") or "").split()]


def numbers(element: ElementTree.Element, *names: str) -> tuple[float, ...]:
    return tuple(float(element.get(name) or "nan") for name in names)


@pytest.fixture
def placed() -> PlacedGraph:
    return place(a_small_model(), GPU)


def test_the_drawing_has_every_kernel_and_every_edge_once(placed: PlacedGraph) -> None:
    root = parsed(graph_svg(placed))

    assert [element.get("data-kernel") for element in of_class(root, "kernel")] == [str(index) for index in range(10)]
    edges = [(element.get("data-source"), element.get("data-target")) for element in of_class(root, "edge")]
    assert edges == [(str(edge.source), str(edge.target)) for edge in placed.graph.edges]


def test_boxes_do_not_overlap_and_lie_within_the_view_box(placed: PlacedGraph) -> None:
    root = parsed(graph_svg(placed))
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    boxes = [numbers(element, "x", "y", "width", "height") for element in of_class(root, "node")]

    for index, (x, y, wide, high) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + high <= height
        for other_x, other_y, other_wide, other_high in boxes[:index]:
            apart = x + wide <= other_x or other_x + other_wide <= x or y + high <= other_y or other_y + other_high <= y
            assert apart


def test_a_node_says_what_it_is_to_those_who_cannot_see_it(placed: PlacedGraph) -> None:
    node = of_class(parsed(graph_svg(placed)), "kernel")[7]

    label = node.get("aria-label") or ""
    assert node.get("tabindex") == "0"
    assert label.startswith("all_reduce: c10d::allreduce_ in model.layers.*.mlp, elements 8 ranks 2, 8 launches")
    assert label.endswith("4 GB over links; at least 40 ms, 43 % of the time, bound by link")


def test_bars_are_as_long_as_the_shares(placed: PlacedGraph) -> None:
    root = parsed(graph_svg(placed))
    bars = {
        int(node.get("data-kernel") or -1): numbers(bar, "width")[0] / (numbers(box, "width")[0] - 20)
        for node in of_class(root, "kernel")
        for box in of_class(node, "node")
        for bar in node.iter()
        if bar.get("height") == "4.0"
    }

    largest = max(kernel.share for kernel in placed.kernels)
    assert set(bars) == {index for index, kernel in enumerate(placed.kernels) if kernel.share >= 0.01}
    for index, length in bars.items():
        assert length == pytest.approx(placed.kernels[index].share / largest, abs=0.01)


def test_a_file_holds_both_phases_side_by_side_with_style_and_legend(placed: PlacedGraph) -> None:
    root = parsed(standalone_svg([placed, a_step()], gpu="Round GPU"))

    assert root.tag == f"{SVG}svg"
    assert len(of_class(root, "kernel")) == 20
    assert len({element.get("id") for element in root.iter(f"{SVG}marker")}) == 2
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert {"someone/some-model · prefill", "someone/some-model · decode", "all_reduce"} <= set(texts)
    assert "1 × 1 token after 512 in the cache, bfloat16, sdpa attention, one of 2 ranks" in texts
    assert not [text for text in root.iter() if text.tag == f"{SVG}script"]


def test_every_kernel_with_flop_is_a_dot_within_the_axes(placed: PlacedGraph) -> None:
    dots = of_class(parsed(roofline_svg(placed)), "dot")

    assert {int(dot.get("data-kernel") or -1) for dot in dots} == {1, 2, 3, 4, 5, 6, 7, 8, 9}
    for dot in dots:
        x, y = numbers(dot, "cx", "cy")
        assert LEFT <= x <= RIGHT
        assert TOP <= y <= BOTTOM


def test_dots_lie_on_the_roof_that_binds_them_and_below_it_where_a_link_does(placed: PlacedGraph) -> None:
    plot = RooflinePlot(placed)
    places = {dot.index: dot for dot in plot.dots}

    assert places[2].y == pytest.approx(plot.y(1e15))
    assert places[1].y == pytest.approx(plot.slope_y(places[1].x))
    assert places[7].y > plot.slope_y(places[7].x) + 20
    assert [roof.name for roof in plot.roofs] == ["other arithmetic", "bfloat16 products"]
    assert [roof.ridge for roof in plot.roofs] == [100, 1000]


def test_the_area_of_a_dot_is_its_share(placed: PlacedGraph) -> None:
    dots = {dot.index: dot for dot in RooflinePlot(placed).dots}

    assert (dots[5].radius / dots[7].radius) ** 2 == pytest.approx(placed.kernels[5].share / placed.kernels[7].share)


def test_the_largest_dots_are_named(placed: PlacedGraph) -> None:
    texts = [label.text for label in RooflinePlot(placed).labels]

    assert texts[0] == "all_reduce 43 %"
    assert "q_proj, k_proj +1 33 %" in texts


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((KernelKind.GEMM, KernelKind.NORM)), st.floats(3, 15), st.floats(0, 12)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L4")),
)
def test_dots_lie_within_the_axes_and_labels_meet_nothing(
    sizes: list[tuple[KernelKind, float, float]], gpu: str
) -> None:
    kernels = [
        a_kernel(kind, flop=int(10**flop), read_bytes=int(10**traffic), module=f"model.part_{index}")
        for index, (kind, flop, traffic) in enumerate(sizes)
    ]
    plot = RooflinePlot(place(a_graph(*kernels), find(gpu)))

    for dot in plot.dots:
        assert LEFT - 1 <= dot.x <= RIGHT + 1
        assert TOP - 1 <= dot.y <= BOTTOM + 1
    for index, label in enumerate(plot.labels):
        assert label.x >= LEFT
        assert not [one for one in plot.labels[:index] if label.meets(one.x, one.y - 10, one.x + one.width, one.y + 4)]
        large = [dot for dot in plot.dots if dot.radius > 4]
        assert not [dot for dot in large if label.meets(dot.x - 3, dot.y - 3, dot.x + 3, dot.y + 3)]


def test_a_graph_without_flop_has_a_page_without_a_plot() -> None:
    placed = place(a_graph(a_kernel(KernelKind.COPY)), GPU)

    assert 'class="dot' not in graph_page([placed], assumed=True)


def test_the_page_holds_both_phases_and_says_that_its_times_are_bounds(placed: PlacedGraph) -> None:
    page = graph_page([placed, a_step()], assumed=True)

    assert page.count('<section id="prefill"') == page.count('<section id="decode"') == 1
    assert "Bounds, not measurements." in page
    assert "Round GPU (assumed; choose with --gpu)" in page
    assert "(assumed" not in graph_page([placed], assumed=False)
    assert page.count("<tr data-kernel=") == 20
    assert placed.graph.graph_id in page


def test_the_page_asks_nothing_of_a_network_and_allows_only_its_own_scripts_and_style(placed: PlacedGraph) -> None:
    page = graph_page([placed], assumed=True)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)

    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert len(page) < 300_000


def test_markup_in_names_is_escaped_everywhere() -> None:
    placed = hostile()
    for text in (graph_page([placed], assumed=True), standalone_svg([placed], gpu=f"GPU {MARKUP}")):
        assert "<img" not in text
        assert "alert(1)" in text
    parsed(standalone_svg([placed], gpu=f"GPU {MARKUP}"))


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("old", encoding="utf-8")

    write_text("new", file)

    assert file.read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(CannotWrite, match="is a folder"):
        write_text("new", tmp_path)
    with pytest.raises(CannotWrite, match="cannot be written"):
        write_text("new", tmp_path / "missing" / "page.html")


ACTIONS = """
<script>
addEventListener("load", () => setTimeout(() => {
  const phase = document.getElementById("decode");
  const chosen = () => Array.from(phase.querySelectorAll(".chosen"), (part) =>
    part.dataset.kernel ?? `${part.dataset.source}-${part.dataset.target}`);
  const node = (kernel) => phase.querySelector(`.kernel[data-kernel="${kernel}"]`);
  const result = { stops: phase.querySelectorAll(".kernel[tabindex='0']").length };
  node(7).focus();
  result.focused = chosen();
  result.details = phase.querySelector(".details").textContent;
  node(7).dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  result.next = document.activeElement.dataset.kernel;
  phase.querySelector("tr[data-kernel='5']").click();
  result.clicked = document.activeElement.dataset.kernel;
  phase.querySelector("circle[data-kernel='2']").dispatchEvent(new PointerEvent("pointerenter"));
  result.pointed = phase.querySelector("tr.chosen").dataset.kernel;
  const heading = Array.from(phase.querySelectorAll("th")).find((cell) => cell.textContent.trim() === "launches");
  heading.firstElementChild.click();
  result.sorted = Array.from(phase.querySelectorAll("tbody tr"), (row) => row.cells[heading.cellIndex].dataset.key);
  result.width = document.documentElement.scrollWidth;
  document.title = JSON.stringify(result);
}, 500));
</script>
"""


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    scratch = tmp_path_factory.mktemp("browser")
    page = scratch / "graph.html"
    write_text(graph_page([place(a_small_model(), GPU), a_step()], assumed=True), page)
    return visit(page, scratch)


@needs_browser
def test_the_console_stays_empty_and_no_network_is_asked(visited: Visit) -> None:
    assert visited.console == ()
    assert visited.requests == ()
    assert 'data-graphs="2"' in visited.dom


@needs_browser
def test_markup_in_names_is_neither_run_nor_rendered(tmp_path: Path) -> None:
    page = tmp_path / "graph.html"
    write_text(graph_page([hostile()], assumed=True), page)

    found = visit(page, tmp_path)

    assert "<img" not in found.dom
    assert found.console == ()


@needs_browser
@pytest.mark.parametrize("width_px", [500, 1400])
def test_a_kernel_is_shown_in_drawing_plot_table_and_details_at_once(tmp_path: Path, width_px: int) -> None:
    page = tmp_path / "graph.html"
    text = graph_page([place(a_small_model(), GPU), a_step()], assumed=True)
    # The page's own policy forbids scripts that are not its own, so the one that clicks comes with a page without it.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    write_text(text.replace("</body>", f"{ACTIONS}</body>"), page)

    done = json.loads(visit(page, tmp_path, width_px=width_px).title)

    assert done["stops"] == 1
    assert sorted(done["focused"]) == ["6-7", "7", "7", "7", "7-8"]
    assert "allreduce" in done["details"] or "all_reduce" in done["details"]
    assert "40 ms" in done["details"]
    assert (done["next"], done["clicked"], done["pointed"]) == ("8", "5", "2")
    assert [int(key) for key in done["sorted"]] == sorted(int(key) for key in done["sorted"])
    assert done["width"] <= width_px
