"""The compact table of scores for README and model card, from the scores that a benchmark wrote."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

COVERAGE = "in the 90 % interval"
HEAD = "| task | split | metric | bar | found | | best rival |\n|---|---|---|---|---|---|---|\n"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One metric of one task against its bar and the best rival. Shares, not percent."""

    task: str
    split: str
    metric: str  # as it is read: "energy, MAPE"
    mean: float  # over seeds
    spread: float  # standard deviation over seeds
    seeds: int
    n: int  # measurements
    limit: float | None  # None: no bar
    at_least: bool  # else at most
    met: bool | None
    rival: str | None  # the best of them
    rival_mean: float | None

    @property
    def is_coverage(self) -> bool:
        """Whether it says how much of the measurements an interval holds."""
        return self.metric.endswith(COVERAGE)

    @property
    def ahead(self) -> bool | None:
        """Whether no rival is better; None: there is none."""
        if self.rival_mean is None:
            return None
        return self.mean >= self.rival_mean if self.at_least else self.mean <= self.rival_mean


def read_lines(path: Path) -> tuple[Line, ...]:
    """The lines of a file of scores; raises ``UsageError``."""
    try:
        return tuple(Line(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["table"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"The scores {path} cannot be read: {error}.\nWrite them again: python -m benchmarks.scores."
        ) from error


def table(lines: Sequence[Line]) -> str:
    """A Markdown table of the lines that have a bar; intervals are only counted."""
    intervals = [line for line in lines if line.is_coverage]
    text = HEAD + "".join(row(line) for line in lines if line.limit is not None and not line.is_coverage)
    if not intervals:
        return text
    hold = sum(line.met is True for line in intervals)
    return f"{text}\n{hold} of {len(intervals)} intervals of 90 % hold between 86 and 94 % of what was measured.\n"


def row(line: Line) -> str:
    """One line of a table under ``HEAD``."""
    bar = "" if line.limit is None else f"{'≥' if line.at_least else '≤'} {percent(line.limit)}"
    bar = "86–94 %" if line.is_coverage else bar
    verdict = "" if line.met is None else ("met" if line.met else "MISSED")
    found = percent(line.mean) + (f" ± {100 * line.spread:.1f}" if line.seeds > 1 else "")
    rival = "" if line.rival is None or line.rival_mean is None else f"{percent(line.rival_mean)} ({line.rival})"
    if line.ahead is False:
        rival = f"**{rival}**"
    return f"| {line.task} | {line.split} | {line.metric} | {bar} | {found} | {verdict} | {rival} |\n"


def percent(value: float) -> str:
    """A share as per cent.

    >>> percent(0.1234)
    '12.3 %'
    """
    return f"{100 * value:.1f} %"


def placed(page: str, text: str) -> str:
    """A page with the text between its markers; raises ``UsageError`` where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"The page has no place for scores.\nMark it with {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{text}{END}{after}"
