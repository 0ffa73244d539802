"""``bundle.json``: who gives what, in one way of writing it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.contributions.bundle import (
    MAX_ROWS,
    BadHeader,
    Bundle,
    BundledFile,
    gpu_slug,
    header_text,
    is_lab,
    member_names,
    parse_header,
)
from harness.dataset.schema import Table
from harness.errors import NewerSchema

BUNDLE = Bundle(
    harness="0.1.0",
    lab="green-lab",
    contact="https://green-lab.example",
    gpu="NVIDIA A100-SXM4-80GB",
    created_utc="2026-11-30T10:00:00+00:00",
    files=(BundledFile(table=Table.RUNS, sha256="0" * 64, size_bytes=10, rows=1),),
)


def changed(**fields: Any) -> bytes:
    return (json.dumps(json.loads(header_text(BUNDLE)) | fields, indent=1) + "\n").encode()


def test_a_header_is_read_as_it_was_written() -> None:
    assert parse_header(header_text(BUNDLE).encode()) == BUNDLE


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_header_or_a_bad_one(content: bytes) -> None:
    with pytest.raises(BadHeader):
        parse_header(content)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"lab": "Green Lab"}, "no name of a lab"),
        ({"lab": "a"}, "no name of a lab"),
        ({"created_utc": "2026-11-30"}, "no time"),
        ({"licence": "MIT"}, "not written as"),
        ({"statement": "trust me"}, "not written as"),
        ({"gpu": "NVIDIA\u00a0A100"}, "ASCII"),
        ({"contact": ""}, "ASCII"),
        ({"extra": 1}, "extra"),
        ({"files": {}}, "no list"),
        ({"files": [1]}, "other keys"),
        ({"bundle_version": True}, "no version"),
        ({"bundle_version": 0}, "no version"),
    ],
)
def test_a_header_that_says_something_else_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(BadHeader, match=why):
        parse_header(changed(**fields))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"rows": MAX_ROWS[Table.RUNS] + 1}, "rows of runs"),
        ({"rows": 0}, "rows of runs"),
        ({"rows": 1.0}, "rows of runs"),
        ({"bytes": 10**12}, "bytes of runs"),
        ({"table": "secrets"}, "that there is not"),
        ({"sha256": "0" * 63}, "no hash"),
    ],
)
def test_a_table_that_no_bundle_holds_is_refused(entry: dict[str, Any], why: str) -> None:
    good = {"table": "runs", "sha256": "0" * 64, "bytes": 10, "rows": 1}
    with pytest.raises(BadHeader, match=why):
        parse_header(changed(files=[good | entry]))


def test_tables_come_once_and_in_order() -> None:
    entries = [{"table": name, "sha256": "0" * 64, "bytes": 10, "rows": 1} for name in ("phases", "runs")]
    with pytest.raises(BadHeader, match="in order"):
        parse_header(changed(files=entries))
    with pytest.raises(BadHeader, match="twice"):
        parse_header(changed(files=[entries[0], entries[0]]))


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = header_text(BUNDLE).replace('"lab": "green-lab"', '"lab": "other-lab",\n "lab": "green-lab"')
    with pytest.raises(BadHeader, match="not written as"):
        parse_header(text.encode())


def test_a_later_version_says_to_update() -> None:
    with pytest.raises(NewerSchema, match="Update the harness"):
        parse_header(changed(bundle_version=2))


def test_deep_nesting_is_no_crash() -> None:
    with pytest.raises(BadHeader):
        parse_header(b"[" * 60_000)


def test_names_of_members_are_plain() -> None:
    assert all(name.isascii() and ".." not in name and not name.startswith("/") for name in member_names())
    assert len(set(member_names())) == len(Table) + 1


@pytest.mark.parametrize("lab", ["green-lab", "ab", "lab42", "0x"])
def test_a_name_of_a_lab(lab: str) -> None:
    assert is_lab(lab)


@pytest.mark.parametrize("lab", ["", "a", "-lab", "lab-", "a--b", "Lab", "l b", "lab\n", "läb", "../x", "a" * 41])
def test_no_name_of_a_lab(lab: str) -> None:
    assert not is_lab(lab)


@given(st.text(max_size=100))
def test_a_device_in_a_file_name_is_letters_digits_and_hyphens(gpu: str) -> None:
    slug = gpu_slug(gpu)
    assert slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
