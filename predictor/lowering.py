"""What a serving runtime executes instead of transformers' eager code, derived from a captured graph.

vLLM, TensorRT-LLM, SGLang, TGI and LMDeploy differ in kernels and agree in this: a norm is one kernel that takes the
residual addition in; rotation and the write to the KV cache are one, the activation of an MLP is one; queries, keys
and values are one product, gate and up another; experts are one grouped kernel; nothing is concatenated; the head runs
on last tokens. Latent attention decodes in its absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.graph import GraphKernel
from harness.tracing.names import NORM_MODULE
from predictor.lowering_attention import AttentionReading
from predictor.lowering_join import edges, merged, spans, with_residuals
from predictor.lowering_kernels import (
    INDEXER,
    by_module,
    elements,
    is_residual,
    multiplies,
    numbers,
    scan_products,
)
from predictor.lowering_ops import Role, ServedModel, ServedOp
from predictor.lowering_reading import COLUMNS, ROWS, Captures, Facts

__all__ = ["Captures", "Facts", "lowered"]


def lowered(captures: Captures, facts: Facts) -> ServedModel:
    """The operators of a served model. Prefill and decode are made of the same ones."""
    lowering = _Lowering(captures, facts)
    ops = merged(with_residuals(lowering.ops(), lowering.residuals()))
    return ServedModel(
        ops=tuple(ops),
        edges=tuple(sorted(edges(captures.whole, spans(ops, lowering.ops_of)))),
    )


class _Lowering(AttentionReading):
    """Reads operators off a graph, module by module."""

    def ops(self) -> list[ServedOp]:
        """All operators in the order in which they are first launched."""
        found: list[tuple[int, ServedOp]] = []
        pointwise: dict[str, list[GraphKernel]] = {}
        for module, kernels in self._modules.items():
            own = list(self._module_ops(module, kernels))
            found.extend((self._start(op, kernels), op) for op in own)
            for kernel in kernels:
                self.ops_of[kernel] = tuple(op.module for op in own if self._does(op, kernel, kernels))
            if not own and self._is_pointwise(module):
                found.extend(self._pointwise_places(module, kernels, pointwise))
        ordered = [op for _, op in sorted(found, key=lambda placed: placed[0])]
        return [self._pointwise(op, pointwise[op.module]) if op.module in pointwise else op for op in ordered]

    def _pointwise_places(
        self, module: str, kernels: Sequence[GraphKernel], pointwise: dict[str, list[GraphKernel]]
    ) -> Iterator[tuple[int, ServedOp]]:
        """Operators that are new, and every kernel sorted to one of them."""
        parent = self._parent(module)
        for kernel in kernels:
            if is_residual(kernel, self._hidden) or self._spreads(module, kernel):
                continue
            layers = self._layers(parent, kernel)
            name = f"{parent}:{layers}"
            if name not in pointwise:
                yield self._index[kernel], ServedOp(role=Role.POINTWISE, module=name, launches=layers)
            pointwise.setdefault(name, []).append(kernel)
            self.ops_of[kernel] = (name,)

    def _start(self, op: ServedOp, kernels: Sequence[GraphKernel]) -> int:
        """Index of the first kernel that an operator stands for."""
        return next((self._index[kernel] for kernel in kernels if self._does(op, kernel, kernels)), 0)

    def _does(self, op: ServedOp, kernel: GraphKernel, kernels: Sequence[GraphKernel]) -> bool:
        """Whether a kernel of a module is the work of this operator of it."""
        if op.role is Role.EXPERTS:
            return self._index[kernel] >= min(self._index[other] for other in kernels if multiplies(other))
        if op.module.partition(":")[0] not in self._attentions:
            return True
        attending = [self._index[other] for other in kernels if multiplies(other)]
        after, before = self._index[kernel] > max(attending), self._index[kernel] < min(attending)
        return {Role.CACHE: before, Role.ATTENTION: not before and not after}.get(op.role, after)

    def _module_ops(self, module: str, kernels: Sequence[GraphKernel]) -> Iterator[ServedOp]:
        if module in self._experts:
            yield self._expert_op(module, kernels)
        elif module.endswith(INDEXER):
            yield self._index_op(module, kernels)
        elif self._routes(module):
            return
        elif module in self._scans:
            yield self._scan_op(module, kernels)
        elif module in self._attentions:
            yield self._cache_op(module)
            yield from self._attention_ops(module, kernels)
            if any(kernel.op == "aten::sigmoid" for kernel in kernels):
                yield self._gate_op(module)
        elif kernels[0].kind is KernelKind.EMBEDDING:
            width = shape_dimensions(kernels[0].shape)["width"]
            yield ServedOp(
                role=Role.EMBEDDING,
                module=module,
                launches=kernels[0].launches,
                n_whole=width,
                reduced=self._is_reduced(module),
            )
        elif NORM_MODULE.search(module):
            yield self._norm_op(module, kernels)
        else:
            products = [kernel for kernel in kernels if kernel.kind is KernelKind.GEMM]
            if products:
                yield self._linear_op(module, products[0])

    def _linear_op(self, module: str, kernel: GraphKernel) -> ServedOp:
        sizes, name = shape_dimensions(kernel.shape), module.rpartition(".")[2]
        shared = [other for other in self._shared.get(module, ()) if other.kind is KernelKind.GEMM]
        local = shape_dimensions(shared[0].shape) if shared else sizes
        n_cut, k_cut = local["n"] < sizes["n"], local["k"] < sizes["k"]
        if self._named(module):
            n_cut, k_cut = name in COLUMNS, name in ROWS
        in_layer = "*" in module.split(".")
        n_kv = self._kv_columns(module, name, sizes["n"]) if n_cut else 0
        head = (not in_layer and sizes["n"] > 8 * sizes["k"]) or name in {"lm_head", "embed_out"}
        experts = bool(self._experts) and "shared_expert" in module
        near = self._attention_near(module)
        return ServedOp(
            role=Role.HEAD if head else Role.LATENT if name == "kv_b_proj" else Role.LINEAR,
            module=module,
            launches=kernel.launches,
            n_whole=0 if n_cut else sizes["n"],
            n_cut=sizes["n"] - n_kv if n_cut else 0,
            n_kv=n_kv,
            k_whole=0 if k_cut else sizes["k"],
            k_cut=sizes["k"] if k_cut else 0,
            bias=kernel.op == "aten::addmm",
            stored=in_layer and sizes["n"] > 1,
            reduced=k_cut and not experts,
            heads=near.heads if near is not None and name == "kv_b_proj" else 0,
            head_dim=near.head_dim - self._facts.rotated if near is not None and name == "kv_b_proj" else 0,
            kv_heads=near.kv_heads if near is not None and n_kv else 0,
        )

    def _norm_op(self, module: str, kernels: Sequence[GraphKernel]) -> ServedOp:
        widths = {kernel: elements(kernel) for kernel in kernels}
        largest = max(widths.values())
        one = [kernel for kernel in kernels if kernel.op in {"aten::rsqrt", "aten::native_layer_norm"}]
        return ServedOp(
            role=Role.NORM,
            module=module,
            launches=min(kernel.launches for kernel in one or kernels),
            n_whole=max(1, largest // self._tokens),
        )

    def _expert_op(self, module: str, kernels: Sequence[GraphKernel]) -> ServedOp:
        products = [kernel for kernel in kernels if multiplies(kernel)]
        shapes = [shape_dimensions(kernel.shape) for kernel in products]
        first, last = shapes[0], shapes[-1]
        looped = products[0].kind is KernelKind.GEMM and "batch" not in first
        gates = sum(kernel.launches for kernel, shape in zip(products, shapes, strict=True) if shape["n"] == first["n"])
        outputs = sum(
            kernel.launches for kernel, shape in zip(products, shapes, strict=True) if shape["n"] == last["n"]
        )
        gated = gates >= 2 * outputs if first["n"] == last["k"] else True
        return ServedOp(
            role=Role.EXPERTS,
            module=module,
            launches=self._choices(module) if looped else products[0].launches,
            n_whole=last["n"],
            k_cut=last["k"],
            experts=first.get("experts") or self._facts.experts or first.get("batch", 1),
            top_k=first["m"] // self._tokens if "experts" in first else self._facts.top_k or 1,
            matrices=3 if gated else 2,
            stored=True,
            reduced=True,
        )

    def _scan_op(self, module: str, kernels: Sequence[GraphKernel]) -> ServedOp:
        step = self._captures.step
        stepped = [] if step is None else by_module(step).get(module, [])
        near = scan_products(self._modules, module)
        outs = [sizes["k"] for name, sizes in near.items() if name.startswith("out_")]
        ins = [sizes["n"] for name, sizes in near.items() if name.startswith("in_")]
        launches = min(kernel.launches for kernel in kernels)
        sequences = step.batch_size if step is not None else 1
        return ServedOp(
            role=Role.SCAN,
            module=module,
            launches=launches,
            n_cut=sum(outs) or 1,
            k_cut=sum(ins) or 1,
            flop_per_token=round(sum(kernel.flop for kernel in kernels) / (launches * self._tokens)),
            flop_per_step=round(sum(kernel.flop for kernel in stepped) / (launches * sequences)),
            state_elements=round(self._facts.state_elements / launches / max(1, len(self._scans))),
        )

    def _pointwise(self, op: ServedOp, kernels: Sequence[GraphKernel]) -> ServedOp:
        """One kernel for all of a module: it reads and writes what the widest of them does."""
        read = max(numbers(kernel, kernel.read_bytes) for kernel in kernels)
        written = max(numbers(kernel, kernel.write_bytes) for kernel in kernels)
        parent = op.module.rpartition(":")[0]
        cut = any(
            name.rpartition(".")[0] == parent and own[0].launches == op.launches and self._is_column_cut(name)
            for name, own in self._modules.items()
        )
        n, k = max(1, written // self._tokens), max(1, read // self._tokens)
        return replace(
            op, n_cut=n if cut else 0, n_whole=0 if cut else n, k_cut=k if cut else 0, k_whole=0 if cut else k
        )
