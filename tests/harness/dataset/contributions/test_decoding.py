"""Tables from a stranger are read in a process of their own, with little memory, and come out in our own form."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset.contributions import decoding
from harness.dataset.contributions.decoding import Undecodable, decode_apart, decode_here
from harness.dataset.contributions.opening import OpenedBundle, open_bundle
from harness.dataset.schema import Table, arrow_schema
from harness.errors import CorruptFile, DatasetError
from tests.harness.dataset.contributions.bundles import (
    Change,
    bundle_of,
    each,
    members_of,
    rebuilt,
    tables_of,
    with_column,
)
from tests.harness.dataset.contributions.measured import pack_measurements


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return bundle_of(tmp_path_factory.mktemp("good"), pack_measurements()).read_bytes()


def opened(content: bytes, folder: Path, decode: decoding.Decode = decode_apart) -> OpenedBundle:
    path = folder / "bundle.zip"
    path.write_bytes(content)
    workplace = folder / "workplace"
    workplace.mkdir()
    return open_bundle(path, workplace, decode)


@pytest.mark.parametrize("decode", [decode_apart, decode_here], ids=["apart", "here"])
def test_every_row_comes_out_as_it_was_in_files_of_ours(good: bytes, tmp_path: Path, decode: decoding.Decode) -> None:
    found = opened(good, tmp_path, decode)

    given = tables_of(good)
    for table, arrow in given.items():
        assert found.dataset.table(table).equals(arrow.cast(arrow_schema(table)))
    for file in found.dataset.files:
        metadata = pq.read_schema(file.path).metadata
        assert set(metadata) == {b"joulegraph_schema_version"}


def test_metadata_of_the_stranger_does_not_come_along(good: bytes, tmp_path: Path) -> None:
    changed = rebuilt(good, {Table.RUNS: lambda arrow: arrow.replace_schema_metadata({b"note": b"<script>"})})

    found = opened(changed, tmp_path)

    assert b"<script>" not in b"".join(file.path.read_bytes() for file in found.dataset.files)


def long_text(arrow: pa.Table) -> pa.Table:
    return with_column("status_detail", lambda values: ["x" * 50_000_000] * len(values))(arrow)


def many_metadata(arrow: pa.Table) -> pa.Table:
    return arrow.replace_schema_metadata({f"k{number}": "v" * 1000 for number in range(400)})


def extension(arrow: pa.Table) -> pa.Table:
    return arrow.set_column(0, "run_id", pa.ExtensionArray.from_storage(pa.json_(), arrow.column(0).combine_chunks()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (long_text, "a text in status_detail has 50000000 bytes"),
        (many_metadata, "more metadata"),
        (lambda arrow: arrow.drop_columns(["model"]), "not those of the schema"),
        (extension, "not those of the schema"),
        (lambda arrow: arrow.set_column(0, "run_id", arrow.column(0).dictionary_encode()), "not those of the schema"),
        (with_column("run_id", each(lambda text: text.upper() + "é")), "form of this column"),
        (with_column("configuration", each(lambda _: "[" * 5000)), "no plain JSON"),
        (with_column("configuration", each(lambda _: '{"a":NaN}')), "no plain JSON"),
        (with_column("configuration", each(lambda _: '{"a":"\\u202e"}')), "U\\+202E"),
        (with_column("configuration", each(lambda _: '{"a":1e999}')), "larger than any number"),
        (with_column("configuration", each(lambda _: f'{{"a":{10**30}}}')), "whole number has 31 digits"),
        (with_column("configuration", each(lambda _: '{"a":' + "[" * 40 + "]" * 40 + "}")), "nested more than 32 deep"),
        (with_column("configuration", each(lambda _: '{"hostname":"node17"}')), "tells whose machine it comes from"),
        (with_column("status_detail", lambda values: ["in /home/bob/x"] * len(values)), "tells whose machine"),
        (with_column("prompts", each(lambda _: "bob@acme.example")), "tells whose machine"),
        (with_column("status", each(lambda _: "fine")), "'fine' is none of"),
        (with_column("energy_j", each(lambda _: float("nan"))), "infinite or not a number"),
    ],
)
def test_a_table_that_no_bundle_holds_is_refused_and_says_why(
    good: bytes, tmp_path: Path, change: Change, why: str
) -> None:
    with pytest.raises(CorruptFile, match=why):
        opened(rebuilt(good, {Table.RUNS: change}), tmp_path, decode_here)


def test_a_row_group_that_inflates_is_refused_before_it_is_read(good: bytes, tmp_path: Path) -> None:
    rows = 1_048_577
    arrow = pa.Table.from_arrays(
        [pa.repeat(column[0], rows).cast(column.type) for column in tables_of(good)[Table.READINGS].columns],
        schema=tables_of(good)[Table.READINGS].schema,
    )
    changed = rebuilt(good, {Table.READINGS: lambda _: arrow}, row_group_size=rows)
    assert len(changed) < 1_000_000, "a million rows in less than a megabyte"

    with pytest.raises(CorruptFile, match="a row group is larger than any bundle's"):
        opened(changed, tmp_path)


def test_graphs_that_inflate_are_refused(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_MOST_GRAPH_BYTES", 100)

    with pytest.raises(CorruptFile, match="graphs: they take more than 100 bytes"):
        opened(good, tmp_path, decode_here)


def test_the_child_is_told_no_secrets(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    package.mkdir()
    (package / "sitecustomize.py").write_text("import os; assert 'HF_TOKEN' not in os.environ or os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    assert opened(good, tmp_path).bundle.lab == "green-lab"


def test_the_reader_may_not_take_all_the_memory(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child with almost no memory stands for a file that makes the reader ask for more than there is."""
    package = tmp_path / "site"
    package.mkdir()
    (package / "sitecustomize.py").write_text("import resource; resource.setrlimit(resource.RLIMIT_AS, (2**27, 2**27))")
    monkeypatch.setenv("PYTHONPATH", str(package))

    with pytest.raises(CorruptFile, match="ran out of memory or time, or crashed"):
        opened(good, tmp_path)


