import pytest
import torch

from predictor.pass_model import BOUND, PassModel
from predictor.passes import GROUPS, PassTensors


def passes(**changes: float) -> PassTensors:
    """One pass of 10 ms of dense kernels on one 400-W board."""
    values = {
        "request": 0.0, "times": 1.0, "decode": 0.0, "served": 0.0, "graphs": 0.0, "mixed": 0.0,
        "compute_s": 5e-3, "memory_s": 5e-3, "launches": 100.0, "batch": 1.0, "tokens": 512.0, "context": 512.0,
        "gpus": 1.0, "at_work": 1.0, "idle_w": 68.0, "board_power_w": 400.0, "power_limit_w": 400.0,
        "compute_w": 150.0, "memory_w": 100.0, "clock_share": 1.0, "host_s": float("nan"), "offloaded_s": 0.0,
    } | changes  # fmt: skip
    dense = torch.tensor([[1e-2, 0.0, 0.0, 0.0, 0.0]])
    tensors = {name: torch.tensor([value]) for name, value in values.items()}
    tensors["request"] = tensors["request"].long()
    assert len(GROUPS) == dense.shape[1]
    return PassTensors(busy_s=dense, active_j=dense * 200, **tensors)


@torch.no_grad()
def run(model: PassModel | None = None, **changes: float) -> tuple[float, float]:
    estimate = (model or PassModel())(passes(**changes))
    return float(estimate.duration_s), float(estimate.energy_j)


def test_a_pass_takes_what_its_kernels_and_a_little_more_take() -> None:
    duration, energy = run()

    assert 1e-2 < duration < 1.2e-2
    assert 68 * duration < energy < 400 * duration


def test_a_slow_host_sets_the_pace_of_small_kernels() -> None:
    duration, _ = run(launches=10_000, host_s=1e-5)

    assert duration == pytest.approx(0.1, rel=0.01)


def test_graphs_take_the_host_out() -> None:
    assert run(served=1, graphs=1, launches=2000)[0] < run(served=1, graphs=0, launches=2000)[0]


def test_gpus_that_wait_for_their_turn_idle() -> None:
    alone, energy = run()
    together, more = run(gpus=3)

    assert together == pytest.approx(alone)
    assert more == pytest.approx(energy + 2 * 68 * alone)


def test_no_pass_draws_more_than_the_enforced_limit_and_a_lower_one_takes_longer() -> None:
    plain, _ = run(compute_w=2000)
    duration, energy = run(compute_w=2000, power_limit_w=200)

    assert energy / duration <= 200
    assert duration > plain


def test_the_correction_is_bounded_whatever_the_weights() -> None:
    model = PassModel()
    torch.nn.init.constant_(model.head.bias, 1e6)

    assert run(model)[0] / run()[0] == pytest.approx(2.718281828**BOUND, rel=1e-3)


def test_a_class_of_runtimes_without_measurements_is_left_uncorrected() -> None:
    model = PassModel()
    model.learn_ranges(passes(served=1, graphs=1))
    torch.nn.init.constant_(model.head.bias, 1e6)

    assert run(model)[0] == pytest.approx(run()[0])
    assert run(model, served=1, graphs=1)[0] > 1.2 * run(served=1, graphs=1)[0]


def test_untrained_is_uncorrected() -> None:
    model, given = PassModel(), passes()

    plain, own = model(given, corrected=False), model(given)
    assert torch.equal(plain.energy_j, own.energy_j)
    assert torch.equal(plain.duration_s, own.duration_s)
