"""The page docs/ablations.md: errors of all variants, and which of them differ from the plain correction."""

from collections.abc import Iterator, Sequence

from benchmarks.ablation_models import Variant
from benchmarks.ablation_scores import Cell
from predictor.kernel_table import Floats

COMMAND = "python -m benchmarks.ablations --data DIR… --out docs/ablations.md"
_REFERENCE = Variant.CORRECTION
_OTHERS = tuple(variant for variant in Variant if variant is not _REFERENCE)
_NOTES = {
    Variant.PHYSICS: "The figures of `predictor.pass_model`, fitted; nothing is corrected.",
    Variant.CORRECTION: "A net reads features of the pass as a whole and corrects time and energy by at most ±30 %.",
    Variant.POOLED: "Beside them the net reads the mean of the pass's kernels (16 numbers, weighted by time).",
    Variant.MESSAGES_1: "The same after one round of GraphSAGE with mean aggregation along the data flow.",
    Variant.MESSAGES: "The same after two rounds.",
    Variant.DIRECT: "A net and a linear layer give the logarithms of time and energy from the same sums of kernels.",
    Variant.SEPARATE: "As the correction without graph, with a net each for prefill and decode steps.",
    Variant.UNBOUNDED: "As the correction without graph, without the limit of ±30 %.",
}


def page(cells: Sequence[Cell], *, seeds: int, steps: int, kernels: str) -> str:
    """The page as Markdown; ``kernels`` names the kernel network."""
    parts = [
        f"# What the parts of the predictor are worth\n\nWritten by `{COMMAND}`; do not edit.\n",
        f"Each variant of the pass model beside the *{_REFERENCE}*. Counted are quantities (time, energy) of a source "
        "in a task; a difference is *shown* where the 95 % interval of the difference in mean error lies on one side "
        "of 0. One in twenty would be by chance.\n",
        _table(["variant", "what it is", "better", "worse", "not shown"], _counts(cells)),
        "\n" + _method(seeds, steps, kernels),
    ]
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [cell for cell in cells if cell.task == task]
        parts.append(f"\n## {task[0].upper()}{task[1:]}\n")
        parts += ["Error in % (mean absolute, then median), mean ± standard deviation over seeds.\n", _errors(own)]
        parts += [
            f"\nMean error less that of the *{_REFERENCE}*, in percentage points (95 % interval; **bold**: shown).\n",
            _differences(own),
        ]
    return "\n".join(parts)


def _method(seeds: int, steps: int, kernels: str) -> str:
    return f"""**How.** All variants read the kernels' times and powers of one kernel network, which has seen kernels
measured alone and no pass ({kernels}). They have the same splits and the same {seeds} seeds, and take {steps} steps at
the same rates on the same draws of 128 runs. Number of steps, width and operator were chosen on the first task, with
another seed. A source counts with the root of its number of runs.

**Tasks.** *One model in five left out*: models are names, so that a fine-tuned or an 8-bit twin may remain; sources
whose licence is not open are learned from only for this score of their own. *One shape in five left out*: twins go
together. *Trained on none of it*: all other openly licensed sources; where none of them has the source's kind of
runtime (eager, replayed as CUDA graphs, launch by launch), nothing is corrected, so that all variants but the direct
regression agree. *One GPU left out*: of the passes; the kernel network has seen kernels of it alone, so this says what
the pass model takes from a GPU, not what the predictor does for one that is new.

**Intervals** come from drawing deployments (a model on a GPU) with replacement, the same for both of a pair, and seeds
of each. Where a source has four deployments they are rough.
"""


def _counts(cells: Sequence[Cell]) -> Iterator[list[str]]:
    for variant in Variant:
        if variant is _REFERENCE:
            yield [str(variant), _NOTES[variant], "", "", ""]
            continue
        signs = [_sign(cell.difference(variant, _REFERENCE)) for cell in cells]
        yield [str(variant), _NOTES[variant], *(str(signs.count(sign)) for sign in (-1, 1, 0))]


def _errors(cells: Sequence[Cell]) -> str:
    rows = [
        [str(variant), *(f"{_spread(cell.mean(variant))}; {_spread(cell.median(variant))}" for cell in cells)]
        for variant in Variant
    ]
    return _table(["variant", *map(_head, cells)], rows)


def _differences(cells: Sequence[Cell]) -> str:
    rows = [[str(variant), *(_interval(cell.difference(variant, _REFERENCE)) for cell in cells)] for variant in _OTHERS]
    return _table(["variant", *map(_head, cells)], rows)


def _head(cell: Cell) -> str:
    return f"{cell.source}, {cell.quantity} ({len(cell.cluster)})"


def _spread(values: Floats) -> str:
    text = f"{100 * values.mean():.1f}"
    return text if len(values) == 1 else f"{text} ± {100 * values.std(ddof=1):.1f}"


def _sign(interval: tuple[float, float]) -> int:
    return (interval[0] > 0) - (interval[1] < 0)


def _interval(interval: tuple[float, float]) -> str:
    text = f"{100 * interval[0]:+.1f} … {100 * interval[1]:+.1f}"
    return f"**{text}**" if _sign(interval) else text


def _table(head: Sequence[str], rows: "Iterator[list[str]] | Sequence[Sequence[str]]") -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
