"""What a virtual machine is given to run: the passes of a request and loops of its kernels, from kernel graphs.

Amounts of a decode step are read between steps captured at contexts that are powers of two: they are linear in the
context but where a sliding window ends. Runs of one campaign share those.
"""

from collections.abc import Sequence

import numpy as np

from harness.campaign.graph_rows import captured
from harness.campaign.task import Task
from harness.campaign.works import WorkSpec, traced_steps
from harness.errors import RunError
from harness.kernels import NULL_KERNEL, KernelCount, Phase
from harness.measuring.kernel_energy import NULL_IN_GRAPH
from harness.records import Part
from harness.tracing.graph import KernelGraph
from harness.virtual.machine import Program, VirtualMachine
from harness.virtual.program import MATRIX_DTYPE, Segments, joined, segments_of

_GROUPS = 24  # of decode steps that run as one: steps of a group are taken at their mean context
_AMOUNTS = ("launches", "flop", "traffic_bytes", "link_bytes")


def kernel_name(phase: Phase, index: int) -> str:
    """The name of a graph's kernel on a virtual machine."""
    return f"{phase.value}/{kernel_id(index)}"


def kernel_id(index: int) -> str:
    """The id of a graph's kernel in a trace."""
    return f"k{index:04d}"


class Programs:
    """The programs of one run on one machine, compiled when first needed."""

    def __init__(self, task: Task, machine: VirtualMachine) -> None:
        self._task = task
        self._machine = machine
        self._request = task.job.request
        self._compiled: dict[WorkSpec, Program] = {}
        self.graphs: dict[Phase, KernelGraph] = {Phase.PREFILL: self._graph(Phase.PREFILL, self._request.prompt_tokens)}
        if self._request.decode_steps:
            self.graphs[Phase.DECODE] = self._graph(Phase.DECODE, traced_steps(self._request).context_tokens)
        self._units = {phase: _Units(phase, graph) for phase, graph in self.graphs.items()}

    def of(self, spec: WorkSpec) -> Program:
        """The program of a work."""
        if spec not in self._compiled:
            self._compiled[spec] = self._machine.compile(self._segments(spec), **self._launching(spec))
        return self._compiled[spec]

    def _launching(self, spec: WorkSpec) -> dict[str, float]:
        """How the host launches: loops go as CUDA graphs, without the host in between; all else as in the model."""
        in_graph = bool(spec.kernels) and spec.kernels[0].kernel_id != NULL_KERNEL
        options = {"host_s_per_launch": 0.0} if in_graph else {}
        return options | ({"late_s": spec.late_s} if spec.late_s else {})

    def _segments(self, spec: WorkSpec) -> Segments:
        if spec.kernels:
            phase = spec.kernels[0].phase
            # A rank that is late needs something before the collective to be late with.
            empty = KernelCount(phase=phase, kernel_id=NULL_IN_GRAPH, launches=1)
            return self._units[phase].loop([empty, *spec.kernels] if spec.part is Part.WAITING else spec.kernels)
        if spec.part is Part.PREFILL:
            return self._prefill()
        if spec.part is Part.DECODE:
            return self._decode(spec.context_tokens, spec.steps)
        steps = self._request.decode_steps
        return joined([self._prefill(), *([self._decode(self._request.prompt_tokens, steps)] if steps else [])])

    def _prefill(self) -> Segments:
        return _named(Phase.PREFILL, self.graphs[Phase.PREFILL])

    def _decode(self, context_tokens: int, steps: int) -> Segments:
        """Steps from one context, in groups."""
        groups = np.array_split(np.arange(steps), min(steps, _GROUPS))
        return joined([self._step(context_tokens + float(group.mean()), len(group)) for group in groups])

    def _step(self, context_tokens: float, times: int) -> Segments:
        """So many decode steps with so many tokens in the cache before each."""
        low = 1 << int(np.log2(context_tokens))
        first, second = (self._graph(Phase.DECODE, node) for node in (low, 2 * low))
        share = (context_tokens - low) / low
        if len(first.kernels) != len(second.kernels):
            raise RunError(
                f"{first.model}: the decode step has {len(first.kernels)} kernels at a context of {low} and "
                f"{len(second.kernels)} at {2 * low}, so it cannot be simulated between them."
            )
        one, other = _named(Phase.DECODE, first), _named(Phase.DECODE, second)
        amounts = {
            name: times * (getattr(one, name) + share * (getattr(other, name) - getattr(one, name)))
            for name in _AMOUNTS
        }
        return Segments(kernels=one.kernels, collective=one.collective, dtypes=one.dtypes, kernel=one.kernel, **amounts)

    def _graph(self, phase: Phase, tokens: int) -> KernelGraph:
        deployment = self._task.job.deployment
        return captured(
            self._task.source,
            self._request.dtype,
            deployment.attention,
            deployment.ranks,
            phase,
            self._request.batch_size,
            tokens,
            kv_cache=deployment.kv_cache,
        )


def _named(phase: Phase, graph: KernelGraph) -> Segments:
    return segments_of(graph, name=lambda index: kernel_name(phase, index))


class _Units:
    """One launch of every kernel of a phase, and of none."""

    def __init__(self, phase: Phase, graph: KernelGraph) -> None:
        whole = _named(phase, graph)  # one segment per kernel, in the graph's order
        self._place = {kernel_id(index): index for index in range(len(whole.kernels))}
        self._place |= dict.fromkeys((NULL_KERNEL, NULL_IN_GRAPH), len(whole.kernels))
        self._names = (*whole.kernels, NULL_KERNEL)
        self._collective = (*whole.collective, False)
        self._dtypes = (*(whole.dtype_of(index) for index in range(len(whole.kernels))), MATRIX_DTYPE)
        one = [amount / whole.launches for amount in whole.amounts]  # per launch
        nothing = [1.0, 0.0, 0.0, 0.0]  # launched once, no work
        self._amounts = [np.append(amount, none) for amount, none in zip(one, nothing, strict=True)]

    def loop(self, kernels: Sequence[KernelCount]) -> Segments:
        """Each kernel so many times, in the order given."""
        places = [self._place[each.kernel_id] for each in kernels]
        times = np.array([each.launches for each in kernels], dtype=np.float64)
        return Segments(
            kernels=tuple(self._names[place] for place in places),
            collective=tuple(self._collective[place] for place in places),
            dtypes=tuple(self._dtypes[place] for place in places),
            kernel=np.arange(len(places), dtype=np.int64),
            **{name: amount[places] * times for name, amount in zip(_AMOUNTS, self._amounts, strict=True)},
        )
