"""Answers: grams, columns, and predictors that do not keep their word."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.errors import HarnessError
from harness.hardware import find
from predictor.answers import Carbon, CarbonChoice, answers, carbon_of, output_columns, request_values, values
from predictor.requests import Prediction, PredictionRequest, Refusal
from predictor.table_columns import COLUMNS, NAMES
from predictor.table_rows import Asked
from tests.predictor.fake_predictor import FakePredictor, phase

REQUEST = PredictionRequest(
    model="gpt2", hardware=find("H100-SXM"), n_gpus=2, batch_size=3, prompt_tokens=100, output_tokens=11
)


def test_grams_follow_energy_time_and_gpus() -> None:
    carbon = carbon_of(region=None, intensity_g_per_kwh=360, pue=1.5, lifetime_years=4, utilisation=0.5)
    answer = answers([Asked(request=REQUEST)], FakePredictor(), carbon)[0]
    assert answer.prediction is not None
    whole = answer.prediction.whole

    assert answer.operational_gco2e == pytest.approx(whole.energy_j / 3.6e6 * 1.5 * 360)
    in_service_s = 4 * 365.25 * 86400 * 0.5
    assert answer.embodied_gco2e == pytest.approx(876.5e3 * whole.duration_s * 2 / in_service_s)


def test_factors_of_a_gpu_are_looked_up_once() -> None:
    carbon = Carbon(choice=CarbonChoice(region="FR"))

    assert carbon.factors("NVIDIA B200") is carbon.factors("NVIDIA B200")
    assert carbon.factors("NVIDIA B200").embodied_gpu_kg == 284.0
    assert carbon.factors("NVIDIA H200").embodied_gpu_kg is None


def test_rows_that_are_no_requests_keep_their_place_and_cost_the_others_nothing() -> None:
    rows = [Asked(request=None, error="no"), Asked(request=REQUEST, warnings=("mind",)), Asked(request=None, error="x")]
    fake = FakePredictor()
    found = answers(rows, fake)

    assert [answer.error for answer in found] == ["no", None, "x"]
    assert found[1].warnings == ("mind",)
    assert (fake.calls, fake.asked) == (1, 1)
    assert answers(rows[:1], fake)[0].error == "no"
    assert fake.calls == 1


class Broken(FakePredictor):
    """Answers with what it was made with."""

    def __init__(self, *answers: Prediction | Refusal) -> None:
        super().__init__()
        self._answers = answers

    def predict(self, requests: Sequence[PredictionRequest]) -> tuple[Prediction | Refusal, ...]:
        return self._answers


def test_what_is_not_finite_is_no_answer() -> None:
    prediction = Prediction(prefill=phase(float("nan"), 1), decode=phase(1, 1), whole=phase(1, 2), in_distribution=True)

    found = answers([Asked(request=REQUEST)], Broken(prediction))[0]
    assert "no finite energy" in (found.error or "")
    assert found.prediction is None


def test_a_predictor_that_loses_a_request_is_found_out() -> None:
    with pytest.raises(HarnessError, match="gave 0 answers to 1 requests"):
        answers([Asked(request=REQUEST)], Broken())


def test_columns_are_those_of_a_request_and_of_its_answer() -> None:
    assert tuple(request_values(REQUEST)) == NAMES
    assert {column.name for column in COLUMNS} == set(PredictionRequest.__dataclass_fields__) - {"hardware"} | {"gpu"}
    answer = answers([Asked(request=replace(REQUEST, batch_size=600))], FakePredictor())[0]
    row = values(answer, output_columns(None))

    assert list(row)[:8] == [
        "prefill_energy_j",
        "decode_energy_j",
        "energy_j",
        "energy_low_j",
        "energy_high_j",
        "prefill_time_s",
        "decode_time_s",
        "time_s",
    ]
    assert row["warning"] == "the batch runs in waves"
    assert row["error"] is None


def test_a_refusal_of_several_lines_is_one_line_in_a_table() -> None:
    found = answers([Asked(request=replace(REQUEST, batch_size=2000))], FakePredictor())[0]

    assert values(found, output_columns(None))["error"] == (
        "gpt2 needs more memory than NVIDIA H100 80GB HBM3 has. Take a smaller batch."
    )
