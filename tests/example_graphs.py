"""Small kernel graphs, written by hand, for tests that need no model."""

from typing import Any

from harness.hardware import Hardware, Peaks
from harness.kernels import KernelKind, Phase, shape_text
from harness.tracing.graph import Edge, GraphKernel, KernelGraph

# Round numbers, so that times can be worked out in the head: a GPU that does 1000 FLOP in the time of 1 byte.
GPU = Hardware(
    name="Round GPU",
    memory_bytes=80_000_000_000,
    peak_bytes_per_s=1e12,
    peak_flop_per_s=Peaks(float32=1e14, bfloat16=1e15),
    link_bytes_per_s=1e11,
    source="made up",
)


def a_kernel(kind: KernelKind = KernelKind.GEMM, **values: Any) -> GraphKernel:
    """A kernel: by default one product of 1 PFLOP that moves next to nothing, 1 s on the round GPU."""
    shape = values.pop("shape", {"m": 1, "n": 1, "k": 1} if kind is KernelKind.GEMM else {"elements": 8})
    defaults: dict[str, Any] = {
        "op": "aten::mm" if kind is KernelKind.GEMM else f"aten::{kind}",
        "module": "model.layers.*.mlp.up_proj",
        "dtype": "bfloat16",
        "launches": 1,
        "flop": 10**15 if kind is KernelKind.GEMM else 0,
        "read_bytes": 8,
        "write_bytes": 8,
        "weight_bytes": 0,
        "link_bytes": 0,
    }
    return GraphKernel(kind=kind, shape=shape_text(shape), **(defaults | values))


def a_graph(*kernels: GraphKernel, edges: tuple[tuple[int, int], ...] = (), **values: Any) -> KernelGraph:
    """A graph of these kernels."""
    defaults: dict[str, Any] = {
        "model": "someone/some-model",
        "phase": Phase.PREFILL,
        "batch_size": 1,
        "query_tokens": 512,
        "context_tokens": 512,
        "dtype": "bfloat16",
        "attention": "sdpa",
        "tensor_parallel": 1,
    }
    joined = tuple(Edge(source=source, target=target) for source, target in edges)
    return KernelGraph(kernels=kernels, edges=joined, **(defaults | values))


def a_small_model(**values: Any) -> KernelGraph:
    """Embedding, four layers of norm, three products, attention, activation, sum and all-reduce, and a head."""
    in_layer = "model.layers.*."
    kernels = (
        a_kernel(KernelKind.EMBEDDING, op="aten::embedding", module="model.embed_tokens", read_bytes=4 * 10**6),
        a_kernel(KernelKind.NORM, op="aten::rms_norm", module=f"{in_layer}norm", launches=4, flop=64, read_bytes=10**9),
        *(
            a_kernel(module=f"{in_layer}self_attn.{name}", launches=4, flop=10**13, weight_bytes=8)
            for name in ("q_proj", "k_proj", "v_proj")
        ),
        a_kernel(
            KernelKind.ATTENTION,
            op="aten::scaled_dot_product_attention",
            module=f"{in_layer}self_attn",
            shape={"batch": 1, "query_tokens": 512, "context_tokens": 512, "heads": 8, "kv_heads": 8, "head_dim": 64},
            launches=4,
            flop=2 * 10**13,
        ),
        a_kernel(KernelKind.ACTIVATION, op="aten::silu", module=f"{in_layer}mlp.act_fn", launches=4, flop=512),
        a_kernel(
            KernelKind.ALL_REDUCE,
            op="c10d::allreduce_",
            module=f"{in_layer}mlp",
            launches=8,
            flop=8,
            link_bytes=4 * 10**9,
            shape={"elements": 8, "ranks": 2},
        ),
        a_kernel(KernelKind.ELEMENTWISE, op="aten::add", module="model.layers.*", launches=8, flop=64),
        a_kernel(KernelKind.GEMM, module="lm_head", flop=10**12),
    )
    edges = ((0, 1), (0, 8), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9))
    return a_graph(*kernels, edges=edges, **({"tensor_parallel": 2} | values))
