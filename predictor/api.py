"""The predictor from Python, in three lines.

For example::

from predictor import predict
prediction = predict(model="Qwen/Qwen3-8B", gpu="H100-SXM", gpus=1, batch=8, prompt=512, output=128)
print(prediction.whole.energy_j, prediction.warnings)
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from predictor.requests import Prediction, Predictor
from predictor.table_columns import NAMES, Cell

if TYPE_CHECKING:
    import pyarrow as pa


def predict(
    *,
    model: str,
    gpu: str,
    gpus: int = 1,
    batch: int = 1,
    prompt: int,
    output: int,
    checkpoint: str | Path | None = None,
    hardware: str | Path | None = None,
    predictor: Predictor | None = None,
    **options: Cell,
) -> Prediction:
    """Energy and time of one request; the predictor is loaded once.

    ``options`` are the other columns of a request: dtype, runtime, parallelism, attention, kv_cache, … Raises
    ``UsageError`` where there is no answer, saying why.
    """
    from dataclasses import replace

    from predictor.answers import answers
    from predictor.table_rows import read_one

    _check_options(options)
    cells = {
        "model": model,
        "gpu": gpu,
        "n_gpus": gpus,
        "batch_size": batch,
        "prompt_tokens": prompt,
        "output_tokens": output,
        **options,
    }
    asked = read_one(cells, hardware=None if hardware is None else Path(hardware))
    found = answers([asked], predictor or _loaded(None if checkpoint is None else Path(checkpoint)))[0]
    if found.prediction is None:
        raise UsageError(found.error or "There is no answer.")
    return replace(found.prediction, warnings=found.warnings)


def predict_table(
    requests: "str | Path | pa.Table | Mapping[str, Sequence[object]]",
    *,
    checkpoint: str | Path | None = None,
    hardware: str | Path | None = None,
    predictor: Predictor | None = None,
    region: str | None = None,
    intensity_g_per_kwh: float | None = None,
    pue: float | None = None,
    lifetime_years: float | None = None,
    utilisation: float | None = None,
    **options: Cell,
) -> "pa.Table":
    """A table of requests (a CSV or Parquet file, a pyarrow table, or columns) with the output columns added.

    Rows without an answer say why in ``error``. ``options`` give columns that the table lacks one value for all rows.
    Raises ``UsageError`` for a table that cannot be read.
    """
    import pyarrow as pa

    from predictor.answers import carbon_of
    from predictor.table_reading import MemoryTable
    from predictor.tables import Tally, answered, open_table, prepare

    _check_options(options)
    carbon = carbon_of(
        region=region,
        intensity_g_per_kwh=intensity_g_per_kwh,
        pue=pue,
        lifetime_years=lifetime_years,
        utilisation=utilisation,
    )
    table = open_table(Path(requests), typed=True) if isinstance(requests, str | Path) else MemoryTable(requests)
    reader = prepare(table, stated=options, hardware=None if hardware is None else Path(hardware), carbon=carbon)
    chosen = predictor or _loaded(None if checkpoint is None else Path(checkpoint))
    return pa.Table.from_batches(list(answered(table, reader, chosen, carbon, Tally())))


def _check_options(options: Mapping[str, Cell]) -> None:
    for name in options:
        if name not in NAMES:
            raise UsageError(f"There is no option {name!r}.\nThe options are: {', '.join(NAMES)}.")


@cache
def _loaded(checkpoint: Path | None) -> Predictor:
    from predictor.reference import load

    return load(checkpoint)
