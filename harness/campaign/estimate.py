"""What a request costs, from a handful of figures of the model and the machine, before anything runs.

One forward pass takes the time of its slower half, arithmetic or memory traffic (Williams, Waterman, Patterson,
"Roofline", CACM 52(4), 2009, https://doi.org/10.1145/1498765.1498785), but no less than the host needs to launch it:

    FLOP  = tokens × 2 × active parameters + (pairs of query and context token) × FLOP per pair
    bytes = weights touched + KV cache read and written

These estimates order, budget and bound runs. They are never stored as measurements.
"""

from dataclasses import dataclass

from harness.records import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What the cost of a model depends on."""

    parameters: int
    active_parameters: int  # that one token passes through; = parameters unless experts are chosen
    weight_bytes: int
    kv_bytes_per_token: int  # per sequence: 2 × layers × KV heads × head dimension × bytes of the dtype
    attention_flop_per_pair: int  # per query and context token: 4 × layers × heads × head dimension
    activation_bytes_per_token: int  # live at once in a forward pass
    score_bytes_per_pair: int = 0  # live at once, where attention scores are written out (eager); 0: fused
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
    flop_efficiency: float = 0.5  # share of the peak that a real pass reaches
    bytes_efficiency: float = 0.7
    host_s_per_pass: float = 0.0  # what launching one pass takes, however small it is


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _PassCost:
    duration_s: float
    busy_s: float


def estimate_request(request: Request, size: ModelSize, machine: Machine, *, kv_cache: bool = True) -> Estimate:
    """Time, memory and energy of one request.

    Decode passes differ in their context only, so they are summed by Simpson's rule over the first, middle and last:
    exact where one roof holds throughout.
    """
    prefill = _full_pass(request.batch_size, request.prompt_tokens, size, machine)
    decode = _PassCost(duration_s=0.0, busy_s=0.0)
    if request.decode_steps:
        first, last = request.prompt_tokens + 1, request.context_tokens
        step = _decode_pass if kv_cache else _full_pass
        ends = [step(request.batch_size, context, size, machine) for context in (first, (first + last) / 2, last)]
        decode = _simpson(ends[0], ends[1], ends[2], request.decode_steps)
    duration_s, busy_s = prefill.duration_s + decode.duration_s, prefill.busy_s + decode.busy_s
    return Estimate(
        prefill_s=prefill.duration_s,
        decode_s=decode.duration_s,
        busy_s=busy_s,
        memory_bytes=memory_bytes(request, size, kv_cache=kv_cache),
        energy_j=machine.idle_power_w * duration_s + (machine.load_power_w - machine.idle_power_w) * busy_s,
    )


def memory_bytes(request: Request, size: ModelSize, *, kv_cache: bool = True) -> int:
    """Peak memory: weights, KV cache of the longest context, activations of the largest pass."""
    widest = request.prompt_tokens if kv_cache else request.context_tokens  # tokens of a sequence in one pass
    kv = size.kv_bytes_per_token * request.context_tokens if kv_cache else 0
    activations = size.activation_bytes_per_token * widest + size.score_bytes_per_pair * widest * request.context_tokens
    return size.weight_bytes + request.batch_size * (kv + size.state_bytes_per_sequence + activations)


def estimate_run_s(estimate: Estimate, protocol: ProtocolCost) -> float:
    """Time of the whole run: prefill, decode and the request each fill a window in every trial."""
    parts = (estimate.prefill_s, estimate.decode_s, estimate.duration_s)
    windows_s = sum(max(protocol.window_s, part_s) for part_s in parts if part_s > 0)
    fixed_s = protocol.load_s + protocol.idle_s + max(protocol.warmup_s, estimate.duration_s)
    return fixed_s + protocol.trials * windows_s + protocol.traced_requests * estimate.duration_s


def _full_pass(batch: int, tokens: float, size: ModelSize, machine: Machine) -> _PassCost:
    """A pass over whole sequences: a prefill, or any token without a KV cache."""
    pairs = batch * tokens * (tokens + 1) / 2  # causal: each token attends to itself and what is before it
    return _pass_cost(batch * tokens, pairs, batch * tokens * size.kv_bytes_per_token, size, machine)


def _decode_pass(batch: int, context: float, size: ModelSize, machine: Machine) -> _PassCost:
    """A pass over one token per sequence that reads the KV cache of its context."""
    return _pass_cost(batch, batch * context, batch * context * size.kv_bytes_per_token, size, machine)


def _pass_cost(tokens: float, pairs: float, kv_bytes: float, size: ModelSize, machine: Machine) -> _PassCost:
    work_flop = 2 * size.active_parameters * tokens + size.attention_flop_per_pair * pairs
    # Each token reads its share of the weights; independent choices of experts overlap like random draws.
    untouched = (1 - size.active_parameters / size.parameters) ** tokens
    traffic_bytes = size.weight_bytes * (1 - untouched) + kv_bytes
    busy_s = max(
        work_flop / (machine.peak_flop_per_s * machine.flop_efficiency),
        traffic_bytes / (machine.peak_bytes_per_s * machine.bytes_efficiency),
    )
    return _PassCost(duration_s=max(busy_s, machine.host_s_per_pass), busy_s=busy_s)


def _simpson(first: _PassCost, middle: _PassCost, last: _PassCost, steps: int) -> _PassCost:
    return _PassCost(
        duration_s=steps * (first.duration_s + 4 * middle.duration_s + last.duration_s) / 6,
        busy_s=steps * (first.busy_s + 4 * middle.busy_s + last.busy_s) / 6,
    )
