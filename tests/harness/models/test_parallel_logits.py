"""Sharded models against whole ones, on real ranks (gloo): logits, shapes, collectives, replicas, random weights."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.models.parallel import (
    Exchange,
    TensorPlan,
    check_degree,
    local_elements,
    local_shape,
    share_on_meta,
    tensor_plan,
)
from harness.models.parallel_share import local_tensor
from harness.models.steps import forward_options

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("parallel_families.py")
BAR = 1e-5


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("parallel_families", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parallel_families"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tiny = _script()
EVERY = [(family, degree) for degree in tiny.DEGREES for family in tiny.families_at(degree)]
every_family_and_degree = pytest.mark.parametrize(("family", "degree"), EVERY)
every_family = pytest.mark.parametrize("family", tiny.FAMILIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What the ranks left behind."""

    folder: Path

    def whole_logits(self, family: str) -> torch.Tensor:
        logits: torch.Tensor = torch.load(self.folder / family / "whole.pt")
        return logits

    def logits(self, family: str, degree: int, rank: int) -> torch.Tensor:
        logits: torch.Tensor = torch.load(self.folder / family / f"{degree}-{rank}.pt")
        return logits

    def seen(self, family: str, degree: int, rank: int) -> Any:
        return tiny.Seen(**json.loads((self.folder / family / f"{degree}-{rank}.json").read_text()))

    def error(self, family: str, degree: int, rank: int) -> float:
        """Largest error of a logit, relative to the largest logit."""
        whole = self.whole_logits(family)
        return float((self.logits(family, degree, rank) - whole).abs().max() / whole.abs().max())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("families")
    # No loader threads in the forked ranks: after a fork torch renews its thread pool on first use, and two threads at
    # once may find none ("Invalid thread pool!").
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_DEACTIVATE_ASYNC_LOAD": "1"}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return Ran(folder=folder)


@pytest.fixture(scope="module")
def whole_on_meta() -> Callable[[str], Any]:
    """The whole model of a family on the meta device, a new one each time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM

    def build(family: str) -> Any:
        config = tiny.config_of(family)
        with torch.device("meta"):
            # bfloat16: on the meta device the experts' GEMM has no float32
            return auto.from_config(
                AutoConfig.for_model(**config), dtype=torch.bfloat16, attn_implementation="eager"
            ).eval()

    return build


@every_family_and_degree
def test_every_rank_gets_the_logits_of_the_whole_model(ran: Ran, family: str, degree: int) -> None:
    first, *others = [ran.logits(family, degree, rank) for rank in range(degree)]
    assert ran.error(family, degree, 0) <= BAR
    assert all(torch.equal(first, other) for other in others)  # else ranks would go on with different tokens


@pytest.mark.parametrize("family", tiny.LARGE_FAMILIES)
def test_random_weights_never_built_whole_are_those_of_one_model_at_all_degrees(ran: Ran, family: str) -> None:
    two, three, four = (torch.load(ran.folder / family / f"large-{degree}-{degree - 1}.pt") for degree in tiny.DEGREES)
    assert float((two - three).abs().max() / two.abs().max()) <= BAR
    assert float((two - four).abs().max() / two.abs().max()) <= BAR
    assert float((two[0, 0] - two[0, 1]).abs().max() / two.abs().max()) > 0.01


@every_family
def test_the_logits_depend_on_the_prompt_and_move_with_the_steps(ran: Ran, family: str) -> None:
    first, *_, last = ran.whole_logits(family)
    assert float((first[0] - first[1]).abs().max() / first.abs().max()) > 0.01
    assert float((first - last).abs().max() / first.abs().max()) > 0.01


@every_family_and_degree
def test_parameters_have_the_local_shapes_that_were_foretold(
    ran: Ran, whole_on_meta: Callable[[str], Any], family: str, degree: int
) -> None:
    model = whole_on_meta(family)
    plan = tensor_plan(model)
    for rank in range(degree):
        foretold = {
            path: list(local_shape(model, plan, path, tuple(parameter.shape), degree=degree, rank=rank))
            for path, parameter in model.named_parameters()
        }
        assert ran.seen(family, degree, rank).shapes == _of_own_heads(foretold, family, degree)
    assert sum(torch.Size(shape).numel() for shape in foretold.values()) == local_elements(
        model, plan, degree=degree, rank=degree - 1
    )


def _of_own_heads(shapes: dict[str, list[int]], family: str, degree: int) -> dict[str, list[int]]:
    """StableLM has one norm per head; ``localise`` drops those of other ranks' heads and counts from zero."""
    if family != "stablelm":
        return shapes
    heads = {"q_layernorm": 24 // degree, "k_layernorm": 12 // degree}
    return {
        path: shape
        for path, shape in shapes.items()
        if "layernorm.norms" not in path or int(path.split(".")[-2]) < heads[path.split(".")[-4]]
    }


@pytest.mark.parametrize(("family", "degree"), [each for each in EVERY if each[1] < 4])
def test_the_collectives_are_those_that_were_foretold_in_kind_order_and_bytes(
    ran: Ran, whole_on_meta: Callable[[str], Any], family: str, degree: int
) -> None:
    model = whole_on_meta(family)
    foretold: list[Exchange] = []
    share_on_meta(model, tensor_plan(model), degree=degree, observe=foretold.append)
    options = forward_options(model, kv_cache=True)
    with torch.inference_mode():
        model(torch.zeros((tiny.BATCH, tiny.PROMPT_TOKENS), dtype=torch.int64, device="meta"), **options)

    for rank in range(degree):
        seen = ran.seen(family, degree, rank).exchanges
        assert seen == [[exchange.kind.value, 2 * exchange.size_bytes] for exchange in foretold]  # float32


@every_family_and_degree
def test_what_ranks_have_whole_is_the_same_on_all(ran: Ran, family: str, degree: int) -> None:
    assert len({ran.seen(family, degree, rank).whole_sha256 for rank in range(degree)}) == 1


@pytest.mark.parametrize("family", tiny.RANDOM_FAMILIES)
def test_random_weights_are_parts_of_the_one_model_of_that_seed(ran: Ran, family: str) -> None:
    whole = tiny.loaded(ran.folder / family, random_weights=True).model
    plan: TensorPlan = tensor_plan(whole)
    for degree in tiny.DEGREES:
        for rank in range(degree):
            expected = {
                path: tiny.sha256(local_tensor(whole, plan, path, parameter, degree=degree, rank=rank))
                for path, parameter in whole.named_parameters()
            }
            assert ran.seen(family, degree, rank).random_sha256 == expected


@every_family_and_degree
def test_the_degrees_of_the_tests_are_said_to_work(
    whole_on_meta: Callable[[str], Any], family: str, degree: int
) -> None:
    model = whole_on_meta(family)
    check_degree(model, tensor_plan(model), degree, family)


def test_the_worst_error_of_each_family_is_printed(ran: Ran) -> None:
    worst = {
        family: max(
            ran.error(family, degree, rank)
            for degree in tiny.DEGREES
            if family in tiny.families_at(degree)
            for rank in range(degree)
        )
        for family in tiny.FAMILIES
    }
    for family, error in worst.items():
        print(f"{family:24s} {error:.1e}")
    assert sum(error <= BAR for error in worst.values()) >= 15
