import signal
import threading
import time
from types import FrameType

import pytest

from harness.meters.guard import CallGuard, CallHung


def test_a_call_is_answered_from_another_thread() -> None:
    guard = CallGuard("test")

    assert guard.call(threading.get_ident, 5.0) != threading.get_ident()
    guard.close()


def test_what_a_call_raises_is_raised_to_its_caller_and_the_next_is_answered() -> None:
    guard = CallGuard("test")

    with pytest.raises(ZeroDivisionError):
        guard.call(lambda: 1 / 0, 5.0)
    assert guard.call(lambda: 7, 5.0) == 7
    guard.close()


def test_a_job_may_ask_for_another() -> None:
    guard = CallGuard("test")

    assert guard.call(lambda: guard.call(lambda: 3, 5.0) + 1, 5.0) == 4
    guard.close()


def test_a_call_that_hangs_costs_its_time_out_once() -> None:
    guard, release = CallGuard("test"), threading.Event()
    begun_s = time.perf_counter()

    with pytest.raises(CallHung):
        guard.call(release.wait, 0.05)
    assert time.perf_counter() - begun_s >= 0.05
    for _ in range(3):
        with pytest.raises(CallHung):
            guard.call(lambda: 1, 60.0)
    guard.close()
    assert guard.hung
    assert time.perf_counter() - begun_s < 30
    release.set()


def test_callers_from_several_threads_each_get_their_own_answer() -> None:
    guard = CallGuard("test")
    wrong: list[int] = []

    def ask(number: int) -> None:
        wrong.extend(i for i in range(200) if guard.call(lambda i=i: (number, i), 30.0) != (number, i))  # type: ignore[misc]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    guard.close()
    assert not wrong


def test_an_interrupted_caller_leaves_no_answer_to_the_next() -> None:
    guard, release = CallGuard("test"), threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            guard.call(release.wait, 30.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    release.set()
    while guard._answered.locked():
        threading.Event().wait(0.001)

    assert guard.call(lambda: "its own", 30.0) == "its own"
    guard.close()


def test_closing_ends_the_thread() -> None:
    guard = CallGuard("test-guard-closing")
    guard.close()
    guard.close()

    assert "test-guard-closing" not in {thread.name for thread in threading.enumerate()}
