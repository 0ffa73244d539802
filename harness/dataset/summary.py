"""What a dataset adds up to: per run, per phase, per kind of kernel, per repeat; computed by DuckDB.

Sums are complete or null: one unknown term makes the sum unknown, since leaving it out would read as 0.
Runs that a later row corrects (``superseded_by``) are counted and otherwise left out.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import duckdb

from harness.dataset import graph_queries, ledger_queries, queries, rank_queries
from harness.dataset.files import check_file
from harness.dataset.graph_summary import GraphSummary, UnmatchedKernel
from harness.dataset.ledger_summary import (
    CollectiveEnergySummary,
    DisagreementSummary,
    LedgerSummary,
    MethodSummary,
)
from harness.dataset.rank_summary import CollectiveSummary, CommunicationSummary, RankSummary
from harness.dataset.reading import open_dataset
from harness.dataset.schema import Table, arrow_schema
from harness.errors import CorruptFile
from harness.kernels import KernelKind, Phase
from harness.records import EnvironmentRow, Part, PhaseRow, Provenance, Quality, RunRow, Status, Weights

TABLES = (
    Table.RUNS,
    Table.PHASES,
    Table.KERNELS,
    Table.KERNEL_ENERGIES,
    Table.READINGS,
    Table.RANK_TIMES,
    Table.ENVIRONMENTS,
)
KERNEL_ROWS_AT_ONCE = 2_000_000  # 10 million rows take 0.4 GiB this way, and 2 GiB all at once
MEMORY_LIMIT = "600MB"
MAX_THREADS = 4  # every thread buffers columns of its own

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What has to be equal before the numbers of two runs may be shown as one series."""

    setup: int  # 1, 2, 3 …
    provenance: Provenance
    quality: Quality | None
    gpu: str
    n_gpus: int
    parallelism: str | None
    tensor_parallel: int | None
    nodes: int
    model: str | None
    weights: Weights | None
    dtype: str | None
    quantization: str | None
    runtime: str | None
    attention: str | None
    kv_cache: bool | None
    cuda_graphs: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run with what follows from its row. Intervals are half widths at 95 %."""

    run: RunRow
    number: int  # 1, 2, 3 … in the order of their start
    setup: int
    average_power_w: float | None
    energy_repeat95_j: float | None  # part of energy_ci95_j beside gain and offset; null where these are not known
    energy_per_sequence_j: float | None  # of the batch
    energy_per_sequence_ci95_j: float | None
    energy_per_output_token_j: float | None  # of the whole request, over all sequences of the batch
    energy_per_output_token_ci95_j: float | None
    energy_per_prompt_token_j: float | None
    energy_per_prompt_token_ci95_j: float | None
    phases_energy_j: float | None  # prefill + decode, each from windows of its own
    phases_energy_ci95_j: float | None
    window_difference_j: float | None  # energy of the request's own window less phases_energy_j
    window_difference_ci95_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSummary:
    """One phase of one run with what follows from its row."""

    row: PhaseRow
    tokens: int | None  # prefill: prompt tokens read; decode: tokens made; over all sequences of the batch
    energy_per_token_j: float | None
    energy_per_token_ci95_j: float | None
    energy_repeat95_j: float | None  # as in RunSummary
    average_power_w: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSummary:
    """The kernels of one kind in one phase of one run, over ranks; the energy is the apportioned one."""

    run_id: str
    phase: Phase
    kind: KernelKind
    launches: int
    energy_j: float | None
    duration_s: float | None
    flop: int | None
    traffic_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSummary:
    """One operator in one module, over the shapes, ranks and runs of a setup, one pass of the phase of each run."""

    setup: int
    phase: Phase
    kind: KernelKind
    op: str
    module: str | None
    runs: int  # of the setup, with kernels traced in this phase
    launches: int
    energy_j: float | None
    energy_share: float | None  # of the energy of the same phases, host gaps included
    duration_s: float | None
    flop: int | None
    traffic_bytes: int | None
    intensity_flop_per_byte: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSummary:
    """One window, over the devices it was read on."""

    run_id: str
    part: Part
    trial: int
    provenance: Provenance
    meter: str
    context_start_tokens: int | None
    energy_j: float
    uncertainty_j: float
    duration_s: float
    passes: float
    energy_per_pass_j: float | None  # less the idle tail of the window; null for idle
    average_power_w: float | None  # less the idle tail
    deviation: float | None  # relative, from the mean of the used windows of the same part and context
    rejected: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """The repeats of one part of one run."""

    run_id: str
    part: Part
    windows_used: int
    windows_rejected: int
    spread: float | None  # relative standard deviation of the used windows; null for a single one


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTotal:
    """What all windows of one provenance add up to, repeats and rejected ones included."""

    provenance: Provenance
    windows: int
    energy_j: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusCount:
    """How many runs ended in this way."""

    status: Status
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything a page about a dataset needs."""

    setups: tuple[Setup, ...]
    runs: tuple[RunSummary, ...]
    phases: tuple[PhaseSummary, ...]
    kinds: tuple[KindSummary, ...]
    kernels: tuple[KernelSummary, ...]
    windows: tuple[WindowSummary, ...]
    parts: tuple[PartSummary, ...]
    ranks: tuple[RankSummary, ...]  # of runs across several
    collectives: tuple[CollectiveSummary, ...]
    communication: tuple[CommunicationSummary, ...]
    graphs: tuple[GraphSummary, ...]
    unmatched: tuple[UnmatchedKernel, ...]  # of a setup and phase, the most time first
    ledgers: tuple[LedgerSummary, ...]  # of finished runs
    methods: tuple[MethodSummary, ...]  # of a setup and phase the kernels with the most energy, the most first
    disagreements: tuple[DisagreementSummary, ...]
    collective_energies: tuple[CollectiveEnergySummary, ...]
    window_totals: tuple[WindowTotal, ...]
    status_counts: tuple[StatusCount, ...]
    environments: tuple[EnvironmentRow, ...]
    superseded_runs: int
    complete: bool  # false: a campaign has not closed the dataset since it last added a run


