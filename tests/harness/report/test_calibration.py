"""What the page says of a calibration, and that it says nothing where there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.summary import summarise
from harness.measuring.calibration import Calibration
from harness.measuring.calibration_records import Aliasing, Estimate
from harness.records import Measurement, Provenance
from harness.report.blocks import Group, Section
from harness.report.calibration import Fact, advice_facts, calibration_section, device_facts
from harness.report.page import build_page, render
from harness.report.setups import Scene
from tests.harness.measuring.calibration_examples import COUNTER, DEVICE, IDLE, a_calibration
from tests.harness.report.conftest import HOSTILE

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]


def with_calibration(measurement: Measurement, text: str | None) -> Measurement:
    assert measurement.environment is not None
    return replace(measurement, environment=replace(measurement.environment, calibration=text))


@pytest.fixture
def section_of(dataset_of: DatasetOf, example_measurements: Examples) -> Callable[[str | None], Section | None]:
    def section(text: str | None) -> Section | None:
        measurements = example_measurements(n_runs=1, failures=False)
        folder = dataset_of(*(with_calibration(one, text) for one in measurements))
        return calibration_section(Scene.of(summarise(folder)))

    return section


@pytest.fixture
def group_of(section_of: Callable[[str | None], Section | None]) -> Callable[[Calibration], Group]:
    def group(calibration: Calibration) -> Group:
        section = section_of(calibration.to_json())
        assert section is not None
        (found,) = section.groups
        return found

    return group


def values(facts: tuple[Fact, ...]) -> dict[str, str]:
    return {fact.name: fact.value for fact in facts}


def test_a_dataset_that_was_not_calibrated_has_no_section(section_of: Callable[[str | None], Section | None]) -> None:
    assert section_of(None) is None


def test_every_device_has_a_column_and_every_fact_a_row(group_of: Callable[[Calibration], Group]) -> None:
    group = group_of(a_calibration(DEVICE, replace(DEVICE, meter="nvml:1", instant=None)))

    table = group.tables[0]
    assert [column.title for column in table.columns] == ["what", "nvml:0", "nvml:1"]
    assert "measured" in table.caption
    assert "2026-11-24" in table.caption
    (instant,) = [row for row in table.rows if row[0].text == "instant power"]
    assert "averages 25 ± 1 ms" in instant[1].text
    assert instant[2].text == "–"
    assert all(len(row) == 3 for row in table.rows)
    assert group.figures
    assert {entry.series for entry in group.legend} == {"nvml:0", "nvml:1"}
    assert "nvml:0: The driver gives no average power." in group.notes


def test_what_was_not_measured_is_a_dash_and_never_zero() -> None:
    nothing = replace(DEVICE, counter=None, instant=None, reported=None, aliasing=(), load_gap=None, idle_gap=None)
    nothing = replace(
        nothing,
        load_w=None,
        noise_w=None,
        idle=replace(
            IDLE, bare_w=None, context_w=None, settle_s=None, tail_share=None, w_per_c=None, time_constant_s=None
        ),
    )

    assert set(values(device_facts(nothing)).values()) == {"–"}


def test_what_cannot_be_trusted_is_marked() -> None:
    aliasing = Aliasing(load_period_s=0.1, phases=8, worst=0.4, resolution=0.005, bias=0.0)
    bad = replace(
        DEVICE,
        counter=replace(COUNTER, sampled_share=Estimate(value=0.25, ci95=0.02)),
        aliasing=(aliasing,),
        load_gap=Estimate(value=0.75, ci95=0.01),
    )

    marked = {fact.name for fact in device_facts(bad) if fact.warning}

    assert marked == {"counter sees", "beating load", "polled power less counter, load"}
    assert not any(fact.warning for fact in device_facts(DEVICE))
    assert "+75 %" in values(device_facts(bad))["polled power less counter, load"]


def test_a_warning_is_seen_in_the_table(group_of: Callable[[Calibration], Group]) -> None:
    group = group_of(a_calibration(replace(DEVICE, load_gap=Estimate(value=0.75, ci95=0.01))))

    (row,) = [row for row in group.tables[0].rows if row[0].text == "polled power less counter, load"]
    assert row[1].text.startswith("⚠ ")


def test_what_follows_for_measuring_is_said_with_its_reason() -> None:
    found = values(advice_facts(a_calibration(replace(DEVICE, counter=replace(COUNTER, period_s=0.4)))))

    assert found["window"].startswith("20 s")
    assert found["trials"] == "5 to 20"
    assert "nvml.h" in found["precision"]
    assert "calibrated 2026-11-24" in found["precision"]


def test_a_calibration_where_energy_is_estimated_says_why_there_is_none(
    group_of: Callable[[Calibration], Group],
) -> None:
    group = group_of(
        a_calibration(devices=(), provenance=Provenance.ESTIMATED, method="codecarbon-cpu-load", notes=("No sensor.",))
    )

    assert group.notes == ("No sensor.",)
    assert group.figures == ()
    assert group.legend == ()


@pytest.mark.parametrize("text", [HOSTILE, "{}", '{"version": 99}', "[" * 5000])
def test_a_text_that_is_no_calibration_is_said_and_not_shown(
    section_of: Callable[[str | None], Section | None], text: str
) -> None:
    section = section_of(text)

    assert section is not None
    (group,) = section.groups
    assert group.tables == ()
    assert "cannot be read" in group.notes[0]


def test_markup_in_a_calibration_does_not_run(dataset_of: DatasetOf, example_measurements: Examples) -> None:
    bad = a_calibration(
        replace(DEVICE, meter=HOSTILE, name=HOSTILE, notes=(HOSTILE,)), load=HOSTILE, calibrated_at_utc=HOSTILE
    )
    measurements = (with_calibration(one, bad.to_json()) for one in example_measurements(n_runs=1, failures=False))

    page = render(build_page(summarise(dataset_of(*measurements)), ()))

    assert "<img src=x" not in page
    assert "Calibration of the meters" in page
