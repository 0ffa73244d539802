"""Rules about rows that belong together: keys are unique, and what a row refers to is there and agrees with it."""

from harness.dataset.schema import Table
from harness.dataset.validation.findings import Severity
from harness.dataset.validation.relations import (
    ENVIRONMENTS,
    GRAPHS,
    KERNEL_ENERGIES,
    KERNELS,
    KEYS,
    PHASES,
    POWER_TRACES,
    RANK_TIMES,
    READINGS,
    REPEATED,
    RUNS,
    SOURCES,
)
from harness.dataset.validation.rules import Rule, Test, quoted
from harness.kernels import Phase
from harness.records import Status, Workload

_OF_RUNS = (PHASES, KERNELS, KERNEL_ENERGIES, READINGS, RANK_TIMES, POWER_TRACES)
# What the harness always knows of a run of its own, however it ended.
_ALWAYS_KNOWN = (
    *("model", "weights", "dtype", "runtime", "attention", "kv_cache", "cuda_graphs", "parallelism", "tensor_parallel"),
    *("batch_size", "prompt_tokens", "output_tokens", "quality", "started_at_utc", "configuration"),
)
# Any of these is an answer of a run that is ok.
_NUMBERS = "energy_j, duration_s, ttft_s, tpot_s, output_tokens_per_s, mean_power_w, phases_j, phases_s"

