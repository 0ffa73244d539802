"""The reference predictor: kernel graphs, physics, and the networks of a checkpoint."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from harness.errors import HarnessError
from harness.hardware import Hardware
from predictor.assembly import Assembled, assemble, is_served
from predictor.checkpoint import SHIPPED, Checkpoint, read_checkpoint
from predictor.deployments import check
from predictor.familiar import attributes, near
from predictor.passes import pass_tensors
from predictor.requests import Interval, PhasePrediction, Prediction, PredictionRequest, Refusal

EAGER, SERVED = "eager", "served"
_PIECE = 512  # requests whose kernels are held at once
_UNFAMILIAR = 2.0  # intervals of requests unlike anything learned are so much wider


class ReferencePredictor:
    """Answers requests with a checkpoint's networks."""

    name = "joulegraph"

    def __init__(self, checkpoint: Checkpoint, *, physics: bool = False) -> None:
        """``physics``: leave the corrections out; the fitted Roofline."""
        self.checkpoint = checkpoint
        self._physics = physics
        card = checkpoint.card
        self._seen = np.array([entry.attributes for entry in card.seen_hardware])
        self._spreads = {(entry.runtime_class, entry.part, entry.quantity): entry.half_width for entry in card.spreads}

    def predict(self, requests: Sequence[PredictionRequest]) -> tuple[Prediction | Refusal, ...]:
        """One answer per request, in order."""
        answers: list[Prediction | Refusal] = []
        for start in range(0, len(requests), _PIECE):
            answers.extend(self._predicted(requests[start : start + _PIECE]))
        return tuple(answers)

    def _predicted(self, requests: Sequence[PredictionRequest]) -> list[Prediction | Refusal]:
        entries = [_checked(assemble(request)) for request in requests]
        answers: list[Prediction | Refusal | None] = [
            entry if isinstance(entry, Refusal) else None for entry in entries
        ]
        usable = [(place, entry) for place, entry in enumerate(entries) if isinstance(entry, Assembled)]
        if usable:
            found = self._answers([entry for _, entry in usable])
            for (place, _), answer in zip(usable, found, strict=True):
                answers[place] = answer
        return [answer if answer is not None else Refusal(reason="There is no answer.") for answer in answers]

    @torch.no_grad()
    def _answers(self, assembled: Sequence[Assembled]) -> list[Prediction]:
        familiar = self._familiar([entry.request.hardware for entry in assembled])
        passes = pass_tensors(
            assembled, self.checkpoint.kernels, hide=[not known for known in familiar], physics=self._physics
        )
        estimate = self.checkpoint.passes(passes, corrected=not self._physics)
        sums = torch.zeros(len(assembled), 4, dtype=torch.float64)  # seconds and joules of prefill, of decode
        column = 2 * passes.decode.long()
        flat = sums.view(-1)
        flat.index_add_(0, passes.request * 4 + column, (passes.times * estimate.duration_s).double())
        flat.index_add_(0, passes.request * 4 + column + 1, (passes.times * estimate.energy_j).double())
        rows: list[list[float]] = sums.tolist()
        return [
            self._prediction(entry, row, bool(known))
            for entry, row, known in zip(assembled, rows, familiar, strict=True)
        ]

    def _familiar(self, hardware: Sequence[Hardware]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        distinct = list({device.name: device for device in hardware}.values())
        known = dict(zip((device.name for device in distinct), near(attributes(distinct), self._seen), strict=True))
        return np.array([known[device.name] for device in hardware])

    def _prediction(self, entry: Assembled, row: Sequence[float], known: bool) -> Prediction:
        request = entry.request
        kind = SERVED if is_served(request.runtime) else EAGER
        warnings = list(entry.warnings)
        if not known:
            warnings.append(
                f"{request.hardware.name} is unlike any GPU in the training data; the answer is physics mostly."
            )
        if kind not in self.checkpoint.card.seen_runtimes:
            known = False
            warnings.append(f"No request of a {kind} runtime is in the training data.")
        if entry.offloaded_s > 0 or request.dtype in {"float32", "int4"}:
            known = False
        prefill_s, prefill_j, decode_s, decode_j = row
        widen = 1.0 if known else _UNFAMILIAR

        def phase(part: str, duration_s: float, energy_j: float) -> PhasePrediction:
            return PhasePrediction(
                energy_j=energy_j,
                duration_s=duration_s,
                energy_interval_j=self._interval(kind, part, "energy", energy_j, widen),
                duration_interval_s=self._interval(kind, part, "time", duration_s, widen),
            )

        return Prediction(
            prefill=phase("prefill", prefill_s, prefill_j),
            decode=phase("decode", decode_s, decode_j),
            whole=phase("whole", prefill_s + decode_s, prefill_j + decode_j),
            in_distribution=known,
            warnings=tuple(warnings),
        )

    def _interval(self, kind: str, part: str, quantity: str, value: float, widen: float) -> Interval:
        half = self._spreads.get((kind, part, quantity), self._spreads.get((kind, "whole", quantity), 0.7)) * widen
        return Interval(low=value * float(np.exp(-half)), high=value * float(np.exp(half)))


def _checked(entry: Assembled | Refusal) -> Assembled | Refusal:
    """An assembled request whose hardware the table describes well enough."""
    if isinstance(entry, Refusal):
        return entry
    try:
        check(entry.deployment)
    except HarnessError as error:
        return Refusal(reason=str(error))
    return entry


@cache
def load(checkpoint: Path | None = None) -> ReferencePredictor:
    """The predictor of a checkpoint, of the shipped one by default. Raises ``UsageError``."""
    return ReferencePredictor(read_checkpoint(checkpoint or SHIPPED))
