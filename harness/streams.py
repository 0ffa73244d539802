"""Output that never stops the work: a terminal of any encoding, a closed pipe, a full disk behind ``> log.txt``."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from harness.errors import HarnessError


class Forgiving(io.TextIOBase):
    """A text stream whose failures to write are kept, not raised."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a class attribute in typeshed
        """That of the stream behind."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether people look at it as it comes."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """That of the stream behind; rich asks it for the width."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always, as far as the writer is concerned."""
        return True

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            self._stream.write(text)
        except OSError as failure:
            self.failure = failure
        return len(text)

    def flush(self) -> None:
        """Hand over what was written; Python's own flush at exit must not fail again."""
        try:
            self._stream.flush()
        except OSError as failure:
            self.failure = failure
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def answer(work: Callable[[], int], *, interrupted: str | None = None) -> int:
    """Do what a command is for; returns its exit code. Expected errors are printed, never raised.

    ``interrupted`` is said after Ctrl-C.
    """
    speak_any_encoding()
    try:
        return work()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        if interrupted is not None:
            print(interrupted, file=sys.stderr)  # noqa: T201
        return 130


def speak_any_encoding() -> None:
    """Let what a terminal cannot show be ``?`` instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
