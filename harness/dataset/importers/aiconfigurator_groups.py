"""Which files of aiconfigurator belong together: one group for each GPU, backend and version.

Rows name their backend and version themselves; where they do not, or where the figure is not a version, the folder
does. The version column of NCCL files is that of the torch that was installed, so the folder counts there.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from harness.dataset.importers.aiconfigurator_attention import ATTENTION, attention_kind
from harness.dataset.importers.aiconfigurator_collectives import COLLECTIVES
from harness.dataset.importers.aiconfigurator_kinds import FileKind, quoted
from harness.dataset.importers.aiconfigurator_layout import KernelFile, Layout, file_hash, gpus_per_node, is_pointer
from harness.dataset.importers.aiconfigurator_products import PRODUCTS
from harness.dataset.importers.aiconfigurator_query import (
    COPIED,
    OTHER_BACKEND,
    OTHER_VERSION,
    Reading,
    found_sql,
    tag_sql,
)
from harness.dataset.importers.duck import file_sql
from harness.dataset.importers.names import gpu_named
from harness.errors import CorruptFile
from harness.hardware import Hardware, name_key

UNKNOWN_KIND = "a kind of file this importer does not know"
UNKNOWN_GPU = "the GPU is not in the hardware table"
OTHER_COLUMNS = "the columns are not those of its kind of file"
NO_FILE = "no file: a broken link, a folder or a device"
POINTER = "a pointer of git-lfs instead of the file (git lfs pull)"

_KINDS = {**PRODUCTS, **ATTENTION, **COLLECTIVES}
_WITH_OR_WITHOUT_WINDOW = ("context_attention_perf", "generation_attention_perf")
_MOST_ROWS = 10_000_000  # of one file; the largest published one has less than a tenth
_BACKENDS = {"vllm", "trtllm", "sglang"}
_NO_VERSIONS = {"", "unknown", "kernel-level"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A file that no row is taken from."""

    place: str
    rows: int
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What one backend of one version did on one kind of GPU."""

    gpu: Hardware
    device_name: str
    backend: str
    version: str
    readings: tuple[Reading, ...]
    content: str  # hash of all files behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """All groups of a layout, and the files that are in none."""

    groups: tuple[Group, ...]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A file that can be read."""

    file: KernelFile
    kind: FileKind
    gpu: Hardware
    columns: frozenset[str]
    rows: int
    tags: tuple[str, ...]
    devices: tuple[str, ...]
    content: str


def groups_of(connection: duckdb.DuckDBPyConnection, layout: Layout) -> Groups:
    """Sort the files of a layout; raises ``CorruptFile`` for a damaged one."""
    seen: list[_Seen] = []
    unread: list[Unread] = []
    for file in layout.kernel_files:
        found = _look_at(connection, file)
        (seen if isinstance(found, _Seen) else unread).append(found)  # type: ignore[arg-type]
    copies = _copies(connection, seen)
    groups: dict[tuple[str, str, str], list[tuple[_Seen, list[str]]]] = defaultdict(list)
    for each in seen:
        by_key: dict[tuple[str, str], list[str]] = defaultdict(list)
        for tag in each.tags:
            by_key[_backend_and_version(each, tag)].append(tag)
        for (backend, version), tags in by_key.items():
            groups[each.file.system, backend, version].append((each, tags))
    made = tuple(
        _group(layout, backend, version, members, copies)
        for (_, backend, version), members in sorted(groups.items(), key=lambda item: item[0])
    )
    return Groups(groups=made, unread=tuple(unread))


def _look_at(connection: duckdb.DuckDBPyConnection, file: KernelFile) -> _Seen | Unread:
    if not file.path.is_file():
        return Unread(place=file.place, rows=1, rule=NO_FILE)
    if is_pointer(file.path):
        return Unread(place=file.place, rows=1, rule=POINTER)
    content = file_hash(file.path)
    rows, columns = _rows_and_columns(file)
    kind = _kind_of(file, columns)
    if kind is None:
        return Unread(place=file.place, rows=rows, rule=UNKNOWN_KIND)
    devices = _distinct(connection, file, "device") if "device" in columns else ()
    gpu = gpu_named(file.gpu)
    if gpu is None:
        return Unread(place=file.place, rows=rows, rule=UNKNOWN_GPU)
    seen = _Seen(
        file=file,
        kind=kind,
        gpu=gpu,
        columns=columns,
        rows=rows,
        tags=_distinct(connection, file, tag_sql(columns)),
        devices=devices,
        content=content,
    )
    return seen if _readable(connection, seen) else Unread(place=file.place, rows=rows, rule=OTHER_COLUMNS)


