"""Any table by a mapping: units, repeats, what is left out and why; and files and mappings that nobody has checked."""

import math
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dataset.importers import table
from harness.dataset.importers.account import Account
from harness.dataset.importers.importing import ImportedBatch
from harness.dataset.importers.table_example import EXAMPLE
from harness.dataset.importers.table_mapping import parse_mapping
from harness.dataset.importers.table_values import BadCell, Value, typed, units_of, value_of
from harness.dataset.schema import Table, columns_of
from harness.errors import CorruptFile, DatasetError, UsageError
from tests.harness.dataset.importers.aiconfigurator_examples import rejected

HEAD = """
[source]
source = "s"
title = "t"
measured = "m"
[environment]
meter = "y"
"""
RUNS = """
[runs]
gpu = { column = "gpu" }
n_gpus = 1
batch_size = { column = "batch" }
energy_j = { column = "energy", unit = "J" }
"""
KERNELS = """
[runs]
gpu = "NVIDIA H200"
n_gpus = 1
runtime = "vllm"
[kernels]
kind = "gemm"
op = "gemm"
dtype = "bfloat16"
shape = { m = { column = "m" }, n = { column = "n" }, k = 64 }
variant = { library = { column = "lib" } }
duration_s = { column = "us", unit = "us" }
energy_j = { column = "power", unit = "W", times = "us", times_unit = "us" }
"""
COLUMNS = {column.name: column for column in columns_of(Table.RUNS)}


def batch_of(path: Path, mapping: str) -> ImportedBatch:
    (batch,) = table.TableImporter(mapping=parse_mapping(HEAD + mapping)).read(path)
    return batch


def rows_in(batch: ImportedBatch, name: str) -> list[dict[str, object]]:
    assert batch.tables is not None
    rows: list[dict[str, object]] = getattr(batch.tables, name).to_pylist()
    return rows


def csv_of(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def test_repeats_are_readings_and_the_run_has_their_median(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "gpu,batch,energy\nH200 ,8,10\nNVIDIA H200,8,14\nNVIDIA H200,8,11\nNVIDIA H200,16,30\n")

    batch = batch_of(path, RUNS.replace('{ column = "gpu" }', '"NVIDIA H200"'))

    first, second = rows_in(batch, "runs")
    assert (first["batch_size"], first["energy_j"], first["trials"]) == (8, 11.0, 3)
    assert (second["batch_size"], second["energy_j"], second["energy_ci95_j"]) == (16, 30.0, None)
    assert [row["energy_j"] for row in rows_in(batch, "readings")] == [10.0, 14.0, 11.0, 30.0]
    assert batch.account == Account(rows_in=4, rows_kept=4)


def test_each_row_of_kernels_is_one_and_energy_may_be_power_times_time(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "m,n,lib,us,power\n1,2,a,50,400\n1,2,a,60,\n3,2,b,70,100\n")

    batch = batch_of(path, KERNELS)

    kernels, energies = rows_in(batch, "kernels"), rows_in(batch, "kernel_energies")
    assert [row["shape"] for row in kernels] == ['{"m":1,"n":2,"k":64}'] * 2 + ['{"m":3,"n":2,"k":64}']
    assert kernels[1]["kernel_id"] == f"{kernels[0]['kernel_id']}-2"
    assert kernels[2]["variant"] == '{"library":"b"}'
    assert [row["duration_s"] for row in kernels] == [50e-6, 60e-6, 70e-6]
    assert [row["energy_j"] for row in energies] == [pytest.approx(0.02), pytest.approx(0.007)]
    (run,) = rows_in(batch, "runs")
    assert (run["workload"], run["runtime"]) == ("kernels", "vllm")


def test_a_parquet_file_gives_the_same_as_a_csv_file(tmp_path: Path) -> None:
    rows = {"gpu": ["NVIDIA H200"] * 2, "batch": [8, 16], "energy": [10.0, 20.5]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    path = csv_of(tmp_path, "gpu,batch,energy\nNVIDIA H200,8,10.0\nNVIDIA H200,16,20.5\n")

    first, second = (rows_in(batch_of(each, RUNS), "runs") for each in (tmp_path / "rows.parquet", path))

    assert first == second


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("NVIDIA H200,8,10", table.TWIN),
        ("v900,8,10", table.UNKNOWN_GPU),
        ("NVIDIA H200,8,", table.NOTHING_MEASURED),
        ("NVIDIA H200,8,nan", table.NOTHING_MEASURED),
        ("NVIDIA H200,8", table.RAGGED),
        (",8,10", "gpu: not given"),
        ("NVIDIA H200,8.5,10", "batch_size: not a whole number"),
        ("NVIDIA H200,x,10", "batch_size: not a number"),
        ("NVIDIA H200,-1,10", "batch_size: less than 0"),
        ("NVIDIA H200,8,inf", "energy_j: not a finite number"),
        ("NVIDIA H200,8,0", "energy_j: 0 or less"),
        ("NVIDIA H200,8,-3", "energy_j: 0 or less"),
    ],
)
def test_a_bad_row_is_left_out_by_a_rule_that_names_its_line(tmp_path: Path, row: str, rule: str) -> None:
    path = csv_of(tmp_path, f"gpu,batch,energy\nNVIDIA H200,8,10\n{row}\n")

    account = batch_of(path, RUNS).account

    assert rejected(account) == {rule: 1}
    assert account.rejections[0].example == "rows.csv, line 3"


