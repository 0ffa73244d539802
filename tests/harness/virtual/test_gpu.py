"""Descriptions of virtual GPUs: what ships, and what is said of a file that is wrong."""

import fnmatch
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.virtual import gpu_file
from harness.virtual.gpu import Load, Sensor, VirtualGpu, read_virtual_gpu, shipped_virtual_gpus
from tests.harness.virtual.virtual_examples import a_gpu

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "harness" / "data" / "virtual"
REQUIRED = [field.name for field in fields(Load) if field.default is MISSING]


def text(**changes: str | None) -> str:
    """A shipped description with keys of either table changed, or left out."""
    document = tomllib.loads((FOLDER / "h100-sxm.toml").read_text())
    lines = []
    for table, record in (("load", Load), ("sensor", Sensor)):
        written: dict[str, str | None] = {key: _toml(value) for key, value in document[table].items()}
        written |= {key: value for key, value in changes.items() if key in {field.name for field in fields(record)}}
        lines += [f"[{table}]", *(f"{key} = {value}" for key, value in written.items() if value is not None)]
    return "\n".join(lines)


def refused(folder: Path, content: str) -> str:
    path = folder / "mine.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as failure:
        read_virtual_gpu(path)
    return str(failure.value)


def test_the_gpus_people_ask_for_ship() -> None:
    wanted = {"h100-sxm", "a100-sxm", "a100-pcie", "h200-sxm", "b200", "l40s", "rtx4090"}

    assert wanted <= set(shipped_virtual_gpus())


@pytest.mark.parametrize("name", shipped_virtual_gpus())
def test_a_shipped_gpu_has_the_limit_of_the_hardware_table_and_says_that_it_is_simulated(name: str) -> None:
    gpu = read_virtual_gpu(name)

    assert gpu.name == name
    assert gpu.load.power_limit_w == gpu.load.hardware.board_power_w
    assert "Simulated, never measured" in (FOLDER / f"{name}.toml").read_text()


def test_the_shipped_files_are_part_of_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["harness"]

    assert any(
        fnmatch.fnmatch("data/virtual/h100-sxm.toml", pattern) and "/virtual/" in pattern for pattern in patterns
    )


def test_anybody_can_write_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "cool"\n' + text(ambient_c="12", counter_sampled="true", missing='["clocks"]'))

    gpu = read_virtual_gpu(path)

    assert gpu.name == "cool"
    assert gpu.load.ambient_c == 12
    assert gpu.sensor.counter_sampled
    assert not gpu.sensor.has("clocks")
    assert gpu.sensor.has("counter")


def test_without_a_name_the_file_gives_it(tmp_path: Path) -> None:
    (tmp_path / "workshop.toml").write_text(text())

    assert read_virtual_gpu(tmp_path / "workshop.toml").name == "workshop"


def test_an_unknown_name_gets_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'h1000'.*h100-sxm"):
        read_virtual_gpu("h1000")


@pytest.mark.parametrize("key", REQUIRED)
def test_a_key_that_is_needed_and_missing_is_named(tmp_path: Path, key: str) -> None:
    assert f"load lacks {key}" in refused(tmp_path, text(**{key: None}))


def test_every_number_of_the_records_has_bounds() -> None:
    numbers = {field.name for record in (Load, Sensor) for field in fields(record) if field.type in (float, "float")}

    assert numbers == set(gpu_file._LOAD) | set(gpu_file._SENSOR)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gain": '"1"'}, "gain = '1'"),
        ({"gain": "nan"}, "gain = 'nan'"),
        ({"busy_w": "-3"}, "busy_w = '-3'"),
        ({"busy_w": "true"}, "busy_w = 'True'"),
        ({"counter_period_s": "100000"}, "counter_period_s"),
        ({"counter_sampled": "1"}, "counter_sampled = '1'"),
        ({"hardware": "7"}, "hardware = '7'"),
        ({"hardware": '"H1000"'}, "hardware: 'H1000' is not in the hardware table"),
        ({"missing": '"counter"'}, "missing = 'counter'"),
        ({"missing": '["couter"]'}, "missing names 'couter'"),
        ({"counter_jitter_s": "0.06"}, "counter_jitter_s is half"),
        ({"lowest_clock_mhz": "3000"}, "lowest_clock_mhz 3000 is above clock_mhz"),
        ({"c_per_w": "1"}, "would reach"),
        ({"idle_power_w": "700"}, "idle_power_w and leakage"),
        ({"leakage_w": "300", "leakage_per_c": "0.1"}, "leave nothing of power_limit_w"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_is_right(
    tmp_path: Path, changes: dict[str, str | None], named: str
) -> None:
    message = refused(tmp_path, text(**changes))

    assert named in message
    assert "\n" in message, "what to do"


def test_a_misspelt_key_gets_the_right_one(tmp_path: Path) -> None:
    assert "Did you mean 'duty_cycle'?" in refused(tmp_path, text() + "\nduty_cicle = 1")
    assert "Did you mean 'sensor'?" in refused(tmp_path, text().replace("[sensor]", "[senser]"))


@pytest.mark.parametrize("content", ["", "load = 3", "[load]\n[load]", "\x00", "[load]\n[sensor]", "name = 3\n"])
def test_what_is_no_description_is_an_error(tmp_path: Path, content: str) -> None:
    assert str(tmp_path) in refused(tmp_path, content)


def test_a_path_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a file"):
        read_virtual_gpu(tmp_path / "nothing.toml")


VALUES = st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.lists(st.text(max_size=9)))


@given(key=st.sampled_from([field.name for record in (Load, Sensor) for field in fields(record)]), value=VALUES)
def test_any_value_is_read_or_refused_by_name(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text(**{key: _toml(value)}), encoding="utf-8")
    refusal = ""
    try:
        assert isinstance(read_virtual_gpu(path), VirtualGpu)
    except UsageError as error:
        refusal = str(error)

    assert not refusal or key in refusal or "not valid TOML" in refusal


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08X}" if not letter.isalnum() else letter for letter in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def test_records_made_by_hand_are_checked_too() -> None:
    with pytest.raises(ValueError, match="duty_cycle"):
        a_gpu(sensor={"duty_cycle": 0.0})
    with pytest.raises(ValueError, match="features"):
        a_gpu(sensor={"missing": ("sound",)})
