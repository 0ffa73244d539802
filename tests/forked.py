"""Ranks of the tests as forked processes of one script: imports cost more than all that they do."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any


def run_forked(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> int:
    """Run ``target`` once per tuple of arguments, all at once, and wait; not 0 where one of them failed."""
    forked = multiprocessing.get_context("fork")
    processes = [forked.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    while alive := [process.sentinel for process in processes if process.is_alive()]:
        connection.wait(alive)
        if any(process.exitcode for process in processes):
            for process in processes:  # the others wait for the one that failed
                process.kill()
    return max(abs(process.exitcode or 0) for process in processes)
