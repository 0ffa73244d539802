"""What importers of runs share: repeats as trials, rows with all that is not known left null, and the account."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from harness.dataset.importers.account import Account, Flagged, Rejection
from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN, identified
from harness.dataset.importers.importing import ImportedBatch, bulk, content_id
from harness.errors import UsageError
from harness.hardware import Hardware
from harness.kernels import Phase
from harness.measuring.statistics import Trial, mean_of
from harness.records import EnvironmentRow, PhaseRow, ReadingRow, RunRow, SourceRow
from harness.words import Part, Provenance

# A median of many normal repeats scatters √(π/2) times as much as their mean, one of few less than that.
_MEDIAN_OVER_MEAN: Final = math.sqrt(math.pi / 2)
_LONGEST_EXAMPLE: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """Median of repeats, and the half width of its 95 % interval."""

    value: float | None  # None: there are none
    ci95: float | None  # None: a single one, whose spread is not known, or none
    trials: int


def middle(values: Sequence[float]) -> Middle:
    """Median of repeats, with its interval.

    Half width: Student's t × s/√n, as for a mean, times √(π/2) from three repeats on. Assumes independent repeats
    near a normal distribution; a single outlier widens the interval and leaves the median where it is.
    """
    if not values:
        return Middle(value=None, ci95=None, trials=0)
    ci95 = mean_of([Trial(value=value) for value in values]).ci95
    if ci95 is not None and len(values) > 2:
        ci95 *= _MEDIAN_OVER_MEAN
    return Middle(value=statistics.median(values), ci95=ci95, trials=len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRows:
    """One run of a source with all that belongs to it, and the rules it is flagged by."""

    run: RunRow
    environment: EnvironmentRow
    phases: tuple[PhaseRow, ...] = ()
    readings: tuple[ReadingRow, ...]
    flags: tuple[str, ...] = ()


class Tally:
    """Counts what becomes of the rows of a source."""

    def __init__(self) -> None:
        self._kept = 0
        self._rejections: dict[str, Rejection] = {}
        self._flagged: Counter[str] = Counter()

    def keep(self, rows: int = 1, flags: Iterable[str] = ()) -> None:
        """Rows whose numbers are in a table, and the rules they are flagged by."""
        self._kept += rows
        for rule in flags:
            self._flagged[rule] += rows

    def reject(self, rule: str, example: str) -> None:
        """A row that a rule leaves out."""
        before = self._rejections.get(rule)
        first = before.example if before else example[:_LONGEST_EXAMPLE]
        self._rejections[rule] = Rejection(rule=rule, rows=1 + (before.rows if before else 0), example=first)

    def account(self, rows_in: int) -> Account:
        """The account; raises ``DatasetError`` where a row got lost."""
        return Account(
            rows_in=rows_in,
            rows_kept=self._kept,
            rejections=tuple(self._rejections.values()),
            flagged=tuple(Flagged(rule=rule, rows=rows) for rule, rows in sorted(self._flagged.items())),
        )


def joined(flags: Iterable[str]) -> str | None:
    """Flags as a column holds them; None without any."""
    return "; ".join(dict.fromkeys(flags)) or None


def batch_of(source: SourceRow, rows: Sequence[RunRows], account: Account) -> ImportedBatch:
    """Runs as tables, each set-up once. Raises ``DatasetError`` for a value that no column can hold."""
    if not rows:
        return ImportedBatch(tables=None, account=account)
    tables = bulk(
        runs=[row.run for row in rows],
        phases=[phase for row in rows for phase in row.phases],
        readings=[reading for row in rows for reading in row.readings],
        environments=list({row.environment.environment_id: row.environment for row in rows}.values()),
        sources=[source],
    )
    return ImportedBatch(tables=tables, account=account)


@cache
def run_from(source: SourceRow) -> RunRow:
    """A run of a source of which nothing is known yet; importers replace what the source says."""
    return replace(BLANK_RUN, campaign_id=content_id(source.source, source.version), source=source.source)


def with_energy(run: RunRow, energies_j: Sequence[float], durations_s: Sequence[float]) -> RunRow:
    """A run with the medians of its repeats; columns without a repeat stay null."""
    energy, duration = middle(energies_j), middle(durations_s)
    return replace(
        run,
        energy_j=energy.value,
        energy_ci95_j=energy.ci95,
        duration_s=duration.value,
        duration_ci95_s=duration.ci95,
        trials=max(energy.trials, duration.trials) or None,
    )


def phase_of(
    run: RunRow,
    phase: Phase,
    energies_j: Sequence[float],
    durations_s: Sequence[float],
    *,
    method: str | None = None,
    flags: Iterable[str] = (),
) -> PhaseRow:
    """A phase of a run with the medians of its repeats: contexts and steps follow from the run's request."""
    energy, duration = middle(energies_j), middle(durations_s)
    decode = phase is Phase.DECODE
    prompt, output = run.prompt_tokens, run.output_tokens
    steps = 1 if not decode else None if output is None else output - 1
    end = prompt if not decode else None if prompt is None or steps is None else prompt + steps
    return PhaseRow(
        run_id=run.run_id,
        phase=phase,
        graph_id=None,
        energy_j=energy.value,
        energy_ci95_j=energy.ci95,
        idle_energy_j=None,
        host_gap_energy_j=None,
        duration_s=duration.value,
        steps=steps,
        context_start_tokens=prompt if decode else 0,
        context_end_tokens=end,
        measured_contexts=None,
        trials=max(energy.trials, duration.trials) or None,
        method=method,
        flags=joined(flags),
    )


