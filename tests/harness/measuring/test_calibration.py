"""What a calibration says to a run, and its JSON: canonical when written, checked when read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CorruptFile
from harness.measuring.calibration import Calibration, gap_is_flagged
from harness.measuring.calibration_records import Aliasing, CounterTraits, DeviceCalibration, Estimate
from harness.measuring.precision import Precision, precision_of
from harness.measuring.protocol import QUICK, STANDARD
from harness.meters.base import DeviceFacts
from harness.records import Provenance
from tests.harness.measuring.calibration_examples import COUNTER, DEVICE, IDLE, a_calibration

NVML = precision_of("nvml-counter")


def with_counter(counter: CounterTraits | None) -> DeviceCalibration:
    return replace(DEVICE, counter=counter)


def test_a_calibration_comes_back_from_its_json_as_it_was() -> None:
    calibration = a_calibration(DEVICE, replace(with_counter(None), meter="nvml:1"), notes=("a note with ü",))

    assert Calibration.from_json(calibration.to_json()) == calibration


def test_equal_calibrations_have_equal_json_whatever_the_order_of_keys() -> None:
    text = a_calibration().to_json()
    shuffled = json.dumps(dict(reversed(json.loads(text).items())), indent=2)

    assert Calibration.from_json(shuffled).to_json() == text
    assert " " not in text.replace("torch matmul", "").replace("NVIDIA Example", "").replace(
        "The driver gives no average power.", ""
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no valid JSON"),
        ("[1,2", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("[]", "an object"),
        ("{}", "lacks"),
        ('{"surprise": 1}', "surprise"),
        (" " * (1 << 20) + "{}", "longer than"),
    ],
)
def test_a_text_that_is_no_calibration_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(CorruptFile, match=said):
        Calibration.from_json(text, "It")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("provenance",), "guessed", "provenance"),
        (("quick",), 1, "true or false"),
        (("version",), True, "whole number"),
        (("version",), 2, "version 2"),
        (("load",), ["a"], "a text"),
        (("load",), "x" * 20_000, "a text"),
        (("devices",), {}, "a list"),
        (("devices", 0, "noise_w"), "2", "a number"),
        (("devices", 0, "noise_w"), 1e300, "size that occurs"),
        (("devices", 0, "noise_w"), True, "a number"),
        (("devices", 0, "idle"), None, "an object"),
        (("devices", 0, "counter", "period"), 0.1, "'period'"),
        (("devices", 0, "counter", "looks"), 10**30, "size that occurs"),
        (("devices", 0, "aliasing", 0, "worst"), None, "a number"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(path: tuple[str | int, ...], value: object, said: str) -> None:
    content = json.loads(a_calibration().to_json())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    with pytest.raises(CorruptFile, match=said) as caught:
        Calibration.from_json(json.dumps(content), "It")

    assert str(path[-1]) in str(caught.value)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(constant: str) -> None:
    text = a_calibration().to_json().replace('"noise_w":2.0', f'"noise_w":{constant}')

    with pytest.raises(CorruptFile, match="noise_w"):
        Calibration.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=200))
def test_any_text_is_a_calibration_or_refused(text: str) -> None:
    with pytest.raises(CorruptFile):
        Calibration.from_json(text)


@given(st.data())
def test_any_value_in_any_place_is_taken_or_refused(data: st.DataObject) -> None:
    content = json.loads(a_calibration().to_json())
    place = content
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]

    try:
        found = Calibration.from_json(json.dumps(content))
    except CorruptFile:
        return

    assert Calibration.from_json(found.to_json()) == found
    found.protocol(STANDARD)
    found.precision(NVML)


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"harness\.calibrate --out"):
        Calibration.read(tmp_path / "none.json")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(a_calibration().to_json())

    assert Calibration.read(path) == a_calibration()


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe", "UTF-8"), (b" " * ((1 << 20) + 1), "larger than")])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)

    with pytest.raises(CorruptFile, match=said):
        Calibration.read(path)


def test_precision_is_that_of_the_worst_device() -> None:
    late = replace(COUNTER, lag_s=Estimate(value=0.02, ci95=0.005), sampled_share=Estimate(value=0.25, ci95=0.02))
    calibration = a_calibration(DEVICE, replace(with_counter(replace(late, quantum_j=0.5)), meter="nvml:1"))

    found = calibration.precision(NVML)

    assert found.lag_s == pytest.approx(0.025)
    assert found.sampled_share == 0.25
    assert found.quantum_j == 0.5
    assert found.tail95 == pytest.approx(0.03)
    assert found.gain95 == 0.05
    assert "calibrated 2026-11-24" in found.source


def test_looks_that_are_spread_over_the_period_hide_less_at_an_edge() -> None:
    counter = replace(COUNTER, sampled_share=Estimate(value=0.25, ci95=0.02), looks=4)

    assert a_calibration(with_counter(counter)).precision(NVML).sampled_share == pytest.approx(1 - 0.75 / 4)


def test_a_lag_below_zero_is_none_and_a_tail_is_never_better_than_a_percent() -> None:
    device = replace(
        with_counter(replace(COUNTER, lag_s=Estimate(value=-0.01, ci95=0.001))),
        idle=replace(IDLE, tail_share=Estimate(value=0.0, ci95=0.001)),
    )

    found = a_calibration(device).precision(NVML)

    assert found.lag_s == 0.0
    assert found.tail95 == 0.01


def test_what_was_not_measured_stays_as_it_was_known() -> None:
    nothing = replace(
        DEVICE, counter=None, load_gap=None, idle_gap=None, idle=replace(IDLE, tail_share=None), aliasing=()
    )
    base = Precision(gain95=0.05, tail95=0.2, lag_s=0.01, sampled_share=0.5, quantum_j=0.001, source="somebody")

    found = a_calibration(nothing).precision(base)

    assert replace(found, source=base.source) == base


def test_a_gap_that_is_beyond_doubt_widens_the_gain() -> None:
    device = replace(DEVICE, load_gap=Estimate(value=0.75, ci95=0.01))

    assert a_calibration(device).precision(NVML).gain95 == 0.75
    assert gap_is_flagged(device.load_gap)
    assert not gap_is_flagged(Estimate(value=0.08, ci95=0.04))
    assert not gap_is_flagged(None)


def test_a_quick_protocol_stays_quick() -> None:
    assert a_calibration().protocol(QUICK) == QUICK


def test_a_standard_protocol_is_lengthened_and_never_shortened() -> None:
    slow = replace(COUNTER, period_s=0.4)
    aliasing = (Aliasing(load_period_s=0.4, phases=8, worst=0.4, resolution=0.01, bias=0.0),)

    found = a_calibration(replace(with_counter(slow), aliasing=aliasing)).protocol(STANDARD)

    assert found.window_s == 20.0
    assert found.trials_min == 8
    assert found.quality is STANDARD.quality
    assert found.half_width_target == STANDARD.half_width_target
    assert a_calibration().protocol(STANDARD) == STANDARD


def test_a_calibration_of_another_machine_says_so() -> None:
    calibration = a_calibration()
    same = DeviceFacts(name="NVIDIA Example", uuid_sha256="ab" * 32)
    other = replace(same, uuid_sha256="cd" * 32)

    def difference(facts: DeviceFacts, method: str = "nvml-counter") -> str | None:
        return calibration.difference(provenance=Provenance.MEASURED, method=method, facts=[facts])

    assert difference(same) is None
    assert "does not know the device" in (difference(other) or "")
    assert "nvml-power" in (difference(same, "nvml-power") or "")


def test_virtual_devices_are_told_apart_by_name() -> None:
    calibration = a_calibration(provenance=Provenance.SIMULATED, method="virtual-counter")
    another = DeviceFacts(name="NVIDIA Example", uuid_sha256="cd" * 32)

    def difference(facts: DeviceFacts) -> str | None:
        return calibration.difference(provenance=Provenance.SIMULATED, method="virtual-counter", facts=[facts])

    assert difference(another) is None
    assert difference(replace(another, name="NVIDIA Other")) is not None


def test_the_slowest_counter_counts() -> None:
    assert a_calibration(DEVICE, with_counter(replace(COUNTER, period_s=0.2))).period_s == 0.2
    assert a_calibration(with_counter(None)).period_s is None
