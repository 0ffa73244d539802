"""Whatever a file holds, it is read or refused with a reason; what is read can be summed up."""

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import CorruptFile
from harness.tracing.kineto import main
from harness.tracing.kineto_events import parse
from harness.tracing.kineto_links import linked
from harness.tracing.kineto_summary import collective_groups, matching, stream_times, times_by_kind
from harness.tracing.launches import launches_of
from tests.harness.tracing.kineto_examples import HandMade

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=True) | st.integers(-3, 200)
words = st.sampled_from(["X", "kernel", "cpu_op", "nccl:all_reduce", "TensorList", "[0, 1]", "float", "Half", ""])
leaves = st.none() | st.booleans() | numbers | words | st.text(max_size=8)
OF_EVENTS = ["ph", "cat", "name", "pid", "tid", "ts", "dur", "args", "traceEvents", "distributedInfo", "world_size"]
OF_ARGUMENTS = ["correlation", "External id", "Input Dims", "Input type", "Collective name", "In msg nelems", "dtype"]
keys = st.sampled_from(OF_EVENTS + OF_ARGUMENTS)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6))


def sample() -> dict[str, Any]:
    """A trace with everything in it."""
    trace = HandMade(distributedInfo={"rank": 0, "world_size": 2})
    operands = {"Input Dims": [[4, 8], [8, 2]], "Input type": ["float", "float"], "Concrete Inputs": ["", "[0]"]}
    noted = {"Collective name": "_allgather_base", "In msg nelems": 10, "Out msg nelems": 20, "dtype": "Float"}
    trace.range("module:model.layers.1", 0, 500, id=1)
    trace.op("aten::mm", 10, 100, id=2, **operands)
    trace.call(7, 20, id=2)
    trace.kernel("gemm", 40, 5, 7, id=2, grid=[1, 2, 3], block=[32, 1, 1])
    trace.op("c10d::_allgather_base_", 200, 100, id=3)
    trace.op("record_param_comms", 210, 80, id=4, **noted)
    trace.range("nccl:_all_gather_base", 220, 60, id=5, **operands)
    trace.call(8, 230)
    trace.kernel("ncclDevKernel_AllGather_RING_LL", 250, 30, 8, 20, **{"Group size": 2}, **noted)
    trace.call(9, 400, name="cudaMemcpyAsync")
    trace.kernel("Memcpy HtoD", 410, 5, 9, category="gpu_memcpy", bytes=64)
    document: dict[str, Any] = json.loads(trace.text())
    return document


def sum_up(text: bytes) -> None:
    """All that is computed from a trace; refusing it is the only way out."""
    try:
        trace = linked(parse(text, "trace.json"), "trace.json")
    except CorruptFile:
        return
    found = matching(trace)
    assert found.with_operator + sum(group.count for group in found.unmatched) == found.kernels
    assert sum(time.kernels for time in times_by_kind(trace)) == found.kernels
    assert sum(group.count for group in collective_groups(trace)) == found.collectives
    assert sum(len(launch.kernels) for launch in launches_of(trace)) == found.kernels
    for time in stream_times(trace):
        assert -1e-9 <= time.hidden_s <= time.communication_s * (1 + 1e-9) + 1e-9


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    sum_up(content)


@given(values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    sum_up(json.dumps(value).encode())
    sum_up(json.dumps({"traceEvents": [value]}).encode())


@given(st.data())
@settings(max_examples=200)
def test_a_trace_with_anything_changed_is_read_or_refused(data: st.DataObject) -> None:
    document = sample()
    for _ in range(data.draw(st.integers(1, 3))):
        holder: Any = document
        while True:
            where = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
            inner = holder[where]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 5)) == 0:
                break
            holder = inner
        change = data.draw(st.sampled_from(["replace", "remove", "repeat"]))
        if change == "replace":
            holder[where] = data.draw(values)
        elif change == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[where]))
        else:
            del holder[where]
            if not document or not holder:
                break
    sum_up(json.dumps(document).encode())


@given(st.integers(0, 3000))
def test_a_trace_cut_anywhere_is_refused(length: int) -> None:
    text = json.dumps(sample()).encode()
    try:
        parse(text[: min(length, len(text) - 1)], "trace.json")
    except CorruptFile:
        return
    raise AssertionError("half a trace was read")


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 30), st.booleans()), max_size=25)


@given(spans, st.integers(0, 40), st.integers(0, 10))
def test_the_operator_is_the_innermost_that_contains_the_launch(
    drawn: list[tuple[int, int, bool]], start: int, length: int
) -> None:
    """Compared with looking at every span, whatever way spans cross."""
    trace = HandMade()
    for number, (at, long, is_operator) in enumerate(drawn):
        if is_operator:
            trace.op(f"aten::op{number}", at, long, id=number + 1)
        else:
            trace.range(f"range{number}", at, long, id=number + 1)
    trace.call(1, start, length)
    trace.kernel("kernel", 100, 5, 1)

    (kernel,) = linked(parse(trace.text().encode(), "trace.json"), "trace.json").kernels

    around = [
        (at, -(1000 if long < 0 else at + long), number)
        for number, (at, long, is_operator) in enumerate(drawn)
        if is_operator and at <= start and start + length <= (1000 if long < 0 else at + long)
    ]
    expected = f"aten::op{max(around)[2]}" if around else None
    assert (kernel.operator.name if kernel.operator else None) == expected


def test_the_sample_itself_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(sample()))
    trace = linked(parse(path.read_bytes(), "trace.json"), "trace.json")

    assert matching(trace).with_operator == 2
    assert main([str(path), "--json"]) == 0
