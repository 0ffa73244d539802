"""A predictor of plain arithmetic, whose answers can be worked out by hand."""

from collections.abc import Sequence

from predictor.requests import Interval, PhasePrediction, Prediction, PredictionRequest, Refusal

MOST_BATCH = 1000  # refused beyond, as if memory were full
FAR_PROMPT = 3000  # not in distribution from here on


def phase(energy_j: float, duration_s: float) -> PhasePrediction:
    """With 10 % to each side."""
    return PhasePrediction(
        energy_j=energy_j,
        duration_s=duration_s,
        energy_interval_j=Interval(low=0.9 * energy_j, high=1.1 * energy_j),
        duration_interval_s=Interval(low=0.9 * duration_s, high=1.1 * duration_s),
    )


class FakePredictor:
    """1 mJ and 1 µs per prompt token, 2 J + 10 mJ per sequence and 10 ms per decode step, on each GPU alike.

    Energy is 1 for every GPU taken together on boards up to 500 W, 2 above; time is divided by the GPUs.
    """

    name = "fake"

    def __init__(self) -> None:
        self.calls = 0
        self.asked = 0

    def predict(self, requests: Sequence[PredictionRequest]) -> tuple[Prediction | Refusal, ...]:
        """One answer per request, in order."""
        self.calls += 1
        self.asked += len(requests)
        return tuple(self._one(request) for request in requests)

    def _one(self, request: PredictionRequest) -> Prediction | Refusal:
        if request.batch_size > MOST_BATCH:
            return Refusal(
                reason=f"{request.model} needs more memory than {request.hardware.name} has.\nTake a smaller batch."
            )
        factor = 2.0 if (request.hardware.board_power_w or 0) > 500 else 1.0
        tokens = request.batch_size * request.prompt_tokens
        steps = max(0, request.output_tokens - 1)
        prefill = phase(factor * 1e-3 * tokens, 1e-6 * tokens / request.n_gpus)
        decode = phase(factor * steps * (2 + 0.01 * request.batch_size), 0.01 * steps / request.n_gpus)
        return Prediction(
            prefill=prefill,
            decode=decode,
            whole=phase(prefill.energy_j + decode.energy_j, prefill.duration_s + decode.duration_s),
            in_distribution=request.prompt_tokens < FAR_PROMPT,
            warnings=("the batch runs in waves",) if request.batch_size > 500 else (),
        )
