"""A run has the same id wherever the same run is asked for."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.campaign.jobs import Job, run_id_of
from harness.campaign.plan import Plan
from harness.records import Quality
from harness.requests import Deployment, Request

REQUEST = Request(model="m", batch_size=2, prompt_tokens=64, output_tokens=16, dtype="float32")
CPU = Deployment(device="cpu", n_gpus=0)
JOB = Job(run_id="a", request=REQUEST, deployment=CPU, sampling_weight=0.5, clipped=None, estimate_s=3.0)


def test_a_run_has_the_same_id_everywhere_and_always() -> None:
    assert run_id_of(REQUEST, CPU, Plan(), "cpu: Example", "v1") == "916b4439cc424fd6bb94"


def test_how_a_request_was_chosen_does_not_change_its_run() -> None:
    listed = Plan.from_table({"requests": ["2x64x16"], "seed": 9, "time_budget_s": 60})
    assert run_id_of(REQUEST, CPU, listed, "x", "v1") == run_id_of(REQUEST, CPU, Plan(), "x", "v1")


def test_what_the_run_is_made_of_changes_its_id() -> None:
    gpu = Deployment(device="cuda", n_gpus=1)
    ids = [
        run_id_of(REQUEST, CPU, Plan(), "x", "v1"),
        run_id_of(REQUEST, CPU, Plan(), "y", "v1"),
        run_id_of(REQUEST, CPU, Plan(), "x", "v2"),
        run_id_of(replace(REQUEST, batch_size=3), CPU, Plan(), "x", "v1"),
        run_id_of(replace(REQUEST, dtype="bfloat16"), CPU, Plan(), "x", "v1"),
        run_id_of(REQUEST, gpu, Plan(), "x", "v1"),
        run_id_of(REQUEST, replace(gpu, attention="eager"), Plan(), "x", "v1"),
        run_id_of(REQUEST, CPU, Plan(quality=Quality.QUICK), "x", "v1"),
        run_id_of(REQUEST, CPU, Plan(revision="abc"), "x", "v1"),
        run_id_of(REQUEST, CPU, Plan(cpu_threads=1), "x", "v1"),
        run_id_of(REQUEST, CPU, Plan(random_weights=True), "x", "v1"),
        run_id_of(REQUEST, CPU, Plan(random_weights=True, seed=1), "x", "v1"),
    ]
    assert len(set(ids)) == len(ids)


def test_a_job_written_as_json_reads_back_the_same() -> None:
    assert Job.from_json(JOB.to_json()) == JOB


@given(st.text(max_size=50) | st.sampled_from(["{}", "[]", "null", '{"request": {}}', "[" * 100_000]))
def test_any_other_text_is_a_value_error(text: str) -> None:
    with suppress(ValueError):
        Job.from_json(text)
        pytest.fail("no text here is a job")


@pytest.mark.parametrize(
    ("change", "larger"),
    [
        ({}, True),
        ({"batch_size": 3}, True),
        ({"prompt_tokens": 65}, True),
        ({"output_tokens": 17}, True),
        ({"prompt_tokens": 80, "output_tokens": 1}, True),
        ({"prompt_tokens": 65, "output_tokens": 1}, False),
        ({"prompt_tokens": 10, "output_tokens": 400}, False),
        ({"batch_size": 1, "prompt_tokens": 500}, False),
        ({"model": "other"}, False),
        ({"dtype": "bfloat16"}, False),
    ],
)
def test_a_job_needs_at_least_the_memory_of_another_if_nothing_about_it_is_smaller(
    change: dict[str, object], larger: bool
) -> None:
    other = replace(JOB, run_id="b", request=replace(REQUEST, **change))  # type: ignore[arg-type]
    assert other.needs_at_least(JOB) is larger


def test_jobs_on_different_deployments_do_not_compare() -> None:
    other = replace(JOB, deployment=Deployment(device="cuda", n_gpus=2))
    assert not other.needs_at_least(JOB)
