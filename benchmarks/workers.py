"""Processes that execute types one after the other, so that one that crashes or hangs takes no other with it."""

import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from benchmarks.execution import Execution, Status

START_LIMIT_S = 120.0  # importing torch and transformers on a busy machine
Execute = Callable[[str], Execution]
_SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang


def _serve(connection: Connection, execute: Execute) -> None:
    """The other side: execute the types that come in until the pipe or the process ends."""
    connection.send(None)  # ready
    while True:
        connection.send(execute(connection.recv()))


class Worker:
    """One process at a time; a type that takes it down is a result, and the next type gets a new one."""

    def __init__(self, execute: Execute, *, limit_s: float) -> None:
        self._execute = execute
        self._limit_s = limit_s
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def execute(self, model_type: str) -> Execution:
        """What executing a type gave, also if it crashed or did not end within the limit.

        Raises TimeoutError where a new process does not start.
        """
        if not self._process.is_alive():
            self._stop()
            self._start()
        begun_s = time.perf_counter()
        self._connection.send(model_type)
        try:
            if self._connection.poll(self._limit_s):
                done: Execution = self._connection.recv()
                return done
            reason = f"it did not end within {self._limit_s:g} s"
            self._process.kill()
        except (EOFError, ConnectionError):
            self._process.join()
            reason = f"its process died: {_death(self._process.exitcode)}"
        self._process.join()
        return Execution(
            model_type=model_type,
            status=Status.CANNOT_RUN,
            reason=reason,
            duration_s=time.perf_counter() - begun_s,
        )

    def _start(self) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._execute), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(START_LIMIT_S):
            self._stop()
            raise TimeoutError(f"a worker did not start within {START_LIMIT_S:g} s: the machine is too busy")
        self._connection.recv()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def execute_all(
    types: Sequence[str], execute: Execute, *, jobs: int, limit_s: float, done: Callable[[Execution], None]
) -> None:
    """Execute all types with ``jobs`` workers; ``done`` is called with each result, one at a time."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for model_type in types:
        waiting.put(model_type)
    one_at_a_time = threading.Lock()

    def work() -> None:
        with Worker(execute, limit_s=limit_s) as worker:
            while True:
                try:
                    model_type = waiting.get_nowait()
                except queue.Empty:
                    return
                result = worker.execute(model_type)
                with one_at_a_time:
                    done(result)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
