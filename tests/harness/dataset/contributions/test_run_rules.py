"""What a run may not say of itself, each told with the rule it breaks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.campaign.rows import OWN_SOURCE
from harness.dataset.contributions.bundle import Bundle
from harness.dataset.contributions.ids import public_run_id
from harness.dataset.contributions.run_rules import Offered, known_hardware, origin_of, run_objections
from harness.records import EnvironmentRow, Provenance, RunRow
from harness.setup_records import environment_content_id
from tests.harness.dataset.contributions.measured import GPU, SOURCE, campaign_measurements, environment

LAB = "green-lab"


def offered(**other: Any) -> Offered:
    machine = environment()
    runs = tuple(
        replace(
            made.run,
            lab=LAB,
            run_id=public_run_id(made.run.run_id, LAB, made.run.started_at_utc),
            environment_id=machine.environment_id,
        )
        for made in campaign_measurements()
    )
    bundle = Bundle(
        harness="0.1.0",
        lab=LAB,
        contact=None,
        gpu=GPU,
        created_utc=max(run.started_at_utc or "" for run in runs),
        files=(),
    )
    given = Offered(
        bundle=bundle,
        runs=runs,
        environments={machine.environment_id: machine},
        sources=(SOURCE,),
        include=frozenset(),
    )
    return replace(given, **other)


def with_runs(**run: Any) -> Offered:
    given = offered()
    return replace(given, runs=tuple(replace(each, **run) for each in given.runs))


def on(machine: EnvironmentRow, **run: Any) -> Offered:
    """All runs on another machine."""
    machine = replace(machine, environment_id=environment_content_id(machine))
    given = with_runs(environment_id=machine.environment_id, gpu=machine.gpu, **run)
    bundle = replace(given.bundle, gpu=machine.gpu)
    return replace(given, bundle=bundle, environments={machine.environment_id: machine})


def broken(given: Offered) -> set[str]:
    return {each.rule for each in run_objections(given)}


def test_what_submit_writes_breaks_no_rule() -> None:
    assert broken(offered()) == set()


def test_the_source_that_this_harness_writes_is_known() -> None:
    version = OWN_SOURCE.version or ""
    machine = environment(harness=version)
    given = on(machine, source=OWN_SOURCE.source)

    assert broken(replace(given, sources=(OWN_SOURCE,))) == set()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (lambda: with_runs(lab="other"), "header"),
        (lambda: with_runs(schema_version=2), "header"),
        (lambda: with_runs(started_at_utc="2027-01-01T00:00:00+00:00"), "header"),
        (lambda: with_runs(run_id="x"), "id"),
        (lambda: with_runs(campaign_id="/home"), "id"),
        (lambda: with_runs(source="NVIDIA"), "source"),
        (lambda: offered(sources=()), "source"),
        (lambda: offered(sources=(replace(SOURCE, licence="MIT"),)), "source"),
        (lambda: offered(sources=(replace(SOURCE, title="Joulegraph of somebody else"),)), "source"),
        (lambda: offered(sources=(replace(SOURCE, url="https://evil.example"),)), "source"),
        (lambda: offered(sources=(replace(SOURCE, citation="Cite me"),)), "source"),
        (lambda: offered(sources=(replace(SOURCE, derived="see https://evil.example"),)), "source"),
        (lambda: offered(sources=(replace(SOURCE, source="joulegraph 99.0.0", version="99.0.0"),)), "source"),
        (lambda: with_runs(host_energy_j=1e300), "columns"),
        (lambda: with_runs(ttft_s=1e-30), "columns"),
        (lambda: with_runs(nodes=2**40), "columns"),
        (lambda: with_runs(nodes=0), "columns"),
        (lambda: with_runs(energy_ci95_j=1e-12), "interval"),
        (lambda: with_runs(energy_ci95_j=0.01, energy_systematic95_j=0.1), "interval"),
        (lambda: with_runs(superseded_by="0" * 20), "complete"),
        (lambda: with_runs(configuration=None), "complete"),
        (lambda: with_runs(provenance=Provenance.ESTIMATED), "provenance"),
        (lambda: with_runs(provenance=Provenance.SIMULATED), "provenance"),
        (lambda: with_runs(provenance=Provenance.IMPORTED), "provenance"),
        (lambda: with_runs(method="virtual-counter"), "provenance"),
        (lambda: offered(environments={}), "provenance"),
        (lambda: on(environment(meter="virtual:0 (simulated)")), "provenance"),
        (lambda: on(environment(device_name="VIRTUAL NVIDIA A100-SXM4-80GB")), "provenance"),
        (lambda: on(environment(device_name="NVIDIA H100 PCIe")), "provenance"),
        (lambda: on(environment(driver=None)), "provenance"),
        (lambda: on(environment(cuda=None)), "provenance"),
        (lambda: on(environment(torch="2.13.0+cpu")), "provenance"),
        (lambda: on(environment(n_devices=0)), "provenance"),
        (lambda: on(environment(gpu="NVIDIA A900", device_name="NVIDIA A900")), "hardware"),
        (lambda: on(environment(gpu="A100", device_name="A100")), "hardware"),
        (lambda: with_runs(energy_j=0.01), "power"),
        (lambda: with_runs(duration_s=1e-6), "power"),
        (lambda: with_runs(idle_power_w=62_000.0), "power"),
        (lambda: with_runs(idle_power_w=400.0), "power"),
        (lambda: with_runs(model="qwen/qwen2.5-1.5b"), "model"),
        (lambda: with_runs(output_tokens=7), "reference pack"),
        (lambda: offered(environments={"x": replace(environment(), cpu="other")}), "environment"),
    ],
)
def test_what_cannot_be_is_told_by_its_rule(given: Callable[[], Offered], rule: str) -> None:
    assert rule in broken(given())


def test_an_environment_that_no_run_was_made_on_is_told() -> None:
    given = offered()
    other = environment(cpu="Other CPU")

    assert broken(replace(given, environments={**given.environments, other.environment_id: other})) == {"environment"}


def test_a_run_that_is_there_twice_is_told() -> None:
    given = offered()

    assert broken(replace(given, runs=(*given.runs, given.runs[0]))) == {"id"}


def test_many_rows_make_one_objection_that_names_some() -> None:
    (found,) = [each for each in run_objections(with_runs(energy_j=0.01)) if each.rule == "power"]

    assert found.reason.count("run ") == 3
    assert found.reason.endswith("; and 2 more")
    assert "joules" in found.remedy


@pytest.mark.parametrize(
    ("gpu", "provenance", "known"),
    [
        (GPU, Provenance.MEASURED, True),
        (GPU, Provenance.ESTIMATED, False),
        (GPU, Provenance.SIMULATED, False),
        ("cpu: x", Provenance.ESTIMATED, True),
        ("cpu: x", Provenance.MEASURED, True),
        (f"virtual: {GPU}", Provenance.SIMULATED, True),
        (f"virtual: {GPU}", Provenance.MEASURED, False),
    ],
)
def test_each_provenance_is_of_some_devices_only(gpu: str, provenance: Provenance, known: bool) -> None:
    assert (origin_of(gpu, provenance) is not None) is known


def test_a_cpu_is_known_by_its_environment() -> None:
    machine = environment(
        gpu="cpu: Example CPU @ 2.00GHz",
        device_name="Example CPU @ 2.00GHz",
        meter="codecarbon-cpu-load (Example) (estimated); no counter",
    )
    estimated = {"provenance": Provenance.ESTIMATED, "method": "codecarbon-cpu-load", "n_gpus": 0}

    assert broken(on(machine, **estimated)) == {"reference pack"}
    assert "provenance" in broken(on(replace(machine, cpu="Another CPU"), **estimated))


def test_only_the_exact_name_is_that_of_a_device() -> None:
    assert known_hardware("A100-SXM4-80GB") is None
    assert known_hardware(GPU) is not None


def test_a_row_of_runs_is_what_the_examples_are() -> None:
    assert all(isinstance(run, RunRow) for run in offered().runs)
