"""How much of what was traced is in the kernel graphs, and what is not."""

from collections.abc import Sequence

from harness.dataset.graph_summary import GraphSummary, UnmatchedKernel
from harness.report.blocks import Cell, Column, Group, Section, Table
from harness.report.setups import Scene
from harness.report.text import count, percent, plain, plural, short, time_span

TOP_UNMATCHED = 10


def graph_section(scene: Scene) -> Section | None:
    """Matched shares of each setup; None where no phase has a graph that kernels were held against."""
    graphs = scene.summary.graphs
    setups = sorted({one.setup for one in graphs})
    if not setups:
        return None
    return Section(
        name="graphs",
        title="Traced kernels in the kernel graph",
        lead="A kernel graph says before anything runs what a pass of the model will launch; it is captured from the "
        "model's own code. A traced kernel is a match if the graph of its phase has one with the same operator, module "
        "and shape, or, failing that, of the same kind (or the same operator of another library) in the same module, "
        "or an attention or scan of which it is a step. The table graphs of the dataset holds the graphs; "
        "python -m harness.graph MODEL --html FILE draws one.",
        groups=tuple(_setup_group(scene, setup, [one for one in graphs if one.setup == setup]) for setup in setups),
    )


def _setup_group(scene: Scene, setup: int, graphs: Sequence[GraphSummary]) -> Group:
    tables, notes = [_share_table(graphs)], []
    for graph in graphs:
        left = [one for one in scene.summary.unmatched if one.setup == setup and one.phase is graph.phase]
        if left:
            tables.append(_unmatched_table(graph, left))
        else:
            notes.append(f"Every traced kernel of the {graph.phase.value} is in the graph.")
    return Group(title=scene.names[setup], tables=tuple(tables), notes=tuple(notes))


def _share_table(graphs: Sequence[GraphSummary]) -> Table:
    return Table(
        caption="Found in the graph, over ranks and runs",
        columns=(
            Column(title="phase"),
            Column(title="runs", number=True, note="with a graph and traced kernels"),
            Column(title="traced time", number=True, note="as the profiler saw it, added over ranks"),
            Column(title="in the graph", number=True),
            Column(title="of the time", number=True, note="matched share of the traced time"),
            Column(title="launches", number=True, note="in one pass of each run, added over ranks"),
            Column(title="in the graph", number=True),
            Column(title="of the launches", number=True, note="matched share of the launches"),
        ),
        rows=tuple(_share_row(graph) for graph in graphs),
    )


def _share_row(graph: GraphSummary) -> tuple[Cell, ...]:
    return (
        Cell(text=graph.phase.value),
        Cell(text=count(graph.runs), key=graph.runs),
        Cell(text=time_span(graph.traced_duration_s), key=graph.traced_duration_s),
        Cell(text=time_span(graph.matched_duration_s), key=graph.matched_duration_s),
        Cell(text=matched_text(graph.matched_time_share), key=graph.matched_time_share),
        Cell(text=count(graph.launches), key=graph.launches),
        Cell(text=count(graph.matched_launches), key=graph.matched_launches),
        Cell(text=matched_text(graph.matched_launch_share), key=graph.matched_launch_share),
    )


def matched_text(share: float | None) -> str:
    """A share near 1, rounded so that only what is all of it reads 100 %.

    >>> matched_text(0.9972), matched_text(0.99996), matched_text(1.0), matched_text(0.5), matched_text(None)
    ('99.7 %', '> 99.9 %', '100 %', '50 %', '–')
    """
    if share is None or share == 1 or share < 0.9:
        return percent(share)
    return f"{100 * share:.1f} %" if share < 0.9995 else "> 99.9 %"


def _unmatched_table(graph: GraphSummary, left: Sequence[UnmatchedKernel]) -> Table:
    return Table(
        caption=f"Not in the graph of the {graph.phase.value}: {_which(left)}",
        columns=(
            Column(title="kind"),
            Column(title="operator"),
            Column(title="module", note="layer numbers written as *"),
            Column(title="launches", number=True),
            Column(title="traced time", number=True, note="as the profiler saw it, added over ranks and runs"),
            Column(title="share", number=True, note="of the traced time of the phase"),
        ),
        rows=tuple(_unmatched_row(one) for one in left[:TOP_UNMATCHED]),
    )


def _which(left: Sequence[UnmatchedKernel]) -> str:
    rest = left[TOP_UNMATCHED:]
    if not rest:
        return "all"
    launches = sum(one.launches for one in rest)
    times_s = [one.traced_duration_s for one in rest]
    known_s = [time_s for time_s in times_s if time_s is not None]
    total_s = sum(known_s) if len(known_s) == len(times_s) else None
    return (
        f"the {TOP_UNMATCHED} with the most time of {len(left)}; the other {len(rest)} have "
        f"{plural(launches, 'launch', 'launches')} and {time_span(total_s)}"
    )


def _unmatched_row(one: UnmatchedKernel) -> tuple[Cell, ...]:
    module = plain(one.module)
    return (
        Cell(text=one.kind.value),
        Cell(text=short(plain(one.op), 40), note=plain(one.op), code=True),
        Cell(text=short(module, 44), note=module, code=one.module is not None),
        Cell(text=count(one.launches), key=one.launches),
        Cell(text=time_span(one.traced_duration_s), key=one.traced_duration_s),
        Cell(text=percent(one.time_share), key=one.time_share),
    )
