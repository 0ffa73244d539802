"""What passes cost by their graphs: the roofs of each kernel, and sizes between those that are captured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import LlamaConfig

from harness.campaign.estimate import Machine
from harness.campaign.passes import FormulaPasses, GraphPasses, pass_cost
from harness.campaign.planning import Subject, passes_of
from harness.errors import CannotCapture
from harness.kernels import KernelKind, Phase
from harness.models.facts import model_facts
from harness.models.source import resolve
from harness.requests import Deployment
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import GraphKernel, KernelGraph

MACHINE = Machine(
    peak_flop_per_s=1000.0,
    peak_bytes_per_s=100.0,
    memory_bytes=10**9,
    idle_power_w=1,
    load_power_w=2,
    flop_efficiency=1.0,
    bytes_efficiency=1.0,
)
SMALL = LlamaConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=300,
)


def kernel(**counts: int) -> GraphKernel:
    plain = dict.fromkeys(("flop", "read_bytes", "write_bytes", "weight_bytes", "link_bytes"), 0) | {"launches": 1}
    return GraphKernel(
        kind=KernelKind.ELEMENTWISE, op="aten::add", module=None, dtype="float32", shape="{}", **plain | counts
    )


def graph(*kernels: GraphKernel) -> KernelGraph:
    return KernelGraph(
        model="m",
        phase=Phase.PREFILL,
        batch_size=1,
        query_tokens=1,
        context_tokens=1,
        dtype="float32",
        attention="sdpa",
        tensor_parallel=1,
        kernels=kernels,
        edges=(),
    )


def test_each_kernel_takes_its_slowest_roof() -> None:
    cost = pass_cost(graph(kernel(flop=2000, read_bytes=100), kernel(flop=1, read_bytes=200, write_bytes=100)), MACHINE)

    assert cost.busy_s == 2.0 + 3.0
    assert cost.duration_s == cost.busy_s


def test_links_are_a_roof_where_their_speed_is_known() -> None:
    sent = graph(replace(kernel(link_bytes=50, read_bytes=100), kind=KernelKind.ALL_REDUCE))

    assert pass_cost(sent, MACHINE).busy_s == 1.0
    assert pass_cost(sent, replace(MACHINE, link_bytes_per_s=10.0)).busy_s == 5.0


def test_a_gpu_waits_for_its_host_and_a_cpu_is_its_own_host() -> None:
    many = graph(kernel(launches=100, read_bytes=100))

    assert pass_cost(many, replace(MACHINE, host_s_per_launch=0.05)).duration_s == 5.0
    assert pass_cost(many, replace(MACHINE, host_s_per_launch=0.05, host_is_device=True)).duration_s == 6.0


def test_ranks_share_the_machine() -> None:
    shared = pass_cost(graph(kernel(read_bytes=100)), replace(MACHINE, ranks=4))

    assert shared.busy_s == 4.0
    assert shared.activation_bytes == 4 * 100


def test_activations_are_those_of_the_largest_launch_without_its_weights() -> None:
    cost = pass_cost(graph(kernel(launches=10, read_bytes=1000, weight_bytes=400), kernel(read_bytes=50)), MACHINE)

    assert cost.activation_bytes == 60


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("tokens", [7, 30, 200])
def test_between_captured_sizes_costs_are_those_of_a_graph_of_that_size(batch: int, tokens: int) -> None:
    machine = replace(MACHINE, peak_flop_per_s=1e30)  # one roof throughout: nothing to bend at
    capture = GraphCapture(SMALL, model="small", dtype="float32")
    passes = GraphPasses(capture, machine)

    prefill = pass_cost(capture.capture(Phase.PREFILL, batch_size=batch, tokens=tokens), machine)
    step = pass_cost(capture.capture(Phase.DECODE, batch_size=batch, tokens=tokens - 1), machine)

    assert passes.prefill(batch, tokens).busy_s == pytest.approx(prefill.busy_s, rel=1e-3)
    assert passes.step(batch, tokens).busy_s == pytest.approx(step.busy_s, rel=1e-3)
    assert passes.prefill(batch, tokens).activation_bytes == pytest.approx(prefill.activation_bytes, rel=1e-3)


def test_a_size_is_captured_once() -> None:
    captured = []

    class Counting(GraphCapture):
        def capture(self, phase: Phase, *, batch_size: int, tokens: int, kv_cache: bool = True) -> KernelGraph:
            captured.append((phase, batch_size, tokens))
            return super().capture(phase, batch_size=batch_size, tokens=tokens, kv_cache=kv_cache)

    passes = GraphPasses(Counting(SMALL, model="small", dtype="float32"), MACHINE)
    for tokens in range(1, 60):
        passes.prefill(4, tokens)

    assert len(captured) == len(set(captured)) <= 2 * 5


def test_a_model_whose_decode_cannot_be_captured_is_estimated_by_the_formula(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_dict() | {"architectures": ["LlamaForCausalLM"]}))
    source = resolve(str(tmp_path / "config.json"), random_weights=True)
    subject = Subject(source=source, facts=model_facts(source))
    deployment = Deployment(device="cpu", n_gpus=0)
    assert isinstance(passes_of(subject, deployment, "float32", MACHINE), GraphPasses)
    whole = GraphCapture.capture

    def prefill_alone(
        self: GraphCapture, phase: Phase, *, batch_size: int, tokens: int, kv_cache: bool = True
    ) -> KernelGraph:
        if phase is Phase.DECODE:
            raise CannotCapture("its step asks for values")
        return whole(self, phase, batch_size=batch_size, tokens=tokens, kv_cache=kv_cache)

    monkeypatch.setattr(GraphCapture, "capture", prefill_alone)

    assert isinstance(passes_of(subject, deployment, "float32", MACHINE), FormulaPasses)
