"""What a dataset holds from whom, as one Markdown table: a row for each source and GPU.

``python -m harness.dataset.sources DIR...`` prints it for one or several dataset folders together.
"""

import html
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from harness.dataset.importers.duck import database, file_sql
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.schema import Table, arrow_schema
from harness.errors import HarnessError, UsageError

_MOST_MODELS = 4  # named; of more, the number
_TABLES = (Table.RUNS, Table.PHASES, Table.KERNELS, Table.KERNEL_ENERGIES, Table.SOURCES)

_QUERY = """
WITH kernel_counts AS (
    SELECT run_id, count(*) AS kernels, count(duration_s) AS kernel_times FROM kernels GROUP BY run_id
), energy_counts AS (
    SELECT run_id, count(energy_j) AS kernel_joules FROM kernel_energies GROUP BY run_id
), phase_counts AS (
    SELECT run_id, count(*) AS phases, count(duration_s) AS phase_times, count(energy_j) AS phase_joules
    FROM phases GROUP BY run_id
)
SELECT
    source, gpu,
    list(DISTINCT model ORDER BY model) FILTER (model IS NOT NULL) AS models,
    count(*) AS runs, coalesce(sum(phases), 0)::BIGINT AS phases, coalesce(sum(kernels), 0)::BIGINT AS kernels,
    list(DISTINCT provenance::VARCHAR ORDER BY provenance::VARCHAR) AS provenances,
    list(DISTINCT workload::VARCHAR ORDER BY workload::VARCHAR) AS workloads,
    count(duration_s) + coalesce(sum(phase_times), 0) + coalesce(sum(kernel_times), 0) > 0 AS has_time,
    count(energy_j) + coalesce(sum(phase_joules), 0) + coalesce(sum(kernel_joules), 0) > 0 AS has_energy,
    coalesce(sum(kernel_joules), 0)::BIGINT AS kernel_joules,
    count(mean_power_w) > 0 AS has_power, count(ttft_s) > 0 AS has_ttft, count(tpot_s) > 0 AS has_tpot
FROM runs
LEFT JOIN kernel_counts USING (run_id) LEFT JOIN energy_counts USING (run_id) LEFT JOIN phase_counts USING (run_id)
WHERE superseded_by IS NULL
GROUP BY source, gpu ORDER BY source, gpu
"""
_HEAD = """\
# Sources

Written by `python -m harness.dataset.sources DIR > dataset_card/sources.md`; do not edit.

One row for each source and GPU. Resolution: the finest thing that has a number of its own. `energy (N)`: so many
kernels have one, the others only a time.

"""
_TITLES = ("source", "GPU", "models", "runs", "phases", "kernels", "quantities", "resolution", "provenance", "licence")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOnGpu:
    """What one source says of one GPU."""

    source: str
    gpu: str
    models: tuple[str, ...]
    runs: int
    phases: int
    kernels: int
    quantities: tuple[str, ...]
    resolution: str
    provenances: tuple[str, ...]


def sources_text(*datasets: Dataset) -> str:
    """The table as a Markdown page, then each source with its title, citation, and what it measured and derived.

    Raises ``CorruptFile`` where a file cannot be read.
    """
    with database() as connection:
        for table in _TABLES:
            _view(connection, table, datasets)
        rows = [_row(found) for found in connection.execute(_QUERY).fetchall()]
        about = connection.execute(
            "SELECT DISTINCT ON (source) source, title, url, version, licence, citation, measured, derived "
            "FROM sources ORDER BY source"
        ).fetchall()
    licences = {str(found[0]): found[4] for found in about}
    lines = ["| " + " | ".join(_TITLES) + " |", "|" + "---|" * len(_TITLES)]
    lines += [_line(row, licences.get(row.source)) for row in rows]
    return _HEAD + "\n".join(lines) + "\n\n" + "\n".join(_about(found) for found in about)


def _view(connection: duckdb.DuckDBPyConnection, table: Table, datasets: Iterable[Dataset]) -> None:
    files = [file_sql(file.path) for dataset in datasets for file in dataset.files if file.table is table]
    if files:
        connection.execute(f"CREATE VIEW {table.title} AS SELECT * FROM read_parquet([{', '.join(files)}])")  # noqa: S608
        return
    connection.register(table.title, arrow_schema(table).empty_table())


def _row(found: Sequence[object]) -> SourceOnGpu:
    source, gpu, models, runs, phases, kernels, provenances, workloads, time, energy, joules, power, ttft, tpot = found
    only_some = bool(joules) and joules != kernels
    quantities = {
        "time": time,
        f"energy ({joules:,})" if only_some else "energy": energy,
        "power": power,
        "TTFT": ttft,
        "TPOT": tpot,
    }
    return SourceOnGpu(
        source=str(source),
        gpu=str(gpu),
        models=tuple(_texts(models)),
        runs=int(str(runs)),
        phases=int(str(phases)),
        kernels=int(str(kernels)),
        quantities=tuple(name for name, there in quantities.items() if there),
        resolution=_resolution(bool(kernels), bool(phases), _texts(workloads)),
        provenances=tuple(_texts(provenances)),
    )


def _texts(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []


def _resolution(kernels: bool, phases: bool, workloads: Iterable[str]) -> str:
    finest = "kernel" if kernels else "phase" if phases else "request"
    servers = "server" in workloads
    return f"{finest}, server" if servers and finest != "request" else "server" if servers else finest


def _line(row: SourceOnGpu, licence: object) -> str:
    models = ", ".join(row.models) if len(row.models) <= _MOST_MODELS else f"{len(row.models)} models"
    cells = [
        row.source,
        row.gpu,
        models or "–",
        *(f"{count:,}" if count else "–" for count in (row.runs, row.phases, row.kernels)),
        ", ".join(row.quantities) or "–",
        row.resolution,
        ", ".join(row.provenances),
        str(licence) if licence else "none stated",
    ]
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _about(found: Sequence[object]) -> str:
    source, title, url, version, licence, citation, measured, derived = (
        None if value is None else _escaped(str(value)) for value in found
    )
    facts = {
        "published at": url,
        "version": version,
        "licence": licence or "none stated: not redistributed",
        "cite": citation,
        "measured": measured,
        "derived": derived,
    }
    lines = "".join(f"- {name}: {text}\n" for name, text in facts.items() if text)
    return f"## {source}\n\n{title}\n\n{lines}"


def _escaped(text: str) -> str:
    """Text of others in Markdown: no cell ends early, no markup starts."""
    flat = " ".join(text.split())
    return html.escape(flat, quote=False).replace("|", "\\|").replace("`", "\\`").replace("[", "\\[")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page for the folders named; returns the exit code."""
    folders = sys.argv[1:] if arguments is None else arguments
    try:
        if not folders or folders[0].startswith("-"):
            raise UsageError("Name one or several dataset folders: python -m harness.dataset.sources DIR...")
        sys.stdout.write(sources_text(*(open_dataset(Path(folder)) for folder in folders)))
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
