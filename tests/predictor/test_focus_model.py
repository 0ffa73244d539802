"""The small model knows power laws, doubts what it has not seen, and forgives outliers."""

import numpy as np
import pytest

from predictor.focus_model import Floats, FocusModel, sizes_of

KNOWN = [(batch, prompt, output) for batch in (1, 4) for prompt in (64, 512, 2048) for output in (8, 200)]
ASKED = [(2, 128, 32), (1, 1000, 100), (4, 300, 20)]


def law(requests: list[tuple[int, int, int]]) -> Floats:
    """2 J × batch^0.8 × (prompt + output)^0.9."""
    batch, prompt, output = np.array(requests, dtype=np.float64).T
    return np.asarray(np.log(2.0) + 0.8 * np.log(batch) + 0.9 * np.log(prompt + output), dtype=np.float64)


def test_a_power_law_is_learned_from_a_dozen_runs() -> None:
    predicted = FocusModel(sizes_of(KNOWN), law(KNOWN)).predict(sizes_of(ASKED))

    assert predicted.energy_j == pytest.approx(np.exp(law(ASKED)), rel=0.05)
    assert np.all(predicted.sd < 0.2)


def test_doubt_grows_with_the_distance_from_what_was_measured() -> None:
    model = FocusModel(sizes_of(KNOWN), law(KNOWN))
    near, far, farther = model.predict(sizes_of([(1, 512, 200), (16, 512, 200), (256, 8000, 200)])).sd

    assert near < far < farther


def test_before_anything_is_measured_all_is_as_uncertain() -> None:
    predicted = FocusModel(sizes_of([]), np.zeros(0)).predict(sizes_of(ASKED))

    assert len(set(predicted.sd.tolist())) == 1
    assert predicted.sd[0] > 0


def test_one_run_wrong_by_a_factor_of_five_hardly_moves_the_others() -> None:
    wrong = law(KNOWN).copy()
    wrong[3] += np.log(5.0)
    predicted = FocusModel(sizes_of(KNOWN), wrong).predict(sizes_of(ASKED))

    assert predicted.energy_j == pytest.approx(np.exp(law(ASKED)), rel=0.25)


def test_the_noise_of_measurements_is_found() -> None:
    rng = np.random.default_rng(0)
    requests = [(1, int(p), int(o)) for p, o in zip(rng.integers(8, 4000, 60), rng.integers(2, 500, 60), strict=True)]
    quiet = FocusModel(sizes_of(requests), law(requests) + 0.01 * rng.standard_normal(60))
    loud = FocusModel(sizes_of(requests), law(requests) + 0.3 * rng.standard_normal(60))

    assert quiet.noise < 0.05
    assert loud.noise > 0.2


def test_the_same_runs_give_the_same_model() -> None:
    one, other = (FocusModel(sizes_of(KNOWN), law(KNOWN)).predict(sizes_of(ASKED)) for _ in range(2))

    assert np.array_equal(one.mean, other.mean)
    assert np.array_equal(one.sd, other.sd)


def test_a_measurement_without_a_finite_energy_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        FocusModel(sizes_of(KNOWN[:2]), np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="each measured"):
        FocusModel(sizes_of(KNOWN[:2]), np.array([1.0]))
