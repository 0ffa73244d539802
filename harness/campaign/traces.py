"""Prompt and output lengths of real requests: the traces that ship, and any CSV file.

The Azure LLM inference traces of 2023 ship as the number of requests of each pair of lengths: the joint
distribution without loss, 28,185 requests in 63 kB. Their source and licence are in ``harness/data/azure-2023.md``.

    python -m harness.campaign.traces SOURCE.csv[.gz] TABLE.csv.gz      builds such a table
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from typing import IO

from harness.errors import CannotWrite, HarnessError, UsageError

SHIPPED = {
    "azure-2023": ("azure-2023-conversation", "azure-2023-code"),  # pooled as recorded: 69 % conversation
    "azure-2023-conversation": ("azure-2023-conversation",),
    "azure-2023-code": ("azure-2023-code",),
}
MAX_BYTES = 512 * 1024**2  # of text, after decompression
MAX_ROWS = 10_000_000
MAX_TOKENS = 10_000_000  # longer is no token count
_MAX_LINE = 1_000_000
_LOOK_AHEAD_ROWS = 100

_PROMPT = r"(num|n|total)?(context|prompt|input|prefill)(tokens?|length|len|size)?(count)?|isl|promptlen|inputlen"
_OUTPUT = (
    r"(num|n|total)?(generated|generation|output|completion|response|decode)(tokens?|length|len|size)?(count)?|osl"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPair:
    """How many requests of a trace had these lengths."""

    prompt_tokens: int
    output_tokens: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The empirical joint distribution of prompt and output lengths; each pair is there once, in order."""

    name: str
    pairs: tuple[LengthPair, ...]
    prompt_column: str = "prompt_tokens"
    output_column: str = "output_tokens"
    bad_rows: int = 0  # rows without two positive token counts; they are not used

    @property
    def requests(self) -> int:
        """Requests behind the distribution."""
        return sum(pair.requests for pair in self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    prompt: int
    output: int
    requests: int | None  # how many requests a row stands for; None: one each
    names: Sequence[str]


def load_trace(name: str) -> Trace:
    """Load a trace that ships, or a CSV file; raises ``UsageError``.

    A file has a column for each length (ContextTokens and GeneratedTokens, prompt and output, input and output, …;
    otherwise the first two columns of integers) and may have a column ``requests`` with a number of requests.
    """
    if name in SHIPPED:
        return Trace(name=name, pairs=_sorted_pairs(sum((_shipped_counts(part) for part in SHIPPED[name]), Counter())))
    try:
        if Path(name).exists() and not Path(name).is_file():
            raise OSError(0, "it is no file")  # a pipe would be waited for for ever
        with Path(name).open("rb") as file:
            return read_trace(_text(file), name)
    except (OSError, EOFError, zlib.error, ValueError) as problem:  # ValueError: a null byte in the path
        reason = getattr(problem, "strerror", None) or problem
        raise UsageError(
            f"The trace {name[:200]!r} cannot be read: {reason}.\n"
            f"Name a CSV file (.csv or .csv.gz), or one that ships: {', '.join(SHIPPED)}."
        ) from problem


def read_trace(file: IO[str], name: str) -> Trace:
    """Read a trace from CSV text; raises ``UsageError`` where no two columns of token counts are found."""
    rows = _rows(file, name)
    head = list(islice(rows, _LOOK_AHEAD_ROWS))
    columns = _find_columns(head, name)
    counts: Counter[tuple[int, int]] = Counter()
    bad = 0
    has_header = not _is_numbers(head[0])
    for row in chain(head[has_header:], rows):
        found = _read_row(row, columns)
        if found is None:
            bad += 1
        else:
            counts[found[0], found[1]] += found[2]
    prompt, output = columns.names[columns.prompt], columns.names[columns.output]
    if not counts:
        raise UsageError(
            f"{name}: none of the {bad} rows has two positive whole numbers in the columns {prompt[:40]!r} and "
            f"{output[:40]!r}.\nGive token counts of at least 1."
        )
    pairs = _sorted_pairs(counts)
    return Trace(name=name, pairs=pairs, prompt_column=prompt, output_column=output, bad_rows=bad)


def write_table(trace: Trace, path: Path) -> None:
    """Write a trace as a gzipped CSV table, the same bytes each time; raises ``CannotWrite``."""
    text = "".join(f"{p.prompt_tokens},{p.output_tokens},{p.requests}\n" for p in trace.pairs)
    try:
        path.write_bytes(gzip.compress(f"prompt_tokens,output_tokens,requests\n{text}".encode(), 9, mtime=0))
    except OSError as problem:
        raise CannotWrite(
            f"{path} cannot be written: {problem.strerror}.\nName a file in a folder of yours."
        ) from problem


def _shipped_counts(name: str) -> Counter[tuple[int, int]]:
    table = resources.files("harness").joinpath("data", f"{name}.csv.gz").read_bytes()
    rows = csv.reader(io.StringIO(gzip.decompress(table).decode()))
    next(rows)
    return Counter({(int(prompt), int(output)): int(requests) for prompt, output, requests in rows})


def _sorted_pairs(counts: Counter[tuple[int, int]]) -> tuple[LengthPair, ...]:
    return tuple(LengthPair(prompt_tokens=p, output_tokens=o, requests=n) for (p, o), n in sorted(counts.items()))


def _text(file: io.BufferedReader) -> IO[str]:
    zipped = file.peek(2)[:2] == b"\x1f\x8b"
    # Columns beside the two of interest may hold anything, so undecodable bytes are no reason to stop.
    return io.TextIOWrapper(
        gzip.GzipFile(fileobj=file) if zipped else file, encoding="utf-8-sig", errors="replace", newline=""
    )


def _lines(file: IO[str], name: str) -> Iterator[str]:
    size = 0
    while line := file.readline(_MAX_LINE):
        size += len(line)
        if size > MAX_BYTES or len(line) == _MAX_LINE:
            what = f"a line of over {_MAX_LINE:,}" if len(line) == _MAX_LINE else f"over {MAX_BYTES:,}"
            raise UsageError(f"{name} has {what} characters, too much for a trace.\nGive a part of it.")
        yield line


def _rows(file: IO[str], name: str) -> Iterator[list[str]]:
    lines = _lines(file, name)
    first = next(lines, "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=delimiter)
    try:
        for number, row in enumerate(reader):
            if number > MAX_ROWS:
                raise UsageError(f"{name} has more than {MAX_ROWS:,} rows.\nGive a part of it.")
            if row:
                yield [cell.strip() for cell in row]
    except csv.Error as problem:
        raise UsageError(f"{name} is no CSV file: {problem} (row {reader.line_num}).\nCorrect it there.") from problem


def _find_columns(head: list[list[str]], name: str) -> _Columns:
    if not head:
        raise UsageError(f"{name} is empty.\nA trace needs a row for each request, with two token counts.")
    first = head[0]
    header = [f"column {i + 1}" for i in range(len(first))] if _is_numbers(first) else first
    words = [re.sub(r"[^a-z0-9]", "", title.lower()) for title in header]
    prompts = [i for i, word in enumerate(words) if re.fullmatch(_PROMPT, word)]
    outputs = [i for i, word in enumerate(words) if re.fullmatch(_OUTPUT, word)]
    found = (prompts[0], outputs[0]) if len(prompts) == len(outputs) == 1 else _integer_columns(header, head)
    if found is None:
        titles = ", ".join(repr(title[:40]) for title in header[:20])
        raise UsageError(
            f"{name}: no two columns of token counts were found among {titles}.\n"
            "Name them prompt_tokens and output_tokens (or ContextTokens and GeneratedTokens)."
        )
    requests = words.index("requests") if "requests" in words else None
    return _Columns(prompt=found[0], output=found[1], requests=requests, names=header)


def _integer_columns(header: Sequence[str], head: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """The first two columns that hold whole numbers in every row looked at."""
    body = head[1:] if len(head) > 1 else head
    whole = [i for i in range(len(header)) if all(i < len(row) and _whole(row[i]) is not None for row in body)]
    return (whole[0], whole[1]) if len(whole) >= 2 else None


def _is_numbers(row: Sequence[str]) -> bool:
    return any(_whole(cell) is not None for cell in row)


def _read_row(row: Sequence[str], columns: _Columns) -> tuple[int, int, int] | None:
    numbers = [_whole(row[i]) if i < len(row) else None for i in (columns.prompt, columns.output)]
    requests = 1 if columns.requests is None else _whole(row[columns.requests]) if columns.requests < len(row) else None
    prompt, output = numbers
    return None if prompt is None or output is None or requests is None else (prompt, output, requests)


def _whole(text: str) -> int | None:
    """A positive whole number, also as spreadsheets write it (12.0); ``None`` for anything else."""
    match = re.fullmatch(r"(\d{1,9})(\.0*)?", text, re.ASCII)
    return int(match[1]) if match and 0 < int(match[1]) <= MAX_TOKENS else None


def _main(arguments: Sequence[str]) -> int:
    try:
        if len(arguments) != 2:
            raise UsageError(
                "Two arguments are needed.\nUse: python -m harness.campaign.traces SOURCE.csv TABLE.csv.gz"
            )
        trace = load_trace(arguments[0])
        write_table(trace, Path(arguments[1]))
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(
        f"{arguments[1]}: {trace.requests:,} requests, {len(trace.pairs):,} pairs of lengths "
        f"(columns {trace.prompt_column!r} and {trace.output_column!r}), {trace.bad_rows} bad rows\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
