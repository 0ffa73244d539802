"""CO2-Meter: phases of requests on edge devices, repeats, and what is zero, fractional or out of line."""

import gzip
from pathlib import Path
from zipfile import ZipFile

import pytest

from harness.dataset.importers.co2_meter import (
    FRACTION,
    NO_MODEL,
    NO_PHASE,
    NOT_POSITIVE,
    OTHER_LAYERS,
    OTHER_POWER,
    Co2Meter,
)
from harness.errors import CorruptFile, DatasetError
from harness.kernels import Phase
from harness.words import Part
from tests.harness.dataset.importers.run_examples import Imported, assert_sound, imported, shared

SIZES = {
    "internlm": "silu,2048,8192,24,16,92544",
    "tinyllama": "silu,2048,5632,32,32,32000",
    "qwen2-1.5b": "silu,1536,8960,28,12,151936",
}


def row(
    seconds: float,
    joules: float,
    *,
    prompt: int = 100,
    output: float = 1,
    model: str = "internlm",
    device: str = "Nvidia-Orin",
    marks: str | None = None,
    trace: str = "1,0",
) -> str:
    phase = ("1,0" if output == 1 else "0,1") if marks is None else marks
    sizes = SIZES.get(model, SIZES["internlm"])
    return f"{trace},{phase},{device},1,{model},16,{sizes},1,{prompt},{output},{seconds},{joules}"


def write(folder: Path, *rows: str, name: str = "uniform_train.csv") -> Path:
    content = ("\n".join(rows) + "\n").encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def test_prefills_of_one_prompt_are_repeats_of_a_request_for_one_token(tmp_path: Path) -> None:
    found = imported(Co2Meter(), write(tmp_path, row(0.1, 1.0), row(0.2, 2.0), row(0.3, 6.0)))

    (run,), (phase,) = found.runs, found.phases
    assert (run.model, run.dtype, run.gpu, run.batch_size) == (
        "internlm/internlm2-chat-1_8b",
        "float16",
        "Nvidia-Orin",
        1,
    )
    assert (run.prompt_tokens, run.output_tokens, run.energy_j, run.duration_s, run.trials) == (100, 1, 2.0, 0.2, 3)
    assert (phase.phase, phase.energy_j, phase.steps, phase.method) == (Phase.PREFILL, 2.0, 1, None)
    assert [(reading.part, reading.trial, reading.energy_j) for reading in found.readings] == [
        (Part.PREFILL, 0, 1.0),
        (Part.PREFILL, 1, 2.0),
        (Part.PREFILL, 2, 6.0),
    ]


def test_a_decode_is_a_difference_whose_total_is_not_known(tmp_path: Path) -> None:
    found = imported(Co2Meter(), write(tmp_path, row(5.0, 30.0, output=51)))

    (run,), (phase,) = found.runs, found.phases
    assert (run.output_tokens, run.energy_j, run.duration_s, run.trials) == (51, None, None, None)
    assert (phase.phase, phase.energy_j, phase.steps) == (Phase.DECODE, 30.0, 50)
    assert (phase.context_start_tokens, phase.context_end_tokens) == (100, 150)
    assert phase.method == "request-less-prefill"
    assert "whole request less prefill" in (found.sources[0].derived or "")


def test_what_is_zero_or_negative_is_left_out_and_never_written_as_zero(tmp_path: Path) -> None:
    rows = (row(0.1, 0.0), row(-0.1, 1.0, output=5), row(0.1, -1.0, output=5), row(0.1, 1.0))

    found = imported(Co2Meter(), write(tmp_path, *rows))

    assert (len(found.readings), found.rejected) == (1, {NOT_POSITIVE: 3})


def test_lengths_of_a_trace_and_even_lengths_are_different_runs(tmp_path: Path) -> None:
    write(tmp_path, row(0.1, 1.0), row(0.1, 1.1, trace="0,1"))

    found = imported(Co2Meter(), write(tmp_path, row(0.1, 1.2), name="trace_train.csv.gz"))

    assert [run.prompts for run in found.runs] == [
        "lengths of uniform_train code",
        "lengths of uniform_train conv",
        "lengths of trace_train code",
    ]
    assert len({run.run_id for run in found.runs}) == 3


def test_a_fraction_of_a_token_is_kept_as_a_mean_and_flagged(tmp_path: Path) -> None:
    found = imported(Co2Meter(), write(tmp_path, row(5.0, 30.0, output=55.2)))

    (run,), (phase,) = found.runs, found.phases
    assert (run.output_tokens, run.mean_output_tokens, run.status_detail) == (None, 55.2, FRACTION)
    assert (phase.steps, phase.context_end_tokens, phase.flags) == (None, None, FRACTION)


