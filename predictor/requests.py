"""What a predictor is asked, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from harness.hardware import Hardware

__all__ = [
    "Interval",
    "Parallelism",
    "PhasePrediction",
    "Prediction",
    "PredictionRequest",
    "Predictor",
    "Refusal",
]


class Parallelism(StrEnum):
    """How several GPUs share a model."""

    TENSOR = "tensor"  # each has a share of every layer
    LAYERS = "layers"  # each has some layers whole; GPUs take turns


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRequest:
    """One request on one deployment; None: not stated, and the runtime's default holds."""

    model: str  # Hub id known offline, or path of a config.json or of a folder that has one
    hardware: Hardware
    n_gpus: int = 1
    batch_size: int = 1
    prompt_tokens: int
    output_tokens: int
    dtype: str = "bfloat16"  # of weights and arithmetic; float8, float4: linear layers only
    runtime: str = "hf"
    parallelism: Parallelism = Parallelism.TENSOR
    expert_parallel: int | None = None  # ranks over which whole experts are spread; None: each is shared by all
    data_parallel: int | None = None  # replicas of everything but the experts; None: one
    attention: str | None = None  # sdpa, eager, flash_attention_2
    kv_cache: bool = True
    cuda_graphs: bool | None = None
    sm_clock_mhz: float | None = None  # a locked clock; None: free to boost
    power_limit_w: float | None = None  # enforced, per GPU; None: the board's default
    host_us_per_launch: float | None = None
    server: bool = False  # at steady state: the prefills of other requests run between this one's decode steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 90 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePrediction:
    """One phase of the whole batch, summed over the GPUs in use."""

    energy_j: float
    duration_s: float
    energy_interval_j: Interval
    duration_interval_s: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Energy and time of one request. Phases add up to the whole; their intervals do not."""

    prefill: PhasePrediction
    decode: PhasePrediction
    whole: PhasePrediction
    in_distribution: bool  # whether measurements like it were learned from
    warnings: tuple[str, ...] = ()

    @property
    def mean_power_w(self) -> float:
        """Of all GPUs together."""
        return self.whole.energy_j / self.whole.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request has no answer: what, why, what to do."""

    reason: str


class Predictor(Protocol):
    """What answers requests. A request that has no answer costs the others nothing."""

    name: str

    def predict(self, requests: Sequence[PredictionRequest]) -> tuple[Prediction | Refusal, ...]:
        """One answer per request, in order."""
        ...
