"""The page docs/focused.md: errors over runs, and how many runs each way needs for the same error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.focused_cells import Cell
from benchmarks.focused_curves import COUNTS, MOST, Errors, Way
from predictor.focus_model import Floats

COMMAND = "python -m benchmarks.focused_study --write docs/focused.md"
_BUDGETS = (8, 16, 24, 32)
_SHOWN = (4, 8, 16, 24, 32, 40)
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What came of all campaigns in one cell."""

    cell: Cell
    errors: Mapping[Way, tuple[Errors, ...]]  # one a seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Runs that one way needs where another needs a given number, with a 95 % interval over seeds.

    ``MOST`` and a bit more where the error is not reached in as many as were made.
    """

    runs: float
    low: float
    high: float

    def text(self) -> str:
        """As the table has it."""
        return f"{_runs(self.runs)} ({_runs(self.low)} … {_runs(self.high)})"


def needed(curve: Floats, error: float) -> float:
    """Runs from which on a curve [len(COUNTS)] stays at or below an error; infinite where it does not.

    Between two counts it is read off a line.

    >>> curve = np.linspace(1.0, 0.05, len(COUNTS))
    >>> round(needed(curve, 0.525), 1)
    21.0
    """
    worst_from_here = np.maximum.accumulate(curve[::-1])[::-1]
    there = np.flatnonzero(worst_from_here <= error)
    if not there.size:
        return float("inf")
    first = int(there[0])
    if first == 0:
        return float(COUNTS[0])
    before, after = worst_from_here[first - 1], worst_from_here[first]
    share = (before - error) / (before - after) if before > after else 1.0
    return COUNTS[first - 1] + share * (COUNTS[first] - COUNTS[first - 1])


def need(curves: Sequence[Curves], way: Way, budget: int, *, kind: str, against: Way = Way.RANDOM) -> Need:
    """Runs of ``way`` for the error that ``against`` has after ``budget`` runs; errors are geometric means over cells.

    The interval comes from drawing seeds with replacement, the same for both ways.
    """
    mine, other = _logs(curves, way, kind), _logs(curves, against, kind)
    at = COUNTS.index(budget)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_RESAMPLES):
        seeds = rng.integers(mine.shape[1], size=mine.shape[1])
        found.append(_need_once(mine[:, seeds], other[:, seeds], at))
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return Need(runs=_need_once(mine, other, at), low=float(low), high=float(high))


def _need_once(mine: Floats, other: Floats, at: int) -> float:
    reference = other.mean(axis=(0, 1))
    error = float(reference[at:].max())  # the same rule as for the one that is to reach it
    return needed(mine.mean(axis=(0, 1)), error)


def _logs(curves: Sequence[Curves], way: Way, kind: str) -> Floats:
    """[cells, seeds, counts] logarithms of errors."""
    found = np.array([[getattr(each, kind) for each in cell.errors[way]] for cell in curves])
    return np.asarray(np.log(found), dtype=np.float64)


def page(curves: Sequence[Curves], *, seeds: int, virtual_runs: int, left_out: str | None) -> str:
    """The whole page."""
    head = _HEAD.format(command=COMMAND)
    parts = [head] if left_out is None else [head, left_out + "\n"]
    parts += [
        _summary(curves),
        _METHOD.format(seeds=seeds, virtual_runs=virtual_runs, even_runs=virtual_runs // 3, most=MOST),
    ]
    for title, group in _groups(curves):
        parts += [f"## {title}\n", _error_table(group), _need_table(group)]
    parts += ["## Cell by cell\n", _CELLS, _cell_table(curves)]
    return "\n".join(parts)


def _summary(curves: Sequence[Curves]) -> str:
    lines = [
        f"| requests | error | against | {' | '.join(f'at {n} runs' for n in _BUDGETS)} |",
        f"|---|---|---|{'---|' * len(_BUDGETS)}",
    ]
    for title, group in _groups(curves):
        for against in (Way.RANDOM, Way.STRATIFIED, Way.UNIFORM):
            for kind in ("median", "mean"):
                found = [need(group, Way.FOCUSED, budget, kind=kind, against=against) for budget in _BUDGETS]
                cells = [saved(each, budget) for each, budget in zip(found, _BUDGETS, strict=True)]
                lines.append(f"| {title} | {kind} | {against} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _groups(curves: Sequence[Curves]) -> list[tuple[str, list[Curves]]]:
    groups: dict[str, list[Curves]] = {}
    for each in curves:
        if each.cell.source == "co2-meter":
            groups.setdefault(f"co2-meter, {each.cell.phase}", []).append(each)
        else:
            groups[f"{each.cell.name} (simulated)"] = [each]
    return list(groups.items())


def _error_table(group: Sequence[Curves]) -> str:
    lines = [
        "Median error (mean error) after so many runs:\n",
        f"| way | {' | '.join(map(str, _SHOWN))} |",
        f"|---|{'---|' * len(_SHOWN)}",
    ]
    for way in Way:
        medians, means = (np.exp(_logs(group, way, kind).mean(axis=(0, 1))) for kind in ("median", "mean"))
        cells = [f"{medians[COUNTS.index(n)]:.1%} ({means[COUNTS.index(n)]:.1%})" for n in _SHOWN]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _need_table(group: Sequence[Curves]) -> str:
    lines = [
        "Runs needed for the error of random sampling from the trace (95 % interval over seeds):\n",
        f"| error | way | {' | '.join(f'random: {n}' for n in _BUDGETS)} |",
        f"|---|---|{'---|' * len(_BUDGETS)}",
    ]
    for kind in ("median", "mean"):
        for way in (Way.FOCUSED, Way.STRATIFIED, Way.UNIFORM):
            cells = [need(group, way, budget, kind=kind).text() for budget in _BUDGETS]
            lines.append(f"| {kind} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell_table(curves: Sequence[Curves]) -> str:
    lines = ["| device, model | phase | random | focused | runs needed | saved |", "|---|---|---|---|---|---|"]
    for each in curves:
        at = COUNTS.index(16)
        random, focused = (
            float(np.exp(_logs([each], way, "median").mean(axis=(0, 1))[at])) for way in (Way.RANDOM, Way.FOCUSED)
        )
        wanted = need([each], Way.FOCUSED, 16, kind="median")
        cells = (each.cell.name, each.cell.phase, f"{random:.1%}", f"{focused:.1%}", wanted.text(), saved(wanted, 16))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def saved(wanted: Need, budget: int) -> str:
    """In a word: a saving or a loss only where the whole interval says so."""
    if wanted.high < budget:
        return f"**{1 - wanted.runs / budget:.0%} saved**"
    return "loss" if wanted.low > budget else "neither shown"


def _runs(value: float) -> str:
    return f"> {MOST}" if value > MOST else f"{value:.1f}".removesuffix(".0")


_HEAD = """# Focused sampling beside random sampling

