"""Which runs may be pooled: put into one average, compared as equals, trained on together.

Two runs may, if all of this agrees:

- how the numbers came about (`provenance`), and for imported ones who made them (`source`);
- what was run (`workload`): the energy of a batch, of one sequence on a server and of kernels alone are other things;
- the protocol (`quality`: it sets windows, trials, warm-up) and what was read (`method`);
- whether the meters' gain was calibrated on that machine: if not, an error of some per cent is common to all its rows.

Machines may differ: what differs between machines that may be pooled is what a dataset of many is there to show.
"""

from dataclasses import dataclass

from harness.records import EnvironmentRow, Provenance, Quality, RunRow, Workload

# The same as ``pool_of``, as text, over `runs` joined to `environments`, for DuckDB.
POOL_SQL = f"""
concat_ws(' · ', provenance, CASE provenance WHEN '{Provenance.IMPORTED}' THEN source END, workload, quality, method,
    CASE WHEN calibration IS NULL THEN 'gain not calibrated' ELSE 'gain calibrated' END)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What runs that may be pooled have in common."""

    provenance: Provenance
    source: str | None  # of imported runs
    workload: Workload
    quality: Quality | None
    method: str | None
    gain_calibrated: bool

    @property
    def title(self) -> str:
        """As people and ``POOL_SQL`` write it."""
        gain = "gain calibrated" if self.gain_calibrated else "gain not calibrated"
        parts = (self.provenance, self.source, self.workload, self.quality, self.method, gain)
        return " · ".join(part for part in parts if part is not None)


def pool_of(run: RunRow, environment: EnvironmentRow | None) -> Pool:
    """The pool a run belongs to."""
    return Pool(
        provenance=run.provenance,
        source=run.source if run.provenance is Provenance.IMPORTED else None,
        workload=run.workload,
        quality=run.quality,
        method=run.method,
        gain_calibrated=environment is not None and environment.calibration is not None,
    )