KEY_RULES = (
    Rule(
        name="duplicate-key",
        severity=Severity.ERROR,
        checks="Every row has a key of its own.",
        remedy="Remove the row that is there twice; a correction is a new run, named in superseded_by of the old one.",
        tests=tuple(
            Test(
                of=REPEATED[table],
                column=KEYS[table][0],
                broken="true",
                reason=quoted(f"another row has the same {', '.join(KEYS[table])}"),
                value=f"concat_ws(' · ', {', '.join(KEYS[table])})",
            )
            for table in Table
        ),
    ),
    Rule(
        name="unknown-run",
        severity=Severity.ERROR,
        checks="Every row of another table belongs to a run that is there.",
        remedy="Add the row of `runs`, or remove these rows: they were copied without their run.",
        tests=tuple(
            Test(of=relation, column="run_id", broken="known_run IS NULL", reason="'there is no such run'")
            for relation in _OF_RUNS
        ),
    ),
    Rule(
        name="unknown-kernel",
        severity=Severity.ERROR,
        checks="Every row of kernel_energies has its kernel in `kernels`.",
        remedy="Add the kernel, or correct run_id, phase, rank and kernel_id of the energy.",
        tests=(
            Test(
                of=KERNEL_ENERGIES,
                column="kernel_id",
                broken="known_run AND NOT known_kernel",
                reason="format('no kernel of this name in phase {} on rank {}', coalesce(phase, 'none'), rank)",
            ),
        ),
    ),
    Rule(
        name="unknown-phase",
        severity=Severity.ERROR,
        checks="Kernels of a phase have its row in `phases`; those measured alone have none.",
        remedy="Add the row of the phase, or write null for a kernel that was measured alone.",
        softer_for_imports=True,
        tests=(
            Test(
                of=KERNELS,
                column="phase",
                broken="known_run AND phase IS NOT NULL AND known_phase IS NULL",
                reason="'the run has no such row in phases'",
            ),
        ),
    ),
    Rule(
        name="unknown-graph",
        severity=Severity.ERROR,
        checks="The graph of a phase is there, and is of the same model, phase, batch size and tensor-parallel degree.",
        remedy="Add the graph that the kernels were matched to, or write null.",
        tests=(
            Test(
                of=PHASES,
                column="graph_id",
                broken="graph_id IS NOT NULL AND NOT known_graph",
                reason="'there is no such graph'",
            ),
            Test(
                of=PHASES,
                column="graph_id",
                broken="graph_phase <> phase OR graph_model <> model OR graph_tensor_parallel <> tensor_parallel "
                "OR graph_batch_size <> batch_size",
                reason="format('the graph is of {} in {}, batch {}, degree {}; the phase of {} in {}, batch {}, degree "
                "{}', graph_model, graph_phase, graph_batch_size, graph_tensor_parallel, model, phase, batch_size, "
                "tensor_parallel)",
            ),
        ),
    ),
    Rule(
        name="not-in-graph",
        severity=Severity.ERROR,
        checks="graph_kernel is the place of a kernel in the graph of its phase.",
        remedy="Match the kernels anew, or write null.",
        tests=(
            Test(
                of=KERNELS,
                column="graph_kernel",
                broken="graph_kernel IS NOT NULL AND known_phase AND (graph_kernels IS NULL "
                "OR graph_kernel >= graph_kernels)",
                reason="CASE WHEN graph_kernels IS NULL THEN 'the phase has no graph' "
                "ELSE format('the graph has {} kernels, counted from 0', graph_kernels) END",
            ),
        ),
    ),
    Rule(
        name="unknown-environment",
        severity=Severity.ERROR,
        checks="The environment of a run is there, every run of the harness's own that is ok has one, and both name "
        "the same GPU.",
        remedy="Add the row of `environments` that the worker wrote.",
        tests=(
            Test(
                of=RUNS,
                column="environment_id",
                broken="environment_id IS NOT NULL AND known_environment IS NULL",
                reason="'there is no such environment'",
            ),
            Test(
                of=RUNS,
                column="environment_id",
                broken=f"environment_id IS NULL AND status = '{Status.OK}' AND NOT imported",
                reason="'a run that is ok ran somewhere'",
            ),
            Test(
                of=RUNS,
                column="gpu",
                broken="environment_gpu <> gpu",
                reason="format('its environment is a {}', environment_gpu)",
            ),
        ),
    ),
    Rule(
        name="unknown-source",
        severity=Severity.ERROR,
        checks="The source of an imported run is there, with its licence.",
        remedy="Convert it again with python -m harness.convert, which writes the row of `sources`.",
        tests=(
            Test(
                of=RUNS,
                column="source",
                broken="imported AND NOT known_source",
                reason="'there is no such row in sources: nobody knows on which terms it may be used'",
            ),
        ),
    ),
    Rule(
        name="own-source-missing",
        severity=Severity.WARNING,
        checks="The source of a run of the harness's own is there too.",
        remedy="Add the row of `sources`; the harness writes one with every run.",
        tests=(
            Test(
                of=RUNS,
                column="source",
                broken="NOT imported AND NOT known_source",
                reason="'there is no such row in sources'",
            ),
        ),
    ),
    Rule(
        name="unknown-correction",
        severity=Severity.ERROR,
        checks="The run that corrects another is there, and corrections do not go round in a circle.",
        remedy="Add the run that superseded_by names, or write null.",
        tests=(
            Test(
                of=RUNS,
                column="superseded_by",
                broken="superseded_by IS NOT NULL AND NOT known_correction",
                reason="'there is no such run'",
            ),
        ),
    ),
    Rule(
        name="unused-row",
        severity=Severity.NOTE,
        checks="Graphs, environments and sources are of use to a run.",
        remedy="Nothing needs to be done; a release leaves them out.",
        tests=(
            Test(of=GRAPHS, column="graph_id", broken="NOT used", reason="'no phase has this graph'"),
            Test(of=ENVIRONMENTS, column="environment_id", broken="NOT used", reason="'no run has this environment'"),
            Test(of=SOURCES, column="source", broken="NOT used", reason="'no run is from this source'"),
        ),
    ),
    Rule(
        name="missing-value",
        severity=Severity.ERROR,
        checks="What only imported runs may leave open is known of all others.",
        remedy="Write what the run was; the harness writes all of it.",
        tests=tuple(
            Test(
                of=RUNS,
                column=column,
                broken=f"{column} IS NULL AND NOT imported",
                reason="'null, which only an imported run may have here'",
            )
            for column in _ALWAYS_KNOWN
        ),
    ),
    Rule(
        name="status-without-reason",
        severity=Severity.ERROR,
        checks="A run that is not ok says why.",
        remedy="Write the reason into status_detail.",
        tests=(
            Test(
                of=RUNS,
                column="status_detail",
                broken=f"status <> '{Status.OK}' AND coalesce(trim(status_detail), '') = ''",
                reason="format('the run is {} and nobody says why', status)",
            ),
        ),
    ),
    Rule(
        name="status-contradicts-numbers",
        severity=Severity.ERROR,
        checks="A run that is ok has an energy, a time or a rate (or is of kernels alone); one that is not has no "
        "energy.",
        tolerance="a run whose windows were all rejected is ok without an energy, and its status_detail says so",
        remedy="Correct the status, or write null for numbers of a run that did not end well.",
        tests=(
            Test(
                of=RUNS,
                column="status",
                broken=f"status = '{Status.OK}' AND workload <> '{Workload.KERNELS}' AND status_detail IS NULL "
                f"AND coalesce({_NUMBERS}) IS NULL",
                reason="'it is ok and has neither an energy nor a time'",
            ),
            Test(
                of=RUNS,
                column="energy_j",
                broken=f"status <> '{Status.OK}' AND energy_j IS NOT NULL",
                reason="format('the run is {} and has an energy', status)",
            ),
        ),
    ),
    Rule(
        name="phases-contradict-request",
        severity=Severity.ERROR,
        checks="A run with phases has a prefill, and a decode exactly if it asks for more than one output token.",
        remedy="Add the phase that is missing, or correct output_tokens.",
        softer_for_imports=True,
        tests=(
            Test(
                of=RUNS,
                column="output_tokens",
                broken=f"status = '{Status.OK}' AND workload = '{Workload.BATCH}' AND NOT imported "
                "AND (phases IS NULL OR NOT has_prefill OR (output_tokens > 1 AND NOT has_decode))",
                reason="'a phase of the request is missing'",
            ),
            Test(
                of=RUNS,
                column="output_tokens",
                broken="output_tokens <= 1 AND has_decode",
                reason="'there is a decode, and the prefill yields the only token'",
            ),
        ),
    ),
    Rule(
        name="phase-contradicts-request",
        severity=Severity.ERROR,
        checks="A prefill is 1 step over the prompt; a decode of n output tokens is n − 1 steps from the end of the "
        "prompt on.",
        remedy="Correct steps and contexts of the phase, or tokens of the run.",
        softer_for_imports=True,
        tests=(
            Test(
                of=PHASES,
                column="steps",
                broken=f"steps <> CASE phase WHEN '{Phase.PREFILL}' THEN 1 ELSE output_tokens - 1 END",
                reason="format('{} of {} output tokens', phase, output_tokens)",
            ),
            Test(
                of=PHASES,
                column="context_start_tokens",
                broken=f"context_start_tokens <> CASE phase WHEN '{Phase.PREFILL}' THEN 0 ELSE prompt_tokens END",
                reason="format('{} of a prompt of {} tokens', phase, prompt_tokens)",
            ),
            Test(
                of=PHASES,
                column="context_end_tokens",
                broken="context_end_tokens <> prompt_tokens + "
                f"CASE phase WHEN '{Phase.PREFILL}' THEN 0 ELSE output_tokens - 1 END",
                reason="format('{} of a prompt of {} and {} output tokens', phase, prompt_tokens, output_tokens)",
            ),
        ),
    ),
)
