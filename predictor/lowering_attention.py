"""Attention in a captured graph: fused or not, latent, indexed, gated, and what it caches."""

from collections.abc import Iterator, Sequence

from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.graph import GraphKernel
from predictor.lowering_kernels import ATTENTION, is_batched
from predictor.lowering_ops import Role, ServedOp
from predictor.lowering_reading import FUSED_QKV, KEYS_AND_VALUES, Reading


class AttentionReading(Reading):
    """The operators of attention modules."""

    def _attention_ops(self, module: str, kernels: Sequence[GraphKernel]) -> Iterator[ServedOp]:
        fused = [kernel for kernel in kernels if kernel.kind is KernelKind.ATTENTION]
        if not fused:
            yield self._unfused(module, kernels)
            return
        for kernel in fused:
            sizes = shape_dimensions(kernel.shape)
            per_head = sizes["batch"] * sizes["query_tokens"] * sizes["heads"] * kernel.launches
            seen = sizes.get("window_tokens", sizes["context_tokens"])
            latent = self._latent(module) if self._facts.rotated else 0
            repeated = not latent and sizes["kv_heads"] == sizes["heads"]
            yield ServedOp(
                role=Role.ATTENTION,
                module=module,
                launches=kernel.launches,
                heads=sizes["heads"],
                kv_heads=min(sizes["kv_heads"], self._facts.kv_heads or sizes["heads"])
                if repeated
                else sizes["kv_heads"],
                head_dim=sizes["head_dim"],
                value_dim=kernel.flop // (2 * per_head * seen) - sizes["head_dim"],
                window=sizes.get("window_tokens", 0) or self._window(kernel.launches),
                selected=self._facts.selected if latent else 0,
                cut_heads=True,
                latent=latent,
                rotated=self._facts.rotated if latent else 0,
            )

    def _unfused(self, module: str, kernels: Sequence[GraphKernel]) -> ServedOp:
        """Two batched products and what stands between them."""
        scores, outputs = [kernel for kernel in kernels if is_batched(kernel)][:2]
        left, right = shape_dimensions(scores.shape), shape_dimensions(outputs.shape)
        heads = left["batch"] // self._captures.whole.batch_size
        return ServedOp(
            role=Role.ATTENTION,
            module=module,
            launches=scores.launches,
            heads=heads,
            kv_heads=min(heads, self._facts.kv_heads or heads),
            head_dim=left["k"],
            value_dim=right["n"],
            cut_heads=True,
        )

    def _cache_op(self, module: str) -> ServedOp:
        attention = next(iter(self._attention_ops(module, self._modules[module])))
        launches = sum(op.launches for op in self._attention_ops(module, self._modules[module]))
        whole = self._facts.rotated
        queries = attention.heads * (self._facts.rotated or attention.head_dim)
        keys = attention.kv_heads * (attention.head_dim + attention.value_dim)
        latent = self._latent(module) if whole else 0
        return ServedOp(
            role=Role.CACHE,
            module=f"{module}:cache",
            launches=launches,
            n_cut=queries,
            n_kv=0 if whole else keys,
            n_whole=whole + latent,
            cut_heads=attention.cut_heads,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
        )

    def _gate_op(self, module: str) -> ServedOp:
        attention = next(iter(self._attention_ops(module, self._modules[module])))
        width = attention.heads * attention.value_dim
        return ServedOp(
            role=Role.POINTWISE, module=f"{module}:gate", launches=attention.launches, n_cut=width, k_cut=2 * width
        )

    def _index_op(self, module: str, kernels: Sequence[GraphKernel]) -> ServedOp:
        """Scores of all keys in the cache, of which attention sees the best."""
        scores = shape_dimensions(next(kernel for kernel in kernels if is_batched(kernel)).shape)
        return ServedOp(
            role=Role.INDEXER,
            module=module,
            launches=min(kernel.launches for kernel in kernels),
            heads=scores["m"],
            head_dim=scores["k"],
        )

    def _attention_near(self, module: str) -> ServedOp | None:
        parent = module.rpartition(".")[0]
        for name in (parent, parent + ATTENTION):
            if name in self._attentions:
                return next(iter(self._attention_ops(name, self._modules[name])), None)
        return None

    def _kv_columns(self, module: str, name: str, columns: int) -> int:
        attention = self._attention_near(module)
        if attention is None or not 0 < attention.kv_heads < attention.heads:
            return 0
        if name in KEYS_AND_VALUES:
            return columns
        own = attention.kv_heads * (attention.head_dim + attention.value_dim)
        return own if name in FUSED_QKV and own < columns else 0
