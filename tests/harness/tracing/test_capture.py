"""A captured graph counts what plain arithmetic from the config gives: ``closed_forms`` has the arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from benchmarks.graph_comparison import ALL, page
from harness.errors import CannotCapture, UsageError
from harness.kernels import KernelKind, Phase, shape_dimensions
from harness.models.meta import meta_model
from harness.models.parallel import local_shape, tensor_plan
from harness.models.tiny import tiny_config
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import GraphKernel, KernelGraph
from tests.harness.tracing.closed_forms import Architecture, Llama, Pass, decode, prefill
from tests.harness.tracing.published import DEEPSEEK_V3, GEMMA_2_9B, LLAMA_70B, MISTRAL, MIXTRAL, MODELS

BF16_BYTES = 2
DENSE = ("llama", "qwen2", "gemma2", "gpt2", "opt", "bloom", "falcon", "gpt_neox", "phi", "phi3", "olmo2", "mpt")
SPARSE = ("mixtral", "qwen3_moe", "deepseek_v3", "qwen3_next")
REQUESTS = [(1, 7), (4, 1000), (3, 5000)]  # batch, tokens; the last is longer than any window
PRODUCTS = (KernelKind.GEMM, KernelKind.MOE_GEMM)


@dataclass(frozen=True)
class Counted:
    """FLOP of a graph by what they are for."""

    gemm: int
    attention: int
    head: int

    @classmethod
    def of(cls, graph: KernelGraph) -> "Counted":
        """Eager attention is two batched products outside any module of its own."""
        head = [kernel for kernel in graph.kernels if kernel.module == "lm_head"]
        attention = [kernel for kernel in graph.kernels if is_attention(kernel)]
        products = [kernel for kernel in graph.of_kind(*PRODUCTS) if kernel not in head and kernel not in attention]
        return cls(gemm=flop(products), attention=flop(attention), head=flop(head))


def is_attention(kernel: GraphKernel) -> bool:
    batched = kernel.op in {"aten::bmm", "aten::baddbmm"} and str(kernel.module).endswith("attn")
    return kernel.kind is KernelKind.ATTENTION or batched


def flop(kernels: list[GraphKernel]) -> int:
    return sum(kernel.flop for kernel in kernels)


def config_of(model: Architecture) -> Any:
    return AutoConfig.for_model(model.model_type, **model.options)


@cache
def captured(name: str, tensor_parallel: int = 1, attention: str = "") -> GraphCapture:
    model = MODELS[name]
    chosen = attention or ("eager" if model.model_type == "gemma2" else "sdpa")  # softcapping: not in sdpa
    return GraphCapture(config_of(model), model=name, attention=chosen, tensor_parallel=tensor_parallel)


@cache
def graph_of(name: str, phase: Phase, batch: int, tokens: int, tensor_parallel: int = 1) -> KernelGraph:
    return captured(name, tensor_parallel).capture(phase, batch_size=batch, tokens=tokens)


def run_of(phase: Phase, batch: int, tokens: int) -> Pass:
    return decode(batch, tokens) if phase is Phase.DECODE else prefill(batch, tokens)


@pytest.mark.parametrize(("batch", "tokens"), REQUESTS)
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", MODELS)
def test_flop_of_products_attention_and_head_are_those_of_the_closed_form(
    name: str, phase: Phase, batch: int, tokens: int
) -> None:
    model, run = MODELS[name], run_of(phase, batch, tokens)

    counted = Counted.of(graph_of(name, phase, batch, tokens))

    assert counted.gemm == model.gemm_flop(run)
    assert counted.attention == model.attention_flop(run)
    assert counted.head == model.head_flop(run)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_flop_and_weights_of_any_small_llama_are_those_of_the_closed_form(data: st.DataObject) -> None:
    small = st.integers(1, 6)
    kv_heads = data.draw(small)
    heads = kv_heads * data.draw(small)
    model = Llama(
        width=heads * data.draw(small),  # transformers insists
        inner=data.draw(st.integers(1, 300)),
        layers=data.draw(small),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=2 * data.draw(small),
        vocabulary=data.draw(st.integers(50, 500)),
        tied=data.draw(st.booleans()),
    )
    phase, batch, tokens = data.draw(st.sampled_from(Phase)), data.draw(small), data.draw(st.integers(2, 40))
    run = run_of(phase, batch, tokens)

    graph = GraphCapture(config_of(model), model="small", dtype="float32").capture(
        phase, batch_size=batch, tokens=tokens
    )

    assert Counted.of(graph) == Counted(
        gemm=model.gemm_flop(run), attention=model.attention_flop(run), head=model.head_flop(run)
    )
    if phase is Phase.DECODE:
        assert graph.weight_bytes == 4 * model.weights_read(run)


@pytest.mark.parametrize("batch", [1, 4, 48])
@pytest.mark.parametrize("name", MODELS)
def test_a_decode_step_reads_exactly_the_parameters_in_use(name: str, batch: int) -> None:
    """Of the tables the rows that were picked, of the experts those that tokens go to; all others whole."""
    model, graph = MODELS[name], graph_of(name, Phase.DECODE, batch, 300)
    expected_bytes = BF16_BYTES * model.weights_read(decode(batch, 300))

    if batch == 1 or not graph.of_kind(KernelKind.MOE_GEMM):
        assert graph.weight_bytes == expected_bytes
    else:  # expected numbers of experts are no whole ones: bytes are rounded in each launch
        assert graph.weight_bytes == pytest.approx(expected_bytes, abs=graph.launches)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("model_type", [*DENSE, *SPARSE])
def test_one_token_reads_every_parameter_of_its_rank_once_and_one_row_of_each_table(
    model_type: str, degree: int
) -> None:
    """Held against the parameters of the whole model, for architectures without a closed form here too."""
    config = tiny_config(model_type)
    attention = "sdpa" if model_type not in {"gemma2", "bloom", "mpt"} else "eager"
    capture = GraphCapture(config, model=model_type, attention=attention, tensor_parallel=degree)

    graph = capture.capture(Phase.DECODE, batch_size=1, tokens=20)

    assert graph.weight_bytes == BF16_BYTES * sum(elements_in_use(config, attention, degree))


def elements_in_use(config: Any, attention: str, degree: int) -> Iterator[int]:
    model = meta_model(config, dtype=torch.bfloat16, attention=attention).model
    plan = tensor_plan(model) if degree > 1 else None
    tables = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        shape = tuple(parameter.shape)
        if plan is not None:
            shape = local_shape(model, plan, path, shape, degree=degree)
        elements = torch.Size(shape).numel()
        if path.rpartition(".")[0] in tables:
            yield shape[-1]
        elif ".experts." in path:
            yield elements * config.num_experts_per_tok // shape[0]
        else:
            yield elements


def attention_kernels(graph: KernelGraph) -> tuple[GraphKernel, ...]:
    return graph.of_kind(KernelKind.ATTENTION)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 100), (8, 3000)])
@pytest.mark.parametrize("model", [LLAMA_70B, MISTRAL, MIXTRAL], ids=lambda model: model.model_type)
def test_a_decode_step_reads_the_keys_and_values_of_its_context_and_copies_them(
    model: Llama, batch: int, tokens: int
) -> None:
    name = next(name for name, candidate in MODELS.items() if candidate is model)
    graph = graph_of(name, Phase.DECODE, batch, tokens)
    run = decode(batch, tokens)
    queries = model.layers * batch * model.heads * model.head_dim
    cached = model.cache_elements(run)
    grown = {"elements": batch * model.kv_heads * model.head_dim * (tokens + 1)}

    attention = attention_kernels(graph)
    copies = [kernel for kernel in graph.kernels if kernel.op == "aten::cat" and sizes(kernel) == grown]

    assert sum(kernel.read_bytes for kernel in attention) == BF16_BYTES * (queries + cached)
    assert sum(kernel.write_bytes for kernel in attention) == BF16_BYTES * queries
    assert sum(kernel.launches for kernel in copies) == 2 * model.layers  # keys, values
    assert {kernel.kind for kernel in copies} == {KernelKind.COPY}
    assert sum(kernel.read_bytes for kernel in copies) == BF16_BYTES * cached
    assert sum(kernel.write_bytes for kernel in copies) == BF16_BYTES * cached


def sizes(kernel: GraphKernel) -> dict[str, int]:
    return shape_dimensions(kernel.shape)


def test_mla_reads_keys_and_values_expanded_from_a_cache_of_latents() -> None:
    batch, tokens, model = 2, 700, DEEPSEEK_V3
    graph = graph_of("deepseek-v3", Phase.DECODE, batch, tokens)
    context, layers = tokens + 1, model.layers
    key = model.plain_dim + model.rope_dim

    (attention,) = attention_kernels(graph)
    cached = [
        kernel
        for kernel in graph.kernels
        if kernel.op == "aten::cat"
        and sizes(kernel)["elements"] // (batch * context) in (model.kv_rank, model.rope_dim)
    ]

    expanded = batch * model.heads * context * (key + model.value_dim)
    assert attention.read_bytes == BF16_BYTES * layers * (expanded + batch * model.heads * key)
    assert attention.write_bytes == BF16_BYTES * layers * batch * model.heads * model.value_dim
    assert sum(kernel.read_bytes for kernel in cached) == BF16_BYTES * layers * batch * context * (512 + 64)


@pytest.mark.parametrize("name", ["gemma-2-9b", "gemma-3-12b", "mistral-7b"])
def test_a_window_bounds_the_context_of_its_layers_and_no_others(name: str) -> None:
    model, tokens = MODELS[name], 5000
    assert isinstance(model, Llama)
    capture = captured(name, attention="flash_attention_2")

    graph = capture.capture(Phase.DECODE, batch_size=1, tokens=tokens)

    launches: dict[int, int] = {}
    for kernel in attention_kernels(graph):
        launches[sizes(kernel)["context_tokens"]] = launches.get(sizes(kernel)["context_tokens"], 0) + kernel.launches
    full = model.full_layers or 0
    assert launches == {tokens + 1: full, model.window: model.layers - full} if full else {model.window: model.layers}


def test_flash_attention_skips_what_a_window_hides_and_sdpa_does_not() -> None:
    tokens, model = 9000, MISTRAL
    square = 4 * tokens * model.heads * model.head_dim * model.layers

    flash = captured("mistral-7b", attention="flash_attention_2").capture(Phase.PREFILL, batch_size=1, tokens=tokens)

    assert Counted.of(flash).attention == square * 4096
    assert Counted.of(graph_of("mistral-7b", Phase.PREFILL, 1, tokens)).attention == square * tokens


def test_without_a_cache_a_decode_step_is_a_pass_over_the_whole_context() -> None:
    again = captured("qwen3-0.6b").capture(Phase.DECODE, batch_size=2, tokens=99, kv_cache=False)

    assert Counted.of(again) == Counted.of(graph_of("qwen3-0.6b", Phase.PREFILL, 2, 100))
    assert (again.query_tokens, again.context_tokens) == (100, 100)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(("name", "degree"), [("llama-3.1-70b", 2), ("llama-3.1-70b", 8), ("qwen2.5-7b", 4)])
def test_a_rank_computes_its_share_of_products_attention_and_head(name: str, phase: Phase, degree: int) -> None:
    model, run = MODELS[name], run_of(phase, 4, 512)

    counted = Counted.of(graph_of(name, phase, 4, 512, degree))

    assert counted.gemm * degree == model.gemm_flop(run)
    assert counted.attention * degree == model.attention_flop(run)
    assert counted.head * degree == model.head_flop(run)


@pytest.mark.parametrize("degree", [1, 2, 8])
@pytest.mark.parametrize("phase", Phase)
def test_shapes_are_local_and_the_products_the_same_at_every_degree(phase: Phase, degree: int) -> None:
    batch, model = 4, LLAMA_70B
    tokens = batch if phase is Phase.DECODE else batch * 64
    graph = graph_of("llama-3.1-70b", phase, batch, 64, degree)

    found = {
        str(kernel.module).rpartition(".")[2]: (kernel.op, sizes(kernel)) for kernel in graph.of_kind(KernelKind.GEMM)
    }

    assert found == {
        name: ("aten::mm", {"m": m, "n": n, "k": k})
        for name, m, n, k in (
            ("q_proj", tokens, 8192 // degree, 8192),
            ("k_proj", tokens, 1024 // degree, 8192),
            ("v_proj", tokens, 1024 // degree, 8192),
            ("o_proj", tokens, 8192, 8192 // degree),
            ("gate_proj", tokens, 28672 // degree, 8192),
            ("up_proj", tokens, 28672 // degree, 8192),
            ("down_proj", tokens, 8192, 28672 // degree),
            ("lm_head", batch, model.vocabulary // degree, 8192),
        )
    }
    (attention,) = attention_kernels(graph)
    assert (sizes(attention)["heads"], sizes(attention)["kv_heads"]) == (64 // degree, 8 // degree)


@pytest.mark.parametrize("degree", [2, 4, 8])
@pytest.mark.parametrize("phase", Phase)
def test_ranks_exchange_two_sums_a_layer_one_for_the_embedding_and_the_gathered_logits(
    phase: Phase, degree: int
) -> None:
    batch, tokens, model = 4, 512, LLAMA_70B
    graph = graph_of("llama-3.1-70b", phase, batch, tokens, degree)
    hidden_bytes = BF16_BYTES * run_of(phase, batch, tokens).tokens * model.width
    logits_bytes = BF16_BYTES * batch * model.vocabulary
    sums, gathered = graph.of_kind(KernelKind.ALL_REDUCE), graph.of_kind(KernelKind.ALL_GATHER)
    launches = 2 * model.layers + 1

    assert sum(kernel.launches for kernel in sums) == launches
    assert {kernel.module for kernel in sums} == {
        "model.embed_tokens",
        "model.layers.*.self_attn.o_proj",
        "model.layers.*.mlp.down_proj",
    }
    assert sum(kernel.read_bytes for kernel in sums) == launches * hidden_bytes
    assert sum(kernel.write_bytes for kernel in sums) == launches * hidden_bytes
    assert sum(kernel.link_bytes for kernel in sums) == launches * 2 * (degree - 1) * hidden_bytes // degree
    assert [(kernel.module, kernel.launches) for kernel in gathered] == [("lm_head", 1)]
    assert [kernel.read_bytes for kernel in gathered] == [logits_bytes // degree]
    assert [kernel.write_bytes for kernel in gathered] == [logits_bytes]
    assert [kernel.link_bytes for kernel in gathered] == [(degree - 1) * logits_bytes // degree]


@pytest.mark.parametrize("degree", [2, 8])
def test_a_rank_reads_its_share_of_matrices_and_all_of_the_norms(degree: int) -> None:
    batch, model = 4, LLAMA_70B
    matrices = model.layers * (model.attention_weights + model.mlp_weights) + model.vocabulary * model.width
    norms = (2 * model.layers + 1) * model.width

    graph = graph_of("llama-3.1-70b", Phase.DECODE, batch, 512, degree)

    assert graph.weight_bytes == BF16_BYTES * (matrices // degree + norms + batch * model.width)


def test_one_rank_exchanges_nothing() -> None:
    assert graph_of("llama-3.1-70b", Phase.DECODE, 1, 7).link_bytes == 0


@pytest.mark.parametrize(("batch", "tokens"), [(0, 5), (5, 0), (-1, 5)])
def test_a_request_for_nothing_is_refused(batch: int, tokens: int) -> None:
    with pytest.raises(UsageError, match="is empty"):
        captured("gpt2-xl").capture(Phase.PREFILL, batch_size=batch, tokens=tokens)


def test_heads_that_do_not_divide_are_refused_before_anything_is_built_for_them() -> None:
    with pytest.raises(UsageError, match="3"):
        GraphCapture(config_of(LLAMA_70B), model="llama", tensor_parallel=3)


@pytest.mark.parametrize("layers", [0, 5000])
def test_an_absurd_number_of_layers_is_an_error_that_names_the_model(layers: int) -> None:
    with pytest.raises(CannotCapture, match=f"absurd.*{layers} layers"):
        GraphCapture(config_of(replace(LLAMA_70B, layers=layers)), model="absurd")


def test_attention_that_a_model_has_not_is_an_error_that_names_the_model() -> None:
    with pytest.raises(CannotCapture, match="gemma"):
        GraphCapture(config_of(GEMMA_2_9B), model="gemma", attention="sdpa")


def test_the_page_that_compares_counts_is_what_its_command_writes() -> None:
    """It is only written if every difference to an analyser and to ``FlopCounterMode`` is explained.

    The counter runs on two models here, one dense and one with experts; the command runs it on all.
    """
    written = (Path(__file__).resolve().parents[3] / "docs" / "graph-counts.md").read_text(encoding="utf-8")
    counted = frozenset({"openai-community/gpt2", "mistralai/Mixtral-8x7B-v0.1"})

    assert counted < ALL
    assert written == page(counted), (
        "docs/graph-counts.md is stale: python -m benchmarks.graph_comparison > docs/graph-counts.md"
    )
