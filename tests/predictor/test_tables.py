"""Tables of requests: what passes through, what is answered, what is refused."""

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from predictor.api import predict_table
from predictor.predict import main
from predictor.table_reading import BATCH_ROWS
from tests.predictor.fake_predictor import FakePredictor

HEADER = "request_id,model,gpu,n_gpus,batch_size,prompt_tokens,output_tokens"
GOOD = "007,gpt2,H200,1,8,512,128"


def written(tmp_path: Path, text: str, name: str = "requests.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def answered(tmp_path: Path, text: str, *flags: str, out: str = "out.csv", code: int = 0) -> Path:
    path = tmp_path / out
    arguments = ["--requests", str(written(tmp_path, text)), "--out", str(path), *flags]
    assert main(arguments, predictor=FakePredictor()) == code
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *flags: str) -> str:
    out = tmp_path / "refused.csv"
    code = main(["--requests", str(written(tmp_path, text)), "--out", str(out), *flags], predictor=FakePredictor())
    assert code == 2
    assert not out.exists()
    assert not list(tmp_path.glob("*.tmp"))
    return capsys.readouterr().err


def test_rows_keep_their_order_and_every_other_column_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'{HEADER},note\r\n{GOOD},"a, ""b""\nc"\r\n008,gpt2,H200,2,1,10,1, 1.50 \r\n'
    rows = rows_of(answered(tmp_path, "\ufeff" + text, "--intensity", "100"))

    assert list(rows[0])[:8] == [*HEADER.split(","), "note"]
    assert [row["request_id"] for row in rows] == ["007", "008"]
    assert [row["note"] for row in rows] == ['a, "b"\nc', " 1.50 "]
    assert float(rows[0]["energy_j"]) == pytest.approx(2 * (4.096 + 127 * 2.08))
    assert float(rows[1]["prefill_time_s"]) == pytest.approx(5e-6)
    assert (rows[0]["in_distribution"], rows[0]["warning"], rows[0]["error"]) == ("true", "", "")
    assert float(rows[0]["operational_gco2e"]) > 0
    assert rows[0]["embodied_gco2e"] == ""
    assert "2 rows: 2 answered (0 with a warning, 0 not in distribution), 0 without" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,gpt5,H200,1,8,512,128", "'gpt5' is not known offline"),
        ("1,gpt2,A100,1,8,512,128", "Say which: NVIDIA A100-SXM4-40GB, NVIDIA A100-SXM4-80GB"),
        ("1,gpt2,H2O0,1,8,512,128", "Closest: NVIDIA H200"),
        ("1,,H200,1,8,512,128", "model is missing"),
        ("1,gpt2,H200,1,8,,128", "prompt_tokens is missing"),
        ("1,gpt2,H200,1,8,NaN,128", "prompt_tokens is missing"),
        ("1,gpt2,H200,1,8,-5,128", "prompt_tokens: '-5' is not a whole number from 1"),
        ("1,gpt2,H200,1,8,5.5,128", "prompt_tokens: '5.5' is not a whole number from 1"),
        ("1,gpt2,H200,0,8,5,128", "n_gpus: '0' is not a whole number from 1"),
        ("1,gpt2,H200,1,8,inf,128", "prompt_tokens: 'inf' is not a number"),
        ("1,gpt2,H200,1,8,1e999,128", "prompt_tokens: '1e999' is not a finite number"),
        ("1,gpt2,H200,1,eight,5,x", "batch_size: 'eight' is not a number; output_tokens: 'x' is not a number"),
        ("1,gpt2,H200,1,2000,5,1", "needs more memory than NVIDIA H200 has. Take a smaller batch."),
        ("1,gpt2,H200,1,8,1024,2", "longer than the 1,024"),
        ("1,gpt2,H200", "the row has 3 cells, the header 7"),
        ("1,gpt2,H200,1,8,5,1,9", "the row has 8 cells, the header 7"),
    ],
)
def test_a_row_without_an_answer_says_why_and_the_others_are_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, said: str
) -> None:
    rows = rows_of(answered(tmp_path, f"{HEADER}\n{GOOD}\n{row}\n{GOOD}\n"))

    assert [bool(one["energy_j"]) for one in rows] == [True, False, True]
    assert said in rows[1]["error"]
    assert "\n" not in rows[1]["error"]
    assert [rows[0]["error"], rows[2]["error"]] == ["", ""]
    assert "1 without an answer" in (err := capsys.readouterr().err)
    assert "(first: row 2)" in err


