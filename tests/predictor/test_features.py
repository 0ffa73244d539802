import dataclasses

import numpy as np
import pytest

from harness.kernels import KernelKind
from predictor.deployments import Deployment
from predictor.families import Family
from predictor.features import FEATURES, NAMES, Group, columns_of
from tests.predictor.example_kernels import H100, kernels, seen


def test_no_feature_names_a_gpu_and_all_names_differ() -> None:
    renamed = dataclasses.replace(H100, name="another name", nvml_names=(), short_names=())
    table = kernels({"m": 512, "n": 1024, "k": 256})

    same = seen(table, Deployment(hardware=renamed, runtime="vllm")).features
    assert np.array_equal(seen(table).features, same)
    assert len(set(NAMES)) == len(NAMES)
    assert all(feature.unit and feature.meaning for feature in FEATURES)


def test_roofline_times_follow_from_the_data_sheet() -> None:
    found = seen(kernels({"m": 4096, "n": 4096, "k": 4096}))

    assert found.compute_s[0] == pytest.approx(2 * 4096**3 / 989e12, rel=1e-3)
    assert found.memory_s[0] == pytest.approx(3 * 2 * 4096**2 / 3.35e12, rel=1e-2)


def test_a_locked_clock_slows_the_compute_roof_only() -> None:
    table = kernels({"m": 4096, "n": 4096, "k": 4096})
    assert H100.boost_clock_mhz is not None
    half = seen(table, Deployment(hardware=H100, runtime="vllm", sm_clock_mhz=H100.boost_clock_mhz / 2))

    assert half.compute_s[0] == pytest.approx(2 * seen(table).compute_s[0])
    assert half.memory_s[0] == seen(table).memory_s[0]


def test_every_kind_of_kernel_has_finite_features() -> None:
    for kind in KernelKind:
        assert np.isfinite(seen(kernels({}, {"elements": 5.0}, kind=kind)).features).all()


def test_groups_part_the_table() -> None:
    places = np.concatenate([columns_of(group) for group in Group])

    assert sorted(places.tolist()) == list(range(len(FEATURES)))
    assert NAMES[columns_of(Group.KIND)[0]] == f"is_{Family.GEMM}"
