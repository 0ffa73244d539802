"""What a serving runtime launches for one model: operators with their widths, before they are split over ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from harness.errors import UsageError

_LARGEST = 2**62  # no width or count of a model is larger


class Role(StrEnum):
    """What an operator does."""

    EMBEDDING = "embedding"
    NORM = "norm"
    LINEAR = "linear"
    LATENT = "latent"  # a linear that opens up a latent cache; decode absorbs it into queries and outputs
    HEAD = "head"  # on the last token of each sequence
    EXPERTS = "experts"
    ATTENTION = "attention"
    CACHE = "cache"  # rotates queries and keys and writes the KV cache
    INDEXER = "indexer"  # scores the keys that attention is to see
    POINTWISE = "pointwise"
    SCAN = "scan"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOp:
    """One operator in all its layers. Widths are those of one rank that has everything; 0: there is no such thing."""

    role: Role
    module: str
    launches: int
    # Columns and rows of a weight matrix; for others the numbers per token that go in (k) and out (n).
    n_whole: int = 0  # that every rank has
    n_cut: int = 0  # that the ranks share
    n_kv: int = 0  # that the ranks share until each has one KV head
    k_whole: int = 0
    k_cut: int = 0
    bias: bool = False
    stored: bool = False  # its weights are what quantised checkpoints quantise
    reduced: bool = False  # the ranks add up what it gives
    residuals: int = 0  # residual additions that its launches take in
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0
    window: int = 0
    cut_heads: bool = False
    experts: int = 0
    top_k: int = 0
    matrices: int = 0  # of each expert: 3 with a gate, else 2
    latent: int = 0  # width of the latent cache without its rotated part
    rotated: int = 0  # width of that part
    selected: int = 0  # tokens that an indexer lets attention see; 0: all
    flop_per_token: int = 0  # of a scan in prefill
    flop_per_step: int = 0  # and for each sequence in decode
    state_elements: int = 0  # of each sequence and launch

    def to_json(self) -> dict[str, Any]:
        """Fields that say something."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ServedOp":
        """Inverse of ``to_json``; raises ``ValueError``, ``TypeError``, ``KeyError``."""
        rest = dict(values)
        role, module = Role(rest.pop("role")), rest.pop("module")
        flags = {"bias", "stored", "reduced", "cut_heads"}
        for name, value in rest.items():
            if type(value) is not (bool if name in flags else int) or not 0 <= int(value) <= _LARGEST:
                raise ValueError(f"{name} is {value!r}")
        if not isinstance(module, str):
            raise TypeError(f"{module!r} is no module")
        return cls(role=role, module=module, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """All operators of a model in the order of their first launches, and which feeds which."""

    ops: tuple[ServedOp, ...]
    edges: tuple[tuple[int, int], ...]  # ops: from, to

    def of(self, role: Role) -> tuple[ServedOp, ...]:
        """The operators of one role."""
        return tuple(op for op in self.ops if op.role is role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How ranks share a model."""

    tensor_parallel: int  # ranks that share attention and dense layers
    expert_parallel: int  # ranks over which whole experts are spread

    @property
    def replicas(self) -> int:
        """Groups of ranks that have attention of their own and share the experts (data parallel)."""
        return max(1, self.expert_parallel // self.tensor_parallel)

    @property
    def expert_tensor_parallel(self) -> int:
        """Ranks that share each expert."""
        return max(1, self.tensor_parallel // self.expert_parallel)


def deployment(served: ServedModel, model: str, tensor_parallel: int, expert_parallel: int | None) -> Deployment:
    """Check a degree; raises ``UsageError`` with the degrees that work."""
    experts = max((op.experts for op in served.of(Role.EXPERTS)), default=0)
    spread = expert_parallel or 1
    if min(tensor_parallel, spread) < 1:
        raise UsageError(f"{min(tensor_parallel, spread)} GPUs run nothing; the smallest degree is 1.")
    works = [degree for degree in range(1, 129) if _divides(served, degree)]
    if tensor_parallel not in works:
        heads = max((op.heads for op in served.of(Role.ATTENTION)), default=0)
        raise UsageError(
            f"{model} cannot be split over {tensor_parallel} GPUs: its {heads} attention heads or the widths of its "
            f"layers do not divide by {tensor_parallel}.\nDegrees that work: {', '.join(map(str, works))}."
        )
    if spread == 1:
        return Deployment(tensor_parallel=tensor_parallel, expert_parallel=1)
    if experts == 0:
        raise UsageError(f"{model} has no experts to spread over {spread} GPUs.\nLeave expert_parallel out.")
    if max(spread, tensor_parallel) % min(spread, tensor_parallel):
        raise UsageError(
            f"{spread} ranks cannot share the experts of {model} where {tensor_parallel} share its layers.\n"
            "One of the two must be a multiple of the other."
        )
    return Deployment(tensor_parallel=tensor_parallel, expert_parallel=spread)


def _divides(served: ServedModel, degree: int) -> bool:
    for op in served.ops:
        if op.cut_heads and (op.heads % degree or (op.kv_heads % degree and degree % op.kv_heads)):
            return False
        if op.role is Role.LINEAR and (op.n_cut % degree or op.k_cut % degree):
            return False
    return True


def edges_from(values: Sequence[Sequence[int]], ops: int) -> tuple[tuple[int, int], ...]:
    """Pairs of op indices from JSON; raises ``ValueError``, ``TypeError``."""
    edges = tuple((int(source), int(target)) for source, target in values)
    if not all(0 <= source < ops and 0 <= target < ops for source, target in edges):
        raise ValueError("an edge leads to no operator")
    return edges
