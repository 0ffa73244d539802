"""Plans, degrees and shares without any rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.kernels import KernelKind
from harness.models.parallel import (
    Exchange,
    Rule,
    Style,
    TensorPlan,
    check_degree,
    collectives_of,
    counts_of,
    local_elements,
    local_shape,
    localise,
    shard_of,
    share_on_meta,
    tensor_plan,
    working_degrees,
)
from harness.models.parallel_styles import spans_of

Build = Callable[..., Any]
HEADS_9_3: dict[str, Any] = {  # the heads of SmolLM2-135M
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
}


@pytest.fixture
def on_meta(tiny_config: Callable[..., Path]) -> Build:
    """A whole tiny model of an architecture on the meta device, with whatever is to be different."""
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM

    def build(architecture: str, **changes: Any) -> Any:
        config = AutoConfig.from_pretrained(tiny_config(architecture, **changes).parent)
        with torch.device("meta"):
            return auto.from_config(config, dtype=torch.bfloat16, attn_implementation="eager").eval()

    return build


def refused(model: Any, degree: int) -> str:
    with pytest.raises(UsageError) as caught:
        check_degree(model, tensor_plan(model), degree, "the model")
    return str(caught.value)


def test_transformers_own_plan_is_taken_where_it_has_one(on_meta: Build) -> None:
    plan = tensor_plan(on_meta("llama"))

    assert plan.origin == "transformers"
    assert Rule(path="model.layers.*.self_attn.o_proj", style=Style.ROWWISE) in plan.rules


@pytest.mark.parametrize("family", ["opt", "bloom", "falcon", "gpt2"])
def test_families_without_a_plan_in_transformers_have_ours(on_meta: Build, family: str) -> None:
    model = on_meta(family)
    plan = tensor_plan(model)
    assert plan.origin == "joulegraph"
    names = {".".join("*" if part.isdigit() else part for part in path.split(".")) for path, _ in model.named_modules()}
    assert {rule.path for rule in plan.rules} <= names


@pytest.mark.parametrize("family", ["mamba", "openai-gpt"])
def test_a_family_without_any_plan_is_named(on_meta: Build, family: str) -> None:
    with pytest.raises(UsageError, match=f"no tensor-parallel plan for {family}.*\n.*--gpus 1"):
        tensor_plan(on_meta(family))


def test_a_plan_that_splits_the_head_alone_is_no_plan(on_meta: Build) -> None:
    model = on_meta("lfm2")
    assert model.tp_plan == {"lm_head": "colwise_gather_output"}
    with pytest.raises(UsageError, match="no tensor-parallel plan for lfm2"):
        tensor_plan(model)


def test_a_style_of_a_later_transformers_is_refused_by_name(on_meta: Build) -> None:
    model = on_meta("llama")
    model._tp_plan = {"model.layers.*.self_attn.q_proj": "spiral"}
    with pytest.raises(UsageError, match="splits llama with the style 'spiral'"):
        tensor_plan(model)


def test_a_parameter_takes_its_own_rule_before_that_of_its_module() -> None:
    plan = TensorPlan(
        rules=(
            Rule(path="layers.*.experts", style=Style.MOE_TP_EXPERTS),
            Rule(path="layers.*.experts.up", style=Style.COLWISE),
        ),
        origin="transformers",
    )
    assert plan.module_style("layers.12.experts") is Style.MOE_TP_EXPERTS
    assert plan.parameter_style("layers.12.experts.up") is Style.COLWISE
    assert plan.parameter_style("layers.12.experts.down") is Style.MOE_TP_EXPERTS
    assert plan.parameter_style("layers.12.norm.weight") is None


def test_an_embedding_that_shares_its_matrix_with_a_split_head_is_split_too(on_meta: Build) -> None:
    tied, untied = (tensor_plan(on_meta("gpt_neox", tie_word_embeddings=tied)) for tied in (True, False))
    assert tied.module_style("gpt_neox.embed_in") is Style.EMBEDDING_ROWWISE
    assert untied.module_style("gpt_neox.embed_in") is None


def test_nine_heads_and_three_kv_heads_work_on_one_and_three_gpus(on_meta: Build) -> None:
    model = on_meta("llama", **HEADS_9_3)

    assert working_degrees(model, tensor_plan(model)) == (1, 3)
    check_degree(model, tensor_plan(model), 3, "SmolLM2")
    message = refused(model, 2)

    assert message.splitlines() == [
        "the model cannot be split over 2 GPUs: 9 attention heads and 3 KV heads do not divide by 2.",
        "--gpus 1 or 3 work.",
    ]


def test_a_prime_number_of_heads_leaves_one_gpu(on_meta: Build) -> None:
    model = on_meta("falcon", num_attention_heads=71, hidden_size=4544)  # Falcon-7B
    assert refused(model, 2).splitlines() == [
        "the model cannot be split over 2 GPUs: 71 attention heads do not divide by 2.",
        "--gpus 1 works.",
    ]


@pytest.mark.parametrize(
    ("family", "changes", "degree", "reason"),
    [
        ("llama", {"intermediate_size": 98, "num_key_value_heads": 4}, 4, "an MLP width of 98 do"),
        ("mixtral", {"intermediate_size": 48}, 2, None),
        ("mixtral", {"intermediate_size": 24}, 2, "an expert width of 24 in pieces of 8"),
        ("qwen2", {}, 4, "2 KV heads do"),
        ("gpt2", {"n_head": 8}, 3, "8 attention heads and an MLP width of 256 do"),
        ("opt", {}, 8, "4 attention heads do"),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, 4, "2 KV heads do"),
        ("deepseek_v3", {}, 3, "an expert width of 32 in pieces of 8"),
        ("phi3", {}, 5, None),  # its projections are gathered again, so nothing must divide
    ],
)
def test_what_does_not_divide_is_said(
    on_meta: Build, family: str, changes: dict[str, int], degree: int, reason: str | None
) -> None:
    model = on_meta(family, **changes)
    if reason is None:
        check_degree(model, tensor_plan(model), degree, family)
    else:
        assert reason in refused(model, degree)


def test_multi_head_attention_has_no_kv_heads_of_its_own(on_meta: Build) -> None:
    model = on_meta("opt")
    assert [count.text for count in counts_of(model, tensor_plan(model))] == ["4 attention heads", "an MLP width of 96"]


@pytest.mark.parametrize(
    ("style", "name", "shape", "shares"),
    [
        (Style.COLWISE, "weight", (12, 8), [(4, 8)] * 3),
        (Style.COLWISE, "bias", (12,), [(4,)] * 3),
        (Style.COLWISE, "up_proj", (5, 12, 8), [(5, 4, 8)] * 3),
        (Style.ROWWISE, "weight", (8, 12), [(8, 4)] * 3),
        (Style.ROWWISE, "bias", (12,), [(12,)] * 3),
        (Style.PACKED_COLWISE, "gate_up_proj", (5, 24, 8), [(5, 8, 8)] * 3),
        (Style.EMBEDDING_ROWWISE, "weight", (10, 8), [(4, 8), (4, 8), (2, 8)]),
        (Style.COLWISE_GATHER_OUTPUT, "weight", (4, 8), [(2, 8), (2, 8), (0, 8)]),
        (Style.CONV1D_COLWISE, "weight", (8, 12), [(8, 4)] * 3),
        (Style.CONV1D_COLWISE_3_BLOCKS, "bias", (36,), [(12,)] * 3),
        (Style.CONV1D_ROWWISE, "weight", (12, 8), [(4, 8)] * 3),
        (Style.REPLICATE, "weight", (12, 8), [(12, 8)] * 3),
        (Style.MOE_TP_EXPERTS, "down_proj_bias", (5, 12), [(5, 12)] * 3),
    ],
)
def test_shares_have_known_shapes(
    style: Style, name: str, shape: tuple[int, ...], shares: list[tuple[int, ...]]
) -> None:
    assert [shard_of(style, name, shape, 3, rank=rank) for rank in range(3)] == shares
    assert shard_of(style, name, shape, 1) == shape


def test_with_one_kv_head_every_rank_has_it_whole() -> None:
    shape = (12 + 4, 12)  # six heads of two, one key and one value
    assert shard_of(Style.QKV_MULTI_QUERY, "weight", shape, 3, kv_width=4) == (8, 12)
    with pytest.raises(ValueError, match="kv_width"):
        shard_of(Style.QKV_MULTI_QUERY, "weight", shape, 3)


@given(width=st.integers(1, 200), blocks=st.integers(1, 13), degree=st.integers(1, 9))
def test_the_parts_of_all_ranks_are_the_whole_and_do_not_overlap(width: int, blocks: int, degree: int) -> None:
    held = [
        index
        for rank in range(degree)
        for span in spans_of(width, blocks=blocks, degree=degree, rank=rank)
        for index in range(span.start, span.stop)
    ]
    assert sorted(held) == list(range(width))


@given(width=st.integers(1, 200), degree=st.integers(1, 9))
def test_parts_are_those_of_torch_chunk(width: int, degree: int) -> None:
    chunks = torch.arange(width).chunk(degree)
    for rank in range(degree):
        spans = spans_of(width, blocks=1, degree=degree, rank=rank)
        held = [index for span in spans for index in range(span.start, span.stop)]
        assert held == (chunks[rank].tolist() if rank < len(chunks) else [])


def test_collectives_are_known() -> None:
    (reduced,), (gathered,) = collectives_of(Style.ROWWISE), collectives_of(Style.COLWISE_GATHER_OUTPUT)
    assert (reduced.kind, reduced.bias_after) == (KernelKind.ALL_REDUCE, True)
    assert (gathered.kind, gathered.bias_after) == (KernelKind.ALL_GATHER, False)
    assert collectives_of(Style.COLWISE) == ()


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "deepseek_v3", "gemma2", "bloom", "mixtral"])
def test_a_share_on_the_meta_device_runs_and_has_whole_logits(on_meta: Build, family: str) -> None:
    model = on_meta(family)
    plan = tensor_plan(model)
    exchanges: list[Exchange] = []
    elements = local_elements(model, plan, degree=2)

    share_on_meta(model, plan, degree=2, observe=exchanges.append)
    with torch.inference_mode():
        logits = model(torch.zeros((3, 5), dtype=torch.int64, device="meta"), use_cache=True).logits

    assert logits.shape == (3, 5, 300)
    assert sum(parameter.numel() for parameter in model.parameters()) == elements
    assert exchanges[0] == Exchange(
        module=exchanges[0].module, kind=KernelKind.ALL_REDUCE, shape=(3, 5, 64), dtype=torch.bfloat16, degree=2
    )
    assert exchanges[0].size_bytes == 3 * 5 * 64 * 2
    assert (exchanges[-1].kind, exchanges[-1].shape) == (KernelKind.ALL_GATHER, (3, 5, 150))


def test_a_llama_layer_is_reduced_twice_and_the_vocabulary_at_both_ends(on_meta: Build) -> None:
    model = on_meta("llama", num_hidden_layers=3)
    seen: list[Exchange] = []
    share_on_meta(model, tensor_plan(model), degree=2, observe=seen.append)
    with torch.inference_mode():
        model(torch.zeros((1, 2), dtype=torch.int64, device="meta"), use_cache=True)

    layers = [f"model.layers.{layer}.{name}" for layer in range(3) for name in ("self_attn.o_proj", "mlp.down_proj")]
    assert [exchange.module for exchange in seen] == ["model.embed_tokens", *layers, "lm_head"]


def test_a_share_of_one_rank_is_the_model(on_meta: Build) -> None:
    model = on_meta("bloom")
    before = [(path, parameter) for path, parameter in model.named_parameters()]
    share_on_meta(model, tensor_plan(model), degree=1)
    assert all(parameter is model.get_parameter(path) for path, parameter in before)
    assert model.transformer.h[0].self_attention.num_heads == 4


def test_shared_parameters_stay_shared(on_meta: Build) -> None:
    model = on_meta("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    share_on_meta(model, tensor_plan(model), degree=2)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.lm_head.weight.shape == (150, 64)


def test_counts_that_do_not_divide_are_an_error_and_not_rounded(on_meta: Build) -> None:
    model = on_meta("opt")
    with pytest.raises(ValueError, match="4 does not divide by 3"):
        localise(model, tensor_plan(model), degree=3, rank=0)


def test_the_slopes_of_a_rank_are_those_of_its_heads(load_tiny: Callable[..., Any]) -> None:
    model = load_tiny("bloom").model
    attention = model.transformer.h[0].self_attention
    seen: list[torch.Tensor] = []
    localise(model, tensor_plan(model), degree=2, rank=1)
    attention.forward = lambda *_args, alibi, **_kwargs: seen.append(alibi)
    alibi = torch.arange(2 * 4 * 3.0).view(2 * 4, 1, 3)  # [batch * heads, 1, context]

    attention(torch.zeros(2, 3, 64), torch.zeros(2, 3, 64), alibi=alibi, attention_mask=None)

    assert torch.equal(seen[0], alibi[[2, 3, 6, 7]])


def test_a_fused_query_with_one_kv_head_is_measured_by_the_head(on_meta: Build) -> None:
    model = on_meta("falcon", multi_query=True)
    plan = tensor_plan(model)
    path = "transformer.h.0.self_attention.query_key_value.weight"
    assert local_shape(model, plan, path, (64 + 32, 64), degree=2, rank=1) == (32 + 32, 64)
