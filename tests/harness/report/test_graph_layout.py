"""Layouts of random graphs: nothing overlaps, edges run downwards and touch no strange node."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kernels import KernelKind
from harness.report.graph_layout import Box, Layout, Size, lay_out
from harness.report.graph_order import Item, crossings, ordered
from harness.report.graph_segments import Segment, layer_of, segments
from harness.tracing.graph import Edge
from tests.example_graphs import a_graph, a_kernel, a_small_model

_CLOSE = 0.01


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.right - _CLOSE
        and other.x < one.right - _CLOSE
        and one.y < other.bottom - _CLOSE
        and other.y < one.bottom - _CLOSE
    )


def inside(one: Box, other: Box) -> bool:
    return (
        other.x <= one.x + _CLOSE
        and other.y <= one.y + _CLOSE
        and one.right <= other.right + _CLOSE
        and one.bottom <= other.bottom + _CLOSE
    )


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Size], list[Edge], list[Segment]]:
    count = draw(st.integers(1, 14))
    sizes = [
        Size(width=draw(st.sampled_from((104.0, 180.5))), height=draw(st.sampled_from((22.0, 46.0))))
        for _ in range(count)
    ]
    pairs = list(combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=25)) if pairs else []
    cuts = sorted(draw(st.sets(st.integers(1, count - 1), max_size=3))) if count > 1 else []
    parts = [
        Segment(
            start=start,
            end=end,
            layer=draw(st.sampled_from((None, "model.layers.*"))),
            repeats=draw(st.integers(1, 80)),
        )
        for start, end in pairwise([0, *cuts, count])
    ]
    return sizes, [Edge(source=source, target=target) for source, target in sorted(chosen)], parts


def check(layout: Layout, edges: list[Edge], parts: list[Segment]) -> None:
    whole = Box(x=0, y=0, width=layout.width, height=layout.height)
    assert not [pair for pair in combinations(layout.nodes, 2) if overlap(*pair)]
    assert all(inside(node, whole) for node in layout.nodes)
    assert [route.edge for route in layout.routes] == edges
    for route in layout.routes:
        source, target = layout.nodes[route.edge.source], layout.nodes[route.edge.target]
        assert route.legs[0].top == pytest.approx(source.bottom)
        assert route.legs[-1].bottom == pytest.approx(target.y)
        assert source.x < route.legs[0].x < source.right
        assert target.x < route.legs[-1].x < target.right
        for leg, following in pairwise(route.legs):
            assert leg.top <= leg.bottom + _CLOSE < following.top
        for leg in route.legs:
            line = Box(x=leg.x, y=leg.top, width=2 * _CLOSE + 1e-6, height=leg.bottom - leg.top)
            assert not [node for node in layout.nodes if overlap(line, node)]
    check_frames(layout, parts)


def check_frames(layout: Layout, parts: list[Segment]) -> None:
    assert [frame.segment for frame in layout.frames] == [part for part in parts if part.title]
    assert not [pair for pair in combinations([frame.box for frame in layout.frames], 2) if overlap(*pair)]
    for frame in layout.frames:
        own = range(frame.segment.start, frame.segment.end)
        for index, node in enumerate(layout.nodes):
            assert inside(node, frame.box) if index in own else not overlap(node, frame.box)
        assert inside(frame.box, Box(x=0, y=0, width=layout.width, height=layout.height))
        title = Box(x=frame.title_x, y=frame.box.y + 4, width=7.3 * len(frame.segment.title or ""), height=22)
        assert inside(title, frame.box)
        legs = [
            leg for route in layout.routes for leg in route.legs if leg.top <= title.y and leg.bottom >= title.bottom
        ]
        assert not [leg for leg in legs if title.x < leg.x < title.right]


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_nothing_overlaps_and_edges_lead_from_their_source_to_their_target(
    graph: tuple[list[Size], list[Edge], list[Segment]],
) -> None:
    check(lay_out(*graph), graph[1], graph[2])


def test_a_chain_is_drawn_as_one_straight_line() -> None:
    sizes = [Size(width=width, height=22) for width in (104, 180, 120, 150)]
    edges = [Edge(source=index, target=index + 1) for index in range(3)]

    layout = lay_out(sizes, edges, [Segment(start=0, end=4, layer=None, repeats=1)])

    assert len({round(leg.x, 3) for route in layout.routes for leg in route.legs}) == 1


def test_a_kernel_is_below_all_that_it_reads() -> None:
    graph = a_small_model()
    parts = segments(graph)

    layout = lay_out([Size(width=104, height=22)] * len(graph.kernels), graph.edges, parts)

    assert all(layout.nodes[edge.source].bottom < layout.nodes[edge.target].y for edge in graph.edges)


def test_what_can_be_drawn_without_crossings_is() -> None:
    a, b, c, d = (Item(row=row, node=node, width=104) for row, node in ((0, 0), (0, 1), (1, 2), (1, 3)))
    links = [(a, d), (b, c)]
    assert crossings([[a, b], [c, d]], links) == 1

    rows = ordered([[a, b], [c, d]], links)

    assert crossings(rows, links) == 0


def test_layers_are_framed_and_say_how_often_they_run() -> None:
    parts = segments(a_small_model())

    assert [(part.start, part.end, part.title) for part in parts] == [
        (0, 1, None),
        (1, 9, "model.layers.* × 4"),
        (9, 10, None),
    ]


def test_layers_of_several_kinds_say_no_number() -> None:
    graph = a_graph(a_kernel(launches=3), a_kernel(launches=58, flop=1))

    assert [part.title for part in segments(graph)] == ["model.layers.*"]


def test_unrolled_layers_have_a_frame_each() -> None:
    graph = a_graph(a_kernel(module="model.layers.0.mlp"), a_kernel(module="model.layers.1.mlp"), a_kernel(module=None))

    assert [part.title for part in segments(graph)] == ["model.layers.0", "model.layers.1", None]


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("model.layers.*.mlp.experts.*.w1", "model.layers.*"),
        ("transformer.h.17.attn", "transformer.h.17"),
        ("model.layers.*", "model.layers.*"),
        ("lm_head", None),
        ("model.norm2", None),
        (None, None),
    ],
)
def test_a_kernel_belongs_to_its_outermost_layer(module: str | None, layer: str | None) -> None:
    assert layer_of(a_kernel(KernelKind.NORM, module=module)) == layer
