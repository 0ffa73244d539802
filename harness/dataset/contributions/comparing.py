"""A contribution beside the rows of the release that answer the same request on the same deployment.

Chips of one name differ by some per cent, and hosts that launch kernels at another pace by more: Hugging Face runs of
small models wait for the host. So what is far off is not wrong, but somebody has to look at it before it is taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from harness.dataset.contributions.objections import Fault, Objection, objection

ENERGY_FACTOR, TIME_FACTOR = 1.6, 2.0
_SAME = (
    *("gpu", "n_gpus", "nodes", "provenance", "quality", "workload", "model", "weights", "dtype", "quantization"),
    *("runtime", "attention", "kv_cache", "cuda_graphs", "parallelism", "tensor_parallel"),
    *("batch_size", "prompt_tokens", "output_tokens"),
)
_BESIDE = f"""
SELECT new.run_id, new.energy_j, new.duration_s, median(old.energy_j), median(old.duration_s),
    count(*), count(DISTINCT coalesce(old.lab, ''))
FROM (SELECT * FROM all_runs WHERE folder = 0) AS new
JOIN (SELECT * FROM all_runs WHERE folder = 1 AND status = 'ok' AND superseded_by IS NULL) AS old
    ON {" AND ".join(f"new.{name} IS NOT DISTINCT FROM old.{name}" for name in _SAME)}
WHERE old.energy_j > 0 AND old.duration_s > 0 AND new.energy_j > 0 AND new.duration_s > 0
GROUP BY ALL
ORDER BY new.run_id
"""  # noqa: S608  names of the schema, and nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A run of the contribution beside the runs of the release that it can be compared with."""

    run_id: str
    runs: int  # in the release
    labs: int
    energy_ratio: float  # its energy ÷ their median
    time_ratio: float

    @property
    def far_off(self) -> bool:
        """Whether somebody has to look at it."""
        return _apart(self.energy_ratio) > ENERGY_FACTOR or _apart(self.time_ratio) > TIME_FACTOR


def compared(connection: duckdb.DuckDBPyConnection) -> tuple[Comparison, ...]:
    """Every run of the contribution that has comparable ones in the release."""
    return tuple(
        Comparison(
            run_id=run_id, runs=runs, labs=labs, energy_ratio=energy_j / their_energy_j, time_ratio=time_s / their_s
        )
        for run_id, energy_j, time_s, their_energy_j, their_s, runs, labs in connection.execute(_BESIDE).fetchall()
    )


def comparison_objections(comparisons: tuple[Comparison, ...]) -> Iterator[Objection]:
    """What somebody has to look at."""
    faults = (
        Fault(
            row=f"run {each.run_id}",
            why=f"energy × {each.energy_ratio:.2f} and time × {each.time_ratio:.2f} of {each.runs} comparable runs",
        )
        for each in comparisons
        if each.far_off
    )
    remedy = (
        "Ask the lab what differs (power limit, clocks, host, other load). If there is a good reason, take it with "
        '--override "REASON".'
    )
    yield from objection("comparable runs", faults, remedy, overridable=True)


def _apart(ratio: float) -> float:
    return max(ratio, 1 / ratio)
