"""What a kernel of a captured graph is to a lowering, by its kind, its name and its shape."""

from collections.abc import Mapping, Sequence

from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.graph import GraphKernel, KernelGraph

ATTENTION = "#attention"  # ends the name of attention that shares its path with scans
INDEXER = "indexer"
EXPERTS = "experts"
_ADDS = frozenset({"aten::add", "aten::add_"})
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def by_module(graph: KernelGraph) -> dict[str, list[GraphKernel]]:
    """Kernels by module; attention that shares its path with scans (Nemotron-H) has a name of its own."""
    found: dict[str, list[GraphKernel]] = {}
    for kernel in graph.kernels:
        if kernel.module is not None:
            found.setdefault(kernel.module, []).append(kernel)
    for module, kernels in list(found.items()):
        attending = {kernel.launches for kernel in kernels if kernel.kind is KernelKind.ATTENTION}
        if attending and any(map(is_scan, kernels)):
            first = next(index for index, kernel in enumerate(kernels) if kernel.kind is KernelKind.ATTENTION)
            scans = max(index for index, kernel in enumerate(kernels) if is_scan(kernel))
            start = scans + 1 if scans < first else first
            found[module], found[module + ATTENTION] = kernels[:start], kernels[start:]
    return found


def scan_products(modules: Mapping[str, Sequence[GraphKernel]], scan: str) -> dict[str, dict[str, int]]:
    """Sizes of the products around a scan by their names."""
    return {
        name.rpartition(".")[2]: shape_dimensions(kernels[0].shape)
        for name, kernels in modules.items()
        if name.rpartition(".")[0] == scan
        and kernels[0].kind is KernelKind.GEMM
        and name.rpartition(".")[2].startswith(("in_", "out_", "x_", "dt_"))
    }


def is_experts(name: str, kernels: Sequence[GraphKernel]) -> bool:
    """Whether a module multiplies with experts: grouped, all of them at once, or one after the other."""
    grouped = any(kernel.kind is KernelKind.MOE_GEMM for kernel in kernels)
    return grouped or (EXPERTS in name.split(".") and any(map(multiplies, kernels)))


def before_experts(name: str) -> str:
    """The module that holds experts and what chooses among them."""
    parts = name.split(".")
    return ".".join(parts[: parts.index(EXPERTS)]) if EXPERTS in parts else name.rpartition(".")[0]


def is_scan(kernel: GraphKernel) -> bool:
    """Whether a kernel carries a state along the sequence."""
    return kernel.kind is KernelKind.SCAN


def multiplies(kernel: GraphKernel) -> bool:
    """Whether a kernel is a product or attention."""
    return kernel.kind in {KernelKind.GEMM, KernelKind.MOE_GEMM, KernelKind.ATTENTION}


def is_batched(kernel: GraphKernel) -> bool:
    """Whether a kernel is many products of one shape."""
    return kernel.kind is KernelKind.GEMM and "batch" in shape_dimensions(kernel.shape)


def attends(name: str, kernels: Sequence[GraphKernel]) -> bool:
    """Whether a module attends: in one kernel, or in two batched products."""
    fused = any(kernel.kind is KernelKind.ATTENTION for kernel in kernels)
    return fused or (sum(map(is_batched, kernels)) >= 2 and not name.endswith((INDEXER, EXPERTS)))


def is_residual(kernel: GraphKernel, hidden: int) -> bool:
    """Whether a kernel adds what a layer gave to ``hidden`` numbers that went in."""
    in_layer = (kernel.module or "").rpartition(".")[2] == "*"
    return in_layer and kernel.op in _ADDS and elements(kernel) == hidden


def elements(kernel: GraphKernel) -> int:
    """Numbers that a kernel works on in one launch."""
    sizes = shape_dimensions(kernel.shape)
    return sizes.get("elements", sizes.get("rows", 0) * sizes.get("width", 0))


def numbers(kernel: GraphKernel, size_bytes: int) -> int:
    """Numbers per launch behind some bytes, at the width that the kernel computes with."""
    return size_bytes // kernel.launches // _ITEM_BYTES.get(kernel.dtype, 2)
