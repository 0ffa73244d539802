"""Short names of kernels, for places where the full ones do not fit."""

from harness.hardware import Hardware
from harness.kernels import Phase, shape_dimensions
from harness.report.text import percent, plain, plural, short
from harness.tracing.graph import GraphKernel, KernelGraph
from harness.tracing.placement import PlacedKernel
from harness.units import si

_SHORT_OPS = {
    "scaled_dot_product_attention": "sdpa",
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
}


def op_name(op: str) -> str:
    """An operator without its namespace.

    >>> op_name("aten::mm"), op_name("c10d::allreduce_")
    ('mm', 'all_reduce')
    """
    name = plain(op).rpartition("::")[2]
    return _SHORT_OPS.get(name, name.strip("_"))


def module_name(module: str | None) -> str:
    """The last part of a module's path that is no number.

    >>> module_name("model.layers.*.mlp.up_proj"), module_name("model.layers.*"), module_name(None)
    ('up_proj', 'layer', '')
    """
    parts = plain(module).split(".") if module else [""]
    names = [part for part in parts if part != "*" and not part.isdigit()]
    return "layer" if parts[-1] != names[-1] else names[-1]


def kernel_name(kernel: GraphKernel, length: int = 60) -> str:
    """Module and operator; the module is cut where both do not fit.

    >>> kernel = GraphKernel(kind="gemm", op="aten::mm", module="model.layers.*.mlp.up_proj", dtype="bfloat16",
    ...     shape='{"m":1,"n":2,"k":3}', launches=1, flop=12, read_bytes=1, write_bytes=1, weight_bytes=0, link_bytes=0)
    >>> kernel_name(kernel), kernel_name(kernel, 8)
    ('up_proj mm', 'up_p… mm')
    """
    op, module = op_name(kernel.op), module_name(kernel.module)
    room = length - len(op) - 1
    return short(op, length) if room < 3 or not module else f"{short(module, room)} {op}"


def shape_name(kernel: GraphKernel) -> str:
    """Named dimensions of one launch.

    >>> kernel = GraphKernel(kind="norm", op="aten::mul", module=None, dtype="bfloat16", shape='{"elements":8}',
    ...     launches=1, flop=8, read_bytes=1, write_bytes=1, weight_bytes=0, link_bytes=0)
    >>> shape_name(kernel)
    'elements 8'
    """
    return " ".join(f"{name} {size}" for name, size in shape_dimensions(kernel.shape).items())


def brief_shape(kernel: GraphKernel) -> str:
    """Dimensions without names where those are known to the reader: m × n × k."""
    sizes = shape_dimensions(kernel.shape)
    product = [sizes[name] for name in ("batch", "m", "n", "k") if name in sizes]
    if {"m", "n", "k"} <= sizes.keys():
        return " × ".join(map(str, product))
    if {"query_tokens", "context_tokens", "heads"} <= sizes.keys():
        return f"{sizes.get('batch', 1)} × {sizes['query_tokens']} × {sizes['context_tokens']}, {sizes['heads']} heads"
    if "elements" in sizes:
        others = "".join(f", {size} {name}" for name, size in sizes.items() if name != "elements")
        return f"{si(sizes['elements'], '').rstrip()} elements{others}"
    return shape_name(kernel)


def request_text(graph: KernelGraph) -> str:
    """What is computed: batch, tokens, dtype, attention, ranks."""
    if graph.phase is Phase.PREFILL:
        tokens = f"{graph.query_tokens} tokens"
    elif graph.query_tokens == 1:
        tokens = f"1 token after {graph.context_tokens - 1} in the cache"
    else:
        tokens = f"{graph.query_tokens} tokens, no cache"
    ranks = f", one of {graph.tensor_parallel} ranks" if graph.tensor_parallel > 1 else ""
    return f"{graph.batch_size} × {tokens}, {graph.dtype}, {graph.attention} attention{ranks}"


def gpu_text(hardware: Hardware, *, assumed: bool) -> str:
    """The GPU that times refer to, and whether anybody asked for it."""
    return f"{hardware.name} (assumed; choose with --gpu)" if assumed else hardware.name


def describe(placed: PlacedKernel) -> str:
    """One sentence about a kernel, for tooltips and for those who cannot see the drawing."""
    kernel = placed.kernel
    link = f", {si(kernel.link_bytes, 'B')} over links" if kernel.link_bytes else ""
    return (
        f"{kernel.kind}: {plain(kernel.op)} in {plain(kernel.module)}, {shape_name(kernel)}, "
        f"{plural(kernel.launches, 'launch', 'launches')}, {si(kernel.flop, 'FLOP')}, "
        f"{si(kernel.traffic_bytes, 'B')}{link}; at least {si(placed.time_s, 's')}, {percent(placed.share)} of the "
        f"time, bound by {placed.side}"
    )
