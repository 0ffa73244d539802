"""Look-alikes of aiconfigurator's files, made by hand: a few rows in the published layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from harness.dataset.importers.account import Account, total
from harness.dataset.importers.aiconfigurator import Aiconfigurator
from harness.dataset.importers.importing import carry_over
from harness.dataset.store import DatasetStore

Row = Mapping[str, object]
H200 = "NVIDIA H200"
PLACE = "h200_sxm/gemm/vllm/0.22.0/gemm_perf"
GEMM: Row = {
    "framework": "VLLM",
    "version": "0.22.0",
    "device": H200,
    "op_name": "gemm",
    "kernel_source": "cutlass",
    "gemm_dtype": "bfloat16",
    "m": 512,
    "n": 1024,
    "k": 2048,
    "latency": 0.25,
    "power": 400.0,
    "power_limit": 700.0,
}


def write_kernels(root: Path, place: str, rows: Sequence[Row]) -> Path:
    """A kernel file at ``systems/data/<place>.parquet`` below a folder."""
    path = root / "systems/data" / f"{place}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def imported(root: Path) -> Account:
    """The account of an import whose tables nobody looks at."""
    return total(batch.account for batch in Aiconfigurator().read(root))


def imported_to(root: Path, out: Path) -> Account:
    """Import into a dataset folder."""
    with DatasetStore.open(out) as store:
        return carry_over(Aiconfigurator().read(root), store).account


def rows_of(out: Path, table: str) -> list[dict[str, object]]:
    """All rows of a table of a dataset, in the order they are stored."""
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT * FROM read_parquet('{out}/data/{table}/*.parquet')")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, values, strict=True)) for values in found.fetchall()]


def rejected(account: Account) -> dict[str, int]:
    """Rows left out, by rule."""
    return {part.rule: part.rows for part in account.rejections}


def flagged(account: Account) -> dict[str, int]:
    """Rows flagged, by rule."""
    return {part.rule: part.rows for part in account.flagged}
