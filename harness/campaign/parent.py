"""A worker must not outlive the campaign that started it, however that ends."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(lifeline_fd: int) -> None:
    """End this process at once when its parent is gone.

    The parent holds the other end of the lifeline, a pipe, and writes nothing more to it: end of file means it is gone,
    on any system. On Linux the kernel also sends SIGKILL, which works while the interpreter is busy in native code.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait_for_end() -> None:
        while os.read(lifeline_fd, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, name="lifeline", daemon=True).start()