@pytest.mark.parametrize(
    ("test", "left"),
    [
        ('equals = "w"', 2),
        ('not_equals = "w"', 1),
        ("at_least = 8", 3),
        ("at_most = 8", 3),
        ("is_missing = true", 2),
    ],
)
def test_a_filter_leaves_rows_out_for_its_reason(tmp_path: Path, test: str, left: int) -> None:
    path = csv_of(tmp_path, "gpu,batch,energy,kind\nNVIDIA H200,7,10,w\nNVIDIA H200,8,11,\nNVIDIA H200,9,12,k\n")
    column = "batch" if "at_" in test else "kind"
    mapping = f'{RUNS}\n[[filters]]\nrule = "why"\ncolumn = "{column}"\n{test}\n'

    account = batch_of(path, mapping).account

    expected = {'equals = "w"': 1, 'not_equals = "w"': 2, "at_least = 8": 2, "at_most = 8": 2, "is_missing = true": 1}
    assert rejected(account) == {"why": expected[test]}


def test_words_of_the_file_become_ours_and_others_reject_their_row(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "gpu,batch,energy\nbig,8,10\nsmall,8,11\n")
    mapping = RUNS.replace('column = "gpu"', 'column = "gpu", values = { big = "NVIDIA H200" }')

    batch = batch_of(path, mapping)

    assert [row["gpu"] for row in rows_in(batch, "runs")] == ["NVIDIA H200"]
    assert rejected(batch.account) == {"gpu: a word the mapping does not have": 1}


def test_what_stands_for_unknown_is_null(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "gpu,batch,energy,w\nNVIDIA H200,8,10,0\n")
    mapping = RUNS + 'mean_power_w = { column = "w", unit = "W", missing = ["0"] }\n'

    assert rows_in(batch_of(path, mapping), "runs")[0]["mean_power_w"] is None


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ("[runs", "no valid TOML"),
        (HEAD + RUNS.replace("batch_size", "batchsize"), "Did you mean: batch_size"),
        (HEAD + RUNS.replace("unit =", "units ="), "Did you mean: unit"),
        (HEAD + RUNS.replace('unit = "J"', 'unit = "ms"'), "J, mJ"),
        (HEAD + RUNS.replace(', unit = "J"', ""), "Say what the numbers are in"),
        (HEAD + RUNS.replace('column = "batch"', 'column = "batch", unit = "J"'), "without a unit"),
        (HEAD + RUNS.replace("n_gpus = 1", 'n_gpus = "one"'), "not a number"),
        (HEAD + RUNS.replace("n_gpus = 1", "n_gpus = 1.5"), "not a whole number"),
        (HEAD + RUNS.replace("n_gpus = 1", ""), "does not say n_gpus"),
        (HEAD + RUNS.replace("energy_j", "host_energy_j").replace("host_energy_j", "run_id"), "no key 'run_id'"),
        (HEAD + RUNS + 'workload = "dream"\n', "not one of batch, server, kernels"),
        (HEAD + RUNS + '[phases.warmup]\nenergy_j = { column = "e", unit = "J" }', "prefill, decode"),
        (HEAD + RUNS + KERNELS[KERNELS.index("[kernels]") :], "a kernel or a run, not both"),
        (HEAD + KERNELS.replace('dtype = "bfloat16"\n', ""), "does not say dtype"),
        (HEAD + RUNS + '[[filters]]\nrule = "r"\ncolumn = "c"\n', "one of equals"),
        (HEAD + RUNS + '[[filters]]\nrule = "r"\ncolumn = "c"\nat_least = "x"\n', "not of the right kind"),
        (HEAD.replace('title = "t"\n', "") + RUNS, "does not say title"),
        (HEAD.replace('meter = "y"\n', "") + RUNS, "does not say meter"),
        (HEAD + RUNS.replace('energy_j = { column = "energy", unit = "J" }\n', ""), "nothing that was measured"),
        (HEAD + RUNS + "[extra]\n", "no key 'extra'"),
    ],
)
def test_a_wrong_mapping_is_an_error_that_names_what_would_be_right(mapping: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_mapping(mapping)


def test_the_example_is_a_mapping() -> None:
    mapping = parse_mapping(EXAMPLE)

    assert mapping.source.licence == "CC-BY-4.0"
    assert [each.rule for each in mapping.filters] == ["a warm-up pass"]


def test_the_kernels_of_the_example_are_one_too() -> None:
    lines = EXAMPLE.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("# [kernels]"))
    kernels = [line.removeprefix("# ") for line in lines[start:] if line.startswith("# ")]

    mapping = parse_mapping(HEAD + KERNELS[: KERNELS.index("[kernels]")] + "\n".join(kernels))

    assert mapping.kernels is not None
    assert [target.column.name for target in mapping.kernels.shape] == ["m", "n", "k"]


