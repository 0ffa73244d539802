"""What every predictor keeps."""

import dataclasses
import math
from collections.abc import Callable

import pytest

from harness.hardware import find
from predictor.reference import ReferencePredictor, load
from predictor.requests import Prediction, PredictionRequest, Predictor, Refusal
from tests.predictor.fake_predictor import FakePredictor

REQUEST = PredictionRequest(
    model="meta-llama/Llama-3.2-1B",
    hardware=find("NVIDIA H100 80GB HBM3"),
    batch_size=4,
    prompt_tokens=256,
    output_tokens=64,
    runtime="vllm",
)
PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "reference": load,
    "physics alone": lambda: ReferencePredictor(load().checkpoint, physics=True),
    "fake": FakePredictor,
}


@pytest.fixture(params=list(PREDICTORS), name="predictor")
def any_predictor(request: pytest.FixtureRequest) -> Predictor:
    return PREDICTORS[request.param]()


def predicted(predictor: Predictor, **changes: object) -> Prediction:
    (answer,) = predictor.predict([dataclasses.replace(REQUEST, **changes)])  # type: ignore[arg-type]
    assert isinstance(answer, Prediction), answer
    return answer


def test_one_answer_for_each_request_in_order(predictor: Predictor) -> None:
    batches = [1, 8, 2]
    together = predictor.predict([dataclasses.replace(REQUEST, batch_size=batch) for batch in batches])

    for batch, answer in zip(batches, together, strict=True):
        assert isinstance(answer, Prediction)
        assert answer.whole.energy_j == pytest.approx(predicted(predictor, batch_size=batch).whole.energy_j, rel=1e-4)


def test_no_requests_no_answers(predictor: Predictor) -> None:
    assert tuple(predictor.predict([])) == ()


def test_phases_add_up_to_the_whole(predictor: Predictor) -> None:
    answer = predicted(predictor)

    assert answer.prefill.energy_j + answer.decode.energy_j == pytest.approx(answer.whole.energy_j)
    assert answer.prefill.duration_s + answer.decode.duration_s == pytest.approx(answer.whole.duration_s)


def test_numbers_are_positive_and_lie_in_their_intervals(predictor: Predictor) -> None:
    answer = predicted(predictor)

    for phase in (answer.prefill, answer.decode, answer.whole):
        assert math.isfinite(phase.energy_j)
        assert 0 < phase.energy_interval_j.low <= phase.energy_j <= phase.energy_interval_j.high
        assert 0 < phase.duration_interval_s.low <= phase.duration_s <= phase.duration_interval_s.high


def test_more_tokens_cost_more(predictor: Predictor) -> None:
    assert predicted(predictor, output_tokens=256).whole.energy_j > predicted(predictor).whole.energy_j
    assert predicted(predictor, prompt_tokens=2048).prefill.energy_j > predicted(predictor).prefill.energy_j


def test_a_prefill_alone_has_no_decode(predictor: Predictor) -> None:
    assert predicted(predictor, output_tokens=1).decode.energy_j == 0


def test_the_reference_draws_no_more_than_its_boards_may() -> None:
    for batch in (1, 64, 512):
        answer = predicted(load(), batch_size=batch, n_gpus=2)
        assert answer.mean_power_w <= 2 * 700


def test_a_lower_power_limit_takes_longer_and_hardware_unlike_any_seen_is_said() -> None:
    limited = predicted(load(), batch_size=256, power_limit_w=300.0)
    free = predicted(load(), batch_size=256)

    assert limited.whole.duration_s >= free.whole.duration_s
    assert free.in_distribution
    unseen = predicted(load(), hardware=find("Tesla T4"), dtype="float16")
    assert not unseen.in_distribution
    assert "unlike any GPU" in unseen.warnings[0]
    assert unseen.whole.energy_interval_j.high / unseen.whole.energy_j > 1.5


def test_a_request_without_an_answer_costs_the_others_nothing() -> None:
    unknown = dataclasses.replace(REQUEST, model="nobody/nothing")
    answers = load().predict([REQUEST, unknown, REQUEST])

    assert isinstance(answers[1], Refusal)
    assert isinstance(answers[0], Prediction)
    assert isinstance(answers[2], Prediction)