def test_a_table_without_any_answer_is_written_and_ends_with_code_one(tmp_path: Path) -> None:
    rows = rows_of(answered(tmp_path, f"{HEADER}\n1,gpt5,H200,1,8,512,128\n", code=1))

    assert "not known offline" in rows[0]["error"]


def test_errors_that_differ_in_numbers_only_are_counted_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered(tmp_path, f"{HEADER}\n{GOOD}\n1,gpt2,H200,1,8,-1,1\n1,gpt2,H200,1,8,-2,1\n")

    assert "  2 × prompt_tokens: '-1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("true t yes Y on 1 TRUE 1.0", True),
        ("false f no N off 0 FALSE 0.0", False),
        ("NaN null - none", True),
    ],
)
def test_truths_are_read_in_all_their_spellings(tmp_path: Path, words: str, kept: bool) -> None:
    found = predict_table({**columns(len(words.split())), "kv_cache": words.split()}, predictor=(fake := Recorder()))

    assert found.column("error").null_count == found.num_rows
    assert {request.kv_cache for request in fake.requests} == {kept}


class Recorder(FakePredictor):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def predict(self, requests: Any) -> Any:
        self.requests += requests
        return super().predict(requests)


def columns(rows: int) -> dict[str, list[object]]:
    return {"model": ["gpt2"] * rows, "gpu": ["H200"] * rows, "prompt_tokens": [10] * rows, "output_tokens": [2] * rows}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("model,gpu,promt_tokens,output_tokens", "'promt_tokens' and none called prompt_tokens"),
        ("model,gpu,input_tokens,output_tokens", "'input_tokens' and none called prompt_tokens"),
        ("model,GPU,prompt_tokens,output_tokens", "'GPU' and none called gpu"),
        ("model,gpu,prompt_tokens,output_tokens,num_gpus", "'num_gpus' and none called n_gpus"),
        ("model,gpu,prompt_tokens,output_tokens,d-type", "'d-type' and none called dtype"),
        ("model,gpu,prompt_tokens", "has no column output_tokens"),
        ("model,gpu,gpu,prompt_tokens,output_tokens", "more than one column called gpu"),
        ("model;gpu;prompt_tokens;output_tokens", "not separated by commas"),
        ("model,gpu,prompt_tokens,output_tokens,energy_j", "columns energy_j, which are among those to be written"),
    ],
)
def test_a_header_that_may_mean_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, said: str
) -> None:
    assert said in refusal(tmp_path, capsys, f"{header}\ngpt2,H200,5,5,5\n")


def test_a_name_that_is_like_a_column_passes_through_beside_it(tmp_path: Path) -> None:
    header = "model,gpu,prompt_tokens,output_tokens,runtime,run_time"
    rows = rows_of(answered(tmp_path, f"{header}\ngpt2,H200,5,5,hf,3 h\n"))

    assert rows[0]["run_time"] == "3 h"
    assert rows[0]["error"] == ""


def test_columns_of_an_earlier_answer_are_replaced_only_where_it_is_said(tmp_path: Path) -> None:
    text = f"{HEADER},energy_j,mine\n{GOOD},1,2\n"
    rows = rows_of(answered(tmp_path, text, "--overwrite"))

    assert float(rows[0]["energy_j"]) > 100
    assert rows[0]["mine"] == "2"
    assert list(rows[0]).count("energy_j") == 1


