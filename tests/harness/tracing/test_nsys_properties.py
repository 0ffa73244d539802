"""Whatever way ranges cross, rows are ordered and bytes are wrong, the answer is that of looking at everything."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import CorruptFile, HarnessError
from harness.tracing.kineto_summary import collective_groups, stream_times, times_by_kind
from harness.tracing.launches import launches_of
from harness.tracing.nsys import main
from harness.tracing.nsys_export import NsysProcess, read_export
from harness.tracing.nsys_places import placed, times_by_place, unplaced_groups
from tests.harness.tracing.nsys_examples import EARLY, RECENT, HandMade, global_tid
from tests.harness.tracing.test_nsys_export import a_run

THREADS = (7, 8)
names = st.sampled_from(["run:a", "phase:prefill", "phase:decode", "step:1", "step:2", "module:m.0", "other"])
ranges = st.tuples(names, st.integers(0, 40), st.none() | st.integers(0, 30), st.sampled_from(THREADS))
calls = st.tuples(st.integers(0, 40), st.integers(0, 10), st.sampled_from(THREADS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nsys")


def innermost(drawn: list[Any], prefix: str, at: int, length: int, thread: int) -> set[str]:
    """Names of the latest-begun ranges around a call; several, if they begin and end together."""
    around = [
        (start, -(10_000 if long is None else start + long), name)
        for name, start, long, tid in drawn
        if tid == thread
        and name.startswith(prefix)
        and start <= at
        and at + length <= (10_000 if long is None else start + long)
    ]
    best = max((start, end) for start, end, _ in around) if around else None
    return {name.removeprefix(prefix) for start, end, name in around if (start, end) == best}


@given(st.lists(ranges, max_size=20), st.lists(calls, min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_the_place_is_the_innermost_of_all_ranges_around_the_call(
    folder: Path, drawn: list[Any], launched: list[Any], rng: random.Random
) -> None:
    made = HandMade(rng.choice([RECENT, EARLY]))
    made.range("run:always", -1, None, tid=THREADS[0])
    made.launched("always placed", 1_000, call_at=9_000, start=9_100, length=1, tid=THREADS[0])
    for name, start, length, thread in drawn:
        made.range(name, start, length, tid=thread, registered=rng.random() < 0.5)
    for correlation, (at, length, thread) in enumerate(launched, 1):
        made.call(correlation, at, length, tid=thread)
        made.kernel(f"k{correlation}", 500 + correlation, 1, correlation)
    rng.shuffle(made.rows)
    everything = [*drawn, ("run:always", -1, None, THREADS[0])]

    (process,) = made.read(folder).processes

    assert len(process.trace.kernels) == len(launched) + 1
    for kernel in process.trace.kernels[:-1]:
        at, length, thread = launched[int(kernel.name[1:]) - 1]
        for prefix in ("run:", "phase:", "step:"):
            found = [name.removeprefix(prefix) for name in kernel.ranges if name.startswith(prefix)][-1:]
            expected = innermost(everything, prefix, at, length, thread)
            assert set(found) <= expected
            assert bool(found) == bool(expected)
        assert (kernel.module is not None) == bool(innermost(everything, "module:", at, length, thread))


def processes_of(path: Path) -> tuple[NsysProcess, ...]:
    """None where the file is refused, with what and why, and what to do."""
    refused = ""
    try:
        return read_export(path, most_events=10_000).processes
    except HarnessError as error:
        refused = str(error)
    assert refused.count("\n") == 1
    return ()


def sum_up(path: Path) -> None:
    """All that is computed from an export; refusing it is the only way out."""
    for process in processes_of(path):
        trace = process.trace
        found = placed(trace)
        assert found.in_phase + sum(group.count for group in unplaced_groups(trace)) == found.kernels
        assert sum(time.launches for time in times_by_place(trace)) == found.kernels
        assert sum(time.kernels for time in times_by_kind(trace)) == found.kernels
        assert sum(len(launch.kernels) for launch in launches_of(trace)) == found.kernels
        assert sum(group.count for group in collective_groups(trace)) == found.collectives
        assert stream_times(trace)


@given(st.data())
@settings(max_examples=150)
def test_a_file_with_any_bytes_changed_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    content = bytearray(a_run(data.draw(st.sampled_from([RECENT, EARLY]))).write(folder / "run.sqlite").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = folder / "changed.sqlite"
    path.write_bytes(content)
    sum_up(path)


@given(st.binary(max_size=600))
def test_any_bytes_are_refused(folder: Path, content: bytes) -> None:
    path = folder / "any.sqlite"
    for begin in (b"", b"SQLite format 3\0"):
        path.write_bytes(begin + content)
        with pytest.raises(CorruptFile):
            read_export(path)


values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-2, 90)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.binary(max_size=8)
)


@given(st.data())
@settings(max_examples=150)
def test_a_file_with_any_values_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    made = a_run(RECENT)
    made.row("CUDA_GRAPH_NODE_EVENTS", start=1, end=2, globalTid=global_tid(), graphNodeId=4, originalGraphNodeId=None)
    made.device("MEMCPY", 10, 5, 1, bytes=4, copyKind=1)
    made.device("GRAPH_TRACE", 20, 5, 1, graphId=4)
    made.tables = {table: columns.replace(" NOT NULL", "") for table, columns in made.tables.items()}
    for _ in range(data.draw(st.integers(1, 3))):
        _, row = data.draw(st.sampled_from([each for each in made.rows if each[0] != "StringIds"]))
        row[data.draw(st.sampled_from(sorted(row)))] = data.draw(values)
    sum_up(made.write(folder / "values.sqlite"))


def test_the_sample_itself_is_read_whole(folder: Path) -> None:
    path = a_run().write(folder / "sample.sqlite")
    (process,) = read_export(path).processes

    assert placed(process.trace).in_phase == 6
    sum_up(path)
    assert main([str(path), "--json"]) == 0
