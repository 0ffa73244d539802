"""A worker must not outlive the campaign that started it, however that ends, nor a rank its agent."""

import ctypes
import os
import select
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_S = 0.5


def die_with_parent(lifeline_fd: int) -> None:
    """End this process at once when its parent is gone.

    The parent holds the other end of the lifeline, a pipe, and writes nothing more to it: end of file means it is gone,
    on any system. On Linux the kernel also sends SIGKILL, which works while the interpreter is busy in native code.
    """
    _ask_kernel()

    def wait_for_end() -> None:
        while os.read(lifeline_fd, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, name="lifeline", daemon=True).start()


def die_with_agent(agent_pid: int) -> None:
    """End this rank at once when the agent that started it is gone, also if it already is.

    The agent starts ranks in sessions of their own and hands them no pipe, so its end is watched through the kernel
    (a signal, and a file descriptor of the process), elsewhere by looking at who the parent is.
    """
    _ask_kernel()

    def watch() -> None:
        _wait_for_exit(agent_pid)
        os._exit(1)

    threading.Thread(target=watch, name="agent watch", daemon=True).start()
    if os.getppid() != agent_pid:  # it went before the kernel was asked
        os._exit(1)


def _ask_kernel() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_exit(pid: int) -> None:
    if sys.platform == "linux":
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:  # a kernel or a sandbox without pidfd_open
            pass
        else:
            select.select([descriptor], [], [])
            return
    while os.getppid() == pid:
        time.sleep(_LOOK_S)
