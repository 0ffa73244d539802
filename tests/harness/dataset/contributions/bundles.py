"""Bundles as a lab writes them, and as somebody who means harm does: consistent in everything but what was changed."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.dataset.contributions.archive import Content, read_content, read_members, write_archive
from harness.dataset.contributions.bundle import HEADER, member_name, member_names
from harness.dataset.contributions.choosing import choose
from harness.dataset.contributions.identity import Identity
from harness.dataset.contributions.writing import write_bundle
from harness.dataset.reading import open_dataset
from harness.dataset.schema import Table
from harness.records import Measurement
from tests.harness.dataset.contributions.measured import write_dataset

NOBODY = Identity.of(users=(), hosts=(), homes=(), hidden=())
LAB = "green-lab"
Change = Callable[[pa.Table], pa.Table]


def bundle_of(
    folder: Path,
    measurements: Sequence[Measurement],
    *,
    lab: str = LAB,
    identity: Identity = NOBODY,
    name: str = "data",
) -> Path:
    """Write a dataset and bundle it, whatever the reference pack says."""
    dataset = open_dataset(write_dataset(folder / name, measurements))
    chosen = choose([dataset], include=frozenset({"simulated", "quick"}))
    out = folder / f"{name}.zip"
    return write_bundle([dataset], chosen, out, lab=lab, contact=None, identity=identity).path


def members_of(bundle: Path | bytes) -> dict[str, bytes]:
    """The content of every member."""
    content = bundle if isinstance(bundle, bytes) else bundle.read_bytes()
    file = io.BytesIO(content)
    found = read_members(file, len(content), member_names())
    return {member.name: b"".join(read_content(file, member)) for member in found}


def tables_of(bundle: Path | bytes) -> dict[Table, pa.Table]:
    """The tables of a bundle."""
    members = members_of(bundle)
    files = {table: members[member_name(table)] for table in Table if member_name(table) in members}
    return {table: pq.read_table(io.BytesIO(content)) for table, content in files.items()}


def rebuilt(
    bundle: Path | bytes,
    changes: Mapping[Table, Change] | None = None,
    header: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    **parquet: Any,
) -> bytes:
    """The bundle with other tables or another header; hashes, sizes and rows are made to fit."""
    members = members_of(bundle)
    fields = json.loads(members[HEADER])
    contents = dict(members)
    for table, change in (changes or {}).items():
        contents[member_name(table)] = parquet_bytes(change(tables_of(bundle)[table]), **parquet)
    for entry in fields["files"]:
        content = contents[f"data/{entry['table']}.parquet"]
        entry["sha256"], entry["bytes"] = hashlib.sha256(content).hexdigest(), len(content)
        entry["rows"] = pq.read_metadata(io.BytesIO(content)).num_rows
    fields = header(fields) if header else fields
    contents[HEADER] = header_bytes(fields)
    return archive_bytes(contents)


def header_bytes(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=1, ensure_ascii=True) + "\n").encode()


def archive_bytes(contents: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    write_archive(out, [Content.of_bytes(name, content) for name, content in contents.items()])
    return out.getvalue()


def parquet_bytes(arrow: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(arrow, sink, **({"compression": "zstd"} | options))
    return sink.getvalue()


def with_column(name: str, change: Callable[[list[Any]], Sequence[Any]]) -> Change:
    """Another column, in the type that the schema has for it."""

    def apply(arrow: pa.Table) -> pa.Table:
        place = arrow.column_names.index(name)
        field = arrow.schema.field(place)
        return arrow.set_column(place, field, pa.array(change(arrow.column(name).to_pylist()), field.type))

    return apply


def each(change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Change every value that is known."""
    return lambda values: [None if value is None else change(value) for value in values]


def only(row: int, change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Change one known value."""

    def apply(values: list[Any]) -> list[Any]:
        known = [place for place, value in enumerate(values) if value is not None]
        chosen = known[row % len(known)] if known else None
        return [change(value) if place == chosen else value for place, value in enumerate(values)]

    return apply
