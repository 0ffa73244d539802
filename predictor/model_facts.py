"""Sizes of a model beside its kernel graph, and what of it fits into a GPU's memory."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.hardware import Hardware
from predictor.lowering_ops import Deployment

KV_BYTES = 2  # of a number in the KV cache, unless a runtime is told otherwise
_STATE_BYTES = 4
_SERVED_SHARE = 0.9  # of the memory that vLLM takes by default (gpu_memory_utilization), the others about as much
_EAGER_SHARE = 0.97  # what a CUDA context leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePart:
    """Layers that cache in the same way."""

    elements_per_token: int  # over these layers
    kv_heads: int  # ranks beyond these keep copies; 1: every rank has all
    window: int | None  # tokens after which it stops growing


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """Facts of one model; None: its config does not say."""

    model_type: str
    parameters: int
    active_parameters: int | None  # that one token passes through
    stored_parameters: int  # in layers that quantised checkpoints quantise, experts among them
    expert_parameters: int
    eager_kv_elements_per_token: int  # that transformers caches, over all layers
    served_cache: tuple[CachePart, ...]
    state_elements: int  # of each sequence, in scans
    context_tokens: int | None
    vocabulary_tokens: int
    layers: int
    hidden_size: int
    heads: int | None
    kv_heads: int | None
    experts: int  # 0: it has none
    top_k: int
    attentions: tuple[str, ...]  # implementations in transformers, the default first

    @property
    def is_moe(self) -> bool:
        """Whether a token passes through some experts only."""
        return self.experts > 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelSizes":
        """Inverse of ``to_json``; raises ``TypeError``, ``KeyError``."""
        rest = dict(values)
        cache = tuple(CachePart(**part) for part in rest.pop("served_cache"))
        return cls(**rest | {"attentions": tuple(rest["attentions"])}, served_cache=cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFit:
    """What of a request fits into one of the GPUs that run it."""

    weight_bytes: float  # on one GPU
    sequence_bytes: float  # KV cache and state of one sequence at its longest, on one GPU
    usable_bytes: float | None  # of one GPU; None: the hardware table does not say
    batch_size: int  # sequences asked for, of one replica

    @property
    def weights_fit(self) -> bool:
        """Whether the weights fit; unknown memory fits all."""
        return self.usable_bytes is None or self.weight_bytes < self.usable_bytes

    @property
    def sequences(self) -> int:
        """How many sequences fit at once."""
        if self.usable_bytes is None or self.sequence_bytes == 0:
            return self.batch_size
        return max(0, int((self.usable_bytes - self.weight_bytes) // self.sequence_bytes))

    @property
    def waves(self) -> int | None:
        """How many times a server runs until all sequences have had their turn; None: not even one fits."""
        return math.ceil(self.batch_size / self.sequences) if self.sequences else None


def weight_bytes(sizes: ModelSizes, *, stored_bytes: float, other_bytes: float, only_experts: bool) -> float:
    """Memory of all weights: bytes of a quantised weight and of any other."""
    stored = sizes.expert_parameters if only_experts else sizes.stored_parameters
    return stored * stored_bytes + (sizes.parameters - stored) * other_bytes


def rank_weight_bytes(
    sizes: ModelSizes, at: Deployment, *, stored_bytes: float, other_bytes: float, only_experts: bool
) -> float:
    """Memory of the weights on one rank, all matrices taken as shared evenly."""
    whole = weight_bytes(sizes, stored_bytes=stored_bytes, other_bytes=other_bytes, only_experts=only_experts)
    experts = sizes.expert_parameters * stored_bytes
    return (whole - experts) / at.tensor_parallel + experts / max(at.tensor_parallel, at.expert_parallel)


def cache_bytes(sizes: ModelSizes, context_tokens: float, *, served: bool, ranks: int = 1) -> float:
    """KV cache and state of one sequence on one of ``ranks`` that share attention."""
    state = _STATE_BYTES * sizes.state_elements
    if not served:
        shared = min(ranks, sizes.kv_heads or ranks)
        return state + KV_BYTES * sizes.eager_kv_elements_per_token * context_tokens / shared
    return state + sum(
        KV_BYTES
        * part.elements_per_token
        * min(context_tokens, part.window or context_tokens)
        / min(ranks, part.kv_heads)
        for part in sizes.served_cache
    )


def usable_bytes(hardware: Hardware, *, served: bool) -> float | None:
    """Memory of one GPU that weights and caches may take."""
    if hardware.memory_bytes is None:
        return None
    return hardware.memory_bytes * (_SERVED_SHARE if served else _EAGER_SHARE)
