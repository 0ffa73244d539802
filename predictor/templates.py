"""Kernel graphs of one model as functions of batch and tokens: what a table of requests is predicted from.

    graphs = template("meta-llama/Llama-2-70b-hf", runtime_class="served", dtype="bfloat16", attention=None,
                      tensor_parallel=4)
    graphs.prefill([8, 16], [512, 512])          # KernelTable of two passes
    graphs.decode([8, 8], [512, 513])            # of two steps, which find so many tokens in the cache

Graphs of the shipped configurations are read from a file; others are captured once, which imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import UsageError
from harness.hardware import Hardware
from harness.kernels import Phase
from harness.models.checkpoint import config_sha256, read_config
from harness.models.shipped import shipped_config
from harness.models.source import ModelSource, SourceKind, resolve
from harness.records import Weights
from predictor.kernel_table import Floats, KernelTable
from predictor.lowering_ops import Deployment, ServedModel, deployment
from predictor.lowering_rows import served_graph
from predictor.model_facts import MemoryFit, ModelSizes, cache_bytes, rank_weight_bytes, usable_bytes
from predictor.model_facts_dtype import precision, stored_dtype
from predictor.templates_basis import PassSizes
from predictor.templates_graph import PhaseGraph, mapped
from predictor.templates_store import StoredEager, StoredServed, stored_eager, stored_served

RuntimeClass = Literal["eager", "served"]
_CAPTURED = "bfloat16"  # what 16-bit graphs are captured in; float16 counts the same


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTemplate:
    """The graphs of one model on one rank of a deployment."""

    model: str
    sizes: ModelSizes
    runtime_class: RuntimeClass
    dtype: str
    at: Deployment
    kv_cache: bool
    prefill_graph: PhaseGraph
    decode_graph: PhaseGraph | None  # None: a step is a pass over the whole context

    def prefill(self, batch: ArrayLike, prompt: ArrayLike) -> KernelTable:
        """P prefills of ``batch`` [P] sequences of ``prompt`` [P] tokens; the batch is that of all replicas."""
        tokens = np.asarray(prompt, dtype=np.float64)
        return self.prefill_graph.expand(self._passes(batch, tokens, tokens))

    def decode(self, batch: ArrayLike, context: ArrayLike) -> KernelTable:
        """P steps that find ``context`` [P] tokens in the cache; without a cache, passes over all and the new one."""
        tokens = np.asarray(context, dtype=np.float64)
        if self.decode_graph is None:
            return self.prefill(batch, tokens + 1)
        return self.decode_graph.expand(self._passes(batch, np.ones_like(tokens), tokens + 1))

    def memory(
        self, hardware: Hardware, *, batch_size: int, context_tokens: int, n_gpus: int | None = None
    ) -> MemoryFit:
        """What fits into one GPU. ``n_gpus``: of a model whose layers, not whose matrices, are spread over GPUs."""
        plain = precision(self.dtype)
        served = self.runtime_class == "served"
        weights = rank_weight_bytes(
            self.sizes,
            self.at,
            stored_bytes=plain.stored_bytes,
            other_bytes=plain.plain_bytes,
            only_experts=plain.only_experts,
        )
        ranks = self.at.tensor_parallel
        sequence = cache_bytes(self.sizes, context_tokens, served=served, ranks=ranks) if self.kv_cache else 0.0
        spread = n_gpus or 1
        return MemoryFit(
            weight_bytes=weights / spread,
            sequence_bytes=sequence / spread,
            usable_bytes=usable_bytes(hardware, served=served),
            batch_size=-(-batch_size // self.at.replicas),
        )

    def _passes(self, batch: ArrayLike, query: Floats, context: Floats) -> PassSizes:
        sequences, query, context = np.broadcast_arrays(
            np.atleast_1d(np.asarray(batch, dtype=np.float64)), query, context
        )
        return PassSizes(
            batch=np.ceil(sequences / self.at.replicas), query=query, context=context, tokens=sequences * query
        )


def checkpoint_dtype(model: str, dtype: str) -> str:
    """What a published checkpoint is run in that is asked for in ``dtype``, by its config.json or its id."""
    source = model_source(model)
    return stored_dtype(source.name, read_config(source.config_path), dtype)


def template(
    model: str,
    *,
    runtime_class: RuntimeClass,
    dtype: str,
    attention: str | None = None,
    tensor_parallel: int = 1,
    expert_parallel: int | None = None,
    kv_cache: bool = True,
) -> GraphTemplate:
    """The graphs of a model; the same request is answered from memory.

    ``expert_parallel`` ranks share the experts: with more of them than ``tensor_parallel``, attention is replicated
    and tokens are exchanged. Raises ``UnknownModel``; ``UsageError`` for a degree, a dtype or an attention that does
    not work; ``CannotCapture``.
    """
    return _template(model, runtime_class, dtype, attention, tensor_parallel, expert_parallel, kv_cache)


@lru_cache(maxsize=512)
def _template(
    model: str,
    runtime_class: RuntimeClass,
    dtype: str,
    attention: str | None,
    tensor_parallel: int,
    expert_parallel: int | None,
    kv_cache: bool,
) -> GraphTemplate:
    source, numbers = model_source(model), precision(dtype)
    served = _served(source)
    if runtime_class == "served":
        if not kv_cache:
            raise UsageError("Serving runtimes always keep a KV cache.\nAsk for runtime hf, or leave kv_cache at true.")
        at = deployment(served.served, source.name, tensor_parallel, expert_parallel)
        graphs = _served_graphs(served.served, at)
        change = numbers.change(_CAPTURED)
    else:
        if expert_parallel not in {None, 1}:
            raise UsageError("transformers spreads no experts over GPUs.\nLeave expert_parallel out.")
        at = Deployment(tensor_parallel=tensor_parallel, expert_parallel=1)
        captured = "float32" if dtype == "float32" else _CAPTURED
        graphs = _eager(source, served.sizes, attention, captured, tensor_parallel, kv_cache)
        change = numbers.change(captured)
    return GraphTemplate(
        model=source.name,
        sizes=served.sizes,
        runtime_class=runtime_class,
        dtype=dtype,
        at=at,
        kv_cache=kv_cache,
        prefill_graph=mapped(graphs[0], change),
        decode_graph=None if graphs[1] is None else mapped(graphs[1], change),
    )


@lru_cache(maxsize=512)
def model_source(model: str) -> ModelSource:
    """Where the config of a model lies. A shipped one is found without the network. Raises ``UnknownModel``.

    Encoders, which generate nothing, are known here only: a pass over a prompt is all they do.
    """
    path = shipped_config(model) or _encoders().get(model)
    if path is None:
        return resolve(model, random_weights=True, download=False)
    return ModelSource(name=model, kind=SourceKind.SHIPPED, location=path, revision=None, weights=Weights.RANDOM)


@cache
def _encoders() -> Mapping[str, Path]:
    folder = Path(__file__).with_name("data")
    return {path.stem.replace("--", "/", 1): path for path in folder.glob("*--*.json")}


@lru_cache(maxsize=512)
def _served(source: ModelSource) -> StoredServed:
    stored = stored_served(config_sha256(read_config(source.config_path)))
    if stored is not None:
        return stored
    from predictor.templates_capture import capture_served

    sizes, served = capture_served(source)
    return StoredServed(sizes=sizes, served=served)


def _served_graphs(served: ServedModel, at: Deployment) -> tuple[PhaseGraph, PhaseGraph | None]:
    return served_graph(served, Phase.PREFILL, at), served_graph(served, Phase.DECODE, at)


def _eager(
    source: ModelSource, sizes: ModelSizes, attention: str | None, dtype: str, tensor_parallel: int, kv_cache: bool
) -> tuple[PhaseGraph, PhaseGraph | None]:
    if attention is not None and attention not in sizes.attentions:
        raise UsageError(
            f"{source.name} has no {attention} attention in transformers.\nUse {' or '.join(sizes.attentions)}."
        )
    chosen = attention or sizes.attentions[0]
    if kv_cache and dtype == _CAPTURED:
        sha256 = config_sha256(read_config(source.config_path))
        stored: StoredEager | None = stored_eager(sha256, chosen, tensor_parallel)
        if stored is not None:
            return stored.prefill, stored.decode
    from predictor.templates_capture import capture_eager

    graphs = capture_eager(source, attention=chosen, dtype=dtype, tensor_parallel=tensor_parallel, kv_cache=kv_cache)
    return graphs.prefill, graphs.decode


if __name__ == "__main__":
    import sys

    from predictor.templates_write import main

    sys.exit(main())