def test_a_model_of_other_sizes_than_its_name_says_is_left_out_and_other_layers_are_flagged(tmp_path: Path) -> None:
    other = row(0.1, 1.0).replace("2048,8192", "4096,8192")
    rows = (other, row(0.1, 1.0, model="phi3"), row(0.1, 1.0, model="tinyllama"))

    found = imported(Co2Meter(), write(tmp_path, *rows))

    assert found.rejected == {NO_MODEL: 2}
    assert (found.runs[0].model, found.runs[0].status_detail) == ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", OTHER_LAYERS)


def test_a_power_out_of_line_with_its_device_and_phase_is_flagged(tmp_path: Path) -> None:
    usual = [row(1.0, 10.0 + prompt / 100, prompt=prompt) for prompt in range(1, 10)]

    found = imported(Co2Meter(), write(tmp_path, *usual, row(1.0, 100.0, prompt=10), row(1.0, 2.0, prompt=11)))

    assert [run.prompt_tokens for run in found.runs if run.status_detail == OTHER_POWER] == [10, 11]


def test_one_outlier_among_repeats_flags_no_run(tmp_path: Path) -> None:
    found = imported(Co2Meter(), write(tmp_path, row(1.0, 10.0), row(1.0, 11.0), row(1.0, 90.0)))

    assert (found.runs[0].energy_j, found.runs[0].status_detail) == (11.0, None)


def test_a_row_that_is_of_both_phases_or_of_none_is_left_out(tmp_path: Path) -> None:
    found = imported(Co2Meter(), write(tmp_path, row(0.1, 1.0, marks="0,0"), row(0.1, 1.0, marks="1,1")))

    assert (found.runs, found.rejected) == ((), {NO_PHASE: 2})


def test_a_clone_is_read_from_its_archive_also_without_the_four_marks(tmp_path: Path) -> None:
    (tmp_path / "raw data").mkdir()
    marks = "1,0,1,0,"
    with ZipFile(tmp_path / "raw data" / "raw_data.zip", "w") as archive:
        archive.writestr("raw_data/trace_train.csv", row(0.1, 1.0) + "\n")
        archive.writestr("raw_data/split.csv", row(0.2, 2.0).removeprefix(marks) + "\n")
        archive.writestr("__MACOSX/raw_data/._split.csv", "\x00")

    found = imported(Co2Meter(), tmp_path)

    assert [run.prompts for run in found.runs] == ["lengths of split", "lengths of trace_train code"]
    assert {phase.phase for phase in found.phases} == {Phase.PREFILL}


def test_a_cut_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"uniform_train\.csv, line 2"):
        imported(Co2Meter(), write(tmp_path, row(0.1, 1.0), row(0.1, 1.0)[:30]))


def test_a_truncated_download_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *[row(0.1, 1.0, prompt=prompt) for prompt in range(1, 200)], name="trace.csv.gz")
    file = tmp_path / "trace.csv.gz"
    file.write_bytes(file.read_bytes()[:-30])

    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        imported(Co2Meter(), tmp_path)


@pytest.mark.parametrize("cell", ["nan", "inf", ""])
def test_a_value_that_is_no_finite_number_is_an_error(tmp_path: Path, cell: str) -> None:
    with pytest.raises(CorruptFile, match="energy_j"):
        imported(Co2Meter(), write(tmp_path, row(0.1, 1.0).removesuffix("1.0") + cell))


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"raw_data\.zip"):
        imported(Co2Meter(), tmp_path)


@pytest.fixture(scope="module")
def public() -> Imported:
    return imported(Co2Meter(), shared("co2-meter"))


@pytest.mark.shared_data
def test_the_public_rows_are_all_accounted_for(public: Imported) -> None:
    assert_sound(public)
    assert (public.account.rows_in, public.account.rows_kept, len(public.runs)) == (63_809, 63_782, 38_252)
    assert public.rejected == {NOT_POSITIVE: 27}
    assert public.flagged[FRACTION] == 848
    assert {source.licence for source in public.sources} == {None}


@pytest.mark.shared_data
def test_public_prefills_of_one_prompt_are_repeats_and_scatter_little_in_time(public: Imported) -> None:
    even = [run for run in public.runs if run.output_tokens == 1 and "uniform" in (run.prompts or "")]

    assert sum(run.trials or 0 for run in even) == 16_000 - 13
    assert max(run.trials or 0 for run in even) == 25
    assert all((run.duration_s or 0) > 0 for run in even)


@pytest.mark.shared_data
def test_no_public_power_is_left_unflagged_beyond_a_factor_of_three_of_its_device(public: Imported) -> None:
    device = {run.run_id: run.gpu for run in public.runs}
    calm = [phase for phase in public.phases if OTHER_POWER not in (phase.flags or "")]

    powers_w = [
        phase.energy_j / phase.duration_s
        for phase in calm
        if phase.energy_j and phase.duration_s and device[phase.run_id] == "RK3588-NPU"
    ]

    assert 1 < min(powers_w) < max(powers_w) < 20  # the board has no 160 W
