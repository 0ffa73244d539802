"""Trace files are untrusted: what is damaged, false or too large is refused with a reason."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CorruptFile, UsageError
from harness.tracing.kineto import read_trace
from tests.harness.tracing.kineto_examples import HandMade

MIB = 1024**2


def small_trace() -> HandMade:
    trace = HandMade()
    trace.op("aten::mm", 0, 100, id=1)
    trace.launched("gemm", 1, call_at=50, start=60, length=5)
    return trace


@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_is_read_packed_or_not_whatever_its_name(tmp_path: Path, packed: bool) -> None:
    path = small_trace().write(tmp_path, packed=packed)
    renamed = path.rename(tmp_path / "trace.txt")

    assert [kernel.name for kernel in read_trace(renamed).kernels] == ["gemm"]


def test_a_list_of_events_alone_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(small_trace().events))

    assert len(read_trace(path).kernels) == 1


def test_a_trace_of_the_host_alone_has_no_kernels(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)

    found = trace.read(tmp_path)

    assert found.kernels == ()
    assert [operator.name for operator in found.operators] == ["aten::mm"]


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (64 * MIB), compresslevel=1))
    assert path.stat().st_size < MIB

    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile, match=r"more than 1 MiB of JSON.*\n.*--largest-mib"):
            read_trace(path, largest_json_bytes=MIB)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * MIB


def test_a_large_plain_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with path.open("wb") as file:
        file.truncate(600 * MIB)  # sparse: takes no room

    with pytest.raises(CorruptFile, match="more than 512 MiB of JSON"):
        read_trace(path)


def test_a_file_of_brackets_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{"traceEvents": [' + "[]," * MIB + "[]]}")

    with pytest.raises(CorruptFile, match="hardly anything but commas and brackets"):
        read_trace(path)


def test_a_missing_file_and_a_folder_are_mistakes_of_the_command(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(UsageError, match="There is no file"):
            read_trace(path)


def contents() -> dict[str, bytes]:
    packed = gzip.compress(small_trace().text().encode())
    return {
        "empty": b"",
        "text": b"no JSON",
        "cut JSON": small_trace().text().encode()[:-30],
        "cut gzip": packed[:-20],
        "damaged gzip": packed[:30] + b"\xff\xff\xff" + packed[33:],
        "wrong check sum": packed[:-8] + b"\0\0\0\0" + packed[-4:],
        "not UTF-8": b'{"traceEvents": [], "x": "\xff\xfe"}',
        "NaN": b'{"traceEvents": [], "x": NaN}',
        "Infinity": b'{"traceEvents": [], "x": -Infinity}',
        "a number": b"3",
        "null": b"null",
        "no events": b'{"schemaVersion": 1}',
        "events of the wrong kind": b'{"traceEvents": {"a": 1}}',
        "an event that is none": b'{"traceEvents": [3]}',
        "an event that is null": b'{"traceEvents": [null]}',
        "an event without a phase": b'{"traceEvents": [{"name": "x"}]}',
        "huge exponent": b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1e999999999, "dur": 1}]}',
        "huge number": b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": ' + b"9" * 5000 + b"}]}",
        "deep": b'{"traceEvents": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        "world size": b'{"traceEvents": [], "distributedInfo": {"world_size": "two"}}',
        "distributedInfo": b'{"traceEvents": [], "distributedInfo": 2}',
    }


@pytest.mark.parametrize("content", contents().values(), ids=contents().keys())
def test_what_is_no_trace_is_refused_with_the_file_the_reason_and_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)

    with pytest.raises(CorruptFile, match=r"(?s)broken\.json (is|holds) .*\nRecord"):
        read_trace(path)


WRONG: dict[str, tuple[int, dict[str, Any], str]] = {
    "kernel without time": (2, {"ts": None}, "its ts is no number"),
    "kernel of negative length": (2, {"dur": -1}, "its duration is negative"),
    "time as text": (2, {"ts": "60"}, "its ts is no number"),
    "time as truth": (2, {"ts": True}, "its ts is no number"),
    "time of another age": (2, {"ts": 10**17}, "its ts is out of range"),
    "correlation as text": (2, {"args": {"correlation": "1"}}, "its correlation is no whole number"),
    "correlation as truth": (2, {"args": {"correlation": True}}, "its correlation is no whole number"),
    "external id as fraction": (0, {"args": {"External id": 1.5}}, "its External id is no whole number"),
    "arguments as list": (2, {"args": []}, "its args is no object"),
    "grid as text": (2, {"args": {"grid": "1"}}, "its grid is no list of counts"),
    "negative bytes": (2, {"args": {"bytes": -4}}, "its bytes is no count"),
    "no thread": (0, {"tid": None}, "its process or thread is missing"),
    "name as number": (1, {"name": 7}, "its name is no text"),
    "call without time": (1, {"ts": []}, "its ts is no number"),
}


@pytest.mark.parametrize(("index", "change", "reason"), WRONG.values(), ids=WRONG.keys())
def test_a_damaged_event_is_named(tmp_path: Path, index: int, change: dict[str, Any], reason: str) -> None:
    trace = small_trace()
    trace.events[index] |= change

    with pytest.raises(CorruptFile, match=f"trace.json is damaged: {reason}, in event {index} "):
        trace.read(tmp_path)


def test_inputs_that_cannot_be_read_are_not_known(tmp_path: Path) -> None:
    trace = HandMade()
    sizes = [[2, 3], "x", [2, -3], [[2, 2], [3]], [2**40, 2**40], 5, [True]]
    trace.op("aten::odd", 0, 100, **{"Input Dims": sizes, "Input type": ["float", *["float"] * 5, 7]})
    trace.op("aten::none", 200, 100)

    odd, none = trace.read(tmp_path).operators

    assert odd.operands is not None
    assert [operand.shapes for operand in odd.operands] == [((2, 3),), *[()] * 6]
    assert odd.operands[6].dtype == ""
    assert none.operands is None
