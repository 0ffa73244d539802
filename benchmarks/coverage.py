"""Which causal-LM types kernel graphs are captured of: ``python -m benchmarks.coverage --write docs/coverage.md``.

A type is *captured* if the FLOP of matrix products and attention in its graphs, prefill and decode, equal those that a
tiny model of it was counted to execute (``benchmarks.coverage_reference``), and if building each kind of layer once
counts the same as running all layers of its default config. All types take about ten minutes on one idle core.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.coverage_page import Captured, Verdict, page
from benchmarks.coverage_reference import TYPE_LIMIT_S, execute_alone
from benchmarks.execution import BATCH_SIZE, PROMPT_TOKENS, Execution, Status, read_executions
from benchmarks.workers import execute_all
from harness.errors import CannotCapture
from harness.kernels import KernelKind, Phase
from harness.models.tiny import causal_lm_types, default_config, tiny_config
from harness.tracing.capture import GraphCapture
from harness.tracing.graph import KernelGraph

_PRODUCTS = frozenset(
    f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "mv", "dot", "vdot", "addmv", "addbmm")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """A prefill and one decode step."""

    prefill: KernelGraph
    decode: KernelGraph


def product_flop(graph: KernelGraph) -> int:
    """FLOP of matrix products and attention."""
    return sum(kernel.flop for kernel in graph.kernels if kernel.kind is KernelKind.ATTENTION or kernel.op in _PRODUCTS)


def captured(execution: Execution, *, unrolled: bool = True) -> Captured:
    """Capture a type and compare it with what it was counted to execute, and with its layers run one by one."""
    model_type = execution.model_type
    try:
        graphs = _graphs(tiny_config(model_type), execution)
        differs = _differs_unrolled(execution) if unrolled else None
    except Exception as error:  # noqa: BLE001  189 types of somebody else's code can raise anything
        verdict = Verdict.NOT_EXECUTED if execution.status is Status.CANNOT_RUN else Verdict.NOT_CAPTURED
        return Captured(execution=execution, verdict=verdict, why=execution.reason or _one_line(error))
    return Captured(
        execution=execution,
        verdict=Verdict.CAPTURED,
        prefill_flop=product_flop(graphs.prefill),
        decode_flop=product_flop(graphs.decode),
        prefill_kernels=len(graphs.prefill.kernels),
        decode_kernels=len(graphs.decode.kernels),
    ).judged(differs)


def _differs_unrolled(execution: Execution) -> str | None:
    """Whether the default config counts something else when each of its layers is run; None: it does not.

    Some default configs describe no decoder, or one that does not run: then the tiny config, which has two layers of
    each kind.
    """
    try:
        found = _once_and_each(default_config(execution.model_type), execution)
    except Exception:  # noqa: BLE001  as above
        found = _once_and_each(tiny_config(execution.model_type), execution)
    for collapsed, unrolled in found:
        for count in ("launches", "flop", "traffic_bytes", "weight_bytes"):
            one, other = getattr(collapsed, count), getattr(unrolled, count)
            if one != other:
                return f"the {collapsed.phase} has {one:,} {count} with layers counted once, {other:,} with all run"
    return None


def _once_and_each(config: Any, execution: Execution) -> tuple[tuple[KernelGraph, KernelGraph], ...]:
    """Graphs of the phases with layers that stand in for others, each beside the one with all layers run."""
    once, each = (_graphs(config, execution, unroll=unroll) for unroll in (False, True))
    return (once.prefill, each.prefill), (once.decode, each.decode)


def _graphs(config: Any, execution: Execution, *, unroll: bool = False) -> Graphs:
    build = partial(GraphCapture, config, model=execution.model_type, dtype="float32", unroll=unroll)
    try:
        capture = build(attention=execution.attention or "eager")
    except CannotCapture:  # a model of images and text may have it in its text model alone
        capture = build(attention="eager")
    kv_cache = execution.kv_cache is not False
    return Graphs(
        prefill=capture.capture(Phase.PREFILL, batch_size=BATCH_SIZE, tokens=PROMPT_TOKENS, kv_cache=kv_cache),
        decode=capture.capture(Phase.DECODE, batch_size=BATCH_SIZE, tokens=PROMPT_TOKENS, kv_cache=kv_cache),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())[:200] or type(error).__name__


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TYPE", choices=causal_lm_types(), default=causal_lm_types())
    parser.add_argument("--jobs", type=int, default=1, help="worker processes that execute types (default 1)")
    parser.add_argument(
        "--executions", type=Path, metavar="FILE", help="results of benchmarks.coverage_reference --json"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print a line for each type, and write the page; 1 where a graph differs from what is executed."""
    warnings.simplefilter("ignore")
    options = _arguments(arguments)
    begun_s = time.perf_counter()
    executions: list[Execution] = []
    if options.executions is not None:
        executions = [each for each in read_executions(options.executions) if each.model_type in options.only]
    else:
        execute_all(options.only, execute_alone, jobs=options.jobs, limit_s=TYPE_LIMIT_S, done=executions.append)
    results = []
    for execution in sorted(executions, key=lambda each: each.model_type):
        results.append(captured(execution))
        place = f"{len(results):3}/{len(executions)} {execution.model_type:26}"
        print(f"{place} {results[-1].verdict:13} {results[-1].why or ''}", flush=True)
    good = sum(result.verdict is Verdict.CAPTURED for result in results)
    print(
        f"{good} of {len(results)} types captured ({good / len(results):.1%}) in {time.perf_counter() - begun_s:.0f} s"
    )
    if options.write is not None:
        options.write.write_text(page(results), encoding="utf-8")
    return int(any(result.verdict is Verdict.DIFFERS for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