Written by `{command}`; do not edit.

How many runs focused sampling saves, as a share of the runs that another way takes to the same error: a saving or a
loss (more runs are needed) where the whole 95 % interval over seeds lies on one side, else *neither shown*.
"""

_METHOD = """\
**How a campaign is played.** Requests that were measured stand ready. A way of choosing picks two, sees what one
measurement of each said, and goes on, up to {most} runs. After every two, `predictor.focus_model` is fitted to all that
was seen, and scored on held-out requests of the trace: 200, or a third of those there are, drawn before anything is
chosen; no way may measure their lengths. A held-out request counts as often as the trace asks for it. All ways have
the same model and the same held-out requests; there are {seeds} campaigns of each way in each cell, each with another
draw of what is held out. Errors are relative, of energy; over seeds and cells their geometric mean is taken.

**Ways.** *random from the trace*: measured values in random order. *--sampling trace*: the stratified sample of the
harness, for each number of runs anew. *uniform lengths*: as random, from lengths that were drawn evenly. *--sampling
focused*: `harness.campaign.focused_choice` on the uncertainties of the same model, from 200 requests drawn from the
trace in each round.

**Runs needed** is the number from which on the error stays at or below the one that random sampling keeps from the
number at the head of the column on; "> {most}": not within the runs made. The interval is over seeds drawn with
replacement. Less than the head of the column is a saving, more is a loss.

**What is what.** co2-meter: energy of one phase of one request, batch 1, on two devices, four models, *measured by
others*, decode being total less prefill; repeats of a prefill vary by about 13 %. Rows that the importer's rules call
implausible are left out. Its trace lengths come from the Azure traces. The virtual GPUs are *simulated*: {virtual_runs}
requests of the trace `azure-2023`, batches of 1 to 8, and {even_runs} of even lengths, each measured once by the quick
protocol through the meters of the virtual GPU, noise and all.

**Not blind.** The reaches of the correlation in the choice and of the model's remainder were chosen on co2-meter, with
other seeds; nothing was changed after the virtual GPUs were looked at.
"""

_CELLS = """\
Median error after 16 runs, and the runs that focused sampling needs for the error that random sampling keeps from
16 on. A single cell has few campaigns, so intervals are wide.
"""
