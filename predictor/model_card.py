"""The card of a checkpoint as a page: ``python -m predictor.model_card [FILE] > docs/predictor.md``."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.streams import answer
from predictor.checkpoint import SHIPPED, Card, read_card
from predictor.features import FEATURES

_HEAD = """\
# The reference predictor

Written by `python -m predictor.model_card > docs/predictor.md`; do not edit.

`python -m predictor.predict` answers with a checkpoint that ships with the package. Time and energy of every kernel of
a request's forward passes come from physics (a fitted Roofline, energies per FLOP and byte) with corrections that a
network learned; passes add host time and overheads. DESIGN.md says why it is built so and what did not help.

## How far to trust it

- The intervals are 90 % ones: errors for models that were left out of training, by runtime class (below). On hardware
  unlike any it has seen they are doubled, and the answer says so.
- Energy is that of the GPUs. The rest of the machine is not in it, but through PUE in carbon.
- Kernels: time is learned from the GPUs named below; power from B200 and H200 only. Whole requests: A100, H100
  and B200, served by vLLM (others: time only), and transformers' eager code on one A100 with a locked clock.
- Never seen: batches on consumer cards, AMD or Intel energy, quantised transformers models, training, prefix caching,
  speculative decoding.
- `host_us_per_launch` differs by machine. State it where you know it: small models at small batches are host-bound.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page of a checkpoint."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return answer(lambda: _print(Path(given[0]) if given else SHIPPED))


def _print(checkpoint: Path) -> int:
    sys.stdout.write(page(read_card(checkpoint)))
    return 0


def page(card: Card) -> str:
    """Markdown."""
    learned = _table(
        ("source", "kernels", "runs", "provenance", "licence"),
        [
            (entry.source, f"{entry.kernels:,}", f"{entry.runs:,}", entry.provenance, entry.licence or "none stated")
            for entry in card.learned_from
        ],
    )
    spreads = _table(
        ("runtime", "part", "quantity", "interval", "labels left out"),
        [
            (
                entry.runtime_class,
                entry.part,
                entry.quantity,
                f"÷ × {math.exp(entry.half_width):.2f}",
                f"{entry.residuals:,}",
            )
            for entry in card.spreads
        ],
    )
    features = _table(
        ("feature", "unit", "group", "meaning"),
        [(entry.name, entry.unit, entry.group, entry.meaning) for entry in FEATURES],
    )
    hardware = ", ".join(entry.name for entry in card.seen_hardware) or "none"
    splits = "\n".join(f"- {name}: {value}" for name, value in card.splits.items())
    return (
        f"{_HEAD}\n## What it has seen\n\n{learned}\n\nKernels on: {hardware}.\n"
        f"Rows that nobody measured: {', '.join(card.allowed) or 'none'}. "
        f"Trained {card.made_at_utc[:10]}, seed {card.seed}.\n\n"
        f"## Splits\n\n{splits}\n\n## Intervals\n\n{spreads}\n\n## Features of a kernel\n\n"
        "Sizes are those of one launch; 0 where a kernel has no such size. Sources: the kernel graph (sizes, kinds), "
        "`harness/data/hardware.toml` (hardware), the dataset's variants (implementation).\n\n"
        f"{features}\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
