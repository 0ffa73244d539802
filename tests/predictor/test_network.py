import pytest
import torch

from predictor.features import FEATURES, Group, columns_of
from predictor.network import TIME_BOUND, KernelNetwork
from predictor.physics import IDLE_SHARE, KernelTensors, Physics
from predictor.tensors import kernel_tensors
from tests.predictor.example_kernels import kernels, on, seen

SIZES = ({"m": 8.0, "n": 4096.0, "k": 4096.0}, {"m": 4096.0, "n": 4096.0, "k": 4096.0})


def tensors() -> KernelTensors:
    table = kernels(*SIZES)
    return kernel_tensors(seen(table), on(table.passes))


def test_an_untrained_network_is_the_fitted_physics() -> None:
    network = KernelNetwork(width=16, layers=2)

    own, physics = network(tensors()), network.baseline(tensors())
    assert torch.equal(own.duration_s, physics.duration_s)
    assert torch.allclose(own.power_w, physics.power_w)


def test_physics_is_never_faster_than_the_roofline_with_efficiencies_of_one() -> None:
    physics = Physics()
    torch.nn.init.zeros_(physics.log_compute)
    torch.nn.init.zeros_(physics.log_memory)
    given = tensors()

    roofline = torch.maximum(given.compute_s, given.memory_s)
    assert (physics.duration_s(given) >= roofline).all()


def test_power_lies_between_idle_and_the_limit() -> None:
    given = tensors()
    power = Physics().power_w(given, torch.full((2,), 1e-7))

    assert (power <= given.power_limit_w * 1.0001).all()
    assert (Physics().power_w(given, torch.full((2,), 1e3)) > IDLE_SHARE * given.board_power_w).all()


def test_corrections_are_bounded_whatever_the_weights() -> None:
    network = KernelNetwork(width=16, layers=2)
    torch.nn.init.constant_(network.time.head.bias, 1e6)

    ratio = network(tensors()).duration_s / network.baseline(tensors()).duration_s
    assert torch.allclose(ratio.log(), torch.full((2,), TIME_BOUND))


def test_hidden_hardware_cannot_be_told_apart() -> None:
    torch.manual_seed(0)
    network = KernelNetwork(width=16, layers=2)
    torch.nn.init.normal_(network.time.head.weight)
    features = torch.randn(2, len(FEATURES))
    features[1] = features[0]
    features[1, torch.from_numpy(columns_of(Group.HARDWARE))] += 1.0

    with torch.no_grad():
        hidden = network.time(network.seen(features, torch.ones(2))).tolist()
        shown = network.time(network.seen(features, torch.zeros(2))).tolist()
    assert hidden[0] == pytest.approx(hidden[1])
    assert shown[0] != pytest.approx(shown[1])


def test_beyond_what_was_seen_the_correction_of_the_edge_holds() -> None:
    torch.manual_seed(0)
    network = KernelNetwork(width=16, layers=2)
    network.learn_ranges(torch.zeros(1, len(FEATURES)))

    assert torch.equal(network.seen(torch.full((1, len(FEATURES)), 9.0), None), torch.zeros(1, len(FEATURES)))