def _rows_and_columns(file: KernelFile) -> tuple[int, frozenset[str]]:
    try:
        with pq.ParquetFile(file.path) as opened:
            rows, columns = opened.metadata.num_rows, frozenset(opened.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptFile(
            f"{file.path} is no intact Parquet file: {error}.\nFetch it again from where it came."
        ) from error
    if rows > _MOST_ROWS:
        raise CorruptFile(f"{file.path} has {rows:,} rows, which no file of aiconfigurator has.\nCheck the path.")
    return rows, columns


def _kind_of(file: KernelFile, columns: frozenset[str]) -> FileKind | None:
    if file.kind in _WITH_OR_WITHOUT_WINDOW:
        return attention_kind(file.kind, windowed="window_size" in columns)
    return _KINDS.get(file.kind)


def _distinct(connection: duckdb.DuckDBPyConnection, file: KernelFile, sql: str) -> tuple[str, ...]:
    query = f"SELECT DISTINCT ({sql})::VARCHAR AS value FROM read_parquet({file_sql(file.path)}) ORDER BY value"  # noqa: S608
    return tuple(value for (value,) in connection.execute(query).fetchall() if value is not None)


def _readable(connection: duckdb.DuckDBPyConnection, seen: _Seen) -> bool:
    """Whether the columns are what the formulas of the kind ask for; a kind may change from version to version."""
    reading = _reading(seen, number=0, tags=None, flags=(), per_node=1)
    try:
        connection.execute(f"EXPLAIN {found_sql([reading], seen.gpu)}")
    except (duckdb.BinderException, duckdb.ConversionException):
        return False
    return True


def _backend_and_version(seen: _Seen, tag: str) -> tuple[str, str]:
    framework, version = tag.split(chr(31))
    if seen.kind.backend is not None:
        return seen.kind.backend, seen.file.version
    backend = framework.lower() if framework.lower() in _BACKENDS else seen.file.backend
    return backend, seen.file.version if version in _NO_VERSIONS else version


def _copies(connection: duckdb.DuckDBPyConnection, seen: Iterable[_Seen]) -> frozenset[str]:
    """Places of files whose rows, but for the name of the device, are those of another GPU's file."""
    alike: dict[tuple[str, str, str, int], list[_Seen]] = defaultdict(list)
    for each in seen:
        alike[each.file.kind, each.file.backend, each.file.version, each.rows].append(each)
    found: dict[str, list[_Seen]] = defaultdict(list)
    for candidates in alike.values():
        for each in candidates if len(candidates) > 1 else ():
            columns = ", ".join(map(quoted, sorted(each.columns - {"device"})))
            query = f"SELECT sum(hash({columns}))::VARCHAR FROM read_parquet({file_sql(each.file.path)})"  # noqa: S608
            found[f"{each.file.kind} {connection.execute(query).fetchall()[0][0]}"].append(each)
    return frozenset(
        each.file.place
        for members in found.values()
        if len({member.file.system for member in members}) > 1
        for each in members
    )


def _group(
    layout: Layout, backend: str, version: str, members: list[tuple[_Seen, list[str]]], copies: frozenset[str]
) -> Group:
    """Files whose folder agrees with their rows come first: of two equal rows, theirs is the one that is kept."""
    readings = []
    ordered = sorted(members, key=lambda member: (_disagreements(member[0], backend, version), member[0].file.place))
    for number, (seen, tags) in enumerate(ordered):
        flags = _disagreements(seen, backend, version) + ((COPIED,) if seen.file.place in copies else ())
        wanted = None if len(tags) == len(seen.tags) else tuple(tags)
        per_node = gpus_per_node(layout.systems, seen.file.system)
        readings.append(_reading(seen, number=number, tags=wanted, flags=flags, per_node=per_node))
    first = ordered[0][0]
    devices = sorted({device for seen, _ in ordered for device in _own_devices(seen)})
    return Group(
        gpu=first.gpu,
        device_name=", ".join(devices) or first.file.gpu,
        backend=backend,
        version=version,
        readings=tuple(readings),
        content=" ".join(sorted(f"{seen.file.place} {seen.content}" for seen, _ in ordered)),
    )


def _disagreements(seen: _Seen, backend: str, version: str) -> tuple[str, ...]:
    if seen.kind.backend is not None:
        return ()
    found = [OTHER_BACKEND] if seen.file.backend != backend else []
    return tuple(found + ([OTHER_VERSION] if seen.file.version != version else []))


def _reading(
    seen: _Seen, *, number: int, tags: tuple[str, ...] | None, flags: tuple[str, ...], per_node: int | None
) -> Reading:
    own = set(_own_devices(seen))
    return Reading(
        file=seen.file,
        number=number,
        columns=seen.columns,
        kernels=seen.kind.kernels,
        tags=tags,
        foreign_devices=tuple(device for device in seen.devices if device not in own),
        gpus_per_node=per_node,
        flags=flags,
    )


def _own_devices(seen: _Seen) -> list[str]:
    """Values of the device column that name this GPU, or are too vague to name another one."""
    names = {name_key(name) for name in (seen.gpu.name, *seen.gpu.nvml_names, *seen.gpu.short_names)}
    return [device for device in seen.devices if name_key(device) in names or _unnamed(device)]


def _unnamed(device: str) -> bool:
    """Drivers that do not know a device print its number: Intel(R) Graphics [0xe211]."""
    return device.startswith("Intel(R) Graphics [")
