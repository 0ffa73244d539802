"""The YAML at the head of the card: by it the Hub and ``datasets`` know tables, columns and licences.

Strings are written as JSON, which YAML 1.2 reads as it is.
"""

import json
from collections.abc import Iterator

from harness.dataset.release.fact_records import ReleaseFacts, TableSize
from harness.dataset.release.licences import hub_names
from harness.dataset.release.titles import title
from harness.dataset.schema import Table, columns_of

TAGS = ("energy", "llm", "inference", "gpu", "sustainability", "carbon", "benchmark", "joulegraph")
_DTYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_LARGER = "10M<n<100M"


def front_matter(facts: ReleaseFacts) -> str:
    """The YAML, with its fences. A table without rows has no entry: ``load_dataset`` would look for its files."""
    filled = [size for size in facts.tables if size.rows]
    lines = [
        "---",
        f"pretty_name: {json.dumps(title(facts), ensure_ascii=False)}",
        "license:",
        *(f"- {name}" for name in hub_names(facts.licences)),
        "task_categories:",
        "- tabular-regression",
        "tags:",
        *(f"- {tag}" for tag in (*TAGS, *facts.included)),
        "size_categories:",
        f"- {_size_category(max(size.rows for size in filled))}",
        "configs:",
        *(line for size in filled for line in _config(size.table)),
        "dataset_info:",
        *(line for size in filled for line in _info(size)),
        "---",
    ]
    return "\n".join([*lines, ""])


def _size_category(rows: int) -> str:
    return next((name for most, name in _SIZES if rows < most), _LARGER)


def _config(table: Table) -> Iterator[str]:
    yield f"- config_name: {table.title}"
    if table is Table.RUNS:
        yield "  default: true"
    yield from ("  data_files:", "  - split: train", f"    path: data/{table.title}/*.parquet")


def _info(size: TableSize) -> Iterator[str]:
    yield from (f"- config_name: {size.table.title}", "  features:")
    for column in columns_of(size.table):
        yield from (f"  - name: {column.name}", f"    dtype: {_DTYPES[column.scalar]}")
    yield from ("  splits:", "  - name: train")
    yield from (f"    num_bytes: {size.unpacked_bytes}", f"    num_examples: {size.rows}")
    yield from (f"  download_size: {size.size_bytes}", f"  dataset_size: {size.unpacked_bytes}")