def summarise(folder: Path) -> Summary:
    """Add up the dataset in ``folder``.

    Raises ``DatasetError`` where there is none, ``CorruptFile`` for a file that cannot be read and ``NewerSchema``
    for a dataset of a later version.
    """
    with _opened(folder) as connection:
        connection.execute(queries.CURRENT_RUNS)
        connection.execute(queries.CREATE_WINDOWS)
        connection.execute(rank_queries.CREATE_COLLECTIVES)
        connection.execute(graph_queries.CREATE_GRAPH_SHARES)
        connection.execute(ledger_queries.CREATE_INDEPENDENT_RUNS)
        _add_up_kernels(connection)
        return Summary(
            setups=_records(connection, queries.SETUPS, Setup),
            runs=_records(connection, queries.RUNS, RunSummary),
            phases=_records(connection, queries.PHASES, PhaseSummary),
            kinds=_records(connection, queries.KINDS, KindSummary),
            kernels=_records(connection, queries.KERNELS, KernelSummary),
            windows=_records(connection, queries.WINDOWS, WindowSummary),
            parts=_records(connection, queries.PARTS, PartSummary),
            ranks=_records(connection, rank_queries.RANKS, RankSummary),
            collectives=_records(connection, rank_queries.COLLECTIVES, CollectiveSummary),
            communication=_records(connection, rank_queries.COMMUNICATION, CommunicationSummary),
            graphs=_records(connection, graph_queries.GRAPH_SHARES, GraphSummary),
            unmatched=_records(connection, graph_queries.UNMATCHED, UnmatchedKernel),
            ledgers=_records(connection, ledger_queries.LEDGERS, LedgerSummary),
            methods=_records(connection, ledger_queries.METHODS, MethodSummary),
            disagreements=_records(connection, ledger_queries.DISAGREEMENTS, DisagreementSummary),
            collective_energies=_collective_energies(connection),
            window_totals=_records(connection, queries.WINDOW_TOTALS, WindowTotal),
            status_counts=_records(connection, queries.STATUS_COUNTS, StatusCount),
            environments=_records(connection, queries.ENVIRONMENTS, EnvironmentRow),
            superseded_runs=_number(connection, queries.SUPERSEDED_RUNS),
            complete=open_dataset(folder).complete,
        )


