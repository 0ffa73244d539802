"""The graph as a record: what it refuses, its text and hash, and how data flows through a known model."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from harness.errors import InvalidGraph
from harness.kernels import KernelKind, Phase
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import Edge, GraphKernel, KernelGraph, edges_from, edges_json, kernels_from, kernels_json

ROOT = Path(__file__).resolve().parents[3]
GEMM = GraphKernel(
    kind=KernelKind.GEMM,
    op="aten::mm",
    module="model.layers.*.mlp.up_proj",
    dtype="bfloat16",
    shape='{"m":1,"n":3,"k":2}',
    launches=2,
    flop=24,
    read_bytes=32,
    write_bytes=12,
    weight_bytes=24,
    link_bytes=0,
)
ADD = replace(GEMM, kind=KernelKind.ELEMENTWISE, op="aten::add", module=None, weight_bytes=0, shape='{"elements":3}')
SUM = replace(ADD, kind=KernelKind.ALL_REDUCE, op="c10d::allreduce_", link_bytes=6)
GRAPH = KernelGraph(
    model="example",
    phase=Phase.DECODE,
    batch_size=1,
    query_tokens=1,
    context_tokens=8,
    dtype="bfloat16",
    attention="sdpa",
    tensor_parallel=2,
    kernels=(GEMM, SUM, ADD),
    edges=(Edge(source=0, target=1), Edge(source=1, target=2)),
)
SMALL = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def test_a_consistent_graph_is_valid_and_sums_its_kernels() -> None:
    GRAPH.validate()

    assert (GRAPH.flop, GRAPH.traffic_bytes, GRAPH.weight_bytes) == (72, 132, 24)
    assert (GRAPH.link_bytes, GRAPH.launches) == (6, 6)
    assert GRAPH.of_kind(KernelKind.ALL_REDUCE, KernelKind.ALL_GATHER) == (SUM,)
    assert GEMM.arithmetic_intensity == 24 / 44
    assert replace(ADD, read_bytes=0, write_bytes=0).arithmetic_intensity is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"launches": 0}, "never launched"),
        ({"launches": 1.0}, "launches is 1.0"),
        ({"launches": True}, "launches is True"),
        ({"read_bytes": None}, "read_bytes is None"),
        ({"write_bytes": -1}, "write_bytes is -1"),
        ({"flop": float("nan")}, "flop is nan"),
        ({"flop": 0}, "a gemm without FLOP"),
        ({"weight_bytes": 33}, "reads 33 bytes of weights and 32 bytes in all"),
        ({"link_bytes": 1}, "sends 1 bytes over links and is no collective"),
        ({"shape": "[1]"}, "not a kernel shape"),
        ({"shape": '{"m":-1}'}, "negative size"),
        ({"kind": KernelKind.ATTENTION, "flop": 0}, "an? attention without FLOP"),
        ({"kind": KernelKind.MOE_GEMM, "flop": 0}, "a moe_gemm without FLOP"),
    ],
)
def test_a_graph_names_the_kernel_that_is_wrong_and_what_is_wrong_with_it(wrong: dict[str, Any], words: str) -> None:
    bad = replace(GRAPH, kernels=(SUM, replace(GEMM, **wrong)), edges=())

    with pytest.raises(InvalidGraph, match=rf"Kernel 1 \(aten::mm in model\.layers\.\*\.mlp\.up_proj\).*{words}"):
        bad.validate()


def test_a_kernel_outside_any_module_is_named_by_its_operator() -> None:
    with pytest.raises(InvalidGraph, match=r"Kernel 0 \(aten::add\) of the graph of example"):
        replace(GRAPH, kernels=(replace(ADD, launches=0),), edges=()).validate()


def test_a_graph_without_kernels_is_refused() -> None:
    with pytest.raises(InvalidGraph, match=r"example \(decode\) has no kernels"):
        replace(GRAPH, kernels=(), edges=()).validate()


@pytest.mark.parametrize(("source", "target"), [(0, 3), (-1, 1), (1, 1), (2, 0)])
def test_an_edge_must_lead_from_an_earlier_kernel_to_a_later_one(source: int, target: int) -> None:
    with pytest.raises(InvalidGraph, match=f"from kernel {source} to {target} of the graph of example leads nowhere"):
        replace(GRAPH, edges=(Edge(source=source, target=target),)).validate()


def test_an_edge_must_not_be_there_twice() -> None:
    with pytest.raises(InvalidGraph, match="from kernel 0 to 1 is there twice"):
        replace(GRAPH, edges=(Edge(source=0, target=1), Edge(source=0, target=1))).validate()


def test_json_reads_back_to_the_same_graph_and_the_same_text() -> None:
    text = GRAPH.to_json()

    assert KernelGraph.from_json(text) == GRAPH
    assert KernelGraph.from_json(text).to_json() == text
    assert KernelGraph.from_json(json.dumps(json.loads(text), indent=2)) == GRAPH


def test_json_has_the_documented_form() -> None:
    document = json.loads(GRAPH.to_json())

    assert set(document) >= {"graph_id", "model", "phase", "kernels", "edges"}
    assert document["edges"] == [[0, 1], [1, 2]]
    assert document["kernels"][0]["shape"] == {"m": 1, "n": 3, "k": 2}


def test_kernels_and_edges_read_back_from_the_columns_of_the_dataset() -> None:
    assert kernels_from(json.loads(kernels_json(GRAPH.kernels))) == GRAPH.kernels
    assert edges_from(json.loads(edges_json(GRAPH.edges))) == GRAPH.edges


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"batch_size": 2},
        {"phase": Phase.PREFILL},
        {"kernels": (replace(GEMM, flop=25), SUM, ADD)},
        {"kernels": (SUM, GEMM, ADD)},
        {"edges": (Edge(source=0, target=1),)},
    ],
)
def test_the_hash_tells_graphs_apart(change: dict[str, Any]) -> None:
    changed = replace(GRAPH, **change)

    assert changed.graph_id != GRAPH.graph_id
    assert len(changed.graph_id) == 20


def test_a_changed_document_is_refused_by_its_hash() -> None:
    text = GRAPH.to_json().replace('"flop":24', '"flop":26', 1)

    with pytest.raises(InvalidGraph, match=f"says that it is {GRAPH.graph_id}"):
        KernelGraph.from_json(text)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": "one"},
        {"batch_size": 0},
        {"query_tokens": 1.5},
        {"context_tokens": -1},
        {"tensor_parallel": 0},
        {"model": None},
        {"dtype": 7},
        {"attention": ["sdpa"]},
    ],
)
def test_a_header_that_makes_no_sense_is_refused_though_its_hash_is_right(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidGraph):
        KernelGraph.from_json(replace(GRAPH, **change).to_json())


@pytest.mark.parametrize("text", ["", "null", "[]", "5", "{}", '"graph"', "{", "[" * 100_000, "1" * 5_000, "\ud800"])
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(InvalidGraph, match="no kernel graph"):
        KernelGraph.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


PLACES = [place for place in places(json.loads(GRAPH.to_json())) if place]


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON, rename=st.booleans())
@example(place=("batch_size",), value=float("nan"), rename=False)
@example(place=("edges",), value=["ab"], rename=False)
@example(place=("edges", 0, 0), value=None, rename=False)
@example(place=("kernels", 0, "op"), value=float("inf"), rename=False)
def test_a_mutated_document_is_refused_or_reads_as_what_it_says(
    place: tuple[Any, ...], value: Any, rename: bool
) -> None:
    document = json.loads(GRAPH.to_json())
    target = document
    for key in place[:-1]:
        target = target[key]
    if rename and isinstance(target, dict):
        target[str(value)] = target.pop(place[-1])
    else:
        target[place[-1]] = value

    try:
        read = KernelGraph.from_json(json.dumps(document))
    except InvalidGraph:
        return
    assert json.loads(read.to_json()) == document


@cache
def llama(phase: Phase = Phase.PREFILL, *, unroll: bool = False, **options: Any) -> KernelGraph:
    config = AutoConfig.for_model("llama", **SMALL | HEADS | options)
    return GraphCapture(config, model="small", unroll=unroll).capture(phase, batch_size=2, tokens=11)


def test_the_same_request_gives_the_same_graph_in_another_process() -> None:
    code = (
        "from transformers import AutoConfig\n"
        "from harness.kernels import Phase\n"
        "from harness.tracing.capture import GraphCapture\n"
        f"capture = GraphCapture(AutoConfig.for_model('llama', **{SMALL | HEADS}), model='small')\n"
        "print(capture.capture(Phase.PREFILL, batch_size=2, tokens=11).graph_id)\n"
    )
    environment = {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, env=environment
    )

    assert done.stdout.split()[-1] == llama().graph_id


def test_capturing_again_gives_the_same_graph() -> None:
    capture = GraphCapture(AutoConfig.for_model("llama", **SMALL | HEADS), model="small")
    graphs = [capture.capture(phase, batch_size=2, tokens=11) for phase in (Phase.PREFILL, Phase.DECODE) * 2]

    assert graphs[:2] == graphs[2:]
    assert graphs[0] == llama()


def test_a_graph_of_many_layers_is_as_long_as_one_of_few() -> None:
    few, many = llama(num_hidden_layers=2), llama(num_hidden_layers=40)

    assert len(few.kernels) == len(many.kernels) <= 200
    assert few.edges == many.edges
    assert len(llama(num_hidden_layers=2, unroll=True).kernels) > len(few.kernels)


def number_of(graph: KernelGraph, module: str, kind: KernelKind | None = None) -> int:
    """The last kernel of a module, by the end of its path."""
    return max(
        number
        for number, kernel in enumerate(graph.kernels)
        if str(kernel.module).endswith(module) and kind in (None, kernel.kind)
    )


def sources(graph: KernelGraph, target: int) -> set[int]:
    return {edge.source for edge in graph.edges if edge.target == target}


def reached_from(graph: KernelGraph, source: int) -> set[int]:
    """Kernels that what ``source`` writes flows into, by whatever way."""
    reached = {source}
    for edge in sorted(graph.edges):
        if edge.source in reached:
            reached.add(edge.target)
    return reached


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("phase", Phase)
def test_data_flows_through_a_llama_as_through_its_layers(phase: Phase, unroll: bool) -> None:
    graph = llama(phase, unroll=unroll)
    layer = "layers.0" if unroll else "layers.*"
    norm = number_of(graph, f"{layer}.input_layernorm")
    queries, keys, values, output = (number_of(graph, f"{layer}.self_attn.{name}_proj") for name in "qkvo")
    attention = number_of(graph, f"{layer}.self_attn", KernelKind.ATTENTION)
    residual = min(number for number, kernel in enumerate(graph.kernels) if str(kernel.module).endswith(layer))

    assert sources(graph, queries) == sources(graph, keys) == sources(graph, values) == {norm}
    assert all(attention in reached_from(graph, projection) for projection in (queries, keys, values))
    assert sources(graph, output) == {attention}
    assert output in sources(graph, residual)
    assert 0 in sources(graph, residual)  # the embedding
    assert residual in reached_from(graph, 0)
    assert sources(graph, number_of(graph, "lm_head")) == {number_of(graph, "model.norm")}


@pytest.mark.parametrize("unroll", [False, True])
def test_what_every_projection_writes_reaches_the_logits(unroll: bool) -> None:
    graph = llama(unroll=unroll)
    head = number_of(graph, "lm_head")

    astray = [
        kernel.module
        for number, kernel in enumerate(graph.kernels)
        if kernel.kind is KernelKind.GEMM and head not in reached_from(graph, number)
    ]

    assert astray == []


def test_edges_have_no_cycle_and_every_kernel_but_what_creates_reads_from_another() -> None:
    graph = llama(Phase.DECODE)
    created = {"aten::embedding", "aten::arange"}

    assert all(edge.source < edge.target for edge in graph.edges)
    assert {kernel.op for number, kernel in enumerate(graph.kernels) if not sources(graph, number)} <= created
