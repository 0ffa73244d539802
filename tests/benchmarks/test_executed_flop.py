from math import prod
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.executed_flop import UncountedOperator, counted, executed_flop
from benchmarks.execution import BATCH_SIZE, PROMPT_TOKENS, PhaseFlop, Status
from harness.models.steps import forward_options
from harness.models.tiny import tiny_config, tiny_model, tiny_prompt


def llama_weights(config: Any) -> int:
    """Of the matrices of a layer that every token meets."""
    attended = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    return int(config.hidden_size * (attended + 3 * config.intermediate_size))


def mixtral_weights(config: Any) -> int:
    experts = config.num_experts_per_tok * 3 * config.intermediate_size
    kv_width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    return int(config.hidden_size * (2 * config.hidden_size + 2 * kv_width + config.num_local_experts + experts))


def gpt2_weights(config: Any) -> int:
    return int(12 * config.hidden_size**2)


@pytest.mark.parametrize(
    ("model_type", "weights"), [("llama", llama_weights), ("mixtral", mixtral_weights), ("gpt2", gpt2_weights)]
)
def test_flop_are_those_of_the_closed_form(model_type: str, weights: Any) -> None:
    config = tiny_config(model_type)
    layers, width = config.num_hidden_layers, config.hidden_size
    head = 2 * BATCH_SIZE * width * config.vocab_size  # of the last position

    execution = executed_flop(model_type)

    def phase(tokens: int, context: int) -> PhaseFlop:
        return PhaseFlop(
            matmul_flop=2 * BATCH_SIZE * tokens * layers * weights(config) + head,
            attention_flop=4 * BATCH_SIZE * layers * width * tokens * context,
            convolution_flop=0,
            solve_flop=0,
        )

    assert execution.prefill == phase(PROMPT_TOKENS, PROMPT_TOKENS)
    assert execution.decode == phase(1, PROMPT_TOKENS + 1)
    assert (execution.status, execution.attention, execution.kv_cache) == (Status.OK, "sdpa", True)
    assert execution.flop_vary is False


def profiled_flop(event: Any) -> int:
    """FLOP of a leaf operator, from the shapes that the profiler recorded below all dispatch modes."""
    shapes: list[list[int]] = event.input_shapes
    match event.name:
        case "aten::mm":
            return 2 * prod(shapes[0]) * shapes[1][1]
        case "aten::addmm":
            return 2 * prod(shapes[1]) * shapes[2][1]
        case "aten::bmm":
            return 2 * prod(shapes[0]) * shapes[1][2]
        case "aten::baddbmm":
            return 2 * prod(shapes[1]) * shapes[2][2]
        case "aten::_scaled_dot_product_flash_attention_for_cpu":
            return 2 * prod(shapes[0][:3]) * shapes[1][2] * (shapes[0][3] + shapes[2][3])
    return 0


@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v3", "bloom", "mamba2", "qwen3_next"])
def test_no_product_escapes_the_count(model_type: str) -> None:
    """The profiler sees what kernels call inside, grouped experts one by one."""
    model = tiny_model(model_type, seed=0)
    prompt = tiny_prompt(model, batch_size=BATCH_SIZE, prompt_tokens=PROMPT_TOKENS, seed=0)
    options = forward_options(model, kv_cache=True)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        model(prompt, **options)

    execution = executed_flop(model_type)

    assert execution.prefill is not None
    assert execution.prefill.total_flop == sum(profiled_flop(event) for event in trace.events())


@pytest.mark.parametrize(
    ("operator", "shapes", "kind", "flop"),
    [
        (torch.mv, [(5, 3), (3,)], "matmul_flop", 30),
        (torch.dot, [(7,), (7,)], "matmul_flop", 14),
        (torch.addmv, [(5,), (5, 3), (3,)], "matmul_flop", 30),
        (torch.addbmm, [(5, 2), (4, 5, 3), (4, 3, 2)], "matmul_flop", 240),
        (torch.baddbmm, [(4, 5, 2), (4, 5, 3), (4, 3, 2)], "matmul_flop", 240),
        (torch.nn.functional.linear, [(2, 5, 3), (4, 3), (4,)], "matmul_flop", 240),
        (torch.nn.functional.conv1d, [(1, 6, 10), (6, 1, 3), (6,), 1, 0, 1, 6], "convolution_flop", 2 * 6 * 8 * 3),
        (
            torch.nn.functional.scaled_dot_product_attention,
            [(2, 4, 5, 8)] * 3,
            "attention_flop",
            2 * 2 * 4 * 5 * 5 * 16,
        ),
    ],
)
def test_operators_have_known_answers(operator: Any, shapes: list[Any], kind: str, flop: int) -> None:
    operands = [torch.ones(shape) if isinstance(shape, tuple) else shape for shape in shapes]

    assert getattr(counted(lambda: operator(*operands)).flop, kind) == flop


def test_keys_shared_by_heads_do_not_lower_the_flop_of_attention() -> None:
    query, shared = torch.ones(2, 4, 5, 8), torch.ones(2, 1, 9, 8)
    attend = torch.nn.functional.scaled_dot_product_attention

    done = counted(lambda: attend(query, shared, shared, enable_gqa=True))

    assert done.flop.total_flop == 4 * 2 * 4 * 5 * 9 * 8


def test_experts_are_counted_by_their_tokens_however_these_are_spread() -> None:
    tokens, experts = torch.ones(6, 16), torch.ones(3, 16, 8)

    def flop(*ends: int) -> int:
        offsets = torch.tensor(ends, dtype=torch.int32)
        return counted(lambda: torch.nn.functional.grouped_mm(tokens, experts, offs=offsets)).flop.matmul_flop

    assert flop(2, 4, 6) == flop(0, 6, 6) == 2 * 6 * 16 * 8


def test_triangular_systems_are_no_products_and_counted_apart() -> None:
    done = counted(lambda: torch.linalg.solve_triangular(torch.eye(4), torch.ones(4, 3), upper=False))

    assert (done.flop.total_flop, done.flop.solve_flop) == (0, 4 * 4 * 3)


def test_an_operator_that_nobody_has_reviewed_ends_the_count() -> None:
    with pytest.raises(UncountedOperator, match=r"aten\.linalg_inv_ex"):
        counted(lambda: torch.linalg.inv(torch.eye(3)))


def test_a_model_without_a_cache_recomputes_its_context() -> None:
    execution = executed_flop("openai-gpt")

    assert execution.prefill is not None
    assert execution.decode is not None
    assert execution.kv_cache is False
    assert execution.kv_cache_problem == "its forward pass takes no cache"
    assert execution.decode.total_flop > execution.prefill.total_flop


def test_a_step_that_fails_with_a_cache_says_so() -> None:
    execution = executed_flop("cpmant")

    assert execution.status is Status.OK
    assert execution.kv_cache is False
    assert "must match the size" in str(execution.kv_cache_problem)


def test_flop_that_depend_on_the_routing_are_said_to_vary() -> None:
    assert executed_flop("longcat_flash").flop_vary  # some of its experts do nothing


def test_what_cannot_run_says_why_with_the_exception() -> None:
    execution = executed_flop("musicgen")

    assert execution.status is Status.CANNOT_RUN
    assert execution.prefill is None
    assert str(execution.reason).startswith("AutoModelForCausalLM hands the config of the whole to the decoder")
    assert "AttributeError" in str(execution.reason)
