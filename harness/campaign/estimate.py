"""What a request costs in time, memory and energy before anything runs, from what its forward passes cost.

A prefill is one pass. Decode passes differ in their context only, so a decode is integrated over its contexts, from
passes at a few of them, never the last step times the steps. How a pass is costed is behind ``Passes``:
``harness.campaign.passes`` does it from kernel graphs.

These estimates order, budget and bound runs. They are never stored as measurements.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.requests import Request

_SEGMENTS = 4  # of a decode, each by Simpson's rule: exact where the cost of a step is cubic in its context


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What the memory of a model depends on, on all devices together."""

    weight_bytes: int
    kv_bytes_per_token: int  # per sequence: 2 × layers × KV heads × head dimension × bytes of the dtype
    state_bytes_per_sequence: int = 0  # of state-space layers; does not grow with the context
    context_tokens: int | None = None  # longest context; None: no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All devices that compute one run, together."""

    peak_flop_per_s: float
    peak_bytes_per_s: float
    memory_bytes: int
    idle_power_w: float
    load_power_w: float
    link_bytes_per_s: float | None = None  # of one device, one direction; None: ranks share the memory
    ranks: int = 1  # that share the peaks evenly
    flop_efficiency: float = 0.5  # share of the peak that a real pass reaches
    bytes_efficiency: float = 0.7
    host_s_per_launch: float = 0.0  # what launching one kernel takes, however small it is
    host_is_device: bool = False  # a CPU launches and computes in turns; a GPU computes meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """What one forward pass costs."""

    duration_s: float
    busy_s: float  # with the devices at work rather than waiting for the host
    activation_bytes: float  # live at once beside weights and cache, on all devices


class Passes(Protocol):
    """The cost of the forward passes of one model on one machine."""

    def prefill(self, batch_size: int, tokens: float) -> PassCost:
        """A pass over ``tokens`` of each sequence, from an empty cache."""
        ...

    def step(self, batch_size: int, context_tokens: float) -> PassCost:
        """A decode pass over one token of each sequence, which sees ``context_tokens``, itself included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one whole request needs."""

    prefill_s: float
    decode_s: float
    busy_s: float  # of both, with the devices at work rather than waiting for the host
    memory_bytes: int
    energy_j: float

    @property
    def duration_s(self) -> float:
        """Prefill and decode."""
        return self.prefill_s + self.decode_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCost:
    """What the protocol adds to the requests themselves."""

    load_s: float  # start the worker and load the model
    warmup_s: float
    idle_s: float  # all idle windows of a run
    window_s: float  # shortest window; passes repeat until it is full
    trials: int
    traced_requests: float = 0.0  # whole requests' worth of time that tracing kernels takes
    loops_s: float = 0.0  # all windows of kernels looped alone or in mixtures


def estimate_request(
    request: Request, size: ModelSize, passes: Passes, machine: Machine, *, kv_cache: bool = True
) -> Estimate:
    """Time, memory and energy of one request; without a cache every decode step is a pass over the whole context."""
    prefill = passes.prefill(request.batch_size, request.prompt_tokens)
    duration_s, busy_s = 0.0, 0.0
    if request.decode_steps:
        step = passes.step if kv_cache else passes.prefill
        mean = _mean_step(
            lambda context: step(request.batch_size, context), request.prompt_tokens + 1, request.context_tokens
        )
        duration_s, busy_s = request.decode_steps * mean.duration_s, request.decode_steps * mean.busy_s
    busy_s += prefill.busy_s
    whole_s = prefill.duration_s + duration_s
    return Estimate(
        prefill_s=prefill.duration_s,
        decode_s=duration_s,
        busy_s=busy_s,
        memory_bytes=memory_bytes(request, size, passes, kv_cache=kv_cache),
        energy_j=machine.idle_power_w * whole_s + (machine.load_power_w - machine.idle_power_w) * min(busy_s, whole_s),
    )


def memory_bytes(request: Request, size: ModelSize, passes: Passes, *, kv_cache: bool = True) -> int:
    """Peak memory: weights, KV cache of the longest context, activations of the largest pass."""
    widest = request.prompt_tokens if kv_cache else request.context_tokens  # tokens of a sequence in one pass
    kv = size.kv_bytes_per_token * request.context_tokens if kv_cache else 0
    kept = request.batch_size * (kv + size.state_bytes_per_sequence)
    return size.weight_bytes + kept + round(passes.prefill(request.batch_size, widest).activation_bytes)


def estimate_run_s(estimate: Estimate, protocol: ProtocolCost) -> float:
    """Time of the whole run: prefill, decode and the request each fill a window in every trial."""
    parts = (estimate.prefill_s, estimate.decode_s, estimate.duration_s)
    windows_s = sum(max(protocol.window_s, part_s) for part_s in parts if part_s > 0)
    fixed_s = protocol.load_s + protocol.idle_s + protocol.loops_s + max(protocol.warmup_s, estimate.duration_s)
    return fixed_s + protocol.trials * windows_s + protocol.traced_requests * estimate.duration_s


def _mean_step(step: Callable[[float], PassCost], first: int, last: int) -> PassCost:
    """Mean over the steps of a decode, by Simpson's rule over segments of its contexts."""
    places = [first + (last - first) * place / (2 * _SEGMENTS) for place in range(2 * _SEGMENTS + 1)]
    weights = [1 if place in {0, 2 * _SEGMENTS} else 4 if place % 2 else 2 for place in range(2 * _SEGMENTS + 1)]
    costs = [step(context) for context in places]

    def mean(values: list[float]) -> float:
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / (6 * _SEGMENTS)

    return PassCost(
        duration_s=mean([cost.duration_s for cost in costs]),
        busy_s=mean([cost.busy_s for cost in costs]),
        activation_bytes=max(cost.activation_bytes for cost in costs),
    )
