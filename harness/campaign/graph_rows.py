"""The kernel graphs of a run's phases, and where each traced kernel is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.campaign.task import Task
from harness.campaign.works import traced_steps
from harness.errors import HarnessError
from harness.kernels import Phase
from harness.models.facts import unquantised_config
from harness.models.source import ModelSource
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
    wanted = [(Phase.PREFILL, request.prompt_tokens)]
    if request.decode_steps:
        wanted.append((Phase.DECODE, traced_steps(request).context_tokens))
    try:
        for phase, tokens in wanted:
            graph = captured(
                task.source,
                request.dtype,
                deployment.attention,
                deployment.ranks,
                phase,
                request.batch_size,
                tokens,
                kv_cache=deployment.kv_cache,
            )
            graphs.append(graph)
    except HarnessError as error:
        notes.append(f"no kernel graph: {str(error).splitlines()[0]}")
    return RunGraphs(graphs=tuple(graphs), notes=tuple(notes))


@lru_cache(maxsize=4)
def _capture(source: ModelSource, dtype: str, attention: str, ranks: int) -> GraphCapture:
    return GraphCapture(
        unquantised_config(source),
        model=source.name,
        dtype=dtype,
        attention=attention,
        tensor_parallel=ranks,
        trust_remote_code=source.trust_remote_code,
    )


@lru_cache(maxsize=256)
def captured(
    source: ModelSource,
    dtype: str,
    attention: str,
    ranks: int,
    phase: Phase,
    batch_size: int,
    tokens: int,
    *,
    kv_cache: bool,
) -> KernelGraph:
    """The graph of a pass, captured once in this process; raises ``CannotCapture`` and ``UsageError``."""
    capture = _capture(source, dtype, attention, ranks)
    return capture.capture(phase, batch_size=batch_size, tokens=tokens, kv_cache=kv_cache)


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
