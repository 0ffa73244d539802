"""The mapping of a CSV or Parquet file onto the tables of the dataset, read from TOML.

``python -m harness.convert --example-mapping`` prints one that documents every section (``table_example``). A misspelt
key is an error that names the right ones.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from harness.dataset.importers.table_values import BadCell, Value, constant, typed, units_of
from harness.dataset.schema import Column, Table, columns_of
from harness.errors import UsageError
from harness.kernels import Phase
from harness.records import SourceRow

_MOST_BYTES: Final = 1024**2
_RUN_COLUMNS: Final = (
    *("workload", "model", "model_revision", "weights", "dtype", "quantization", "runtime", "runtime_version"),
    *("attention", "kv_cache", "cuda_graphs", "gpu", "n_gpus", "nodes", "parallelism", "tensor_parallel"),
    *("pipeline_parallel", "expert_parallel", "data_parallel", "batch_size", "prompt_tokens", "output_tokens"),
    *("mean_batch_size", "mean_output_tokens", "prompts", "energy_j", "duration_s", "ttft_s", "tpot_s"),
    *("output_tokens_per_s", "mean_power_w", "host_energy_j", "idle_power_w", "method", "started_at_utc"),
)
# What repeats of one run differ in.
MEASURED: Final = frozenset(
    {"energy_j", "duration_s", "ttft_s", "tpot_s", "output_tokens_per_s", "mean_power_w", "host_energy_j"}
    | {"idle_power_w", "mean_batch_size", "mean_output_tokens", "started_at_utc"}
)
_ENVIRONMENT_COLUMNS: Final = (
    *("device_name", "n_devices", "cpu", "cpu_cores", "memory_bytes", "driver", "cuda", "vbios", "power_limit_w"),
    *("sm_clock_mhz", "ecc", "mig", "topology", "os", "python", "torch", "transformers", "meter"),
)
_PHASE_COLUMNS: Final = ("energy_j", "duration_s")
_KERNEL_COLUMNS: Final = (
    *("kind", "op", "module", "dtype", "launches", "flop", "read_bytes", "write_bytes", "link_bytes", "duration_s"),
)
_VALUE_KEYS: Final = ("column", "unit", "times", "times_unit", "values", "missing")
_SOURCE_KEYS: Final = ("source", "title", "url", "version", "licence", "citation", "measured", "derived")
_TESTS: Final = ("equals", "not_equals", "at_least", "at_most", "is_missing")
_ENERGY: Final = Column(name="energy_j", scalar=float, choices=None, nullable=True, description="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One column of the dataset and where its values come from."""

    column: Column
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Rows that are left out, and why."""

    rule: str
    column: str
    test: str
    operand: str | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMapping:
    """Rows that are kernels measured alone."""

    targets: tuple[Target, ...]
    shape: tuple[Target, ...]
    variant: tuple[Target, ...]
    energy: Target | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMapping:
    """One phase of each row's run."""

    phase: Phase
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMapping:
    """All that a mapping file says."""

    source: SourceRow
    environment: tuple[Target, ...]
    runs: tuple[Target, ...]
    phases: tuple[PhaseMapping, ...]
    kernels: KernelMapping | None
    filters: tuple[Filter, ...]


def read_mapping(path: Path) -> TableMapping:
    """Read a mapping file; raises ``UsageError`` naming the key and what would be right."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than 1 MiB, which no mapping is.\nGive the TOML file with --mapping.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.\nCheck the path given with --mapping.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8.\nA mapping is a TOML file: --example-mapping.") from error
    return parse_mapping(text)


def parse_mapping(text: str) -> TableMapping:
    """Read a mapping; raises ``UsageError``."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"The mapping is no valid TOML: {error}.\nSee --example-mapping.") from error
    _check_keys("the mapping", content, ("source", "environment", "runs", "phases", "kernels", "filters"))
    kernels = _kernels(_table(content, "kernels")) if "kernels" in content else None
    mapping = TableMapping(
        source=_source(_table(content, "source")),
        environment=_targets("environment", _table(content, "environment"), Table.ENVIRONMENTS, _ENVIRONMENT_COLUMNS),
        runs=_targets("runs", _table(content, "runs"), Table.RUNS, _RUN_COLUMNS),
        phases=tuple(_phase(name, section) for name, section in _table(content, "phases").items()),
        kernels=kernels,
        filters=_filters(content.get("filters", [])),
    )
    _check_whole(mapping)
    return mapping


