"""How to load a release: the lines of code that the card shows, and that a test runs as they stand there."""

from dataclasses import dataclass

from harness.dataset.release.record import ReleaseRecord

_HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """One way to load it."""

    title: str
    code: str


def snippets(record: ReleaseRecord, *, phases: bool) -> tuple[Snippet, ...]:
    """Lines that work in the folder of the release, and say what to write for the Hub; ``phases``: it has some."""
    repository = (record.url or "").removeprefix(_HUB) if (record.url or "").startswith(_HUB) else "OWNER/NAME"
    return (
        Snippet(title="datasets", code=_DATASETS.format(repository=repository)),
        Snippet(title="polars", code=(_POLARS_PHASES if phases else _POLARS).format(repository=repository)),
        Snippet(title="DuckDB", code=_DUCKDB.format(repository=repository)),
    )


_DATASETS = """\
import datasets
from pathlib import Path

folder = str(Path.cwd())  # from the Hub: "{repository}"
runs = datasets.load_dataset(folder, "runs", split="train")
current = runs.filter(lambda run: run["status"] == "ok" and run["superseded_by"] is None)
print(current)"""

_POLARS = """\
import polars as pl

folder = "data"  # from the Hub: "hf://datasets/{repository}/data"
per_device = (
    pl.scan_parquet(f"{{folder}}/runs/*.parquet")
    .filter(pl.col("superseded_by").is_null(), pl.col("status") == "ok")
    .group_by("provenance", "quality", "gpu", "workload")
    .agg(pl.len().alias("runs"), pl.col("model").drop_nulls().n_unique().alias("models"))
    .collect()
)
print(per_device)"""

_POLARS_PHASES = """\
import polars as pl

folder = "data"  # from the Hub: "hf://datasets/{repository}/data"
runs = pl.scan_parquet(f"{{folder}}/runs/*.parquet")
phases = pl.scan_parquet(f"{{folder}}/phases/*.parquet")
per_phase = (
    runs.filter(pl.col("superseded_by").is_null(), pl.col("status") == "ok")
    .join(phases, on="run_id", suffix="_of_phase")
    .group_by("provenance", "quality", "gpu", "model", "phase")
    .agg(pl.col("energy_j_of_phase").median(), pl.len().alias("runs"))
    .collect()
)
print(per_phase)"""

_DUCKDB = """\
import duckdb

folder = "data"  # from the Hub: "hf://datasets/{repository}/data"
per_token = duckdb.sql(f\"\"\"
    SELECT provenance, quality, workload, gpu, model, n_gpus, count(*) AS runs,
           median(energy_j / CASE workload
               WHEN 'batch' THEN batch_size * output_tokens  -- energy_j is that of the whole batch
               WHEN 'server' THEN coalesce(mean_output_tokens, output_tokens)  -- and here that of one sequence
           END) AS j_per_output_token
    FROM read_parquet('{{folder}}/runs/*.parquet')
    WHERE energy_j IS NOT NULL AND superseded_by IS NULL AND workload <> 'kernels' AND output_tokens IS DISTINCT FROM 0
    GROUP BY ALL ORDER BY ALL
\"\"\")
print(per_token)"""
