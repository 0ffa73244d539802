"""Medians with their intervals, the account of rows, and files that are not what they should be."""

import gzip
import json
import math
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.importers.repeats import Tally, joined, middle
from harness.dataset.importers.repeats_files import (
    Fields,
    commit_of,
    csv_rows,
    header_of,
    read_bytes,
    read_csv,
    read_json,
    zip_members,
)
from harness.errors import CorruptFile, DatasetError


def test_a_median_is_not_moved_by_an_outlier_and_its_interval_shows_it() -> None:
    quiet, loud = middle([10.0, 11.0, 12.0]), middle([10.0, 11.0, 100.0])

    assert (quiet.value, loud.value) == (11.0, 11.0)
    assert quiet.ci95 is not None
    assert loud.ci95 is not None
    # Student's t for 2 degrees of freedom: 4.303; s = 1; √(π/2) for a median
    assert quiet.ci95 == pytest.approx(4.3027 * 1 / math.sqrt(3) * math.sqrt(math.pi / 2), rel=1e-4)
    assert loud.ci95 > 10 * quiet.ci95


def test_two_repeats_have_the_interval_of_a_mean_and_one_has_none() -> None:
    assert middle([1.0, 3.0]).ci95 == pytest.approx(12.7062, rel=1e-4)  # t(1) × s/√2 = 12.706 × 1
    assert (middle([5.0]).value, middle([5.0]).ci95, middle([5.0]).trials) == (5.0, None, 1)
    assert (middle([]).value, middle([]).trials) == (None, 0)


def test_the_account_names_every_rule_once_with_its_rows_and_an_example() -> None:
    tally = Tally()
    tally.keep(3, ["odd"])
    tally.reject("broken", "first")
    tally.reject("broken", "second")

    account = tally.account(5)

    assert [(found.rule, found.rows, found.example) for found in account.rejections] == [("broken", 2, "first")]
    assert [(found.rule, found.rows) for found in account.flagged] == [("odd", 3)]


def test_a_row_that_is_neither_kept_nor_rejected_is_an_error() -> None:
    tally = Tally()
    tally.keep(1)

    with pytest.raises(DatasetError, match="2 rows were read, 1 kept"):
        tally.account(2)


def test_flags_are_named_once_and_no_flag_is_null() -> None:
    assert joined(["a", "b", "a"]) == "a; b"
    assert joined([]) is None


def test_a_csv_file_is_read_with_the_place_of_every_row(tmp_path: Path) -> None:
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(b'\xef\xbb\xbfname,value\n"a,\nb",1.5\n'))

    (row,) = read_csv(file)

    assert (row.text("name"), row.number("value"), row.place) == ("a,\nb", 1.5, "table.csv.gz, line 3")


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("nan", "a finite"),
        ("-inf", "a finite"),
        ("1e100", "a finite"),
        ("", "a number"),
        ("1_0", "a number"),
        ("twelve", "a number"),
    ],
)
def test_a_cell_that_is_no_finite_number_is_refused_by_name_and_place(cell: str, wanted: str) -> None:
    (row,) = csv_rows(f'watts\n"{cell}"\n'.encode(), "table.csv")

    with pytest.raises(CorruptFile, match=rf"table.csv, line 2: 'watts' is .* not {wanted}"):
        row.number("watts")


def test_a_fraction_is_no_count_and_zero_is_none_either() -> None:
    row = Fields(where="here", values={"half": "0.5", "none": 0, "true": True, "huge": "1e17", "two": "2.0"})

    assert row.count("two") == 2
    for name in ("half", "none", "true", "huge"):
        with pytest.raises(CorruptFile, match=name):
            row.count(name)


@pytest.mark.parametrize("content", [b"a,b\n1\n", b"a,a\n1,2\n", b"a\n\xff\n", b'a\n"open\n'])
def test_a_damaged_csv_file_is_an_error(content: bytes) -> None:
    with pytest.raises(CorruptFile, match=r"table\.csv"):
        list(csv_rows(content, "table.csv"))


def test_a_truncated_gzip_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    file = tmp_path / "cut.csv.gz"
    file.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)[:-20])

    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        read_bytes(file)


def test_what_is_no_gzip_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "plain.gz"
    file.write_bytes(b"plain text")

    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        read_bytes(file)


def test_a_file_that_unpacks_to_more_than_its_limit_is_not_read(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 1_000_000))

    with pytest.raises(DatasetError, match="more than 1,000 bytes"):
        read_json(bomb, 1000)


def test_an_archive_gives_its_files_without_writing_any(tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    with ZipFile(archive, "w") as file:
        file.writestr("../../outside.csv", "1,2\n")
        file.writestr("inside/notes.txt", "no data")

    assert list(zip_members(archive, ".csv")) == [("../../outside.csv", b"1,2\n")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.zip"]
    with pytest.raises(DatasetError, match="more than 2 bytes"):
        list(zip_members(archive, ".csv", 2))


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    archive.write_bytes(b"PK\x03\x04 and no more")

    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        list(zip_members(archive, ".csv"))


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, "\udcff"])
def test_what_is_no_json_object_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "data.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))

    with pytest.raises(CorruptFile, match=r"data\.json"):
        read_json(file)


def test_a_missing_key_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"rows": [{"watts": 1}, 2]}))
    content = read_json(file)

    with pytest.raises(CorruptFile, match=r"no 'joules'.*'rows'"):
        content.number("joules")
    with pytest.raises(CorruptFile, match=r"rows\[1\]"):
        content.listed("rows")
    with pytest.raises(CorruptFile, match="not a list"):
        Fields(where="here", values={"rows": {}}).listed("rows")


@given(st.binary(max_size=200))
def test_whatever_stands_in_a_csv_file_is_rows_or_an_error(content: bytes) -> None:
    try:
        rows = list(csv_rows(content, "table.csv"))
    except CorruptFile:
        return
    assert all(isinstance(row, Fields) for row in rows)


def test_the_commit_of_a_clone_is_read_from_its_own_files(tmp_path: Path) -> None:
    git, commit = tmp_path / ".git", "0123456789abcdef0123456789abcdef01234567"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs\n{commit} refs/heads/main\n")
    assert commit_of(tmp_path) == commit

    (git / "refs" / "heads" / "main").write_text(commit[::-1] + "\n")
    assert commit_of(tmp_path) == commit[::-1]

    (git / "HEAD").write_text(commit + "\n")
    assert commit_of(tmp_path) == commit


@pytest.mark.parametrize("branch", ["{}/secret", "refs/../../secret", "secret"])
def test_a_branch_cannot_name_a_file_outside_of_git(tmp_path: Path, branch: str) -> None:
    (tmp_path / ".git" / "refs").mkdir(parents=True)
    for secret in (tmp_path / "secret", tmp_path / ".git" / "secret"):
        secret.write_text("0123456789abcdef0123456789abcdef01234567")
    (tmp_path / ".git" / "HEAD").write_text(f"ref: {branch.format(tmp_path)}\n")

    assert commit_of(tmp_path) is None


def test_the_commit_of_copied_data_is_the_one_that_their_note_names(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None

    (tmp_path / "SOURCE.txt").write_text("Repository a/b, commit 0123456789abcdef0123456789abcdef01234567, MIT.")

    assert commit_of(tmp_path) == "0123456789abcdef0123456789abcdef01234567"


def test_a_header_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        header_of(tmp_path)
