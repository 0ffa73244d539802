"""What the NVTX listener (``tests/native/nvtx_listener.c``) heard of a process, as lines and as ranges."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "tests" / "native" / "nvtx_listener.c"
_PATIENCE_S = 300.0
_LINE = re.compile(r"(\d+)\t(\d+)\t(domain|mark|push|pop|start|end)\t([^\t]*)\t([^\t]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One call of NVTX."""

    process: int
    thread: int
    what: str  # domain, mark, push, pop, start, end
    domain: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range that was pushed and popped, or a mark, which holds nothing."""

    name: str
    domain: str
    process: int
    thread: int
    is_mark: bool = False
    inner: "list[Range]" = field(default_factory=list)

    def walk(self) -> "Iterator[Range]":
        """The range and all inside it, in the order in which they began."""
        yield self
        for each in self.inner:
            yield from each.walk()

    def named(self, prefix: str) -> "list[Range]":
        """Those inside it, however deep, whose names begin so."""
        return [each for each in self.walk() if each is not self and each.name.startswith(prefix)]

    @property
    def names(self) -> list[str]:
        """Of those directly inside it."""
        return [each.name for each in self.inner]


def build(folder: Path) -> Path:
    """Compile the listener; skips the test where it cannot be."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("the NVTX listener is built with gcc on Linux, which is not here")
    library = folder / "liblistener.so"
    flags = ["-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-pedantic"]
    subprocess.run(["gcc", *flags, "-o", library, SOURCE], check=True)
    return library


def listened(environ: Mapping[str, str], listener: Path, heard: Path) -> dict[str, str]:
    """The environment of a process that the listener is to hear."""
    kept = {key: value for key, value in environ.items() if not key.startswith("NVTX")}
    return kept | {"NVTX_INJECTION64_PATH": str(listener), "NVTX_LISTENER_FILE": str(heard)}


def run_python(code: str, listener: Path, heard: Path, *arguments: str, line: str = "") -> None:
    """Run code in a process that the listener hears; fails the test if it fails.

    It is given a line on its standard input, which stays open as long as it runs: a worker takes its end for that of
    the campaign.
    """
    log = heard.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            text=True,
            cwd=ROOT,
            env=listened(os.environ, listener, heard),
        )
        assert process.stdin is not None
        with process, process.stdin as stdin:
            stdin.write(line)
            stdin.flush()
            exit_code = process.wait(timeout=_PATIENCE_S)
    assert exit_code == 0, log.read_text()


def read_heard(path: Path) -> tuple[Heard, ...]:
    """All lines in order; raises ValueError for one that is cut or torn."""
    text = path.read_text(encoding="ascii")
    if not text.endswith("\n"):
        raise ValueError(f"the last line is cut: {text[-80:]!r}")
    return tuple(_heard(line, number) for number, line in enumerate(text[:-1].split("\n"), 1))


def _heard(line: str, number: int) -> Heard:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"line {number} is torn: {line[:80]!r}")
    domain, name = (_plain(text) for text in found.groups()[3:])
    return Heard(process=int(found[1]), thread=int(found[2]), what=found[3], domain=domain, name=name)


def _plain(text: str) -> str:
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode("ascii"))
    return raw.decode("utf-8")


def ranges_of(heard: Sequence[Heard]) -> list[Range]:
    """The outermost ranges and marks, each with what is inside it on its thread.

    Domains nest apart from each other in NVTX; here they must nest together, as those of a worker and its test do.
    Raises ValueError for a range never popped, a pop without a push, and a pop in another domain than its push.
    """
    outermost: list[Range] = []
    opened: dict[tuple[int, int], list[Range]] = {}
    for each in heard:
        stack = opened.setdefault((each.process, each.thread), [])
        if each.what in {"push", "mark"}:
            found = Range(
                name=each.name,
                domain=each.domain,
                process=each.process,
                thread=each.thread,
                is_mark=each.what == "mark",
            )
            (stack[-1].inner if stack else outermost).append(found)
            if each.what == "push":
                stack.append(found)
        elif each.what == "pop":
            if not stack or stack[-1].domain != each.domain:
                raise ValueError(f"a pop in {each.domain!r} closes no range on thread {each.thread}")
            stack.pop()
    left = [found.name for stack in opened.values() for found in stack]
    if left:
        raise ValueError(f"never popped: {left}")
    return outermost
