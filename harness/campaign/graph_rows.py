"""The kernel graphs of a run's phases, and where each traced kernel is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.campaign.task import Task
from harness.campaign.works import traced_steps
from harness.errors import HarnessError
from harness.kernels import Phase
from harness.models.facts import unquantised_config
from harness.records import GraphRow
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph, edges_json, kernels_json
from harness.tracing.matching import match
from harness.tracing.timeline import TracedKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGraphs:
    """The graphs of the phases that could be captured, and why the others could not."""

    graphs: tuple[KernelGraph, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, phase: Phase) -> KernelGraph | None:
        """The graph of a phase; None where it was not captured."""
        return next((graph for graph in self.graphs if graph.phase is phase), None)


def run_graphs(task: Task) -> RunGraphs:
    """Capture the prefill and the decode step in the middle, the one that is traced; what fails becomes a note."""
    request, deployment = task.job.request, task.job.deployment
    graphs, notes = [], []
    try:
        capture = GraphCapture(
            unquantised_config(task.source),
            model=request.model,
            dtype=request.dtype,
            attention=deployment.attention,
            tensor_parallel=deployment.ranks,
            trust_remote_code=task.source.trust_remote_code,
        )
        batch, cache = request.batch_size, deployment.kv_cache
        graphs.append(capture.capture(Phase.PREFILL, batch_size=batch, tokens=request.prompt_tokens, kv_cache=cache))
        if request.decode_steps:
            middle = traced_steps(request).context_tokens
            graphs.append(capture.capture(Phase.DECODE, batch_size=batch, tokens=middle, kv_cache=cache))
    except HarnessError as error:
        notes.append(f"no kernel graph: {str(error).splitlines()[0]}")
    return RunGraphs(graphs=tuple(graphs), notes=tuple(notes))


def graph_row(graph: KernelGraph) -> GraphRow:
    """A graph as the dataset stores it."""
    return GraphRow(
        graph_id=graph.graph_id,
        model=graph.model,
        phase=graph.phase,
        batch_size=graph.batch_size,
        query_tokens=graph.query_tokens,
        context_tokens=graph.context_tokens,
        dtype=graph.dtype,
        attention=graph.attention,
        tensor_parallel=graph.tensor_parallel,
        kernels=kernels_json(graph.kernels),
        edges=edges_json(graph.edges),
    )


def places(graph: KernelGraph | None, kernels: Sequence[TracedKernel]) -> Mapping[str, int | None]:
    """By kernel id the place of each traced kernel in a graph; empty without one."""
    if graph is None:
        return {}
    return {pair.traced.kernel_id: pair.kernel for pair in match(graph, kernels).pairs}
