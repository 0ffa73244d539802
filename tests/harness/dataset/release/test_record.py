"""``release.json`` is read as strictly as it is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.release.record import RECORD, Change, LeftOut, ReleaseRecord, read_record, record_text
from harness.dataset.release.terms import Inclusion
from harness.errors import CorruptFile, DatasetError, HarnessError

RECORD_OF_TESTS = ReleaseRecord(
    version="1.1.0",
    date="2026-11-30",
    harness="0.1.0",
    url="https://huggingface.co/datasets/me/energy",
    previous="1.0.0",
    included=(Inclusion.QUICK,),
    left_out=(LeftOut(needs=(Inclusion.SIMULATED, Inclusion.QUICK), runs=3),),
    changes=(Change(version="1.1.0", date="2026-11-30", lines=("Added «ü».",)),),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(record_text(RECORD_OF_TESTS), encoding="utf-8")

    assert read_record(tmp_path) == RECORD_OF_TESTS


def test_a_folder_without_one_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no release"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "1"),
        ("version", 1),
        ("date", "yesterday"),
        ("url", "javascript:alert(1)"),
        ("url", "https://example.org/<script>"),
        ("included", ["invalid"]),
        ("left_out", [{"needs": []}]),
        ("left_out", [{"needs": [], "runs": "3"}]),
        ("changes", [{"version": "1.0.0", "date": "2026-11-30", "lines": [1]}]),
        ("format", 2),
        ("more", 1),
    ],
)
def test_a_value_that_cannot_be_is_told(tmp_path: Path, key: str, value: Any) -> None:
    fields = json.loads(record_text(RECORD_OF_TESTS)) | {key: value}
    (tmp_path / RECORD).write_text(json.dumps(fields), encoding="utf-8")

    with pytest.raises(CorruptFile, match="no record of a release"):
        read_record(tmp_path)


@given(st.binary(max_size=200))
def test_anything_else_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("release")
    (folder / RECORD).write_bytes(content)

    with pytest.raises(HarnessError):
        read_record(folder)