def test_a_column_the_file_lacks_is_an_error_that_names_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'batch'.*\n.*'gpu', 'energy'"):
        batch_of(csv_of(tmp_path, "gpu,energy\nNVIDIA H200,1\n"), RUNS)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("rows.csv", b"gpu,batch,energy\n\xff\xfe,1,2\n", CorruptFile),
        ("rows.csv", b'gpu,batch,energy\n"x,1,2\n', CorruptFile),
        ("rows.csv", b"gpu,gpu,batch,energy\n", UsageError),
        ("rows.csv", b"", UsageError),
        ("rows.parquet", b"PAR1", CorruptFile),
        ("rows.xlsx", b"", UsageError),
    ],
)
def test_a_file_that_cannot_be_read_is_an_expected_error(
    tmp_path: Path, name: str, content: bytes, error: type[Exception]
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(error):
        batch_of(tmp_path / name, RUNS)


def test_a_file_that_is_not_there_is_an_expected_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        batch_of(tmp_path / "none.csv", RUNS)


@given(
    text=st.text(max_size=200)
    | st.sampled_from([HEAD, RUNS, KERNELS, EXAMPLE]).flatmap(
        lambda text: st.integers(0, len(text)).map(lambda cut: text[:cut])
    )
)
@settings(max_examples=60)
def test_whatever_a_mapping_holds_it_is_read_or_refused_in_words(text: str) -> None:
    with suppress(UsageError):
        parse_mapping(text)


@given(
    cell=st.none() | st.text(max_size=30) | st.floats() | st.integers() | st.booleans(),
    name=st.sampled_from(sorted(COLUMNS)),
)
@settings(max_examples=200)
def test_whatever_a_cell_holds_it_becomes_a_value_of_the_column_or_a_rule(
    cell: str | float | bool | None, name: str
) -> None:
    column = COLUMNS[name]
    with suppress(BadCell):
        value = value_of(Value(column="c"), column, {"c": cell})
        assert value is None or isinstance(value, column.scalar)
        assert not isinstance(value, float) or math.isfinite(value)


@given(number=st.floats(min_value=1e-9, max_value=1e9), unit=st.sampled_from(sorted(units_of("duration_s"))))
def test_a_unit_scales_and_nothing_else(number: float, unit: str) -> None:
    column = COLUMNS["duration_s"]
    factor = units_of("duration_s")[unit]

    value = value_of(Value(column="c", factor=factor), column, {"c": repr(number)})

    assert value == pytest.approx(number * factor)


def test_a_constant_is_checked_as_a_cell_is() -> None:
    with pytest.raises(BadCell, match="not a whole number"):
        typed(1.5, COLUMNS["n_gpus"])


@pytest.mark.parametrize("line", ["n_gpus = -1", "n_gpus = 1\nduration_s = 0"])
def test_a_constant_that_no_measurement_can_have_is_refused_with_the_mapping(line: str) -> None:
    with pytest.raises(UsageError, match="less"):
        parse_mapping(HEAD + RUNS.replace("n_gpus = 1", line))


def test_power_in_milliwatts_times_minutes_is_exact() -> None:
    factor = units_of("power_w")["mW"] * units_of("duration_s")["min"]

    value = value_of(Value(column="p", times="t", factor=factor), COLUMNS["energy_j"], {"p": 500.0, "t": 2.0})

    assert value == pytest.approx(0.5 * 120)


def test_a_long_text_in_every_row_of_a_small_file_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    rows = 50_000
    names = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 1_000_000]))
    columns = {"gpu": names, "batch": pa.array([1] * rows), "energy": pa.array([1.0] * rows)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", store_schema=False)

    with pytest.raises(UsageError, match="more than 131,072 characters"):
        batch_of(tmp_path / "rows.parquet", RUNS)
    assert pa.default_memory_pool().max_memory() < 1e9
