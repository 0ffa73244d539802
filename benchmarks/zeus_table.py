"""The page ``docs/zeus.md``: what each tool said of known loads, and how far that was from the truth."""

import math
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean, median
from typing import Final

from benchmarks.zeus_records import LENGTHS_S, OURS, TOOLS, WINDOWS, ZEUS, Comparison, Reading, Scenario
from harness.measuring.statistics import Trial, mean_of

COMMAND: Final = "python -m benchmarks.zeus_comparison --write docs/zeus.md"
PACKAGES: Final = ("zeus", "codecarbon", "nvidia-ml-py")
_COLUMNS: Final = (
    "window",
    "tool",
    "windows",
    "median error",
    "worst",
    "bias",
    "interval",
    "truth inside",
    "mean's error",
    "mean's interval",
    "truth inside",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tool on windows of one length. Errors are relative; None where the tool states no interval."""

    length_s: float
    tool: str
    windows: int
    median_error: float  # of the absolute errors
    worst_error: float  # the one that is largest in size, with its sign
    bias: float  # mean of the errors
    half_width: float | None  # median of what the windows state, relative
    held: int | None  # windows whose interval has the truth in it
    mean_error: float  # of the mean of all windows
    mean_half_width: float | None
    mean_held: bool | None


def rows_of(comparison: Comparison) -> tuple[Row, ...]:
    """A row for each length and tool of which there are readings."""
    found = []
    for length_s in LENGTHS_S:
        for tool in TOOLS:
            mine = [each for each in comparison.readings if (each.length_s, each.tool) == (length_s, tool)]
            if mine:
                found.append(_row(length_s, tool, mine))
    return tuple(found)


def _row(length_s: float, tool: str, readings: Sequence[Reading]) -> Row:
    errors = [reading.error for reading in readings]
    halves = [half for reading in readings if (half := _half_width_j(reading)) is not None]
    truth_j = fmean(reading.truth_j for reading in readings)
    mean_j = fmean(reading.energy_j for reading in readings)
    mean_half_j = _mean_half_width_j(readings)
    return Row(
        length_s=length_s,
        tool=tool,
        windows=len(readings),
        median_error=median(map(abs, errors)),
        worst_error=max(errors, key=abs),
        bias=fmean(errors),
        half_width=median(half / each.truth_j for half, each in zip(halves, readings, strict=True)) if halves else None,
        held=sum(abs(each.energy_j - each.truth_j) <= half for half, each in zip(halves, readings, strict=True))
        if halves
        else None,
        mean_error=mean_j / truth_j - 1,
        mean_half_width=None if mean_half_j is None else mean_half_j / truth_j,
        mean_held=None if mean_half_j is None else abs(mean_j - truth_j) <= mean_half_j,
    )


def _half_width_j(reading: Reading) -> float | None:
    if reading.random95_j is None or reading.common95_j is None:
        return None
    return math.hypot(reading.random95_j, reading.common95_j)


def _mean_half_width_j(readings: Sequence[Reading]) -> float | None:
    """What the harness states of the mean of its windows; all of them were sure before the first."""
    trials = [
        Trial(value=each.energy_j, random95=each.random95_j, common95=each.common95_j)
        for each in readings
        if each.random95_j is not None and each.common95_j is not None
    ]
    return mean_of(trials).ci95 if trials else None


def text_of(comparison: Comparison) -> str:
    """A scenario for a terminal."""
    lines = [f"{comparison.scenario.name} (simulated): {_counted(comparison)}"]
    table = [_COLUMNS, *(_cells(row) for row in rows_of(comparison))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join(lines)


def page_of(
    comparisons: Sequence[Comparison], *, trials: int, seed: int, version_of: Callable[[str], str] = version
) -> str:
    """The whole page; ``version_of`` says which version of a package was used."""
    head = _HEAD.format(
        command=COMMAND,
        versions=", ".join(f"{package} {version_of(package)}" for package in PACKAGES),
        python=platform.python_version(),
        trials=trials,
        seed=seed,
        windows=", ".join(f"{WINDOWS[length_s] * trials} of {length_s:g} s" for length_s in LENGTHS_S),
    )
    return "\n".join([head, *(line for each in comparisons for line in _section(each)), *_summary(comparisons), ""])


def _section(comparison: Comparison) -> Iterator[str]:
    yield f"## {comparison.scenario.name}"
    yield ""
    yield f"{_counted(comparison)[0].upper()}{_counted(comparison)[1:]}."
    yield ""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    yield from (f"| {' | '.join(_cells(row))} |" for row in rows_of(comparison))
    yield ""


def _counted(comparison: Comparison) -> str:
    periods = ", ".join(f"{period_s * 1e3:.1f} ms" for period_s in comparison.periods_s)
    return f"measured counter period {periods}; loads missed: {comparison.missed}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.length_s:g} s",
        row.tool,
        str(row.windows),
        f"{row.median_error:.3%}",
        f"{row.worst_error:+.3%}",
        f"{row.bias:+.3%}",
        "–" if row.half_width is None else f"±{row.half_width:.2%}",
        "–" if row.held is None else f"{row.held} of {row.windows}",
        f"{row.mean_error:+.3%}",
        "–" if row.mean_half_width is None else f"±{row.mean_half_width:.2%}",
        "–" if row.mean_held is None else ("yes" if row.mean_held else "no"),
    )


def _summary(comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield "## Zeus' median error over ours"
    yield ""
    yield f"| | {' | '.join(f'{length_s:g} s' for length_s in LENGTHS_S)} |"
    yield f"|{'---|' * (1 + len(LENGTHS_S))}"
    for comparison in comparisons:
        by_place = {(row.length_s, row.tool): row for row in rows_of(comparison)}
        ratios = [_ratio(by_place.get((each, ZEUS)), by_place.get((each, OURS))) for each in LENGTHS_S]
        yield f"| {comparison.scenario.name} | {' | '.join(ratios)} |"


def _ratio(theirs: Row | None, ours: Row | None) -> str:
    return "–" if theirs is None or ours is None else f"{theirs.median_error / ours.median_error:.1f} ×"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row stands on a page."""

    scenario: str
    length_s: float
    tool: str


def read_places(page: str) -> tuple[Place, ...]:
    """Which rows a page has."""
    scenario, found = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            scenario = line.removeprefix("## ")
        elif row := re.match(r"\| ([\d.]+) s \| (\w+) \| \d+ \| [\d.]+% \| [+-][\d.]+% \|", line):
            found.append(Place(scenario=scenario, length_s=float(row[1]), tool=row[2]))
    return tuple(found)


def read_versions(page: str) -> dict[str, str]:
    """Which versions a page was made with."""
    return {package: said[1] for package in PACKAGES if (said := re.search(rf"\b{package} (\d[\w.]*\w)", page))}


def places_of(scenarios: Sequence[Scenario]) -> tuple[Place, ...]:
    """Which rows a page should have."""
    return tuple(
        Place(scenario=scenario.name, length_s=length_s, tool=tool)
        for scenario in scenarios
        for length_s in LENGTHS_S
        for tool in TOOLS
    )


_HEAD: Final = """# Beside Zeus and codecarbon, on the same driver

Written by `{command}` (`tox -e zeus`); do not edit. With
{versions} and Python {python}.

Everything on this page is **simulated**. It shows what each way of reading a counter makes of a known truth. It says
nothing about a real GPU or its sensor, nor about what else these tools can do.

A virtual H100 (`harness.virtual`) answers requests to Qwen3-8B, with rests in between. Its exact power goes into a C
library that presents itself as `libnvidia-ml.so.1` (`tests/native/nvml_stub.c`), and in one process three tools read
this library through the same unmodified nvidia-ml-py, in real time, around the same loads:

- **Zeus**: `ZeusMonitor.begin_window` and `end_window`, both with `sync_execution=False`: there is no CUDA to wait for;
- **codecarbon**: `start_task` and `stop_task` of an `OfflineEmissionsTracker`, and of what they give `gpu_energy`;
- **Joulegraph**: a window of `harness.measuring.windows`, less the idle floor in its lead and tail. In a campaign short
  work is repeated until a window lasts 5 s or longer; here it takes the short windows too.

Each tool's truth is the exact energy between the return of its beginning and the call of its end. Loads start at random
phases of the counter's period. The sensor is that of `harness/data/virtual/h100-sxm.toml` with gain and offset exact,
because no software can see those; the ±5 % that the harness states for them on top is left out of the intervals. Zeus
and codecarbon state no interval.

In most scenarios the counter misses nothing between its moves and has no noise, so that a window whose ends are moves
is as good as the times of these moves are known. Nobody promises that of a real counter: in the last scenario the
counter looks at the power in a quarter of the time only, with noise. Requests of a second then meet the looks at nearly
the same phase all through a window, which is wrong by as much whoever reads it and however long it is. Alignment does
not help against that, and the interval of a single window does not know of it. Windows at random phases differ, and
their mean and its interval, which holds the spread, are what the harness publishes.

Windows: {windows} (`--trials {trials} --seed {seed}`),
in random order. *Missed* are loads that began before this process was ready, on a machine busy with other things: they
count for no tool. Of two GPUs, the sum counts. *Error* is energy ÷ truth − 1, of which *median* is that of its size,
*bias* its mean, and *worst* the largest in size. *Interval* is the 95 % interval that one window states for itself
(median), *mean's* are those of the mean of all windows of a length.
"""
