import contextlib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.hardware import EXAMPLE_FILE, Hardware, find, known, read_hardware_file, roofline_time_s


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_in_the_error_is_a_file_that_works(tmp_path: Path) -> None:
    (device,) = read_hardware_file(written(tmp_path, EXAMPLE_FILE))
    assert device.name == "NVIDIA Example 24GB"
    assert device.memory_bytes == 24 * 1024**3
    assert find("example", table=known([device])) is device


def edited(old: str, new: str) -> str:
    assert old in EXAMPLE_FILE
    return EXAMPLE_FILE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (edited("memory_bytes", "memory_byte"), "did you mean 'memory_bytes'"),
        (edited("float16 =", "fp16 ="), "'fp16' is not a key"),
        (edited("memory_bytes = 25_769_803_776\n", ""), "lacks memory_bytes"),
        (edited("source =", "note ="), "lacks source"),
        (edited("25_769_803_776", '"24 GB"'), "memory_bytes = '24 GB' cannot be"),
        (edited("25_769_803_776", "24"), "from 1e+08"),
        (edited("25_769_803_776", "25769803776.5"), "a whole number"),
        (edited("25_769_803_776", "true"), "cannot be"),
        (edited("936e9", "-936e9"), "peak_bytes_per_s = '-936000000000.0' cannot be"),
        (edited("936e9", "inf"), "cannot be"),
        (edited("936e9", "nan"), "cannot be"),
        (edited("936e9", "0"), "cannot be"),
        (edited("float16 = 71e12", "float16 = 71"), "peak_flop_per_s.float16 = '71' cannot be"),
        (edited("{ float32 = 35.6e12, float16 = 71e12, bfloat16 = 71e12 }", "{}"), "peak_flop_per_s"),
        (edited("{ float32 = 35.6e12, float16 = 71e12, bfloat16 = 71e12 }", "71e12"), "a table"),
        (edited("350", "0"), "board_power_w"),
        (edited('["example"]', '"example"'), "a list of names"),
        (edited('["example"]', "[1]"), "text in quotes"),
        (edited('"NVIDIA Example 24GB"', '""'), "name"),
        (edited("board_power_w = 350", "compute_capability = 9.0"), "compute_capability"),
        (EXAMPLE_FILE + "[gpu.sources]\nmemory = 'x'\n", "'memory' is not a key"),
        (EXAMPLE_FILE * 2, "two entries are called"),
        (EXAMPLE_FILE.replace("[[gpu]]", "[gpu]"), "[[gpu]]"),
        (EXAMPLE_FILE.replace("[[gpu]]", "[[gpus]]"), "[[gpu]]"),
        ("gpu = [1]", "is no table"),
        ("", "[[gpu]]"),
        ("name = ", "not valid TOML"),
        ("x = " + "[" * 100_000, "not valid TOML"),
        ("x = " + "9" * 10_000, "not valid TOML"),
        ("#" * (1 << 20) + "#", "larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_is_an_error_that_names_the_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        read_hardware_file(written(tmp_path, text))
    assert says.lower() in str(error.value).lower()
    assert "mine.toml" in str(error.value)


def test_a_file_that_is_missing_a_folder_or_no_text_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path, says in (
        (tmp_path / "none.toml", "not a file"),
        (tmp_path, "not a file"),
        (tmp_path / "binary.toml", "TOML"),
    ):
        with pytest.raises(UsageError, match=says):
            read_hardware_file(path)


values = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=8), st.lists(st.integers(), max_size=2), st.just({})
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([field.name for field in fields(Hardware)] + ["nonsense"]), value=values)
def test_any_value_for_any_key_is_read_or_refused_and_never_a_crash(tmp_path: Path, key: str, value: object) -> None:
    lines = [line for line in EXAMPLE_FILE.splitlines() if not line.startswith(f"{key} =")]
    written_value = "{}" if value == {} else "true" if value is True else "false" if value is False else repr(value)
    path = written(tmp_path, "\n".join([*lines, f"{key} = {written_value}"]))
    with contextlib.suppress(UsageError):
        (device,) = read_hardware_file(path)
        assert roofline_time_s(work_flop=1e12, traffic_bytes=1e9, hardware=device, dtype="float16") > 0
