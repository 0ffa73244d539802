"""Equal layers are built and run once, and nothing else changes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.kernels import Phase
from harness.models.meta import meta_model
from harness.models.stand_ins import NotInterchangeable, RepeatedLayers, layers_built_once
from harness.models.tiny import tiny_config
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph

COUNTS = ("launches", "flop", "read_bytes", "write_bytes", "weight_bytes", "link_bytes")
ATTENTION_THEN_MAMBA = {"attn_layer_period": 4, "attn_layer_offset": 2, "expert_layer_period": 2}
SLIDING = ["sliding_attention"] * 5 + ["full_attention"]
# Every kind of layer several times, in the order of the published models.
REPEATED: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 5},
    "gemma3_text": {"num_hidden_layers": 8, "layer_types": (SLIDING * 2)[:8]},
    "qwen3_next": {
        "num_hidden_layers": 8,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2,
        "mlp_only_layers": [5],
    },
    "jamba": ATTENTION_THEN_MAMBA | {"num_hidden_layers": 7, "expert_layer_offset": 1},
    "deepseek_v3": {"num_hidden_layers": 6, "first_k_dense_replace": 2},
    "mixtral": {"num_hidden_layers": 4},
    "llama4_text": {"num_hidden_layers": 8},
    "granitemoehybrid": {"num_hidden_layers": 5, "layer_types": ["linear_attention"] * 2 + ["full_attention"] * 3},
    "gpt2": {"n_layer": 5},
    "falcon_h1": {"num_hidden_layers": 3},
    "diffllama": {"num_hidden_layers": 4},
}


def totals(graph: KernelGraph) -> dict[tuple[object, ...], list[int]]:
    """Counts of what is one kernel in a graph that is not unrolled."""
    found: dict[tuple[object, ...], list[int]] = {}
    for kernel in graph.kernels:
        module = kernel.module and re.sub(r"(?<=\.)\d+(?=\.|$)", "*", kernel.module)
        sums = found.setdefault((kernel.kind, kernel.op, module, kernel.dtype, kernel.shape), [0] * len(COUNTS))
        for place, name in enumerate(COUNTS):
            sums[place] += getattr(kernel, name)
    return found


def repeated_config(model_type: str) -> Any:
    """A tiny config with many layers."""
    stated = tiny_config(model_type).to_dict() | REPEATED[model_type]
    lists = {"layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type", "moe_layers"}
    plain = {name: value for name, value in stated.items() if name not in lists or name in REPEATED[model_type]}
    return AutoConfig.for_model(**plain)


@pytest.mark.parametrize("model_type", REPEATED)
def test_a_graph_whose_layers_stand_in_for_others_has_the_totals_of_one_that_ran_them_all(model_type: str) -> None:
    config = repeated_config(model_type)
    once, all_of_them = (GraphCapture(config, model=model_type, unroll=unroll) for unroll in (False, True))

    for phase in Phase:
        graph = once.capture(phase, batch_size=3, tokens=20)
        unrolled = all_of_them.capture(phase, batch_size=3, tokens=20)

        assert totals(graph) == totals(unrolled)
        assert len(graph.kernels) < len(unrolled.kernels)


def test_equal_layers_share_the_parameters_of_one() -> None:
    config = repeated_config("llama")
    once = meta_model(config, dtype=torch.bfloat16, once=True)
    whole = meta_model(config, dtype=torch.bfloat16)

    held = [sum(parameter.numel() for parameter in layer.parameters()) for layer in once.model.model.layers]

    assert whole.repeated is None
    assert held[0] == sum(parameter.numel() for parameter in whole.model.model.layers[0].parameters())
    assert held[1:] == [0, 0, 0, 0]


def test_layer_classes_are_left_as_they_were() -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    construct = LlamaDecoderLayer.__init__
    meta_model(repeated_config("llama"), dtype=torch.bfloat16, once=True)
    with pytest.raises(RuntimeError, match="boom"), layers_built_once(Model, PretrainedConfig()):
        raise RuntimeError("boom")

    assert LlamaDecoderLayer.__init__ is construct
    assert Layer.__init__.__qualname__ == "Layer.__init__"


Question = Callable[[int], object]


class Layer(GradientCheckpointingLayer):  # type: ignore[misc]  # transformers is not typed here
    """What it is depends on the answer to a question about its index."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.answer = bool(config.question(layer_idx))
        self.layer_idx = layer_idx
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, hidden: torch.Tensor, **options: Any) -> torch.Tensor:
        asked: Question = options.get("asked", lambda _: True)
        return torch.add(hidden, float(bool(asked(self.layer_idx))))


