"""Lengths of real requests: what ships, and any CSV file."""

import gzip
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.campaign import traces
from harness.campaign.traces import SHIPPED, LengthPair, Trace, load_trace, read_trace, write_table
from harness.errors import CannotWrite, UsageError

SOURCE = Path(__file__).resolve().parents[3] / "../shared/data/azure-llm-traces/data"


def pairs(trace: Trace) -> list[tuple[int, int, int]]:
    return [(pair.prompt_tokens, pair.output_tokens, pair.requests) for pair in trace.pairs]


@pytest.mark.parametrize(
    ("name", "requests", "different", "longest"),
    [("azure-2023-conversation", 19_366, 14_027, (14_050, 1000)), ("azure-2023-code", 8_819, 7_981, (7_437, 1899))],
)
def test_a_shipped_trace_holds_every_request_of_its_source(
    name: str, requests: int, different: int, longest: tuple[int, int]
) -> None:
    trace = load_trace(name)
    assert (trace.requests, len(trace.pairs), trace.bad_rows) == (requests, different, 0)
    assert (max(p.prompt_tokens for p in trace.pairs), max(p.output_tokens for p in trace.pairs)) == longest


def test_the_pooled_trace_is_conversation_and_code_as_recorded() -> None:
    assert load_trace("azure-2023").requests == 19_366 + 8_819


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("azure-2023-conversation", "AzureLLMInferenceTrace_conv.csv.gz"),
        ("azure-2023-code", "AzureLLMInferenceTrace_code.csv"),
    ],
)
def test_the_joint_distribution_is_that_of_the_source(name: str, file: str) -> None:
    if not (SOURCE / file).exists():
        pytest.skip(f"{file} is not here")
    source = load_trace(str(SOURCE / file))
    assert source.pairs == load_trace(name).pairs
    assert (source.prompt_column, source.output_column) == ("ContextTokens", "GeneratedTokens")


def test_the_shipped_tables_are_small_and_say_where_they_come_from() -> None:
    folder = Path(traces.__file__).parents[1] / "data"
    names = {part for parts in SHIPPED.values() for part in parts}
    assert sum((folder / f"{name}.csv.gz").stat().st_size for name in names) < 150_000
    assert "CC BY 4.0" in (folder / "azure-2023.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,8,3\n2023-11-16,8,3\n2023-11-16,5,2\n",
        "prompt_tokens;output_tokens\n8;3\n8;3\n5;2\n",
        "id\tInput Length\tOutput Length\na\t8\t3\nb\t8\t3\nc\t5\t2\n",
        "\ufeffprompt,output\n8,3\n8.0,3.\n5,2\n",
        "id,isl,osl\n1,8,3\n2,8,3\n3,5,2\n",
        "when,a,b\nx,8,3\ny,8,3\nz,5,2\n",
        "8,3\n8,3\n5,2\n",
        "output,input\n3,8\n3,8\n2,5\n",
        "num_prefill_tokens,num_decode_tokens\r\n8,3\r\n8,3\r\n\r\n5,2\r\n",
        "prompt_tokens,output_tokens,requests\n8,3,2\n5,2,1\n",
    ],
)
def test_two_columns_of_lengths_are_found(text: str) -> None:
    assert pairs(read_trace(io.StringIO(text, newline=""), "x.csv")) == [(5, 2, 1), (8, 3, 2)]


def test_the_columns_taken_are_named() -> None:
    trace = read_trace(io.StringIO("when,a,b\nx,8,3\n"), "x.csv")
    assert (trace.prompt_column, trace.output_column) == ("a", "b")
    trace = read_trace(io.StringIO("8,3\n5,2\n"), "x.csv")
    assert (trace.prompt_column, trace.output_column) == ("column 1", "column 2")


def test_bad_rows_are_counted_and_not_used() -> None:
    text = "prompt,output\n8,3\n0,3\n8,0\n-1,3\n8\nnan,3\n8.5,3\n99999999,3\n5,2\n"
    trace = read_trace(io.StringIO(text), "x.csv")
    assert pairs(trace) == [(5, 2, 1), (8, 3, 1)]
    assert trace.bad_rows == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\nx,y\n", "no two columns.*'a', 'b'"),
        ("prompt\n5\n", "no two columns.*'prompt'"),
        ("prompt,output\n0,0\nx,y\n", "none of the 2 rows"),
        ("prompt,output\n", "none of the 0 rows"),
        ('prompt,output\n"5,2\n' + "x" * 200_000, "no CSV file"),
        ("5" * 1_000_001, "a line of over"),
    ],
)
def test_a_file_without_lengths_is_an_error_that_says_what_is_missing(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        read_trace(io.StringIO(text), "x.csv")


def test_a_trace_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match="over 100 characters"):
        read_trace(io.StringIO("prompt,output\n" + "8,3\n" * 30), "x.csv")
    monkeypatch.setattr(traces, "MAX_ROWS", 10)
    with pytest.raises(UsageError, match="more than 10 rows"):
        read_trace(io.StringIO("prompt,output\n" + "8,3\n" * 11), "x.csv")


@given(text=st.text(st.sampled_from('0123456789,;\t\n\r".abpromtuinx-\x00'), max_size=200))
def test_any_text_is_a_trace_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert read_trace(io.StringIO(text, newline=""), "x.csv").requests >= 1


@given(content=st.binary(max_size=200), zipped=st.booleans())
def test_any_file_is_a_trace_or_a_usage_error(
    content: bytes, zipped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "junk.csv"
    file.write_bytes(b"\x1f\x8b" + content if zipped else content)
    with suppress(UsageError):
        assert load_trace(str(file)).requests >= 1


@given(st.dictionaries(st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)), st.integers(1, 10**6), min_size=1))
def test_a_written_table_reads_back_as_the_same_pairs(counts: dict[tuple[int, int], int]) -> None:
    made = tuple(LengthPair(prompt_tokens=p, output_tokens=o, requests=n) for (p, o), n in sorted(counts.items()))
    text = "prompt_tokens,output_tokens,requests\n" + "".join(f"{p},{o},{n}\n" for (p, o), n in counts.items())
    assert read_trace(io.StringIO(text), "x.csv").pairs == made


def test_a_table_is_built_the_same_way_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source.csv"
    source.write_text("ContextTokens,GeneratedTokens\n8,3\n8,3\n5,2\n")
    for name in ("one.csv.gz", "two.csv.gz"):
        assert traces._main([str(source), str(tmp_path / name)]) == 0
    assert "3 requests, 2 pairs" in capsys.readouterr().out
    assert (tmp_path / "one.csv.gz").read_bytes() == (tmp_path / "two.csv.gz").read_bytes()
    assert load_trace(str(tmp_path / "one.csv.gz")).pairs == load_trace(str(source)).pairs


def test_a_table_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="cannot be written"):
        write_table(load_trace("azure-2023-code"), tmp_path / "no" / "folder.csv.gz")
    assert traces._main(["azure-2023-code"]) == 2


@pytest.mark.parametrize("name", ["missing.csv", "azure-2024", ".", "null\0byte"])
def test_a_trace_that_cannot_be_read_is_an_error_naming_those_that_ship(name: str) -> None:
    with pytest.raises(UsageError, match="azure-2023-conversation"):
        load_trace(name)


def test_a_gzip_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"prompt,output\n" + b"8,3\n5,7\n" * 1000)
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-10])
    with pytest.raises(UsageError, match=r"cut\.csv\.gz"):
        load_trace(str(tmp_path / "cut.csv.gz"))
