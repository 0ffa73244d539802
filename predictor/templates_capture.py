"""Templates from a model's config: the graphs captured on the meta device. Imports torch and transformers."""

from dataclasses import dataclass
from typing import Any

from harness.errors import CannotCapture, HarnessError, UsageError
from harness.kernels import KernelKind, Phase
from harness.models.architecture import architecture
from harness.models.facts import ModelFacts, model_facts, unquantised_config
from harness.models.source import ModelSource
from harness.tracing.capture import FLASH, GraphCapture
from harness.tracing.graph import KernelGraph
from predictor.lowering import Captures, Facts, lowered
from predictor.lowering_ops import Role, ServedModel, ServedOp
from predictor.model_facts import CachePart, ModelSizes
from predictor.templates_fit import fitted, plans
from predictor.templates_graph import PhaseGraph

_TOP_K_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "top_k_experts", "moe_k")
_EXPERTS_KEYS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
_CHUNK_KEYS = ("mamba_chunk_size", "chunk_size", "ssm_chunk_size")
_DELTA_CHUNK = 64  # that transformers' gated delta rule cuts a prompt into
_STEPPED_CHUNK = 8  # where a scan goes token by token: pieces of this, to keep captures small
_LONG = 1 << 20  # context of a model whose config states none


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerGraphs:
    """Both phases as transformers runs them."""

    prefill: PhaseGraph
    decode: PhaseGraph | None  # None: without a cache, a step is a pass over the whole context


def capture_served(source: ModelSource) -> tuple[ModelSizes, ServedModel]:
    """Facts of a model and what a serving runtime launches for it. Raises ``UnknownModel``, ``CannotCapture``."""
    config, facts = unquantised_config(source), model_facts(source)
    text = config.get_text_config(decoder=True)
    whole, step = _whole_and_step(source.name, config, facts)
    shared = _shared(source.name, config, facts, whole)
    rotated = _first(text, ("qk_rope_head_dim",)) if _first(text, ("kv_lora_rank",)) else 0
    served = lowered(
        Captures(whole=whole, shared=shared, step=step),
        Facts(
            kv_heads=facts.kv_heads,
            experts=_first(_experts_of(text), _EXPERTS_KEYS) or None,
            top_k=_first(_experts_of(text), _TOP_K_KEYS) or None,
            window=max(_windows(config), default=0),
            windowed_layers=_windowed_layers(text),
            selected=_first(text, ("index_topk",)),
            rotated=rotated,
            state_elements=facts.state_elements_per_sequence,
        ),
    )
    return _sizes(facts, served), served


def capture_eager(
    source: ModelSource, *, attention: str | None, dtype: str, tensor_parallel: int, kv_cache: bool
) -> EagerGraphs:
    """Graphs of transformers' own code. Raises ``UsageError`` for a degree or an attention that the model lacks."""
    config = unquantised_config(source)
    found = architecture(config)
    chosen = attention or found.attentions[0]
    if chosen not in found.attentions:
        raise UsageError(
            f"{source.name} has no {chosen} attention in transformers.\nUse {' or '.join(found.attentions)}."
        )
    capture = GraphCapture(config, model=source.name, dtype=dtype, attention=chosen, tensor_parallel=tensor_parallel)

    def of(phase: Phase) -> PhaseGraph:
        pieces = plans(
            phase, limit=found.context_tokens or _LONG, windows=_windows(config), chunk=_chunk(config, capture)
        )
        return fitted(
            lambda batch, tokens: capture.capture(phase, batch_size=batch, tokens=tokens, kv_cache=kv_cache),
            pieces,
            source.name,
        )

    return EagerGraphs(prefill=of(Phase.PREFILL), decode=of(Phase.DECODE) if kv_cache else None)


def _windows(config: Any) -> list[int]:
    text = config.get_text_config(decoder=True)
    if getattr(text, "use_sliding_window", True) is False:
        return []
    sizes = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    if getattr(text, "model_type", "") == "gpt_neo":
        sizes.append(getattr(text, "window_size", None))
    return [size for size in sizes if type(size) is int and size > 0]


def _chunk(config: Any, capture: GraphCapture) -> int | None:
    """Tokens in a piece of a scan; None for a model without scans."""
    probe = capture.capture(Phase.PREFILL, batch_size=1, tokens=5)
    if not any(kernel.kind is KernelKind.SCAN for kernel in probe.kernels):
        return None
    text = config.get_text_config(decoder=True)
    if any("linear_attn" in (kernel.module or "") for kernel in probe.kernels):
        return _DELTA_CHUNK
    return _first(text, _CHUNK_KEYS) or _STEPPED_CHUNK