def test_a_flag_gives_one_value_to_all_rows_and_never_contradicts_a_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "model,prompt_tokens,output_tokens\ngpt2,1000,1\n"
    rows = rows_of(answered(tmp_path, text, "--gpu", "H200", "--gpus", "4", "--batch", "8"))

    assert float(rows[0]["time_s"]) == pytest.approx(0.002)
    assert "Leave out one of them" in refusal(tmp_path, capsys, text, "--gpu", "H200", "--prompt", "3")
    assert "Say which" in refusal(tmp_path, capsys, text, "--gpu", "A100")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (f"{HEADER}\n", "has a header and no rows"),
        (f'{HEADER}\n"007,gpt2\n', "no intact csv file"),
        (f"{HEADER}\n007,gpt2\x00,H200,1,8,512,128\n", "cannot be printed"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    if "\x00" in text:
        rows = rows_of(answered(tmp_path, text, code=1))
        assert said in rows[0]["error"]
    else:
        assert said in refusal(tmp_path, capsys, text)


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\né".encode("latin-1"))
    (tmp_path / "fake.parquet").write_bytes(b"PAR1nonsense")
    (tmp_path / "a.xlsx").write_bytes(b"x")
    out = str(tmp_path / "out.csv")
    for name, said in (
        ("latin.csv", "not in UTF-8"),
        ("fake.parquet", "no intact parquet file"),
        ("a.xlsx", "neither .csv nor .parquet"),
        ("none.csv", "cannot be read: No such file"),
    ):
        assert main(["--requests", str(tmp_path / name), "--out", out], predictor=FakePredictor()) == 2
        assert said in capsys.readouterr().err


def test_a_place_where_nothing_can_be_written_is_said_before_anything_is_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path, f"{HEADER}\n{GOOD}\n"))
    fake = FakePredictor()
    for out, code in (("no/where.csv", 1), ("a.txt", 2), ("requests.csv", 2)):
        assert main(["--requests", path, "--out", str(tmp_path / out)], predictor=fake) == code
    assert main(["--requests", path], predictor=fake) == 2
    assert fake.calls == 0
    assert "--out FILE, or --json" in capsys.readouterr().err


def test_a_csv_becomes_typed_where_nothing_is_lost(tmp_path: Path) -> None:
    text = (
        "model,gpu,prompt_tokens,output_tokens,id,code,share,price,flag,gap,empty\n"
        "gpt2,H200,5,1,12,007,0.5,1.50,true,,\n"
        "gpt2,H200,6,1,13,008,-3,2.5,false,4,\n"
    )
    table = pq.read_table(answered(tmp_path, text, out="out.parquet"))

    assert table.column("id").to_pylist() == [12, 13]
    assert table.column("code").to_pylist() == ["007", "008"]
    assert table.column("share").to_pylist() == [0.5, -3.0]
    assert table.column("price").to_pylist() == ["1.50", "2.5"]
    assert table.column("flag").to_pylist() == [True, False]
    assert table.column("gap").to_pylist() == [None, 4]
    assert table.column("empty").to_pylist() == ["", ""]
    assert table.schema.field("id").type == pa.int64()


def test_parquet_passes_all_types_through(tmp_path: Path) -> None:
    source = pa.table(
        {
            **columns(2),
            "n_gpus": pa.array([2.0, None]),
            "gpu": pa.array(["H200", "H200"]).dictionary_encode(),
            "big": pa.array([2**62, 1], pa.uint64()),
            "when": pa.array([10**15, None], pa.timestamp("us")),
            "list": [[1, 2], []],
            "bytes": [b"\x00", b"x"],
            "nan": [float("nan"), 1.0],
        }
    )
    pq.write_table(source, tmp_path / "in.parquet")
    arguments = ["--requests", str(tmp_path / "in.parquet"), "--out", str(tmp_path / "out.parquet")]

    assert main(arguments, predictor=FakePredictor()) == 0
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(source.column_names).equals(source) is False  # NaN is never equal
    assert found.select([n for n in source.column_names if n != "nan"]).equals(source.drop_columns("nan"))
    assert found.column("time_s").to_pylist() == pytest.approx([5e-6 + 0.005, 1e-5 + 0.01])


