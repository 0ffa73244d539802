"""Scores as records: what was predicted how well by whom, on which split; read and written as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CannotWrite, UsageError

Floats = NDArray[np.float64]
FORMAT = 1
OURS = "joulegraph"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One quantity of one task by one predictor with one seed. Errors are shares of the measurement."""

    task: str
    quantity: str  # time, power, energy
    predictor: str
    seed: int
    n: int
    mape: float
    median_ape: float
    eba5: float  # share of rows within 5 % of the measurement
    eba10: float
    eba30: float
    bias: float  # median of predicted / measured, less 1
    coverage: float | None = None  # share of measurements inside the 90 % interval; None: no interval is given

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What there is one score of."""
        return self.task, self.quantity, self.predictor, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What was trained on and what was predicted, by content."""

    task: str
    held_out: str
    train: int  # rows
    test: int
    train_sha256: str  # of the sorted identities of the rows
    test_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All that one or several runs of the command found."""

    settings: dict[str, str]
    folds: tuple[Fold, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()

    def joined(self, other: "Scores") -> "Scores":
        """With another's; where both scored the same, the other's count."""
        scores = {score.key: score for score in (*self.scores, *other.scores)}
        folds = {(fold.task, fold.held_out): fold for fold in (*self.folds, *other.folds)}
        return Scores(
            settings=self.settings | other.settings,
            folds=tuple(folds.values()),
            scores=tuple(scores.values()),
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )


def scored(
    predicted: Floats, measured: Floats, *, task: str, quantity: str, predictor: str, seed: int, half: Floats | None
) -> Score | None:
    """Score of N predictions; rows without a measurement (NaN) are left out, and there is no score of none.

    ``half``: half widths [N] of the 90 % intervals, as natural logarithms.
    """
    known = np.isfinite(measured)
    if not known.any():
        return None
    ratio = predicted[known] / measured[known]
    error = np.abs(ratio - 1)
    inside = None if half is None else float((np.abs(np.log(ratio)) <= half[known]).mean())
    return Score(
        task=task,
        quantity=quantity,
        predictor=predictor,
        seed=seed,
        n=int(known.sum()),
        mape=float(error.mean()),
        median_ape=float(np.median(error)),
        eba5=float((error <= 0.05).mean()),
        eba10=float((error <= 0.10).mean()),
        eba30=float((error <= 0.30).mean()),
        bias=float(np.median(ratio) - 1),
        coverage=inside,
    )


def write_json(found: Scores, path: Path, summary: Sequence[Any]) -> None:
    """One score a line, so that a change is readable; ``summary``: rows of the table. Raises ``CannotWrite``."""

    def lines(values: Sequence[Any]) -> str:
        return ",\n".join("  " + json.dumps(_short(asdict(value)), ensure_ascii=False) for value in values)

    text = (
        f'{{"format": {FORMAT},\n "settings": {json.dumps(found.settings)},\n "notes": {json.dumps(found.notes)},\n'
        f' "table": [\n{lines(summary)}\n ],\n "folds": [\n{lines(found.folds)}\n ],\n'
        f' "scores": [\n{lines(found.scores)}\n ]}}\n'
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"The scores {path} cannot be written: {error}.\nChoose another --out.") from error


def read_json(path: Path) -> Scores:
    """Scores that were written before; raises ``UsageError``."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"they are of format {values['format']}, and this version reads {FORMAT}")
        return Scores(
            settings=dict(values["settings"]),
            notes=tuple(values["notes"]),
            folds=tuple(Fold(**entry) for entry in values["folds"]),
            scores=tuple(Score(**entry) for entry in values["scores"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"The scores {path} cannot be read: {error}.\nWrite them again: python -m benchmarks.scores."
        ) from error


def _short(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


METRICS = tuple(field.name for field in fields(Score) if field.name not in {"task", "quantity", "predictor", "seed"})
