"""Collectives run again by two ranks in step."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, str(HERE / "relaunch_ranks.py"), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_an_all_reduce_adds_up_again_each_time_and_starts_over_after_sixteen(ranks: list[dict[str, Any]]) -> None:
    for seen in ranks:
        assert seen["reduced_ops"] == ["aten::copy_"] + ["c10d::allreduce_"] * 5
        assert seen["reduced_values"] == [(1 + 2) * 2**4, 1 + 2]  # after 5 launches, and after 17


def test_a_gather_gathers_what_each_rank_has(ranks: list[dict[str, Any]]) -> None:
    assert [seen["gathered"] for seen in ranks] == [[0, 0, 0, 1, 1, 1]] * 2


def test_what_the_ranks_exchanged_is_not_changed(ranks: list[dict[str, Any]]) -> None:
    assert [seen["input_after"] for seen in ranks] == [[0, 0, 0], [1, 1, 1]]


def test_all_kernels_of_a_tensor_parallel_model_run_again_and_every_rank_exchanges_as_often(
    ranks: list[dict[str, Any]],
) -> None:
    for seen in ranks:
        assert seen["model_time"] == 1
        assert seen["model_collectives"] == 4  # after the embedding, attention and MLP; before the logits are read
        assert seen["model_launched"] == 4 * 4