def _check_whole(mapping: TableMapping) -> None:
    given = {target.column.name for target in mapping.runs}
    if missing := [name for name in ("gpu", "n_gpus") if name not in given]:
        raise UsageError(f"[runs] does not say {' and '.join(missing)}.\nEvery run was made on something.")
    if "meter" not in {target.column.name for target in mapping.environment}:
        raise UsageError("[environment] does not say meter: how energy or time was read.\nWrite it in a few words.")
    if mapping.kernels is not None and (mapping.phases or given & MEASURED):
        raise UsageError("A row is a kernel or a run, not both.\nLeave out [kernels], or phases and measured columns.")
    if mapping.kernels is None and not given & MEASURED and not mapping.phases:
        raise UsageError(f"The mapping takes nothing that was measured.\nMap one of {', '.join(sorted(MEASURED))}.")


def _source(section: Mapping[str, object]) -> SourceRow:
    _check_keys("[source]", section, _SOURCE_KEYS)
    texts = {key: _plain(f"[source] {key}", value) for key, value in section.items()}
    if missing := [key for key in ("source", "title", "measured") if key not in texts]:
        raise UsageError(f"[source] does not say {', '.join(missing)}.\nNumbers without an origin are worth little.")
    return SourceRow(
        source=texts["source"],
        title=texts["title"],
        url=texts.get("url"),
        version=texts.get("version"),
        licence=texts.get("licence"),
        citation=texts.get("citation"),
        measured=texts["measured"],
        derived=texts.get("derived"),
    )


def _targets(name: str, section: Mapping[str, object], table: Table, allowed: Iterable[str]) -> tuple[Target, ...]:
    _check_keys(f"[{name}]", section, allowed)
    columns = {column.name: column for column in columns_of(table)}
    return tuple(_target(f"[{name}] {key}", value, columns[key]) for key, value in section.items())


def _phase(name: str, section: object) -> PhaseMapping:
    if name not in set(Phase):
        raise UsageError(f"[phases.{name}] is no phase.\nThe phases are: {', '.join(Phase)}.")
    given = _mapping(f"[phases.{name}]", section)
    return PhaseMapping(phase=Phase(name), targets=_targets(f"phases.{name}", given, Table.PHASES, _PHASE_COLUMNS))


def _kernels(section: Mapping[str, object]) -> KernelMapping:
    own = ("shape", "variant", "energy_j")
    _check_keys("[kernels]", section, (*_KERNEL_COLUMNS, *own))
    if missing := [key for key in ("kind", "op", "dtype", "shape", "duration_s") if key not in section]:
        raise UsageError(f"[kernels] does not say {', '.join(missing)}.\nSee --example-mapping.")
    plain = {key: value for key, value in section.items() if key not in own}
    energy = section.get("energy_j")
    return KernelMapping(
        targets=_targets("kernels", plain, Table.KERNELS, _KERNEL_COLUMNS),
        shape=_free("[kernels] shape", section["shape"], int),
        variant=_free("[kernels] variant", section.get("variant", {}), str),
        energy=None if energy is None else _target("[kernels] energy_j", energy, _ENERGY),
    )


def _free(name: str, section: object, scalar: type[int] | type[str]) -> tuple[Target, ...]:
    """Dimensions of a shape, or what else tells kernels apart: the names are the mapping's own."""
    return tuple(
        _target(f"{name}.{key}", value, Column(name=key, scalar=scalar, choices=None, nullable=False, description=""))
        for key, value in _mapping(name, section).items()
    )


def _target(name: str, given: object, column: Column) -> Target:
    if isinstance(given, str | int | float | bool):
        try:
            constant(given, column)
        except BadCell as bad:
            raise UsageError(f"{name} = {given!r} cannot be: {bad}.\nSee python -m harness.dataset.schema.") from None
        return Target(column=column, value=Value(constant=given))
    section = _mapping(name, given)
    _check_keys(name, section, _VALUE_KEYS)
    if "column" not in section:
        raise UsageError(f"{name} names no column of the file.\nWrite {{ column = NAME }}, or a constant.")
    return Target(column=column, value=_value(name, section, column))


