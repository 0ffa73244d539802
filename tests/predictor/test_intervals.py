import numpy as np
import pytest

from predictor.intervals import model_family, quantile


def test_the_quantile_is_that_of_one_more_than_was_seen() -> None:
    errors = np.arange(1.0, 20.0)  # 19 errors: the 18th of 20 is the ninth tenth

    assert quantile(errors) == 18.0


def test_few_errors_give_the_largest() -> None:
    assert quantile(np.array([1.0, 5.0, 2.0])) == 5.0


@pytest.mark.parametrize("seed", range(3))
def test_new_errors_lie_within_in_nine_cases_of_ten(seed: int) -> None:
    rng = np.random.default_rng(seed)
    held = [abs(rng.normal()) <= quantile(np.abs(rng.normal(size=99))) for _ in range(2000)]

    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_checkpoints_of_one_shape_are_one_family_and_sizes_are_not() -> None:
    assert model_family("meta-llama/Llama-2-7b-chat-hf") == model_family("meta-llama/Llama-2-7b-hf")
    assert model_family("meta-llama/Llama-2-7b-hf") != model_family("meta-llama/Llama-2-13b-hf")
