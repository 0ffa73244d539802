"""Commands as somebody types them: what they print, and what they complain of."""

from collections.abc import Callable, Sequence

import pytest

Main = Callable[[Sequence[str]], int]


def printed(main: Main, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of a run that succeeds."""
    code = main(arguments)
    output = capsys.readouterr()
    assert (code, output.err) == (0, "")
    return output.out


def refused(main: Main, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The complaint about a command line that asks for something impossible."""
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    return output.err