def test_json_holds_what_json_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pa.table(
        {**columns(1), "nan": [float("nan")], "when": [datetime.date(2026, 1, 2)], "list": [[{"a": float("inf")}]]}
    )
    pq.write_table(source, tmp_path / "in.parquet")
    for out in ("out.json", "out.jsonl"):
        arguments = ["--requests", str(tmp_path / "in.parquet"), "--out", str(tmp_path / out)]
        assert main(arguments, predictor=FakePredictor()) == 0
    whole = json.loads((tmp_path / "out.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert whole == lines
    assert (whole[0]["nan"], whole[0]["when"], whole[0]["list"]) == (None, "2026-01-02", [{"a": None}])
    assert whole[0]["in_distribution"] is True
    capsys.readouterr()
    assert main(["--requests", str(tmp_path / "in.parquet"), "--json"], predictor=FakePredictor()) == 0
    assert json.loads(capsys.readouterr().out) == whole


def test_bytes_go_into_parquet_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({**columns(1), "raw": [b"x"]}), tmp_path / "in.parquet")
    arguments = ["--requests", str(tmp_path / "in.parquet"), "--out", str(tmp_path / "out.csv")]

    assert main(arguments, predictor=FakePredictor()) == 2
    assert "only Parquet can hold" in capsys.readouterr().err


def test_a_nested_request_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prompt_tokens holds list"):
        predict_table({**columns(1), "prompt_tokens": [[1]]}, predictor=FakePredictor())


def test_a_long_table_is_answered_in_batches_and_in_order(tmp_path: Path) -> None:
    rows = 2 * BATCH_ROWS + 3
    fake = FakePredictor()
    found = predict_table({**columns(rows), "prompt_tokens": [1 + i % 500 for i in range(rows)]}, predictor=fake)

    assert fake.calls == 3
    assert found.column("prefill_energy_j").to_pylist() == pytest.approx(
        [2e-3 * tokens for tokens in found.column("prompt_tokens").to_pylist()]
    )


def test_python_reads_files_too_and_adds_grams(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\n{GOOD}\n")
    found = predict_table(path, predictor=FakePredictor(), intensity_g_per_kwh=100, pue=1.0, dtype="fp16")

    assert found.column("request_id").to_pylist() == ["007"]
    assert found.column("operational_gco2e")[0].as_py() == pytest.approx(found.column("energy_j")[0].as_py() / 36_000)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_no_cell_whatsoever_stops_a_table_and_all_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    names = ["request_id", "gpu", "prompt_tokens", "output_tokens", "kv_cache"]
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    arguments = ["--requests", str(folder / "in.csv"), "--out", str(folder / "out.csv"), "--model", "gpt2"]
    code = main(arguments, predictor=FakePredictor())

    with (folder / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [tuple(row[name] for name in names) for row in found] == rows
    assert all(bool(row["error"]) != bool(row["energy_j"]) for row in found)
    assert code == (0 if any(row["energy_j"] for row in found) else 1)


@given(cells=st.lists(st.one_of(st.integers(-(10**20), 10**20).map(str), st.floats().map(str), TEXT), min_size=1))
def test_a_typed_column_says_what_its_text_said(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    folder = tmp_path_factory.mktemp("typed")
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["x", "prompt_tokens"], *([cell, "5"] for cell in cells)])
    path = folder / "in.csv"
    found = predict_table(path, predictor=FakePredictor(), model="gpt2", gpu="H200", output_tokens=1).column("x")

    texts = found.to_pylist()
    if pa.types.is_boolean(found.type):
        texts = [None if value is None else str(value) for value in texts]
        cells = [cell.capitalize() for cell in cells]
    elif pa.types.is_floating(found.type):
        cells = [cell if cell == "" else repr(float(cell)) for cell in cells]
    assert ["" if value is None else str(value) for value in texts] == cells
