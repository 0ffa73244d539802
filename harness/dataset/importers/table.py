"""Any CSV or Parquet file, with a mapping that says what its columns mean.

Rows equal in everything but what was measured are repeats of one run: all are kept as readings, and the run has their
medians. Cells that are not what their column should hold reject their row, by a rule that names the column.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from harness.dataset.importers.blank import BLANK_ENVIRONMENT, identified
from harness.dataset.importers.importing import ImportedBatch, bulk, content_id
from harness.dataset.importers.names import gpu_named
from harness.dataset.importers.repeats import Tally, middle, phase_of, reading_of, run_from, with_energy
from harness.dataset.importers.table_mapping import MEASURED, Filter, TableMapping, Target
from harness.dataset.importers.table_rows import FileRow, read_table_file
from harness.dataset.importers.table_values import BadCell, Cell, value_of
from harness.dataset.schema import Scalar
from harness.dataset.store import BulkTables
from harness.kernels import Phase, shape_text
from harness.records import EnvironmentRow, KernelEnergyRow, KernelRow, PhaseRow, ReadingRow, RunRow
from harness.words import EnergyMethod, Part, Workload

UNKNOWN_GPU: Final = "the GPU is not in the hardware table"
NOTHING_MEASURED: Final = "nothing measured is given"
RAGGED: Final = "another number of cells than the header"
TWIN: Final = "equal in every cell to a row before it"
_HOW: Final = "as the source gives it, or power × time: see the derived column of its source"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One row of the file: its run without a name, and its measured values."""

    run: RunRow
    environment: EnvironmentRow
    phases: Mapping[Phase, Mapping[str, Scalar]]
    kernel: KernelRow | None
    energy_j: float | None  # of the kernel
    identity: str  # equal for repeats of one run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What the rows of one run become."""

    run: RunRow
    environment: EnvironmentRow
    phases: tuple[PhaseRow, ...] = ()
    readings: tuple[ReadingRow, ...] = ()
    kernels: tuple[KernelRow, ...] = ()
    energies: tuple[KernelEnergyRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableImporter:
    """Reads one file by one mapping."""

    mapping: TableMapping
    name: str = "table"
    summary: str = "any CSV or Parquet file, with --mapping"

    @property
    def licence(self) -> str | None:
        """As the mapping states it."""
        return self.mapping.source.licence

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch; raises ``UsageError`` where mapping and file do not fit, ``DatasetError`` for a damaged file."""
        tally, rows_in = Tally(), 0
        samples: dict[str, list[_Sample]] = {}
        seen: set[str] = set()
        for row in read_table_file(path, _columns(self.mapping)):
            rows_in += 1
            try:
                sample = _sample(self.mapping, row, seen)
            except BadCell as bad:
                tally.reject(str(bad), f"{path.name}, {row.place}")
                continue
            samples.setdefault(sample.identity, []).append(sample)
            tally.keep()
        yield ImportedBatch(tables=self._tables(samples.values()), account=tally.account(rows_in))

    def _tables(self, samples: Iterable[list[_Sample]]) -> BulkTables | None:
        rows = [_kernel_run(repeats) if repeats[0].kernel else _run(self.mapping, repeats) for repeats in samples]
        if not rows:
            return None
        return bulk(
            runs=[each.run for each in rows],
            phases=[phase for each in rows for phase in each.phases],
            readings=[reading for each in rows for reading in each.readings],
            kernels=[kernel for each in rows for kernel in each.kernels],
            kernel_energies=[energy for each in rows for energy in each.energies],
            environments=[each.environment for each in rows],
            sources=[self.mapping.source],
        )


def _columns(mapping: TableMapping) -> set[str]:
    """Columns of the file that the mapping names."""
    targets = [*mapping.environment, *mapping.runs, *(target for phase in mapping.phases for target in phase.targets)]
    if mapping.kernels is not None:
        kernels = mapping.kernels
        targets += [*kernels.targets, *kernels.shape, *kernels.variant, *([kernels.energy] if kernels.energy else [])]
    named = {name for target in targets for name in target.value.columns}
    return named | {each.column for each in mapping.filters}


def _sample(mapping: TableMapping, row: FileRow, seen: set[str]) -> _Sample:
    """Raises ``BadCell`` with the rule that leaves the row out."""
    if row.cells is None:
        raise BadCell(RAGGED)
    cells = row.cells
    for each in mapping.filters:
        if _holds(each, cells):
            raise BadCell(each.rule)
    whole = content_id(*(str(cell) for cell in cells.values()))
    if whole in seen:
        raise BadCell(TWIN)
    values = _values(mapping.runs, cells)
    run, environment = _placed(mapping, values, cells)
    phases = {phase.phase: _values(phase.targets, cells) for phase in mapping.phases}
    kernel = None if mapping.kernels is None else _kernel(mapping, cells)
    measured = [getattr(run, name) for name in MEASURED - {"started_at_utc", "mean_batch_size", "mean_output_tokens"}]
    measured += [value for values in phases.values() for value in values.values()]
    if kernel is None and all(value is None for value in measured):
        raise BadCell(NOTHING_MEASURED)
    seen.add(whole)
    energy = mapping.kernels.energy if mapping.kernels else None
    energy_j = None if energy is None else value_of(energy.value, energy.column, cells)
    return _Sample(
        run=run,
        environment=environment,
        phases=phases,
        kernel=kernel,
        energy_j=energy_j if isinstance(energy_j, float) else None,
        identity=content_id(
            _text({name: value for name, value in values.items() if name not in MEASURED}), environment.environment_id
        ),
    )


def _placed(
    mapping: TableMapping, values: Mapping[str, Scalar], cells: Mapping[str, Cell]
) -> tuple[RunRow, EnvironmentRow]:
    written = str(values["gpu"])
    gpu = gpu_named(written)
    if gpu is None:
        raise BadCell(UNKNOWN_GPU)
    about = {"device_name": written, **_values(mapping.environment, cells)}
    environment = _environment(gpu.name, tuple(about.items()))
    given: dict[str, Any] = {"workload": Workload.BATCH if mapping.kernels is None else Workload.KERNELS, **values}
    given |= {"gpu": gpu.name, "environment_id": environment.environment_id}
    return replace(run_from(mapping.source), **given), environment


@lru_cache(maxsize=1024)  # few machines, many rows
def _environment(gpu: str, about: tuple[tuple[str, Any], ...]) -> EnvironmentRow:
    return identified(replace(BLANK_ENVIRONMENT, gpu=gpu, **dict(about)))


def _values(targets: Iterable[Target], cells: Mapping[str, Cell]) -> dict[str, Scalar]:
    """Values by column; one that must be known and is not rejects the row."""
    found = {target.column.name: value_of(target.value, target.column, cells) for target in targets}
    for target in targets:
        if found[target.column.name] is None and not target.column.nullable:
            raise BadCell(f"{target.column.name}: not given")
    return found


def _kernel(mapping: TableMapping, cells: Mapping[str, Cell]) -> KernelRow:
    assert mapping.kernels is not None  # noqa: S101  the caller has looked
    shape = {name: value for name, value in _values(mapping.kernels.shape, cells).items() if isinstance(value, int)}
    variant = {name: str(value) for name, value in sorted(_values(mapping.kernels.variant, cells).items())}
    values: dict[str, Any] = {"module": None, "launches": 1, "traced_duration_s": None, "phase": None, "rank": 0}
    values |= dict.fromkeys(("flop", "read_bytes", "write_bytes", "link_bytes"))
    values |= _values(mapping.kernels.targets, cells)
    if values["duration_s"] is None:
        raise BadCell(NOTHING_MEASURED)
    return KernelRow(
        run_id="",
        kernel_id="",
        shape=shape_text(shape),
        variant=json.dumps(variant, ensure_ascii=False, separators=(",", ":")) if variant else None,
        **values,
    )


def _holds(each: Filter, cells: Mapping[str, Cell]) -> bool:
    """Whether a filter leaves a row out."""
    cell = cells[each.column]
    text = "" if cell is None else str(cell).strip()
    if each.test == "is_missing":
        return (text == "") is bool(each.operand)
    if each.test in {"equals", "not_equals"}:
        return (text == str(each.operand)) is (each.test == "equals")
    try:
        number = float(text)
    except ValueError:
        return False
    return number >= float(each.operand) if each.test == "at_least" else number <= float(each.operand)


def _run(mapping: TableMapping, repeats: list[_Sample]) -> _Rows:
    """Medians of the repeats, and every repeat as a reading."""
    first = repeats[0]
    measured = {name: [getattr(each.run, name) for each in repeats] for name in sorted(MEASURED)}
    middles: dict[str, Any] = {
        name: middle([value for value in values if value is not None]).value
        for name, values in measured.items()
        if name != "started_at_utc"
    }
    run_id = content_id(
        mapping.source.source, first.identity, _text(measured), _text([each.phases for each in repeats])
    )
    run = with_energy(
        replace(first.run, run_id=run_id, **middles),
        [value for value in measured["energy_j"] if value is not None],
        [value for value in measured["duration_s"] if value is not None],
    )
    return _Rows(
        run=replace(run, trials=run.trials or len(repeats)),
        environment=first.environment,
        phases=tuple(
            phase_of(
                run,
                phase.phase,
                _known(each.phases[phase.phase].get("energy_j") for each in repeats),
                _known(each.phases[phase.phase].get("duration_s") for each in repeats),
            )
            for phase in mapping.phases
            if any(value is not None for each in repeats for value in each.phases[phase.phase].values())
        ),
        readings=tuple(_readings(run_id, first.environment.meter, repeats)),
    )


def _known(values: Iterable[Scalar]) -> list[float]:
    return [value for value in values if isinstance(value, float)]


def _readings(run_id: str, meter: str, repeats: list[_Sample]) -> Iterator[ReadingRow]:
    for trial, each in enumerate(repeats):
        parts = {Part.RUN: (each.run.energy_j, each.run.duration_s)}
        for phase, values in each.phases.items():
            energy, duration = values.get("energy_j"), values.get("duration_s")
            parts[Part(phase.value)] = (_number(energy), _number(duration))
        for part, (energy_j, duration_s) in parts.items():
            if energy_j is not None or duration_s is not None:
                yield reading_of(run_id, part, trial, meter, energy_j=energy_j, duration_s=duration_s)


def _number(value: Scalar) -> float | None:
    return value if isinstance(value, float) else None


def _kernel_run(repeats: list[_Sample]) -> _Rows:
    """A run of kernels: those of equal sizes are told apart by a number."""
    first = repeats[0]
    keys = [_kernel_key(each.kernel) for each in repeats if each.kernel]
    times = [each.kernel.duration_s for each in repeats if each.kernel]
    run_id = content_id(first.run.source, first.identity, _text([keys, times, [each.energy_j for each in repeats]]))
    kernels: list[KernelRow] = []
    energies: list[KernelEnergyRow] = []
    counts: dict[str, int] = {}
    for key, each in zip(keys, repeats, strict=True):
        assert each.kernel is not None  # noqa: S101  all rows of a mapping are alike
        counts[key] = counts.get(key, 0) + 1
        kernel_id = key if counts[key] == 1 else f"{key}-{counts[key]}"
        kernels.append(replace(each.kernel, run_id=run_id, kernel_id=kernel_id))
        if each.energy_j is not None:
            energies.append(_energy(run_id, kernel_id, each.energy_j))
    run = replace(first.run, run_id=run_id)
    return _Rows(run=run, environment=first.environment, kernels=tuple(kernels), energies=tuple(energies))


def _kernel_key(kernel: KernelRow) -> str:
    return content_id(kernel.kind, kernel.op, kernel.module, kernel.dtype, kernel.shape, kernel.variant)[:16]


def _text(value: object) -> str:
    """Values as text that is equal for equal values only."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _energy(run_id: str, kernel_id: str, energy_j: float) -> KernelEnergyRow:
    return KernelEnergyRow(
        run_id=run_id,
        phase=None,
        rank=0,
        kernel_id=kernel_id,
        method=EnergyMethod.IMPORTED,
        energy_j=energy_j,
        active_energy_j=None,
        energy_ci95_j=None,
        how=_HOW,
    )
