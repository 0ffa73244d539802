"""What a forward pass costs: from the kernels of its graph, or from a formula where no graph can be captured.

Each kernel takes the time of its slowest roof: arithmetic, memory or links (Williams, Waterman, Patterson, "Roofline",
CACM 52(4), 2009, https://doi.org/10.1145/1498765.1498785), and no pass is shorter than the host needs to launch it.

Graphs are captured at sizes that are powers of four in tokens and of eight in sequences, and read between them: counts
are at most quadratic in the tokens and, but for the experts touched, linear in the sequences.
"""

from dataclasses import dataclass

from harness.campaign.estimate import Machine, PassCost
from harness.kernels import Phase
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph

_TOKENS, _SEQUENCES = 4, 8  # ratio from one captured size to the next
_HIGHEST = 4**13  # tokens; no context is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a pass is made of before the host and the devices are laid over each other."""

    busy_s: float
    host_s: float
    activation_bytes: float

    def cost(self, machine: Machine) -> PassCost:
        busy_s, host_s = self.busy_s, self.host_s
        return PassCost(
            duration_s=busy_s + host_s if machine.host_is_device else max(busy_s, host_s),
            busy_s=busy_s,
            activation_bytes=self.activation_bytes,
        )


class GraphPasses:
    """Costs from graphs, captured when first needed. Raises ``CannotCapture``."""

    def __init__(self, capture: GraphCapture, machine: Machine) -> None:
        self._capture = capture
        self._machine = machine
        self._nodes: dict[tuple[Phase, int, int], _Parts] = {}

    def prefill(self, batch_size: int, tokens: float) -> PassCost:
        """A pass over whole sequences."""
        return self._between_batches(Phase.PREFILL, batch_size, tokens).cost(self._machine)

    def step(self, batch_size: int, context_tokens: float) -> PassCost:
        """A pass over one token of each sequence."""
        return self._between_batches(Phase.DECODE, batch_size, context_tokens).cost(self._machine)

    def _between_batches(self, phase: Phase, batch_size: int, tokens: float) -> _Parts:
        low = _power_below(batch_size, _SEQUENCES)
        first = self._between_tokens(phase, low, tokens)
        if low == batch_size:
            return first
        second = self._between_tokens(phase, low * _SEQUENCES, tokens)
        share = (batch_size - low) / (low * _SEQUENCES - low)
        return _blend((first, 1 - share), (second, share))

    def _between_tokens(self, phase: Phase, batch_size: int, tokens: float) -> _Parts:
        """Quadratic through three sizes around, within the two nearest."""
        low = min(_power_below(tokens, _TOKENS), _HIGHEST // 16)
        if low == tokens:
            return self._node(phase, batch_size, low)
        sizes = [low, low * _TOKENS, low * _TOKENS**2]
        costs = [self._node(phase, batch_size, size) for size in sizes]
        curve = _blend(*zip(costs, _lagrange(sizes, tokens), strict=True))
        return _within(curve, costs[0], costs[1]) if tokens <= sizes[1] else curve

    def _node(self, phase: Phase, batch_size: int, tokens: int) -> _Parts:
        key = (phase, batch_size, tokens)
        if key not in self._nodes:
            graph = self._captured(phase, batch_size, tokens)
            self._nodes[key] = _parts(graph, self._machine)
        return self._nodes[key]

    def _captured(self, phase: Phase, batch_size: int, tokens: int) -> KernelGraph:
        before = tokens - 1  # the step's own token is part of what it sees
        if phase is Phase.PREFILL or before == 0:
            return self._capture.capture(Phase.PREFILL, batch_size=batch_size, tokens=tokens)
        return self._capture.capture(Phase.DECODE, batch_size=batch_size, tokens=before)


def pass_cost(graph: KernelGraph, machine: Machine) -> PassCost:
    """What a pass costs by its kernels, each rank with its share of the machine."""
    return _parts(graph, machine).cost(machine)


def _parts(graph: KernelGraph, machine: Machine) -> _Parts:
    flop_per_s = machine.peak_flop_per_s * machine.flop_efficiency / machine.ranks
    bytes_per_s = machine.peak_bytes_per_s * machine.bytes_efficiency / machine.ranks
    busy_s, largest = 0.0, 0.0
    for kernel in graph.kernels:
        link_s = kernel.link_bytes / machine.link_bytes_per_s if machine.link_bytes_per_s else 0.0
        busy_s += max(kernel.flop / flop_per_s, kernel.traffic_bytes / bytes_per_s, link_s)
        largest = max(largest, (kernel.traffic_bytes - kernel.weight_bytes) / kernel.launches)
    host_s = machine.host_s_per_launch * graph.launches
    return _Parts(busy_s=busy_s, host_s=host_s, activation_bytes=largest * machine.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaPasses:
    """Costs from a few sizes of the model, for one whose graph cannot be captured.

    FLOP  = tokens × 2 × active parameters + (pairs of query and context token) × FLOP per pair
    bytes = weights touched + KV cache read and written
    """

    parameters: int
    active_parameters: int  # that one token passes through; = parameters unless experts are chosen
    weight_bytes: int
    kv_bytes_per_token: int
    attention_flop_per_pair: int  # per query and context token: 4 × layers × heads × head dimension
    activation_bytes_per_token: int
    launches: int
    machine: Machine

    def prefill(self, batch_size: int, tokens: float) -> PassCost:
        """A pass over whole sequences."""
        pairs = batch_size * tokens * (tokens + 1) / 2  # causal: each token attends to itself and what is before it
        return self._cost(batch_size * tokens, pairs, batch_size * tokens * self.kv_bytes_per_token)

    def step(self, batch_size: int, context_tokens: float) -> PassCost:
        """A pass over one token of each sequence that reads the KV cache of its context."""
        pairs = batch_size * context_tokens
        return self._cost(batch_size, pairs, pairs * self.kv_bytes_per_token)

    def _cost(self, tokens: float, pairs: float, kv_bytes: float) -> PassCost:
        machine = self.machine
        work_flop = 2 * self.active_parameters * tokens + self.attention_flop_per_pair * pairs
        # Each token reads its share of the weights; independent choices of experts overlap like random draws.
        untouched = (1 - self.active_parameters / self.parameters) ** tokens
        traffic_bytes = self.weight_bytes * (1 - untouched) + kv_bytes
        busy_s = max(
            work_flop / (machine.peak_flop_per_s * machine.flop_efficiency),
            traffic_bytes / (machine.peak_bytes_per_s * machine.bytes_efficiency),
        )
        host_s = machine.host_s_per_launch * self.launches
        activation_bytes = self.activation_bytes_per_token * tokens
        return _Parts(busy_s=busy_s, host_s=host_s, activation_bytes=activation_bytes).cost(machine)


def _power_below(value: float, ratio: int) -> int:
    power = 1
    while power * ratio <= value:
        power *= ratio
    return power


def _lagrange(places: list[int], at: float) -> list[float]:
    """Weights of the values at three places in the parabola through them, read at ``at``."""
    weights = []
    for place in places:
        others = [other for other in places if other != place]
        weights.append((at - others[0]) * (at - others[1]) / ((place - others[0]) * (place - others[1])))
    return weights


def _blend(*weighted: tuple[_Parts, float]) -> _Parts:
    return _Parts(
        busy_s=sum(parts.busy_s * weight for parts, weight in weighted),
        host_s=sum(parts.host_s * weight for parts, weight in weighted),
        activation_bytes=sum(parts.activation_bytes * weight for parts, weight in weighted),
    )


def _within(parts: _Parts, first: _Parts, second: _Parts) -> _Parts:
    def clamp(value: float, one: float, other: float) -> float:
        return min(max(value, min(one, other)), max(one, other))

    return _Parts(
        busy_s=clamp(parts.busy_s, first.busy_s, second.busy_s),
        host_s=clamp(parts.host_s, first.host_s, second.host_s),
        activation_bytes=clamp(parts.activation_bytes, first.activation_bytes, second.activation_bytes),
    )
