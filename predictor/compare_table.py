"""A comparison as a file: CSV, Parquet or JSON, a row for each deployment in order of rank."""

from pathlib import Path

import pyarrow as pa

from predictor.compare import Comparison
from predictor.compare_text import candidate_values
from predictor.table_writing import writing


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Raises as ``writing``."""
    table = pa.Table.from_pylist([dict(candidate_values(one)) for one in comparison.candidates])
    with writing(out) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write(batch)
