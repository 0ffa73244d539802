"""A time-out for calls that have none: a driver's call that never comes back must not take the campaign with it.

Python cannot break off a call into a C library. So the calls are made in a thread of their own, and who waits for an
answer stops waiting. The thread that hangs is given up, and with it the guard: it refuses everything from then on.
"""

import threading
from collections.abc import Callable
from typing import TypeVar, cast

_Answer = TypeVar("_Answer")


class CallHung(Exception):
    """A call did not come back in time, now or earlier."""


class CallGuard:
    """Makes calls in one thread, one after the other; may be used from several threads.

    A call costs two hand-overs between threads. Where another thread computes in Python all the while, each of them
    can take the interpreter's switch interval (5 ms), so nothing else should run while an edge is looked for.
    """

    def __init__(self, name: str) -> None:
        self._turn = threading.Lock()
        self._asked = threading.Lock()  # a lock as a binary semaphore: the fastest hand-over there is
        self._answered = threading.Lock()
        self._asked.acquire()
        self._answered.acquire()
        self._job: Callable[[], object] | None = None
        self._answer: object = None
        self._error: BaseException | None = None
        self._under_way = False
        self._hung = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def hung(self) -> bool:
        """Whether a call did not come back; there is no way back from it."""
        return self._hung

    def call(self, job: Callable[[], _Answer], timeout_s: float) -> _Answer:
        """What ``job`` answers or raises; raises ``CallHung`` where it takes longer than ``timeout_s``."""
        if threading.get_ident() == self._thread.ident:  # a job that asks for another
            return job()
        with self._turn:
            if self._under_way:  # it hangs, or its caller was interrupted (Ctrl-C) and its answer is nobody's
                self._wait(timeout_s)
            self._job, self._under_way = job, True
            self._asked.release()
            self._wait(timeout_s)
            error, self._error = self._error, None
            answer, self._answer = self._answer, None
        if error is not None:
            raise error
        return cast("_Answer", answer)

    def close(self) -> None:
        """End the thread; where it hangs, leave it. May be called again."""
        with self._turn:
            if self._job is None and not self._under_way and self._thread.is_alive():
                self._asked.release()
                self._thread.join()

    def _wait(self, timeout_s: float) -> None:
        if self._hung or not self._answered.acquire(timeout=timeout_s):
            self._hung = True
            raise CallHung
        self._under_way = False

    def _serve(self) -> None:
        while True:
            self._asked.acquire()
            job, self._job = self._job, None
            if job is None:
                return
            try:
                self._answer = job()
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
                self._error = error
            del job
            self._answered.release()
            if self._hung:
                return
