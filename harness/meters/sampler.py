"""Samples the power of GPUs beside a measurement, from a light process of its own.

    sampler = PowerSampler(uuids)       # of whole GPUs
    sampler.start()
    …                                   # sampler.take() gives what came since the last time
    report = sampler.stop()             # the rest, and whether it ended well

The process (``harness.meters.sampler_main``) is started as a module, so it imports neither the main program nor
anything heavy; it ends when this one does. Its times are those of ``time.perf_counter`` in this process: on Linux both
are CLOCK_MONOTONIC.
"""

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self

import harness
from harness.errors import MeterCause, MeterUnavailable
from harness.meters.nvml_library import START_TIMEOUT_S
from harness.meters.power import PowerSample, SamplerReport, SamplerState
from harness.meters.sampler_main import EXIT_FULL, SamplerTask, Started
from harness.meters.sampler_records import SampleReader

PERIOD_S: Final = 0.1  # faster than 50 ms some GPUs answer nothing (zeus-ml), and the jitter needs room
MOST_BYTES: Final = 64 * 1024**2  # nine hours of one GPU, one of eight
_SILENT_S: Final = 2.0
_SILENT_PERIODS: Final = 20
_STOP_S: Final = 2.0
_TAIL_BYTES: Final = 2000
_ROOT: Final = Path(harness.__file__).resolve().parents[1]


class PowerSampler:
    """A ``Sampler`` of NVIDIA GPUs, given by the UUIDs of whole GPUs."""

    def __init__(
        self,
        uuids: Sequence[str],
        *,
        period_s: float = PERIOD_S,
        most_bytes: int = MOST_BYTES,
        start_timeout_s: float = START_TIMEOUT_S,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.period_s = period_s
        self._uuids = tuple(uuids)
        self._most_bytes = most_bytes
        self._start_timeout_s = start_timeout_s
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._report: SamplerReport | None = None
        self._files = contextlib.ExitStack()

    @property
    def pid(self) -> int | None:
        """Number of the process; ``None`` before the start."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is sampling."""
        return self.state is SamplerState.RUNNING

    @property
    def state(self) -> SamplerState:
        """How it is now; ``SILENT`` after two seconds (or 20 periods) without a sample."""
        if self._report is not None:
            return self._report.state
        if self._process is None:
            return SamplerState.FINISHED
        ended = _state(self._process.poll())
        if ended is not None:
            return ended
        newest_s = self._reader.newest_s()
        quiet_s = time.perf_counter() - (self._started_s if newest_s is None else newest_s)
        silent = quiet_s > max(_SILENT_S, _SILENT_PERIODS * self.period_s)
        return SamplerState.SILENT if silent else SamplerState.RUNNING

    def start(self) -> None:
        """Start the process; returns once it has looked at every GPU. Raises ``MeterUnavailable``."""
        if self._process is not None:
            raise RuntimeError("a sampler is started once")
        self._samples = self._file("samples")
        self._complaints = self._file("complaints")
        self._reader = SampleReader(self._samples.fileno())
        self._started_s = time.perf_counter()
        task = SamplerTask(
            uuids=self._uuids,
            period_s=self.period_s,
            descriptor=self._samples.fileno(),
            most_bytes=self._most_bytes,
            parent_pid=os.getpid(),
        )
        paths = [str(_ROOT), *filter(None, [self._environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.meters.sampler_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            pass_fds=(self._samples.fileno(),),
            env={**self._environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._tell(task.to_json().encode() + b"\n")
        self._hear(self._process)

    def take(self) -> tuple[PowerSample, ...]:
        """The samples since the last ``take``; none after ``stop``, whose report holds the rest."""
        return () if self._process is None or self._report is not None else self._reader.take()

    def stop(self) -> SamplerReport:
        """End the process; one that hangs is killed."""
        if self._report is not None:
            return self._report
        if self._process is None:
            self._report = SamplerReport(state=SamplerState.FINISHED, samples=())
            return self._report
        self._tell(b"stop\n")
        try:
            state = _state(self._process.wait(timeout=_STOP_S)) or SamplerState.FAILED
        except subprocess.TimeoutExpired:
            state = SamplerState.SILENT
        detail = "" if state is SamplerState.FINISHED else self._detail(state)
        samples = self._reader.take()
        self._end()
        self._report = SamplerReport(state=state, samples=samples, detail=detail)
        return self._report

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _file(self, name: str) -> IO[bytes]:
        """A file without a name, which is gone once nobody has it open any more."""
        return self._files.enter_context(tempfile.TemporaryFile(prefix=f"power-{name}-"))

    def _hear(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for the process's word that it has begun; raises ``MeterUnavailable`` for any other."""
        if process.stdout is None:
            raise RuntimeError("the sampler was started with a pipe")
        if not select.select([process.stdout], [], [], self._start_timeout_s)[0]:
            self._give_up(f"no sample within {self._start_timeout_s:g} s: a call of the driver hangs", MeterCause.HUNG)
        line = process.stdout.readline()
        if not line:
            process.wait()
            self._give_up(self._detail(_state(process.returncode)), MeterCause.SAMPLER_FAILED)
        started = Started.from_json(line)
        if started.problem is not None:
            self._end()
            self._process = None
            cause = MeterCause(started.cause) if started.cause else None
            raise MeterUnavailable(f"The power sampler: {started.problem}", cause=cause)

    def _give_up(self, why: str, cause: MeterCause) -> None:
        self._end()
        self._process = None
        raise MeterUnavailable(
            f"The power sampler did not start: {why}.\nSee what `python -m harness.doctor` says of the GPUs.",
            cause=cause,
        )

    def _tell(self, words: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it is dead: how is found when it is waited for
                self._process.stdin.write(words)
                self._process.stdin.flush()

    def _detail(self, state: SamplerState | None) -> str:
        if state is SamplerState.SILENT:
            return "its process did not end when it was told to: a call of the driver hangs"
        if state is SamplerState.FULL:
            return f"it wrote the {self._most_bytes:,} bytes it may"
        returncode = self._process.returncode if self._process is not None else None
        if state is SamplerState.KILLED:
            return f"its process was killed by signal {-(returncode or 0)}"
        self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, self._complaints.tell() - _TAIL_BYTES))
        said = self._complaints.read().decode("utf-8", errors="replace").strip().splitlines()
        return f"its process ended with exit code {returncode}: {said[-1] if said else 'it printed nothing'}"

    def _end(self) -> None:
        """Let go of everything, with whatever is left of the process."""
        process = self._process
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and dies when that lets go
                process.wait(timeout=_STOP_S)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._files.close()


def _state(returncode: int | None) -> SamplerState | None:
    """How a process that ended so was; ``None``: it has not ended."""
    if returncode is None:
        return None
    if returncode < 0:
        return SamplerState.KILLED
    known = {0: SamplerState.FINISHED, EXIT_FULL: SamplerState.FULL}
    return known.get(returncode, SamplerState.FAILED)
