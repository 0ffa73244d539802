import dataclasses

import pytest

from harness.hardware import find
from predictor.assembly import Assembled, assemble
from predictor.requests import Parallelism, PredictionRequest, Refusal

A100 = find("NVIDIA A100-SXM4-80GB")
REQUEST = PredictionRequest(
    model="meta-llama/Llama-3.2-1B",
    hardware=A100,
    batch_size=4,
    prompt_tokens=100,
    output_tokens=65,
    runtime="vllm",
)


def assembled(**changes: object) -> Assembled:
    found = assemble(dataclasses.replace(REQUEST, **changes))  # type: ignore[arg-type]
    assert isinstance(found, Assembled), found
    return found


def test_a_request_is_one_prefill_and_a_step_for_every_further_token() -> None:
    found = assembled()

    assert found.times[0] == 1
    assert found.times[1:].sum() == pytest.approx(64)
    assert (found.context[1:] >= 100).all()
    assert (found.context[1:] <= 163).all()
    mean = (found.times[1:] * found.context[1:]).sum() / 64
    assert mean == pytest.approx(100 + 63 / 2, abs=0.5)


@pytest.mark.parametrize(("output", "passes"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_few_tokens_are_run_one_by_one(output: int, passes: int) -> None:
    assert len(assembled(output_tokens=output).times) == passes


def test_without_a_cache_every_step_is_a_pass_over_all_of_it() -> None:
    found = assembled(runtime="hf", kv_cache=False)

    assert (found.query[1:] == found.context[1:] + 1).all()


def test_a_served_batch_beyond_memory_runs_in_waves_and_says_so() -> None:
    found = assembled(batch_size=40_000)

    assert found.batch[0] < 40_000
    assert found.times[0] * found.batch[0] == pytest.approx(40_000)
    assert "waves" in found.warnings[0]


def test_transformers_has_no_answer_where_the_cache_does_not_fit() -> None:
    found = assemble(dataclasses.replace(REQUEST, runtime="hf", batch_size=40_000))

    assert isinstance(found, Refusal)
    assert "smaller batch" in found.reason


def test_weights_that_do_not_fit_are_offloaded_by_transformers_and_refused_by_servers() -> None:
    large = {"model": "meta-llama/Llama-2-70b-hf", "batch_size": 1, "output_tokens": 2}
    offloaded = assembled(runtime="hf", **large)

    assert offloaded.offloaded_s > 1
    assert "host" in offloaded.warnings[0]
    refused = assemble(dataclasses.replace(REQUEST, **large))  # type: ignore[arg-type]
    assert isinstance(refused, Refusal)
    assert "more GPUs" in refused.reason


def test_gpus_that_take_turns_have_a_whole_model_between_them() -> None:
    found = assembled(model="meta-llama/Llama-2-70b-hf", runtime="hf", n_gpus=3, parallelism=Parallelism.LAYERS)

    assert found.offloaded_s == 0
    assert found.graphs.at.tensor_parallel == 1


def test_an_unknown_model_is_refused_by_name() -> None:
    found = assemble(dataclasses.replace(REQUEST, model="meta-llama/Llama-3.2-1Q"))

    assert isinstance(found, Refusal)
    assert "Llama-3.2-1Q" in found.reason
