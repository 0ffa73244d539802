"""Templates say what a capture at the same sizes says, for families whose passes differ."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UnknownModel, UsageError
from harness.hardware import find
from harness.kernels import KernelKind, Phase
from harness.models.facts import unquantised_config
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph
from predictor.kernel_table import DTYPES, KINDS, KernelTable
from predictor.templates import GraphTemplate, checkpoint_dtype, model_source, template
from predictor.templates_capture import EagerGraphs, capture_eager
from predictor.templates_fit import pass_sizes

SUMMED = ("launches", "flop", "read_bytes", "write_bytes", "link_bytes")
FAMILIES = {
    "HuggingFaceTB/SmolLM2-135M": (3, None),
    "openai-community/gpt2": (2, None),
    "facebook/opt-125m": (1, None),
    "bigscience/bloom-560m": (1, None),
    "EleutherAI/pythia-160m": (4, None),
    "google/gemma-3-1b-it": (1, None),
    "microsoft/phi-2": (2, None),
    "tiiuae/falcon-7b": (1, None),
    "Qwen/Qwen3-30B-A3B": (2, None),
    "openai/gpt-oss-20b": (1, None),
    "deepseek-ai/DeepSeek-V2-Lite": (2, "eager"),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": (1, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    graphs: EagerGraphs
    capture: GraphCapture
    longest: int


@cache
def family(model: str) -> Family:
    degree, attention = FAMILIES[model]
    source = model_source(model)
    config = unquantised_config(source)
    chosen = attention or ("sdpa" if model not in {"bigscience/bloom-560m", "openai/gpt-oss-20b"} else "eager")
    return Family(
        graphs=capture_eager(source, attention=chosen, dtype="bfloat16", tensor_parallel=degree, kv_cache=True),
        capture=GraphCapture(config, model=model, attention=chosen, tensor_parallel=degree),
        longest=700 if "Next" in model else 1000,
    )


def sizes_to_try(model: str, longest: int) -> Iterator[tuple[int, int]]:
    chance = random.Random(model)
    yield 1, chance.randint(2, longest)
    for _ in range(2):
        yield chance.randint(2, 40), chance.randint(2, longest)


def assert_same(table: KernelTable, captured: KernelGraph) -> None:
    for kind in KINDS:
        close = 1e-3 if kind is KernelKind.MOE_GEMM else 1e-6
        # A kernel of a norm's module counts as its norm, one outside of layers as other: compare what is never merged.
        if kind in {KernelKind.GEMM, KernelKind.ATTENTION, KernelKind.MOE_GEMM, KernelKind.ALL_REDUCE}:
            rows = table.kind == KINDS.index(kind)
            for name in (*SUMMED, "weight_bytes"):
                expected = sum(getattr(kernel, name) for kernel in captured.of_kind(kind))
                assert getattr(table, name)[rows].sum() == pytest.approx(expected, rel=close), (kind, name)
    for name in SUMMED:
        expected = sum(getattr(kernel, name) for kernel in captured.kernels)
        assert getattr(table, name).sum() == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("model", FAMILIES)
def test_a_prefill_at_other_sizes_is_what_a_capture_gives(model: str) -> None:
    known = family(model)
    for batch, tokens in sizes_to_try(model, known.longest):
        table = known.graphs.prefill.expand(pass_sizes(Phase.PREFILL, [batch], [tokens]))

        assert_same(table, known.capture.capture(Phase.PREFILL, batch_size=batch, tokens=tokens))
        assert len(table.kind) <= 45


@pytest.mark.parametrize("model", FAMILIES)
def test_a_decode_step_at_other_sizes_is_what_a_capture_gives(model: str) -> None:
    known = family(model)
    assert known.graphs.decode is not None
    for batch, tokens in sizes_to_try(model, known.longest):
        table = known.graphs.decode.expand(pass_sizes(Phase.DECODE, [batch], [tokens]))

        assert_same(table, known.capture.capture(Phase.DECODE, batch_size=batch, tokens=tokens))
        assert len(table.kind) <= 45


@pytest.mark.parametrize("context", [510, 511, 512, 513, 600])
def test_a_window_that_fills_up_changes_the_graph_where_the_model_does(context: int) -> None:
    known = family("google/gemma-3-1b-it")
    assert known.graphs.decode is not None

    table = known.graphs.decode.expand(pass_sizes(Phase.DECODE, [2], [context]))

    assert_same(table, known.capture.capture(Phase.DECODE, batch_size=2, tokens=context))


@pytest.fixture(scope="module")
def llama() -> GraphTemplate:
    return template("meta-llama/Llama-2-70b-hf", runtime_class="eager", dtype="bfloat16", tensor_parallel=4)


def test_many_passes_are_the_single_ones_in_their_order() -> None:
    graphs = template("google/gemma-3-1b-it", runtime_class="eager", dtype="bfloat16")
    batch, context = [1, 4, 4, 2], [2000, 100, 511, 3000]  # on both sides of the window

    together = graphs.decode(batch, context)

    assert together.passes == 4
    assert (np.diff(together.pass_index) >= 0).all()
    assert (together.pass_index[together.edges[0]] == together.pass_index[together.edges[1]]).all()
    for index, (sequences, tokens) in enumerate(zip(batch, context, strict=True)):
        alone, rows = graphs.decode([sequences], [tokens]), together.pass_index == index
        np.testing.assert_array_equal(together.flop[rows], alone.flop)
        np.testing.assert_array_equal(together.sizes[rows], alone.sizes)
        start = np.flatnonzero(rows)[0]
        inside = rows[together.edges[0]]
        np.testing.assert_array_equal(np.sort(together.edges[:, inside] - start), np.sort(alone.edges))


def test_one_number_stands_for_all_passes(llama: GraphTemplate) -> None:
    np.testing.assert_array_equal(llama.decode(4, [100, 200]).flop, llama.decode([4, 4], [100, 200]).flop)
    assert llama.prefill(4, 100).passes == 1


def test_an_encoder_has_passes_over_prompts() -> None:
    graphs = template(
        "google-bert/bert-large-uncased", runtime_class="eager", dtype="bfloat16", attention="eager", kv_cache=False
    )

    assert graphs.sizes.parameters == pytest.approx(335_174_458)  # with the head for masked words
    assert graphs.prefill([8], [512]).flop.sum() == pytest.approx(
        2 * 302e6 * 8 * 512 + 24 * 4 * 8 * 512**2 * 1024, rel=0.05
    )


def test_rows_are_few_and_every_number_is_finite(llama: GraphTemplate) -> None:
    for table in (llama.prefill([8, 1], [512, 64]), llama.decode([8, 1], [512, 64])):
        assert len(table.kind) / table.passes <= 45
        for name in (*SUMMED, "weight_bytes"):
            column = getattr(table, name)
            assert np.isfinite(column).all()
            assert (column >= 0).all()
        assert (table.weight_bytes <= table.read_bytes + 1).all()
        assert (table.edges[0] < table.edges[1]).all()


def test_elements_of_merged_kernels_are_those_of_a_mean_launch(llama: GraphTemplate) -> None:
    table = llama.prefill([2], [100])
    norms = table.kind == KINDS.index(KernelKind.NORM)
    elements = table.size("elements")[norms]

    assert (elements > 0).all()
    assert (elements <= 2 * 100 * 8192).all()


def test_without_a_cache_a_step_is_a_pass_over_the_whole_context() -> None:
    graphs = template("HuggingFaceTB/SmolLM2-135M", runtime_class="eager", dtype="float32", kv_cache=False)

    step, whole = graphs.decode([3], [99]), graphs.prefill([3], [100])

    np.testing.assert_array_equal(step.flop, whole.flop)
    assert set(np.asarray(DTYPES)[whole.dtype]) == {"float32"}


def test_float16_counts_as_bfloat16_does(llama: GraphTemplate) -> None:
    other = template("meta-llama/Llama-2-70b-hf", runtime_class="eager", dtype="float16", tensor_parallel=4)
    table, reference = other.decode([8], [512]), llama.decode([8], [512])

    np.testing.assert_array_equal(table.read_bytes, reference.read_bytes)
    gemm = table.kind == KINDS.index(KernelKind.GEMM)
    assert set(np.asarray(DTYPES)[table.dtype[gemm]]) == {"float16"}


def test_a_template_is_made_once() -> None:
    one, other = (template("openai-community/gpt2", runtime_class="served", dtype="bfloat16") for _ in range(2))

    assert one is other


def test_an_unknown_model_is_told_what_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(UnknownModel, match="meta-llama/Llama-2-70b"):
        template("meta-llama/Llama-2-70b-hff", runtime_class="served", dtype="bfloat16")


@pytest.mark.parametrize("runtime_class", ["served", "eager"])
def test_an_impossible_degree_is_refused(runtime_class: str) -> None:
    with pytest.raises(UsageError, match="cannot be split over 7 GPUs"):
        template("openai-community/gpt2", runtime_class=runtime_class, dtype="bfloat16", tensor_parallel=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtime_class": "eager", "attention": "sdpa"}, "has no sdpa attention"),
        ({"runtime_class": "eager", "expert_parallel": 2}, "spreads no experts"),
        ({"runtime_class": "served", "kv_cache": False}, "always keep a KV cache"),
        ({"runtime_class": "served", "expert_parallel": 2}, "has no experts"),
        ({"runtime_class": "served", "dtype": "int3"}, "no dtype to run a model in"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        template("bigscience/bloom-560m", **{"dtype": "bfloat16", **options})  # type: ignore[arg-type]


def test_memory_says_what_fits_and_how_often_a_server_runs() -> None:
    gpu = find("NVIDIA A100-SXM4-80GB")
    one = template("meta-llama/Llama-2-70b-hf", runtime_class="served", dtype="float16")
    four = template("meta-llama/Llama-2-70b-hf", runtime_class="served", dtype="float16", tensor_parallel=4)

    assert not one.memory(gpu, batch_size=1, context_tokens=640).weights_fit
    fit = four.memory(gpu, batch_size=1000, context_tokens=4096)
    assert fit.weights_fit
    assert fit.weight_bytes == pytest.approx(68_976_648_192 * 2 / 4)
    assert fit.sequence_bytes == pytest.approx(4096 * 2 * 80 * 8 * 128 * 2 / 4)
    assert fit.sequences == int((0.9 * (gpu.memory_bytes or 0) - fit.weight_bytes) // fit.sequence_bytes)
    assert fit.waves == -(-1000 // fit.sequences)
    assert four.memory(gpu, batch_size=1, context_tokens=10**9).waves is None


def test_a_sliding_window_bounds_the_cache() -> None:
    gpu = find("NVIDIA H100 80GB HBM3")
    graphs = template("google/gemma-3-27b-it", runtime_class="served", dtype="bfloat16")

    short = graphs.memory(gpu, batch_size=1, context_tokens=1024).sequence_bytes
    long = graphs.memory(gpu, batch_size=1, context_tokens=4096).sequence_bytes

    assert short < long < 2 * short  # five of six layers stop growing


@pytest.mark.parametrize(
    ("model", "asked", "run_in"),
    [
        ("Qwen/Qwen3-32B", "bfloat16", "bfloat16"),
        ("Qwen/Qwen3-32B-FP8", "bfloat16", "float8"),
        ("Qwen/Qwen3-32B", "float8", "float8"),
        ("nvidia/Qwen3-32B-NVFP4", "bfloat16", "float4"),
        ("nvidia/DeepSeek-R1-NVFP4", "bfloat16", "float4"),
        ("deepseek-ai/DeepSeek-R1", "bfloat16", "float8"),
        ("openai/gpt-oss-120b", "bfloat16", "mxfp4"),
        ("moonshotai/Kimi-K2.5", "bfloat16", "int4"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "float16", "int4"),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16", "bfloat16", "bfloat16"),
        ("deepseek-ai/DeepSeek-R1", "float32", "float32"),
    ],
)
def test_a_checkpoint_says_what_it_is_run_in(model: str, asked: str, run_in: str) -> None:
    assert checkpoint_dtype(model, asked) == run_in


def test_a_config_of_ones_own_is_captured(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(model_source("HuggingFaceTB/SmolLM2-135M").config_path.read_text().replace("30", "4"))

    graphs = template(str(path), runtime_class="served", dtype="bfloat16")

    assert graphs.model == "small"
    assert graphs.sizes.layers == 4
    assert graphs.prefill([1], [8]).flop.sum() > 0