@contextmanager
def _opened(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with one view per table; here, and only here, DuckDB's errors are translated."""
    dataset = open_dataset(folder)
    with tempfile.TemporaryDirectory(prefix="joulegraph-") as spill_folder:
        try:
            with duckdb.connect(config=_settings(spill_folder)) as connection:
                connection.execute(queries.COMPLETE_SUM)
                connection.execute(queries.ROOT)
                connection.execute(rank_queries.COMPLETE_MEAN)
                for table in TABLES:
                    _create_view(connection, table, dataset.paths(table))
                yield connection
        except (duckdb.Error, ValueError) as error:
            raise CorruptFile(
                f"The dataset in {folder} cannot be read: {str(error).splitlines()[0]}\n"
                "Restore the damaged file from a copy of the dataset. Nothing was changed in the folder."
            ) from error


def _settings(spill_folder: str) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "autoinstall_known_extensions": "false",  # never the network
        "autoload_known_extensions": "false",
        "memory_limit": MEMORY_LIMIT,
        "preserve_insertion_order": "false",
        "temp_directory": spill_folder,
        "threads": str(min(MAX_THREADS, os.cpu_count() or 1)),
    }


def _create_view(connection: duckdb.DuckDBPyConnection, table: Table, files: tuple[Path, ...]) -> None:
    """Name the files of a table. They are handed over as values, never as SQL text: a folder may be called anything."""
    if not files:
        connection.register(table.title, arrow_schema(table).empty_table())
        return
    for file in files:
        check_file(file, table)  # DuckDB would fill the columns that a foreign file lacks with nulls
    names = [str(file) for file in files]
    connection.read_parquet(names, union_by_name=True, hive_partitioning=False).create_view(table.title)


def _add_up_kernels(connection: duckdb.DuckDBPyConnection) -> None:
    """Join kernels with their energies, some rows at a time: memory does not grow with the dataset."""
    n_runs, n_kernels = _number(connection, queries.RUN_COUNT), _number(connection, queries.KERNEL_COUNT)
    runs_at_once = max(1, n_runs * KERNEL_ROWS_AT_ONCE // max(1, n_kernels))
    for first in range(1, max(1, n_runs) + 1, runs_at_once):
        run_range = {"first": first, "last": first + runs_at_once - 1}
        connection.execute(queries.CREATE_KERNEL_SUMS if first == 1 else queries.ADD_KERNEL_SUMS, run_range)
        if first == 1:
            connection.execute(ledger_queries.CREATE_METHOD_SUMS, run_range)
        elif _number(connection, ledger_queries.INDEPENDENT_RUN_COUNT):
            connection.execute(ledger_queries.ADD_METHOD_SUMS, run_range)


def _collective_energies(connection: duckdb.DuckDBPyConnection) -> tuple[CollectiveEnergySummary, ...]:
    """Those of a dataset that has collectives; to look for their energies in one that has none takes a second."""
    if not _number(connection, ledger_queries.COLLECTIVE_COUNT):
        return ()
    return _records(connection, ledger_queries.COLLECTIVE_ENERGIES, CollectiveEnergySummary)


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _records(connection: duckdb.DuckDBPyConnection, query: str, record_class: type[Record]) -> tuple[Record, ...]:
    cursor = connection.execute(query)
    position = {column[0]: index for index, column in enumerate(cursor.description or ())}
    build = _builder(record_class, position)
    return tuple(build(row) for row in cursor.fetchall())


def _builder(record_class: type[Record], position: dict[str, int]) -> Callable[[tuple[Any, ...]], Record]:
    """Return what makes a record of a row: columns by field name, text into its enumeration, records in records."""
    hints = get_type_hints(record_class)
    makers: list[tuple[str, Callable[[tuple[Any, ...]], Any]]] = []
    for field in fields(record_class):  # type: ignore[arg-type]
        hint = hints[field.name]
        inner = (
            _builder(hint, position)
            if isinstance(hint, type) and is_dataclass(hint)
            else _reader(hint, position[field.name])
        )
        makers.append((field.name, inner))
    return lambda row: record_class(**{name: make(row) for name, make in makers})


def _reader(hint: Any, index: int) -> Callable[[tuple[Any, ...]], Any]:
    kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type) and issubclass(kind, StrEnum)]
    if not kinds:
        return lambda row: row[index]
    return lambda row: None if row[index] is None else kinds[0](row[index])
