"""Questions that a lowering asks a captured graph: what a module is, and what of it ranks share."""

from dataclasses import dataclass

from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.graph import GraphKernel, KernelGraph
from predictor.lowering_kernels import (
    ATTENTION,
    EXPERTS,
    attends,
    before_experts,
    by_module,
    elements,
    is_batched,
    is_experts,
    is_residual,
    is_scan,
)

FUSED_QKV = frozenset({"qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "in_proj"})
KEYS_AND_VALUES = frozenset({"k_proj", "v_proj"})
# How the matrices of a layer are shared (Megatron-LM, arXiv 1909.08053), for models of which no shared graph is known.
COLUMNS = (
    KEYS_AND_VALUES
    | FUSED_QKV
    | frozenset(
        {
            "q_proj",
            "gate_proj",
            "up_proj",
            "gate_up_proj",
            "w1",
            "w3",
            "fc1",
            "fc_in",
            "c_fc",
            "dense_h_to_4h",
            "q_b_proj",
        }
        | {"kv_b_proj", "lm_head", "embed_out"}
    )
)
ROWS = frozenset({"o_proj", "out_proj", "dense", "c_proj", "down_proj", "w2", "fc2", "fc_out", "dense_4h_to_h"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a graph does not say."""

    kv_heads: int | None
    experts: int | None
    top_k: int | None
    window: int  # of the layers that have one; 0: none has
    windowed_layers: int
    selected: int  # tokens that an indexer lets attention see; 0: there is no indexer
    rotated: int  # width of the rotated part of a latent cache; 0: there is none
    state_elements: int  # of each sequence, over all layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Captures:
    """The graphs that a model is lowered from, all with FlashAttention where it has it."""

    whole: KernelGraph  # prefill of several sequences on one rank
    shared: KernelGraph | None  # the same on one of several ranks; None: names of modules say what is shared
    step: KernelGraph | None  # decode on one rank; needed for scans only


class Reading:
    """One model's graphs, module by module."""

    def __init__(self, captures: Captures, facts: Facts) -> None:
        self._captures, self._facts = captures, facts
        graph = captures.whole
        self._tokens = graph.batch_size * graph.query_tokens
        self._context = graph.context_tokens
        self._modules = by_module(graph)
        self._shared = {} if captures.shared is None else by_module(captures.shared)
        self._by_name = captures.shared is None
        self._experts = {name for name, kernels in self._modules.items() if is_experts(name, kernels)}
        self._scans = {name for name, kernels in self._modules.items() if any(map(is_scan, kernels))}
        self._attentions = {name for name, kernels in self._modules.items() if attends(name, kernels)}
        self._cut_attention = captures.shared is not None and any(
            kernel.kind is KernelKind.ALL_REDUCE and self._attention_holds(kernel.module)
            for kernel in captures.shared.kernels
        )
        embedding = next(kernel for kernel in graph.kernels if kernel.kind is KernelKind.EMBEDDING)
        self._hidden = self._tokens * shape_dimensions(embedding.shape)["width"]
        # Names of the operators that do a kernel's work, in order.
        self.ops_of: dict[GraphKernel, tuple[str, ...]] = {}
        self._index = {kernel: index for index, kernel in enumerate(graph.kernels)}

    def residuals(self) -> int:
        """Launches of residual additions in a pass."""
        return sum(kernel.launches for kernel in self._captures.whole.kernels if is_residual(kernel, self._hidden))

    def _routes(self, module: str) -> bool:
        """Whether a module chooses experts, or does part of their work."""
        parents = {before_experts(name) for name in self._experts}
        inside = any(
            module.startswith(f"{name}.") or module == f"{parent}.{EXPERTS}"
            for name in self._experts
            for parent in parents
        )
        chooses = module.rpartition(".")[2] in {"gate", "router"} and module.rpartition(".")[0] in parents
        return inside or chooses or any(module.startswith(f"{name}.router.") for name in parents)

    def _is_pointwise(self, module: str) -> bool:
        return "*" in module.split(".") and not self._routes(module) and not self._under_attention(module)

    def _under_attention(self, module: str) -> bool:
        parent = module.rpartition(".")[0]
        if f"{parent}.up_proj" in self._modules and module != f"{parent}.up_proj":  # the activation of an MLP
            return False
        return any(module.startswith(f"{name}.") for name in self._attentions | self._scans)

    def _parent(self, module: str) -> str:
        """The module that holds the products which a pointwise kernel stands between."""
        holds = {name.rpartition(".")[0] for name in self._modules if self._modules[name][0].kind is KernelKind.GEMM}
        return module if module in holds else module.rpartition(".")[0]

    def _layers(self, parent: str, kernel: GraphKernel) -> int:
        """Layers that a pointwise kernel runs in: as many as run the products beside it, some of them twice."""
        beside = {
            kernels[0].launches
            for name, kernels in self._modules.items()
            if (name.rpartition(".")[0] == parent and kernels[0].kind is KernelKind.GEMM) or name in self._experts
        }
        dividing = [launches for launches in beside if kernel.launches % launches == 0]
        return max(dividing, default=kernel.launches)

    def _spreads(self, module: str, kernel: GraphKernel) -> bool:
        """Whether a kernel hands every token to every expert, as code that computes them all does."""
        dense = {before_experts(name) for name in self._experts if any(map(is_batched, self._modules[name]))}
        return module in dense and elements(kernel) > self._hidden

    def _attention_holds(self, module: str | None) -> bool:
        parent = (module or "").rpartition(".")[0]
        return parent in self._attentions or parent + ATTENTION in self._attentions

    def _named(self, module: str) -> bool:
        """Whether names say what is shared: nobody else knows, or a plan shares all but attention and scans."""
        scanned = module.rpartition(".")[0] in self._scans
        return self._by_name or scanned or (self._attention_holds(module) and not self._cut_attention)

    def _is_reduced(self, module: str) -> bool:
        shared = any(kernel.kind is KernelKind.ALL_REDUCE for kernel in self._shared.get(module, ()))
        return shared or (self._by_name and "pos" not in module.rpartition(".")[2])

    def _is_column_cut(self, module: str) -> bool:
        if self._by_name:
            return module.rpartition(".")[2] in COLUMNS
        kernels, shared = self._modules[module], self._shared.get(module, ())
        products = [(kernel.kind, shape_dimensions(kernel.shape).get("n", 0)) for kernel in (*kernels, *shared)]
        widths = {n for kind, n in products if kind is KernelKind.GEMM}
        return len(widths) > 1

    def _choices(self, module: str) -> int:
        """How many layers choose among experts."""
        parent = before_experts(module)
        return next(
            kernels[0].launches
            for name, kernels in self._modules.items()
            if name.startswith((f"{parent}.router", f"{parent}.gate")) and kernels[0].kind is KernelKind.GEMM
        )

    def _latent(self, module: str) -> int:
        kernels = self._modules.get(f"{module}.kv_b_proj", ())
        return shape_dimensions(kernels[0].shape)["k"] if kernels else 0

    def _window(self, launches: int) -> int:
        """Of layers that have one, which the kernels of a capture without FlashAttention do not show."""
        return self._facts.window if launches == self._facts.windowed_layers else 0
