"""Traces of a GPU, made by hand. Times are microseconds, as in the file."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.tracing.kineto import read_trace
from harness.tracing.kineto_records import DeviceKernel, DeviceTrace

REAL_TRACES = Path(__file__).resolve().parents[4] / "shared" / "data" / "kineto-traces"
PROCESS, THREAD, DEVICE = 100, 101, 0


def real_trace(name: str) -> Path:
    """A trace recorded on real GPUs; skips the test where it is not there."""
    path = REAL_TRACES / name
    if not path.is_file():
        pytest.skip(f"needs the public trace {name} beside the repository")
    return path


class HandMade:
    """A trace in the making; every event is a dictionary as Kineto writes it."""

    def __init__(self, **top: Any) -> None:
        self.events: list[Any] = []
        self.top = top

    def span(self, category: str, name: str, start: Any, length: Any, thread: Any = THREAD, **args: Any) -> None:
        """Keyword ``id`` is the external id."""
        if "id" in args:
            args["External id"] = args.pop("id")
        self._add(category, name, PROCESS, thread, start, length, args)

    def op(self, name: str, start: Any, length: Any, thread: Any = THREAD, **args: Any) -> None:
        self.span("cpu_op", name, start, length, thread, **args)

    def range(self, name: str, start: Any, length: Any, thread: Any = THREAD, **args: Any) -> None:
        self.span("user_annotation", name, start, length, thread, **args)

    def call(
        self,
        correlation: Any,
        start: Any,
        length: Any = 2,
        thread: Any = THREAD,
        name: str = "cudaLaunchKernel",
        **args: Any,
    ) -> None:
        self.span("cuda_runtime", name, start, length, thread, correlation=correlation, **args)

    def kernel(
        self,
        name: str,
        start: Any,
        length: Any,
        correlation: Any = None,
        stream: Any = 7,
        category: Any = "kernel",
        device: Any = DEVICE,
        **args: Any,
    ) -> None:
        if "id" in args:
            args["External id"] = args.pop("id")
        if correlation is not None:
            args["correlation"] = correlation
        self._add(category, name, device, stream, start, length, args | {"stream": stream, "device": device})

    def launched(self, name: str, correlation: int, call_at: float, start: float, length: float, **args: Any) -> None:
        """A kernel and the call that launched it."""
        self.call(correlation, call_at, thread=args.pop("thread", THREAD))
        self.kernel(name, start, length, correlation, **args)

    def _add(self, category: str, name: str, pid: Any, tid: Any, start: Any, length: Any, args: Any) -> None:
        event = {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": start, "dur": length}
        self.events.append(event | {"args": args})

    def text(self) -> str:
        """The JSON of the file."""
        return json.dumps({"schemaVersion": 1, "traceEvents": self.events, **self.top})

    def write(self, folder: Path, *, packed: bool = False) -> Path:
        path = folder / ("trace.json.gz" if packed else "trace.json")
        path.write_bytes(gzip.compress(self.text().encode()) if packed else self.text().encode())
        return path

    def read(self, folder: Path) -> DeviceTrace:
        return read_trace(self.write(folder))


def us(time_s: float | None) -> float | None:
    """Microseconds, to the picosecond."""
    return None if time_s is None else round(time_s * 1e6, 6)


def only(trace: DeviceTrace) -> DeviceKernel:
    """The kernel of a trace that has one."""
    (kernel,) = trace.kernels
    return kernel


def named(trace: DeviceTrace, name: str) -> DeviceKernel:
    """The kernel of that name."""
    (kernel,) = [kernel for kernel in trace.kernels if kernel.name == name]
    return kernel
