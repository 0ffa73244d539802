"""The process that samples power: python -m harness.meters.sampler_main, started by ``harness.meters.sampler``.

It is told what to do in one line of JSON on standard input, which stays open as the lifeline: a line ``stop`` ends it
in good order, end of file means that whoever started it is gone. Samples go to the file whose descriptor it is given,
one line of JSON about its start to standard output.

Nothing heavy is imported here (no torch, no numpy, nothing of the run), and nothing of the main program: it starts in a
tenth of a second, and a campaign that is measured is not disturbed by it.
"""

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

from harness.errors import MeterUnavailable
from harness.meters.base import Clock, MonotonicClock
from harness.meters.nvml import open_nvml
from harness.meters.nvml_device import NvmlDevice
from harness.meters.power import PowerSample
from harness.meters.sampler_records import SAMPLE_BYTES, packed

EXIT_FULL: Final = 3
EXIT_CANNOT_START: Final = 4
EXIT_ORPHANED: Final = 5
_JITTER: Final = 0.2  # of the period: a load that beats with it is met at every phase


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerTask:
    """What to sample, how often, and where to."""

    uuids: tuple[str, ...]  # of whole GPUs
    period_s: float
    descriptor: int  # of the file for the samples
    most_bytes: int
    parent_pid: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "SamplerTask":
        """The task in a line that ``to_json`` wrote."""
        told = json.loads(line)
        return cls(**{**told, "uuids": tuple(told["uuids"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """How the start went, as the first and only line of standard output."""

    problem: str | None = None  # null: it went well
    cause: str | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> "Started":
        """The word in a line that ``to_json`` wrote."""
        return cls(**json.loads(line))


class PowerSource(Protocol):
    """Something whose power can be looked at."""

    def sample(self, place: int, clock: Clock) -> PowerSample:
        """One look. What cannot be had is ``None``, never an error."""
        ...


def sample_until(
    stop: threading.Event,
    sources: Sequence[PowerSource],
    task: SamplerTask,
    clock: Clock,
    *,
    after_first: Callable[[], None] = lambda: None,
) -> bool:
    """Look at every source about every ``period_s``; false: the file is as long as it may be, and that is why it ended.

    The looks are early or late by up to a fifth of the period, at random.
    """
    rng = random.Random(os.getpid())  # noqa: S311 - phases, no secrets
    written_bytes, due_s = 0, clock.now_s()
    while not stop.is_set():
        for place, source in enumerate(sources):
            if written_bytes + SAMPLE_BYTES > task.most_bytes:
                return False
            os.write(task.descriptor, packed(source.sample(place, clock)))
            written_bytes += SAMPLE_BYTES
        after_first()
        after_first = lambda: None  # noqa: E731
        if os.getppid() != task.parent_pid:  # a fork of the parent may hold the lifeline open
            os._exit(EXIT_ORPHANED)
        due_s = max(due_s + task.period_s, clock.now_s())  # a look that took long makes the next ones later
        stop.wait(max(0.0, due_s - clock.now_s()) + task.period_s * _JITTER * rng.uniform(-1, 1))
    return True


def _watch_lifeline(stop: threading.Event) -> None:
    """Wait for the word to stop, or for the end of who would say it; then even a hanging call must not keep us."""
    if os.read(0, 64):
        stop.set()
        os.read(0, 64)
    os._exit(EXIT_ORPHANED)


def main() -> int:
    """Do as the line on standard input says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the campaign, which then stops us
    task = SamplerTask.from_json(_line())
    stop = threading.Event()
    threading.Thread(target=_watch_lifeline, args=(stop,), name="lifeline", daemon=True).start()
    try:
        nvml = open_nvml(guarded=False)  # who started us watches us
        sources = [
            NvmlDevice(nvml, nvml.call("nvmlDeviceGetHandleByUUID", uuid, failure=MeterUnavailable))
            for uuid in task.uuids
        ]
    except MeterUnavailable as error:
        _say(Started(problem=str(error), cause=error.cause))
        return EXIT_CANNOT_START
    whole = sample_until(stop, sources, task, MonotonicClock(), after_first=lambda: _say(Started()))
    return 0 if whole else EXIT_FULL


def _line() -> str:
    """The first line of standard input, read without a buffer, which would swallow what comes after it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(EXIT_ORPHANED)
        line += byte
    return line.decode()


def _say(started: Started) -> None:
    sys.stdout.write(started.to_json() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
