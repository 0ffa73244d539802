"""A manifest says what it said, or is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.manifest import ListedFile, Manifest, manifest_text, parse_manifest, read_manifest
from harness.dataset.schema import Table
from harness.errors import CorruptFile, NewerSchema

PATH = Path("dataset/manifest.json")
COUNTS = st.integers(0, 2**63 - 1)
FILES = st.builds(
    lambda table, number, sha256, size_bytes, rows: ListedFile(
        table=table,
        path=f"data/{table.title}/data-{number:05d}.parquet",
        sha256=sha256,
        size_bytes=size_bytes,
        rows=rows,
    ),
    st.sampled_from(Table),
    st.integers(0, 10**6),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    COUNTS,
    COUNTS,
)
MANIFESTS = st.builds(
    Manifest,
    schema_version=st.just(1),
    campaign_id=st.none() | st.text(),
    harness=st.text(),
    created_utc=st.text(),
    files=st.lists(FILES, unique_by=lambda file: file.path).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def a_manifest(**changes: Any) -> dict[str, Any]:
    file = {"table": "runs", "path": "data/runs/data-00000.parquet", "sha256": "0" * 64, "bytes": 9, "rows": 1}
    fields = {"schema_version": 1, "campaign_id": None, "harness": "0.1.0", "created_utc": "2026", "files": [file]}
    for key, value in changes.items():
        (fields if key in fields else file)[key] = value
    return fields


@given(MANIFESTS)
def test_a_manifest_survives_being_written_and_read(manifest: Manifest) -> None:
    assert parse_manifest(manifest_text(manifest).encode(), PATH) == manifest


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_other_content_does_more_than_be_refused(content: bytes) -> None:
    with pytest.raises((CorruptFile, NewerSchema), match=r"manifest\.json"):
        parse_manifest(content, PATH)


@given(st.sampled_from(["schema_version", "campaign_id", "harness", "files", "table", "path", "sha256", "rows"]), JSON)
def test_a_manifest_with_one_odd_value_is_read_or_refused(key: str, value: Any) -> None:
    content = json.dumps(a_manifest(**{key: value})).encode()
    try:
        manifest = parse_manifest(content, PATH)
    except (CorruptFile, NewerSchema):
        return
    assert parse_manifest(manifest_text(manifest).encode(), PATH) == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "data/runs/../../../etc/data-0.parquet"},
        {"path": "/etc/data-0.parquet"},
        {"path": "data/kernels/data-00000.parquet"},
        {"path": "data/runs/part-0.parquet"},
        {"sha256": "0" * 63},
        {"rows": True},
        {"rows": -1},
        {"bytes": 1.0},
        {"table": "walks"},
        {"colour": "blue"},
        {"schema_version": 0},
        {"schema_version": "1"},
        {"files": {}},
    ],
)
def test_a_manifest_that_promises_nonsense_is_refused_with_the_remedy(changes: dict[str, Any]) -> None:
    assert parse_manifest(json.dumps(a_manifest()).encode(), PATH)

    with pytest.raises(CorruptFile, match=r"manifest\.json (.|\n)*Restore it from a copy"):
        parse_manifest(json.dumps(a_manifest(**changes)).encode(), PATH)


def test_a_file_listed_twice_is_refused() -> None:
    fields = a_manifest()

    with pytest.raises(CorruptFile, match="listed twice"):
        parse_manifest(json.dumps(fields | {"files": fields["files"] * 2}).encode(), PATH)


def test_a_manifest_of_a_later_version_is_refused_by_version_whatever_else_it_holds() -> None:
    with pytest.raises(NewerSchema, match=r"schema version 2(.|\n)*Update the harness"):
        parse_manifest(b'{"schema_version": 2, "shards": []}', PATH)


def test_deeply_nested_content_is_refused() -> None:
    with pytest.raises(CorruptFile):
        parse_manifest(b"[" * 100_000, PATH)


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
