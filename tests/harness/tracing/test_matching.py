"""The kernels of a real trace are found in the graph of the same pass."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.kernels import KernelKind, Phase
from harness.models.tiny import tiny_config, tiny_model
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import GraphKernel, KernelGraph
from harness.tracing.matching import Rule, match
from harness.tracing.timeline import TracedKernel, trace

EXACT = (Rule.NAME, Rule.WORK)


def graph_kernel(kind: KernelKind, op: str, module: str | None, shape: str = "{}") -> GraphKernel:
    counts = dict.fromkeys(("flop", "read_bytes", "write_bytes", "weight_bytes", "link_bytes"), 1)
    return GraphKernel(kind=kind, op=op, module=module, dtype="float32", shape=shape, launches=1, **counts)


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


def traced(kind: KernelKind, op: str, module: str | None, shape: str = "{}", duration_s: float = 1.0) -> TracedKernel:
    return TracedKernel(
        kernel_id="k0",
        kind=kind,
        op=op,
        module=module,
        dtype="float32",
        shape=shape,
        launches=1,
        flop=None,
        read_bytes=None,
        write_bytes=None,
        traced_duration_s=duration_s,
    )


def test_the_strictest_rule_that_fits_is_used() -> None:
    whole = graph(
        graph_kernel(KernelKind.GEMM, "aten::mm", "a", '{"m":1}'),
        graph_kernel(KernelKind.ATTENTION, "aten::scaled_dot_product_attention", "b", '{"batch":1}'),
        graph_kernel(KernelKind.OTHER, "aten::convolution", "c", '{"elements":1}'),
    )
    found = match(
        whole,
        [
            traced(KernelKind.GEMM, "aten::mm", "a", '{"m":1}'),
            traced(KernelKind.ATTENTION, "flash_attn::_flash_attn_forward", "b", '{"batch":1}'),
            traced(KernelKind.OTHER, "aten::mkldnn_convolution", "c", '{"elements":2}'),
            traced(KernelKind.ELEMENTWISE, "aten::_softmax", "b", '{"elements":9}'),
            traced(KernelKind.GEMM, "aten::mm", "elsewhere", '{"m":1}', duration_s=4.0),
        ],
    )

    assert [(pair.kernel, pair.rule) for pair in found.pairs] == [
        (0, Rule.NAME),
        (1, Rule.WORK),
        (2, Rule.PLACE),
        (1, Rule.PART),
        (None, None),
    ]
    assert [kernel.module for kernel in found.unmatched] == ["elsewhere"]
    assert found.matched_launch_share == pytest.approx(4 / 5)
    assert found.matched_time_share == pytest.approx(4 / 8)
    assert found.untraced == ()


def test_a_kernel_of_the_graph_that_was_not_traced_is_named() -> None:
    whole = graph(graph_kernel(KernelKind.GEMM, "aten::mm", "a"), graph_kernel(KernelKind.NORM, "aten::pow", "b"))

    assert match(whole, [traced(KernelKind.NORM, "aten::pow", "b")]).untraced == (0,)


def test_kernels_that_nothing_else_is_come_first() -> None:
    whole = graph(
        graph_kernel(KernelKind.GEMM, "aten::mm", "a", '{"m":1}'),
        graph_kernel(KernelKind.GEMM, "aten::mm", "a", '{"m":2}'),
    )
    found = match(whole, [traced(KernelKind.GEMM, "aten::mm", "a", size) for size in ('{"m":1}', '{"m":3}', '{"m":4}')])

    assert [pair.kernel for pair in found.pairs] == [0, 1, 0]


def traced_and_captured(model_type: str, phase: Phase) -> Any:
    """A real pass on the CPU under the profiler, and the graph of the same pass."""
    model = tiny_model(model_type, seed=0)
    attention = model.config._attn_implementation
    prompt = torch.randint(40, 300, (2, 24))
    options: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
    if phase is Phase.DECODE:
        with torch.inference_mode():
            cache = model(prompt, **options).past_key_values
        options, prompt = options | {"past_key_values": cache}, prompt[:, :1]
    kernels = trace(model, phase, lambda: model(prompt, **options), dtype="float32", device="cpu")
    capture = GraphCapture(tiny_config(model_type), model=model_type, dtype="float32", attention=attention)
    return kernels, capture.capture(phase, batch_size=2, tokens=24)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2", "mixtral", "qwen3_next"])
def test_a_real_trace_is_found_in_the_graph_launch_for_launch(model_type: str, phase: Phase) -> None:
    kernels, captured = traced_and_captured(model_type, phase)
    found = match(captured, kernels)
    by_name = [pair for pair in found.pairs if pair.rule in EXACT]
    products = [pair for pair in by_name if pair.traced.kind in {KernelKind.GEMM, KernelKind.MOE_GEMM}]

    assert found.unmatched == ()
    assert sum(pair.traced.launches for pair in by_name) >= 0.9 * sum(kernel.launches for kernel in kernels)
    for pair in products:
        assert captured.kernels[pair.kernel].launches == pair.traced.launches, pair.traced
        assert captured.kernels[pair.kernel].flop == pair.traced.flop, pair.traced


def test_a_trace_of_another_model_is_not_found_by_shape() -> None:
    kernels, captured = traced_and_captured("llama", Phase.PREFILL)
    other = tuple(replace(kernel, module=f"other.{kernel.module}") for kernel in kernels if kernel.module)

    assert match(captured, other).matched_launch_share == 0
