"""What serving runtimes launch: the products of the captured graph, and little around them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.kernels import KernelKind, Phase
from harness.models.facts import unquantised_config
from harness.tracing.capture import GraphCapture
from predictor.kernel_table import DTYPES, KINDS, KernelTable
from predictor.lowering_ops import Role, ServedModel
from predictor.model_facts import ModelSizes
from predictor.templates import GraphTemplate, model_source, template
from predictor.templates_capture import capture_served

LLAMA = "meta-llama/Llama-2-70b-hf"
DEEPSEEK = "deepseek-ai/DeepSeek-V3"
QWEN = "Qwen/Qwen3-30B-A3B"


def served(model: str, *, dtype: str = "bfloat16", tp: int = 1, ep: int | None = None) -> GraphTemplate:
    return template(model, runtime_class="served", dtype=dtype, tensor_parallel=tp, expert_parallel=ep)


def of(table: KernelTable, kind: KernelKind) -> NDArray[np.bool_]:
    rows: NDArray[np.bool_] = table.kind == KINDS.index(kind)
    return rows


def total(table: KernelTable, kind: KernelKind, name: str = "flop") -> float:
    return float(getattr(table, name)[of(table, kind)].sum())


@pytest.mark.parametrize(
    ("model", "attention"),
    [
        (LLAMA, "flash_attention_2"),
        (QWEN, "flash_attention_2"),
        ("openai/gpt-oss-20b", "flash_attention_2"),
        ("facebook/opt-1.3b", "sdpa"),
        ("tiiuae/falcon-40b", "sdpa"),
        ("microsoft/Phi-3-mini-4k-instruct", "sdpa"),
        (DEEPSEEK, "flash_attention_2"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "flash_attention_2"),
    ],
)
def test_the_products_of_a_prefill_are_those_of_the_captured_graph(model: str, attention: str) -> None:
    config = unquantised_config(model_source(model))
    captured = GraphCapture(config, model=model, attention=attention).capture(Phase.PREFILL, batch_size=5, tokens=64)

    table = served(model).prefill([5], [64])

    for kind in (KernelKind.GEMM, KernelKind.ATTENTION, KernelKind.MOE_GEMM):
        expected = sum(kernel.flop for kernel in captured.of_kind(kind))
        assert total(table, kind) == pytest.approx(expected, rel=1e-9), kind
    assert table.launches.sum() < 0.7 * captured.launches


@pytest.mark.parametrize("model", [LLAMA, "openai-community/gpt2", "google/gemma-2-9b", "bigscience/bloom-7b1"])
def test_a_step_reads_every_weight_once(model: str) -> None:
    graphs = served(model)
    table = graphs.decode([1], [100])
    tables = total(table, KernelKind.EMBEDDING, "weight_bytes")
    untied = graphs.sizes.vocabulary_tokens * graphs.sizes.hidden_size * (model == LLAMA)

    read = table.weight_bytes.sum() - tables

    assert read / 2 + untied == pytest.approx(graphs.sizes.parameters, rel=0.007)


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_ranks_share_the_products_and_add_up_twice_in_a_layer(degree: int) -> None:
    whole, part = served(LLAMA).prefill([4], [128]), served(LLAMA, tp=degree).prefill([4], [128])

    assert total(part, KernelKind.GEMM) * degree == pytest.approx(total(whole, KernelKind.GEMM))
    assert total(part, KernelKind.ATTENTION) * degree == pytest.approx(total(whole, KernelKind.ATTENTION))
    assert total(part, KernelKind.ALL_REDUCE, "launches") == 2 * 80 + 1
    numbers = (2 * 80 + 1) * 4 * 128 * 8192
    assert total(part, KernelKind.ALL_REDUCE, "link_bytes") == pytest.approx(2 * 2 * numbers * (degree - 1) / degree)


def test_kv_heads_are_copied_to_ranks_beyond_their_number() -> None:
    table = served(QWEN, tp=8).decode([4], [100])
    attention = of(table, KernelKind.ATTENTION)
    products = of(table, KernelKind.GEMM)

    assert table.size("heads")[attention] == [32 / 8]
    assert table.size("kv_heads")[attention] == [1]
    assert 32 * 128 / 8 + 2 * 128 in table.size("n")[products]


def test_the_head_runs_on_last_tokens_only() -> None:
    table = served(LLAMA, tp=4).prefill([6], [512])
    head = table.size("n") == 32000 / 4

    assert table.size("m")[head] == [6]
    assert total(table, KernelKind.ALL_GATHER, "launches") == 1


def test_latent_attention_decodes_on_its_cache() -> None:
    table = served(DEEPSEEK, tp=8).decode([16], [1000])
    attention = of(table, KernelKind.ATTENTION)
    by_head = table.size("matrices") > 1

    assert table.size("head_dim")[attention] == [576]
    assert table.flop[attention] == pytest.approx([61 * 2 * 16 * 16 * 1001 * (576 + 512)])
    assert table.read_bytes[attention] == pytest.approx([61 * 2 * 16 * 576 * (16 + 1001)])
    assert sorted(zip(table.size("n")[by_head], table.size("k")[by_head], strict=True)) == [(128, 512), (512, 128)]
    assert table.weight_bytes[by_head].sum() == 61 * 2 * 128 / 8 * 512 * (128 + 128)


def test_latent_attention_opens_up_new_tokens_in_prefill() -> None:
    table = served(DEEPSEEK).prefill([2], [300])
    opened = (table.size("n") == 128 * 256) & (table.size("k") == 512)

    assert table.size("m")[opened] == [600]
    assert not (table.size("matrices") > 1).any()


def test_experts_are_one_kernel_of_which_tokens_touch_a_share() -> None:
    table = served(QWEN).decode([4], [100])
    experts = of(table, KernelKind.MOE_GEMM)
    touched = 1 - (1 - 8 / 128) ** 4

    assert [table.size(name)[experts][0] for name in ("tokens", "experts", "top_k", "hidden", "intermediate")] == [
        4,
        128,
        8,
        2048,
        768,
    ]
    assert table.launches[experts] == [48]
    assert table.flop[experts] == pytest.approx([48 * 4 * 8 * 3 * 2 * 2048 * 768])
    assert table.weight_bytes[experts] == pytest.approx([48 * touched * 128 * 3 * 2048 * 768 * 2])


def test_experts_spread_over_the_ranks_that_share_the_layers_stay_whole() -> None:
    table, shared = served(QWEN, tp=4, ep=4).decode([64], [100]), served(QWEN, tp=4).decode([64], [100])
    experts = of(table, KernelKind.MOE_GEMM)

    assert [*table.size("experts")[experts], *table.size("intermediate")[experts]] == [32, 768]
    assert [*shared.size("experts")[experts], *shared.size("intermediate")[experts]] == [128, 192]
    assert total(table, KernelKind.MOE_GEMM) == pytest.approx(total(shared, KernelKind.MOE_GEMM))
    assert total(table, KernelKind.ALL_TO_ALL, "launches") == 0


def test_with_more_ranks_of_experts_attention_is_replicated_and_tokens_are_exchanged() -> None:
    table = served(DEEPSEEK, tp=1, ep=8).decode([64], [100])
    attention, experts = of(table, KernelKind.ATTENTION), of(table, KernelKind.MOE_GEMM)

    assert table.size("batch")[attention] == [8]
    assert table.size("tokens")[experts] == [64]
    assert table.size("experts")[experts] == [32]
    assert total(table, KernelKind.ALL_TO_ALL, "launches") == 2 * 58
    assert total(table, KernelKind.ALL_TO_ALL, "link_bytes") == pytest.approx(2 * 58 * 8 * 8 * 7168 * 2 * 7 / 8)
    assert total(table, KernelKind.ALL_REDUCE, "launches") == 0


def test_ranks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="must be a multiple"):
        served(QWEN, tp=4, ep=6)


def test_a_window_bounds_what_a_step_reads() -> None:
    graphs = served("google/gemma-3-27b-it")
    near, far = graphs.decode([1], [1023]), graphs.decode([1], [9000])
    windowed = ~np.isnan(near.size("window_tokens"))

    assert windowed.sum() == 1
    np.testing.assert_array_equal(near.read_bytes[windowed], far.read_bytes[windowed])
    full = of(near, KernelKind.ATTENTION) & ~windowed
    assert far.flop[full] == pytest.approx(near.flop[full] * 9001 / 1024)


def test_an_indexer_bounds_what_attention_reads_and_not_what_is_cached() -> None:
    graphs = served("deepseek-ai/DeepSeek-V3.2")
    near, far = graphs.decode([1], [3000]), graphs.decode([1], [30_000])
    attention = of(near, KernelKind.ATTENTION)

    np.testing.assert_array_equal(near.flop[attention], far.flop[attention])
    assert sum(part.elements_per_token for part in graphs.sizes.served_cache) == 61 * (576 + 128)


def test_quantised_layers_are_read_in_fewer_bytes_and_the_rest_is_not() -> None:
    plain, eight = served(LLAMA).decode([2], [100]), served(LLAMA, dtype="float8").decode([2], [100])
    layers = (plain.weight_bytes > 0) & (plain.launches == 80) & of(plain, KernelKind.GEMM)

    np.testing.assert_allclose(eight.weight_bytes[layers], plain.weight_bytes[layers] / 2)
    np.testing.assert_array_equal(eight.weight_bytes[~layers], plain.weight_bytes[~layers])
    assert set(np.asarray(DTYPES)[eight.dtype[layers]]) == {"float8"}
    assert set(np.asarray(DTYPES)[eight.dtype[~layers]]) == {"bfloat16"}


def test_weights_alone_in_four_bits_are_computed_with_in_sixteen() -> None:
    table = served(LLAMA, dtype="int4").decode([2], [100])

    assert set(np.asarray(DTYPES)[table.dtype]) == {"bfloat16"}
    assert table.weight_bytes.sum() < 0.3 * served(LLAMA).decode([2], [100]).weight_bytes.sum()


def test_only_experts_of_an_mxfp4_checkpoint_are_quantised() -> None:
    plain = served("openai/gpt-oss-120b").decode([2], [100])
    stored = served("openai/gpt-oss-120b", dtype="mxfp4").decode([2], [100])
    experts = of(plain, KernelKind.MOE_GEMM)

    np.testing.assert_allclose(stored.weight_bytes[experts], plain.weight_bytes[experts] * 4.25 / 16)
    np.testing.assert_array_equal(stored.read_bytes[~experts], plain.read_bytes[~experts])


def test_everything_doubles_in_float32() -> None:
    plain, wide = served(LLAMA, tp=2).prefill([2], [100]), served(LLAMA, tp=2, dtype="float32").prefill([2], [100])

    np.testing.assert_allclose(wide.read_bytes, 2 * plain.read_bytes)
    np.testing.assert_allclose(wide.link_bytes, 2 * plain.link_bytes)
    np.testing.assert_array_equal(wide.flop, plain.flop)


@pytest.fixture(scope="module")
def hybrid() -> tuple[ModelSizes, ServedModel]:
    return capture_served(model_source("nvidia/NVIDIA-Nemotron-Nano-9B-v2"))


def test_layers_of_a_hybrid_that_share_a_path_are_told_apart(hybrid: tuple[ModelSizes, ServedModel]) -> None:
    _, found = hybrid
    scan, attention = found.of(Role.SCAN), found.of(Role.ATTENTION)

    assert [(op.launches, op.state_elements > 0) for op in scan] == [(27, True)]
    assert [(op.launches, op.heads, op.kv_heads) for op in attention] == [(4, 40, 8)]
    assert [op.launches for op in found.of(Role.LINEAR) if op.module.endswith("up_proj")] == [25]


def test_a_scan_keeps_its_state_whatever_the_context() -> None:
    graphs = served("nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    near, far = graphs.decode([4], [100]), graphs.decode([4], [10_000])
    scan = of(near, KernelKind.SCAN)

    np.testing.assert_array_equal(near.read_bytes[scan], far.read_bytes[scan])
    assert near.read_bytes[scan] >= 4 * 4 * 27 * 128 * 80 * 128


def test_the_residual_additions_are_part_of_the_norms() -> None:
    table = served(LLAMA).decode([4], [100])
    norms = of(table, KernelKind.NORM)

    assert table.launches[norms].sum() == 2 * 80 + 1
    assert table.write_bytes[norms].sum() == pytest.approx((2 * 80 + 1 + 160) * 4 * 8192 * 2, rel=0.01)


@pytest.mark.parametrize("model", [LLAMA, DEEPSEEK, QWEN, "Qwen/Qwen3-Next-80B-A3B-Instruct"])
def test_every_row_but_the_first_is_fed(model: str) -> None:
    table = served(model, tp=2).decode([4], [100])
    fed = set(table.edges[1].tolist())

    assert set(range(1, len(table.kind))) - fed == set()
    assert (table.edges[0] < table.edges[1]).all()
