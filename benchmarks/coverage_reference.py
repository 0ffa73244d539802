"""Execute a tiny model of every causal-LM type: ``python -m benchmarks.coverage_reference [--only TYPE …]``.

Each type runs in a worker process with a time limit; a type that crashes or hangs is a result of its own, and the next
one gets a new worker. Prints what was executed and what cannot run, with the reason. All types take two to four minutes
on one core.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.executed_flop import executed_flop
from benchmarks.execution import Execution, Status, write_executions
from benchmarks.workers import execute_all
from harness.models.tiny import causal_lm_types

TYPE_LIMIT_S = 60.0


def execute_alone(model_type: str) -> Execution:
    """``executed_flop`` on one thread: tiny products gain nothing from more, and other workers want theirs."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return executed_flop(model_type)


def line(execution: Execution) -> str:
    """One result on one line.

    >>> line(Execution(model_type="musicgen", status=Status.CANNOT_RUN, reason="no text", duration_s=0.25))
    'musicgen                   cannot run     0.2 s  no text'
    """
    start = f"{execution.model_type:26} {execution.status:10} {execution.duration_s:7.1f} s  "
    if execution.prefill is None or execution.decode is None:
        return start + str(execution.reason)
    facts = f"{execution.parameters:7,} parameters, {execution.attention}"
    facts += f", {execution.experts} experts" if execution.experts else ""
    flop = f"{execution.prefill.total_flop:11,} + {execution.decode.total_flop:11,} FLOP"
    notes = ["FLOP vary with weights and prompt"] if execution.flop_vary else []
    notes += [f"no cache: {execution.kv_cache_problem}"] if execution.kv_cache_problem else []
    return start + "; ".join([flop, facts, *notes])


def summary(executions: Sequence[Execution], duration_s: float) -> str:
    """How many were executed, and of the others why not."""
    missing = [execution for execution in executions if execution.status is Status.CANNOT_RUN]
    executed = len(executions) - len(missing)
    first = f"{executed} of {len(executions)} types executed ({executed / len(executions):.1%}) in {duration_s:.0f} s"
    reasons = [f"  {execution.model_type}: {execution.reason}" for execution in missing]
    return "\n".join([first + ("; not:" if missing else ""), *reasons])


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage_reference", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TYPE", choices=causal_lm_types(), default=causal_lm_types())
    parser.add_argument("--jobs", type=int, default=1, help="worker processes, one thread each (default 1)")
    parser.add_argument(
        "--limit-s", type=float, default=TYPE_LIMIT_S, help="time limit of a type (default %(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print a line for each type and a summary; 0, for a type that cannot run is a result."""
    options = _arguments(arguments)
    begun_s = time.perf_counter()
    executions: list[Execution] = []

    def done(execution: Execution) -> None:
        executions.append(execution)
        print(f"{len(executions):3}/{len(options.only)} {line(execution)}", flush=True)

    execute_all(options.only, execute_alone, jobs=max(1, options.jobs), limit_s=options.limit_s, done=done)
    executions.sort(key=lambda execution: execution.model_type)
    print(f"\n{summary(executions, time.perf_counter() - begun_s)}")
    if options.json is not None:
        write_executions(options.json, executions)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