class Model(torch.nn.Module):
    """Eight layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(config, layer_idx=number) for number in range(8)])


def built(question: Question) -> tuple[Model, RepeatedLayers]:
    config = PretrainedConfig()
    config.question = question
    with layers_built_once(Model, config) as repeated:
        return Model(config), repeated


def same_and_built(question: Question) -> tuple[bool, int]:
    """Whether every layer got the answer of its own index, and how many were built."""
    model, _ = built(question)
    answers = [layer.answer for layer in model.layers]
    return answers == [bool(question(number)) for number in range(8)], len(list(model.parameters()))


@pytest.mark.parametrize(
    ("question", "layers"),
    [
        (lambda index: True, 1),
        (lambda index: index % 2, 2),
        (lambda index: index % 4 == 1, 2),
        (lambda index: (index + 1) % 3 == 0, 2),
        (lambda index: (index // 2) % 2 == 0, 2),
        (lambda index: index >= 3, 2),
        (lambda index: 3 <= index < 5, 3),
        (lambda index: index in (1, 6), 3),
        (lambda index: 7 % (index + 1) == 0, 2),
        (lambda index: not index, 2),
        (lambda index: max(index, 3) > 3, 3),  # 3, and what is compared with it
        (lambda index: index in {1, 2}, 8),  # a hash: only the same number will do
        (lambda index: int(index) > 3, 8),
    ],
)
def test_a_layer_stands_in_where_the_index_would_be_answered_the_same(question: Question, layers: int) -> None:
    assert same_and_built(question) == (True, layers)


@pytest.mark.parametrize(
    "question",
    [
        lambda index: index & 1,
        lambda index: index ^ 1 > 3,
        lambda index: (1 << index) & 0b1010,
        lambda index: index**2 > 9,
        lambda index: divmod(index, 2)[1],
        lambda index: -index < -3,
        lambda index: abs(index - 3) > 1,
        lambda index: float(index) > 3,
        lambda index: f"{index}" in "0123",
    ],
    ids=["and", "xor", "shift", "power", "divmod", "negative", "absolute", "float", "text"],
)
def test_no_layer_stands_in_for_one_that_what_python_computes_from_its_index_makes_another(question: Question) -> None:
    correct, _ = same_and_built(question)

    assert correct


def test_a_list_of_the_config_tells_layers_apart_whatever_its_name() -> None:
    config = PretrainedConfig()
    config.widths, config.question = [1, 1, 2, 2, 1, 1, 2, 2], lambda index: config.widths[index] == 2

    with layers_built_once(Model, config):
        model = Model(config)

    assert [layer.answer for layer in model.layers] == [width == 2 for width in config.widths]
    assert len(list(model.parameters())) == 2


def test_a_call_of_a_layer_is_counted_for_each_layer_it_stands_for() -> None:
    model, repeated = built(lambda index: index % 4 == 1)
    hidden = torch.zeros(2)

    for layer in model.layers:
        hidden = layer(hidden)

    assert sorted(repeated.repeats.values()) == [2, 6]
    assert repeated.current == []
    repeated.clear()
    assert repeated.repeats == {}


def test_a_stand_in_that_is_called_otherwise_than_its_original_is_noticed() -> None:
    model, _ = built(lambda index: True)
    model.layers[0](torch.zeros(2))

    with pytest.raises(NotInterchangeable):
        model.layers[1](torch.zeros(3))
    with pytest.raises(NotInterchangeable):
        model.layers[1](torch.zeros(2), scale=2.0)


def test_a_stand_in_that_is_called_before_its_original_is_noticed() -> None:
    model, _ = built(lambda index: True)

    with pytest.raises(NotInterchangeable):
        model.layers[7](torch.zeros(2))


def test_a_question_that_is_first_asked_in_the_forward_pass_is_noticed() -> None:
    model, _ = built(lambda index: True)
    model.layers[0](torch.zeros(2), asked=lambda index: index > 2)

    assert model.layers[2](torch.zeros(2), asked=lambda index: index > 2) is not None
    with pytest.raises(NotInterchangeable):
        model.layers[3](torch.zeros(2), asked=lambda index: index > 2)


def test_layers_that_look_alike_and_are_not_are_captured_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    plain = LlamaDecoderLayer.forward

    def every_other_twice(layer: Any, hidden: torch.Tensor, **options: Any) -> torch.Tensor:
        output: torch.Tensor = plain(layer, hidden, **options)
        return output * 2 if layer.self_attn.layer_idx % 2 else output

    monkeypatch.setattr(LlamaDecoderLayer, "forward", every_other_twice)
    graph = GraphCapture(repeated_config("llama"), model="odd").capture(Phase.PREFILL, batch_size=1, tokens=20)

    doubled = [kernel for kernel in graph.kernels if kernel.op == "aten::mul" and kernel.module == "model.layers.*"]
    assert [kernel.launches for kernel in doubled] == [2]