def test_the_child_gives_up_its_rights_before_it_looks_at_a_file(tmp_path: Path) -> None:
    code = (
        "import resource\nfrom harness.dataset.contributions import decoding\ndecoding._give_up_rights()\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_AS)\nassert soft == hard <= 4 * 1024**3\n"
        "try:\n    bytearray(5 * 1024**3)\nexcept MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout == "refused\n", done.stderr


def test_a_child_that_never_answers_is_given_up(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PATIENCE_S", 0.001)

    with pytest.raises(CorruptFile, match="took longer"):
        opened(good, tmp_path)


@pytest.mark.parametrize("decode", [decode_apart, decode_here], ids=["apart", "here"])
def test_bytes_that_are_no_parquet_are_refused(tmp_path: Path, good: bytes, decode: decoding.Decode) -> None:
    workplace = tmp_path / "workplace"
    (workplace / "given").mkdir(parents=True)
    (workplace / "bundle.json").write_bytes(members_of(good)["bundle.json"])
    (workplace / "given" / "runs.parquet").write_bytes(b"PAR1" + b"\xff" * 100 + b"\x40\0\0\0PAR1")

    with pytest.raises(Undecodable, match="runs: "):
        decode(workplace)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bundle.zip")

    with pytest.raises(CorruptFile, match="no regular file"):
        open_bundle(tmp_path / "bundle.zip", tmp_path, decode_here)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        open_bundle(tmp_path / "bundle.zip", tmp_path, decode_here)


def test_the_name_of_a_file_commands_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2J.zip").write_bytes(b"x" * 100)

    with pytest.raises(CorruptFile) as error:
        open_bundle(tmp_path / "\x1b[2J.zip", tmp_path, decode_here)
    assert "\x1b" not in str(error.value)


def test_parquet_written_by_others_is_read_as_well(good: bytes, tmp_path: Path) -> None:
    """Other versions of the writer make other bytes of the same rows."""
    changed = rebuilt(
        good,
        {Table.KERNELS: lambda arrow: arrow},
        data_page_version="2.0",
        use_dictionary=False,
        write_statistics=False,
    )
    assert changed != good

    assert opened(changed, tmp_path).dataset.table(Table.KERNELS).num_rows == 16
