"""The page docs/scores.md: every bar beside what was found, every predictor on every task, where a rival is ahead."""

from collections.abc import Sequence

from benchmarks.scores_records import OURS, Score, Scores
from benchmarks.scores_summary import figure, lines, of
from benchmarks.scores_tasks import TASKS, Task
from predictor.score_table import HEAD, Line, percent, row

COMMAND = "python -m benchmarks.scores --data DIR … --out docs/scores.json --page docs/scores.md"
_METRICS = ("mape", "median_ape", "eba5", "eba10", "eba30", "bias")


def page(found: Scores) -> str:
    """The whole page."""
    every = lines(found)
    barred = [line for line in every if line.limit is not None and not line.is_coverage]
    intervals = [line for line in every if line.is_coverage]
    others = [line for line in every if line.limit is None]
    met = sum(line.met is True for line in barred)
    inside = sum(line.met is True for line in intervals)
    parts = [
        _INTRODUCTION.format(command=COMMAND, met=met, bars=len(barred), inside=inside, intervals=len(intervals)),
        "## Bars\n\n" + HEAD + "".join(map(row, barred)),
        "## Figures without a bar\n\n" + HEAD + "".join(map(row, others)) if others else "",
        "## 90 % intervals\n\n" + HEAD + "".join(map(row, intervals)) if intervals else "",
        "## Where a rival is ahead\n\n" + _behind(every),
        "## Every predictor\n\n" + _EVERY + "\n".join(_task(found, task) for task in TASKS if _has(found, task)),
        "## What was run\n\n" + _settings(found) + _folds(found),
    ]
    return "\n".join(part for part in parts if part)


def _behind(every: Sequence[Line]) -> str:
    behind = [line for line in every if line.ahead is False]
    if not behind:
        return "Nowhere.\n"
    return "".join(
        f"- {line.task} ({line.split}), {line.metric}: {percent(line.mean)}; "
        f"{line.rival}: {percent(line.rival_mean or 0)}\n"
        for line in behind
    )


def _has(found: Scores, task: Task) -> bool:
    return any(score.task == task.key for score in found.scores)


def _task(found: Scores, task: Task) -> str:
    text = f"\n### {task.title}: {task.split}\n\n"
    head = "| predictor | quantity | n | MAPE | median | ≤ 5 % | ≤ 10 % | ≤ 30 % | bias |\n" + "|---" * 9 + "|\n"
    names = list(dict.fromkeys(score.predictor for score in found.scores if score.task == task.key))
    names.sort(key=lambda name: name != OURS)
    rows = [
        _predictor(of(found, task.key, quantity, name), name, quantity)
        for quantity in task.quantities
        for name in names
    ]
    return text + head + "".join(rows)


def _predictor(scores: Sequence[Score], name: str, quantity: str) -> str:
    if not scores:
        return ""
    cells = []
    for metric in _METRICS:
        found = figure(scores, metric)
        if found is None:
            cells.append("–")
            continue
        sign = "+" if metric == "bias" else ""
        spread = f" ± {100 * found.spread:.1f}" if found.seeds > 1 else ""
        cells.append(f"{100 * found.mean:{sign}.1f}{spread}")
    title = f"**{name}**" if name == OURS else name
    return f"| {title} | {quantity} | {scores[0].n:,} | {' | '.join(cells)} |\n"


def _settings(found: Scores) -> str:
    told = "".join(f"- {name}: {value}\n" for name, value in found.settings.items())
    return told + "".join(f"- {note}\n" for note in found.notes) + "\n"


def _folds(found: Scores) -> str:
    head = (
        "| task | held out | trained on | predicted | its SHA-256 | SHA-256 of the predicted |\n" + "|---" * 6 + "|\n"
    )
    return head + "".join(
        f"| {fold.task} | {fold.held_out} | {fold.train:,} | {fold.test:,} | `{fold.train_sha256[:12]}` "
        f"`{fold.test_sha256[:12]}` |\n"
        for fold in found.folds
    )


_INTRODUCTION = """# Scores of the reference predictor

Written by `{command}`; do not edit.

{met} of {bars} bars are met; {inside} of {intervals} intervals hold between 86 and 94 % of the measurements. Errors are
shares of the measurement, APE its absolute value; figures are means over seeds ± their standard deviation. A rival in
bold is ahead of us. Nothing that is predicted was trained on: shapes of kernels, GPUs, whole sources, and models by
family (all models of the same layers, widths and experts leave together, in every source).
"""

_EVERY = """In per cent. *Fitted Roofline* is the physics that the network starts from, its figures fitted to the same
rows. Trees, forest and neighbours read the features of the network and learn log(time / Roofline) and log(power / board
power); for requests they read sums over passes, sizes and attributes of the hardware, and *on our physics* means that
they correct the fitted Roofline instead of the plain one. Gradient-boosted trees have the training rows of the network;
they choose between 31 and 255 leaves and their number of trees, neighbours between 1 and 5, on rows kept from training:
the whole shapes that the network stops by, or a fifth of the families of models, which the network does learn from.
The forest has 60 trees of at most 60,000 rows; neighbours are sought among at most 200,000 rows, for about 10,000 of
the kernels that are predicted. *Host time stated* has one figure of each machine from the source itself: the time of
its shortest step per launch; the request that it is read from is not scored.
"""