def _value(name: str, section: Mapping[str, object], column: Column) -> Value:
    words = section.get("values")
    missing = section.get("missing", [])
    if not isinstance(missing, list):
        raise UsageError(f'{name}: missing is a list of words, as in missing = ["0"].')
    return Value(
        column=_plain(f"{name} column", section["column"]),
        factor=_factor(name, section, column),
        times=None if "times" not in section else _plain(f"{name} times", section["times"]),
        words=None if words is None else _words(name, words, column),
        missing=tuple(str(word) for word in missing),
    )


def _factor(name: str, section: Mapping[str, object], column: Column) -> float:
    """From the units of the file to that of the column; energy may be given as power × time."""
    product = "times" in section
    if product and not column.name.endswith("_j"):
        raise UsageError(f"{name}: only an energy is a product of two columns, power × time.\nLeave out times.")
    first = units_of("power_w") if product else units_of(column.name)
    factor = _unit(f"{name} unit", section.get("unit"), first)
    return factor * (_unit(f"{name} times_unit", section.get("times_unit"), units_of("time_s")) if product else 1.0)


def _unit(name: str, unit: object, units: Mapping[str, float]) -> float:
    if not units:
        if unit is not None:
            raise UsageError(f"{name}: {unit!r} is given for a column without a unit.\nLeave it out.")
        return 1.0
    if not isinstance(unit, str) or unit not in units:
        raise UsageError(f"{name} is {unit!r}.\nSay what the numbers are in: {', '.join(units)}.")
    return units[unit]


def _words(name: str, given: object, column: Column) -> Mapping[str, str]:
    words = {key: _plain(f"{name} values", value) for key, value in _mapping(f"{name} values", given).items()}
    for word in words.values():
        try:
            typed(word, column)
        except BadCell as bad:
            raise UsageError(f"{name} values: {word!r} cannot be: {bad}.") from None
    return words


def _filters(given: object) -> tuple[Filter, ...]:
    if not isinstance(given, list):
        raise UsageError("Each filter is a [[filters]] section of its own.\nSee --example-mapping.")
    return tuple(_filter(_mapping("[[filters]]", section)) for section in given)


def _filter(section: Mapping[str, object]) -> Filter:
    _check_keys("[[filters]]", section, ("rule", "column", *_TESTS))
    tests = [key for key in section if key in _TESTS]
    if len(tests) != 1 or "rule" not in section or "column" not in section:
        raise UsageError(f"[[filters]] has a rule, a column and one of {', '.join(_TESTS)}.")
    operand = section[tests[0]]
    wanted = (
        (int, float) if tests[0] in {"at_least", "at_most"} else bool if tests[0] == "is_missing" else (str, int, float)
    )
    if not isinstance(operand, wanted) or (isinstance(operand, bool) and tests[0] != "is_missing"):
        raise UsageError(f"[[filters]] {tests[0]} = {operand!r} is not of the right kind.\nSee --example-mapping.")
    return Filter(
        rule=_plain("[[filters]] rule", section["rule"]),
        column=_plain("[[filters]] column", section["column"]),
        test=tests[0],
        operand=cast("str | float | bool", operand),
    )


def _check_keys(name: str, section: Mapping[str, object], allowed: Iterable[str]) -> None:
    known = list(allowed)
    for key in section:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3) or known
            raise UsageError(f"{name} has no key {key!r}.\nDid you mean: {', '.join(close)}?")


def _table(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    return _mapping(f"[{name}]", content.get(name, {}))


def _mapping(name: str, given: object) -> Mapping[str, object]:
    if not isinstance(given, dict):
        raise UsageError(f"{name} is {str(given)[:40]!r} and should be a section of keys.\nSee --example-mapping.")
    return given


def _plain(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 2000 or not value.isprintable():
        raise UsageError(f"{name} is {str(value)[:40]!r} and should be a short text.")
    return value
