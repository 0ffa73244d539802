"""What a predictor learns from: kernels, phases and runs of a dataset as flat columns, each beside what it ran on.

The work is DuckDB's, in bounded memory; the result is Arrow. Sizes and variants, JSON in the dataset, become columns.
Rows that a rule says are wrong (flags that make a time or an energy impossible) are left out.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from harness.dataset.importers.duck import database, file_sql
from harness.dataset.schema import Table

SIZES = (
    "m",
    "n",
    "k",
    "batch",
    "query_tokens",
    "context_tokens",
    "heads",
    "kv_heads",
    "head_dim",
    "tokens",
    "experts",
    "top_k",
    "hidden",
    "intermediate",
    "elements",
    "ranks",
    "window_tokens",
    "tensor_parallel",
    "expert_parallel",
)
VARIANTS = (
    "kernel_source",
    "gemm_dtype",
    "moe_dtype",
    "gemm_type",
    "kv_cache_dtype",
    "distribution",
    "backend",
    "architecture",
)
# Flags of kernels by which a time is not that of the work counted; others only say that something is unusual.
_IMPOSSIBLE = ("faster than the Roofline", "did not read all", "shorter than 1 µs")


def kernel_lessons(folder: Path, *, most_per_gpu: int | None = None) -> pa.Table:
    """Kernels measured alone: sizes, variants, counts, what they ran on, ``duration_s``, ``power_w`` (null: not known).

    ``most_per_gpu`` kernels of each GPU at about that number, chosen by the hash of their shape, so that the same ones
    are chosen everywhere. Raises ``CorruptFile``.
    """
    limit = "" if most_per_gpu is None else f"and hash(k.shape) % 1000003 < 1000003.0 * {int(most_per_gpu)} / g.n"
    sizes = ", ".join(f"cast(json_extract(k.shape, '$.{name}') as double) as {name}" for name in SIZES)
    variants = ", ".join(f"json_extract_string(k.variant, '$.{name}') as {name}" for name in VARIANTS)
    wrong = " or ".join(f"contains(coalesce(k.flags, ''), '{text}')" for text in _IMPOSSIBLE)
    return _query(
        folder,
        f"""
        select r.source, s.licence, r.provenance, r.gpu, r.runtime, r.runtime_version, r.n_gpus, v.power_limit_w,
            k.kind, k.op, k.dtype, {sizes}, {variants}, k.flop, k.read_bytes, k.write_bytes, k.link_bytes,
            k.launches, k.duration_s / k.launches as duration_s, e.energy_j / k.duration_s as power_w
        from kernels k
        join runs r using (run_id)
        join (select gpu, count(*) as n from kernels join runs using (run_id) group by gpu) g using (gpu)
        left join environments v using (environment_id)
        left join sources s using (source)
        left join kernel_energies e on e.run_id = k.run_id and e.kernel_id = k.kernel_id and e.rank = k.rank
            and e.phase is not distinct from k.phase and e.method = 'imported'
        where r.workload = 'kernels' and k.duration_s > 0 and not ({wrong}) {limit}
        """,  # noqa: S608
        tables=(Table.KERNELS, Table.RUNS, Table.ENVIRONMENTS, Table.KERNEL_ENERGIES, Table.SOURCES),
    )


def run_lessons(folder: Path) -> pa.Table:
    """Batches and servers with a time or an energy, one row per run, with its phases' times and energies beside it."""
    phase = ", ".join(
        f"max({column}) filter (where phase = '{name}') as {name}_{column}"
        for name in ("prefill", "decode")
        for column in ("duration_s", "energy_j", "flags")
    )
    return _query(
        folder,
        f"""
        with parts as (select run_id, {phase} from phases group by run_id)
        select r.*, v.power_limit_w, v.sm_clock_mhz, parts.* exclude (run_id), s.licence
        from runs r
        left join parts using (run_id)
        left join environments v using (environment_id)
        left join sources s using (source)
        where r.workload <> 'kernels' and r.status = 'ok' and r.superseded_by is null
        """,  # noqa: S608
        tables=(Table.RUNS, Table.PHASES, Table.ENVIRONMENTS, Table.SOURCES),
    )


def _query(folder: Path, sql: str, *, tables: Sequence[Table]) -> pa.Table:
    from harness.dataset.reading import open_dataset
    from harness.dataset.schema import arrow_schema

    dataset = open_dataset(folder)
    with database() as connection:
        connection.execute("set enable_progress_bar = false")
        for table in tables:
            paths = dataset.paths(table)
            if paths:
                files = ", ".join(file_sql(path) for path in paths)
                read = f"read_parquet([{files}], union_by_name = true)"
                connection.execute(f"create view {table.title} as from {read}")
            else:
                connection.register(table.title, arrow_schema(table).empty_table())
        return connection.sql(sql).to_arrow_table()