def reading_of(
    run_id: str,
    part: Part,
    trial: int,
    meter: str,
    *,
    energy_j: float | None,
    duration_s: float | None,
    passes: float = 1.0,
    context_start_tokens: int | None = None,
    sm_clock_mhz: float | None = None,
    temperature_c: float | None = None,
    rejected: str | None = None,
) -> ReadingRow:
    """One repeat as the source gives it; energy of all GPUs together, therefore rank 0."""
    return ReadingRow(
        run_id=run_id,
        part=part,
        trial=trial,
        rank=0,
        device_sha256=None,
        meter=meter,
        provenance=Provenance.IMPORTED,
        energy_j=energy_j,
        uncertainty_j=None,
        duration_s=duration_s,
        lead_s=None,
        tail_s=None,
        passes=passes,
        context_start_tokens=context_start_tokens,
        started_s=None,
        counter_start_j=None,
        counter_end_j=None,
        sm_clock_mhz=sm_clock_mhz,
        memory_clock_mhz=None,
        temperature_c=temperature_c,
        throttle_reasons=None,
        rejected=rejected,
    )


@cache
def environment_of(
    gpu: Hardware | str,
    *,
    device_name: str,
    meter: str,
    dtype: str | None,
    power_limit_w: float | None = None,
    sm_clock_mhz: float | None = None,
) -> EnvironmentRow:
    """The set-up as far as a source states it; ``gpu`` is a text where the hardware table does not have the device."""
    known = None if isinstance(gpu, str) else gpu
    return identified(
        replace(
            BLANK_ENVIRONMENT,
            gpu=gpu if isinstance(gpu, str) else gpu.name,
            device_name=device_name,
            meter=meter,
            power_limit_w=power_limit_w,
            sm_clock_mhz=sm_clock_mhz,
            peak_flop_per_s=_peak(known, dtype),
            peak_bytes_per_s=known.peak_bytes_per_s if known else None,
        )
    )


def _peak(gpu: Hardware | None, dtype: str | None) -> float | None:
    if gpu is None or dtype is None:
        return None
    try:
        return gpu.peak_flop_per_s_for(dtype)
    except UsageError:  # no native units for it
        return None