def _windowed_layers(text: Any) -> int:
    """Layers that see a window or a chunk only."""
    kinds = getattr(text, "layer_types", None) or ()
    return sum(1 for kind in kinds if str(kind) in {"sliding_attention", "chunked_attention"})


def _experts_of(text: Any) -> Any:
    """Where a config states its experts (DBRX has a config of its own for them)."""
    return getattr(text, "ffn_config", None) or text


def _whole_and_step(name: str, config: Any, facts: ModelFacts) -> tuple[KernelGraph, KernelGraph | None]:
    capture = _fused(name, config, facts, 1)
    windows = [window for window in _windows(config) if window < (facts.context_tokens or _LONG)]
    tokens = max(windows, default=0) + 101
    whole = capture.capture(Phase.PREFILL, batch_size=3, tokens=tokens)
    if not any(kernel.kind is KernelKind.SCAN for kernel in whole.kernels):
        return whole, None
    tokens = max(tokens, 256) // 256 * 256  # whole pieces of a scan
    whole = capture.capture(Phase.PREFILL, batch_size=3, tokens=tokens)
    return whole, capture.capture(Phase.DECODE, batch_size=3, tokens=tokens)


def _shared(name: str, config: Any, facts: ModelFacts, whole: KernelGraph) -> KernelGraph | None:
    """The same pass on one of a few ranks; None where no small degree works."""
    for degree in (2, 3, 5, 7):
        try:
            capture = _fused(name, config, facts, degree)
            return capture.capture(Phase.PREFILL, batch_size=3, tokens=whole.query_tokens)
        except HarnessError:
            continue
    return None


def _fused(name: str, config: Any, facts: ModelFacts, degree: int) -> GraphCapture:
    """A capture with the most fused attention that the model's code can be built with."""
    wanted = [attention for attention in (FLASH, "sdpa", "eager") if attention in facts.attentions]
    for attention in wanted[:-1]:
        try:
            return GraphCapture(config, model=name, attention=attention, tensor_parallel=degree)
        except CannotCapture:
            continue
    return GraphCapture(config, model=name, attention=wanted[-1], tensor_parallel=degree)


def _sizes(facts: ModelFacts, served: ServedModel) -> ModelSizes:
    experts = served.of(Role.EXPERTS)
    expert_parameters = sum(
        op.launches * op.experts * op.matrices * op.n_whole * (op.k_cut + op.k_whole) for op in experts
    )
    dense = sum(
        op.launches * (op.n_whole + op.n_cut + op.n_kv) * (op.k_whole + op.k_cut)
        for op in served.ops
        if op.stored and op.role is not Role.EXPERTS
    )
    return ModelSizes(
        model_type=facts.model_type,
        parameters=facts.parameters,
        active_parameters=facts.active_parameters,
        stored_parameters=min(dense + expert_parameters, facts.parameters),
        expert_parameters=min(expert_parameters, facts.parameters),
        eager_kv_elements_per_token=facts.kv_elements_per_token,
        served_cache=tuple(
            CachePart(
                elements_per_token=op.launches * _cached_width(op),
                kv_heads=1 if op.latent or not op.cut_heads else op.kv_heads,
                window=op.window or None,
            )
            for op in (*served.of(Role.ATTENTION), *served.of(Role.INDEXER))
        ),
        state_elements=facts.state_elements_per_sequence,
        context_tokens=facts.context_tokens,
        vocabulary_tokens=facts.vocabulary_tokens,
        layers=facts.layers,
        hidden_size=facts.hidden_size,
        heads=facts.heads,
        kv_heads=facts.kv_heads,
        experts=max((op.experts for op in experts), default=0),
        top_k=max((op.top_k for op in experts), default=0),
        attentions=facts.attentions,
    )


def _cached_width(op: ServedOp) -> int:
    """Numbers per token and layer in the cache."""
    if op.role is Role.INDEXER:
        return op.head_dim
    return op.latent + op.rotated if op.latent else op.kv_heads * (op.head_dim + op.value_dim)


def _first(text: Any, keys: tuple[str, ...]) -> int:
    for key in keys:
        value = getattr(text, key, None)
        if type(value) is int and value > 0:
            return value
    return 0
