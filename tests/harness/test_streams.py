"""What cannot be printed never stops the work."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

from harness.streams import Forgiving

ROOT = Path(__file__).resolve().parents[2]


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failing_stream_is_remembered_and_not_raised() -> None:
    stream = Forgiving(Full())

    assert stream.write("hello") == 5
    assert stream.failure is not None
    assert stream.failure.errno == errno.ENOSPC


def test_a_working_stream_gets_everything() -> None:
    behind = io.StringIO()
    stream = Forgiving(behind)
    stream.write("hello")
    stream.flush()

    assert behind.getvalue() == "hello"
    assert stream.failure is None


def test_a_terminal_without_unicode_sees_question_marks_and_no_traceback() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "harness.run", "--models", "no/such…model", "--device", "cpu"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"no/such" in done.stderr
