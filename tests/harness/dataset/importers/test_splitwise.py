"""SplitwiseSim: repeats, rows that stand twice, a GPU that was computed, and times and powers that cannot be."""

from pathlib import Path

import pytest

from harness.dataset.importers.splitwise import (
    COMPUTED,
    NO_GPU,
    NO_MODEL,
    NOT_POSITIVE,
    OTHER_TIME,
    SAME_ROW,
    TOO_FAST,
    TOO_LITTLE_POWER,
    Splitwise,
)
from harness.errors import CorruptFile, DatasetError
from harness.kernels import Phase
from harness.words import Part
from tests.harness.dataset.importers.run_examples import Imported, assert_sound, imported, shared

COLUMNS = (
    "model,hardware,prompt_size,batch_size,token_size,peak_power,average_power,prompt_time,token_time,e2e_time,"
    "tensor_parallel"
)


def row(
    prompt_ms: float,
    token_ms: float,
    whole_ms: float | None = None,
    *,
    hardware: str = "a100-80gb",
    model: str = "llama2-70b",
    prompt: int = 512,
    batch: int = 1,
    output: int = 101,
    mean: float = 0.0,
    peak: float = 0.0,
    degree: int = 4,
) -> str:
    whole = prompt_ms + (output - 1) * token_ms if whole_ms is None else whole_ms
    return f"{model},{hardware},{prompt},{batch},{output},{peak},{mean},{prompt_ms},{token_ms},{whole},{degree}"


def write(folder: Path, *rows: str, columns: str = COLUMNS) -> Path:
    file = folder / "data" / "perf_model.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join([columns, *rows]) + "\n")
    return folder


def test_repeats_become_one_run_with_the_times_of_both_phases(tmp_path: Path) -> None:
    found = imported(Splitwise(), write(tmp_path, row(200.0, 40.0), row(210.0, 41.0), row(190.0, 45.0)))

    (run,), (prefill, decode) = found.runs, found.phases
    assert (run.model, run.gpu, run.dtype, run.runtime) == (
        "meta-llama/Llama-2-70b-hf",
        "NVIDIA A100-SXM4-80GB",
        "float16",
        "vllm",
    )
    assert (run.n_gpus, run.tensor_parallel, run.parallelism) == (4, 4, "tensor")
    assert run.duration_s == pytest.approx(4.31)
    assert (run.energy_j, run.trials) == (None, 3)
    assert (prefill.phase, prefill.duration_s, prefill.energy_j, prefill.steps) == (Phase.PREFILL, 0.2, None, 1)
    assert decode.duration_s == pytest.approx(4.1)
    assert (decode.phase, decode.steps) == (Phase.DECODE, 100)
    assert (decode.context_start_tokens, decode.context_end_tokens) == (512, 612)
    parts = [reading.part for reading in found.readings]
    assert parts == [Part.PREFILL, Part.DECODE, Part.RUN] * 3
    assert all(reading.energy_j is None for reading in found.readings)


def test_power_as_a_share_of_tdp_becomes_energy_and_zero_becomes_null(tmp_path: Path) -> None:
    rows = (row(200.0, 38.0, mean=0.5, peak=0.9), row(100.0, 39.0, hardware="h100-80gb"))

    with_power, without = imported(Splitwise(), write(tmp_path, *rows)).runs

    assert with_power.mean_power_w == 0.5 * 400 * 4
    assert with_power.energy_j == pytest.approx(800 * 4.0)
    assert with_power.method == "power-share-of-tdp"
    assert (without.mean_power_w, without.energy_j, without.method) == (None, None, None)
    assert without.duration_s == pytest.approx(4.0)


def test_a_row_that_stands_twice_is_one_repeat(tmp_path: Path) -> None:
    found = imported(Splitwise(), write(tmp_path, row(200.0, 40.0), row(200.0, 40.0), row(200.0, 41.0)))

    assert (found.runs[0].trials, found.rejected) == (2, {SAME_ROW: 1})


def test_a_gpu_whose_times_are_a_multiple_of_another_gpus_was_not_measured(tmp_path: Path) -> None:
    measured = [row(ms, 30.0 + ms / 100, 3000.0 + ms, hardware="h100-80gb") for ms in (100.0, 110.0, 120.0)]
    computed = [row(ms * 1.3, 30.0 + ms / 100, 3000.0 + ms, hardware="h100-80gb-pcap") for ms in (100.0, 110.0, 120.0)]

    found = imported(Splitwise(), write(tmp_path, *measured, *computed))

    assert {run.gpu for run in found.runs} == {"NVIDIA H100 80GB HBM3"}
    assert (found.runs[0].trials, found.rejected) == (3, {COMPUTED: 3})
    assert "1.3" in found.account.rejections[0].example


def test_a_capped_gpu_with_times_of_its_own_is_kept_with_its_cap(tmp_path: Path) -> None:
    rows = (row(100.0, 30.0, hardware="h100-80gb"), row(131.0, 30.1, hardware="h100-80gb-pcap"))

    found = imported(Splitwise(), write(tmp_path, *rows))

    assert [found.environment_of(run).power_limit_w for run in found.runs] == [700.0, 350.0]
    assert found.runs[0].run_id != found.runs[1].run_id


def test_an_end_to_end_time_that_is_not_that_of_the_phases_is_flagged_and_not_used(tmp_path: Path) -> None:
    found = imported(Splitwise(), write(tmp_path, row(200.0, 38.0, 2000.0, mean=0.5, peak=0.9)))

    (run,), phases = found.runs, found.phases
    assert (run.duration_s, run.energy_j, run.status_detail) == (None, None, OTHER_TIME)
    assert [phase.duration_s for phase in phases] == [0.2, pytest.approx(3.8)]
    whole = next(reading for reading in found.readings if reading.part is Part.RUN)
    assert (whole.duration_s, whole.rejected) == (2.0, OTHER_TIME)
    assert phases[1].flags == OTHER_TIME
    assert found.flagged == {OTHER_TIME: 1}


def test_a_repeat_that_ended_early_is_a_reading_beside_those_that_did_not(tmp_path: Path) -> None:
    found = imported(Splitwise(), write(tmp_path, row(200.0, 38.0), row(200.0, 36.0, 2000.0), row(200.0, 40.0)))

    (run,), (_, decode) = found.runs, found.phases
    assert run.duration_s == pytest.approx(4.1)
    assert decode.duration_s == pytest.approx(3.9)
    assert (run.trials, decode.trials, decode.flags) == (2, 2, None)
    decodes = [reading.rejected for reading in found.readings if reading.part is Part.DECODE]
    assert decodes == [None, OTHER_TIME, None]


def test_a_prefill_faster_than_physics_is_flagged(tmp_path: Path) -> None:
    # 2 × 68.4e9 × 64 × 512 = 4.48e15 FLOP, 0.02e15 of attention; 4 × 312e12 FLOP/s take 3.61 s at least
    found = imported(Splitwise(), write(tmp_path, row(3500.0, 40.0, batch=64), row(3700.0, 40.0, batch=64, prompt=511)))

    assert [run.status_detail for run in found.runs] == [TOO_FAST, None]
    assert [phase.flags for phase in found.phases] == [TOO_FAST, None, None, None]


def test_a_mean_power_that_the_prefill_alone_exceeds_is_flagged(tmp_path: Path) -> None:
    # the prefill is 3 of 10 s at 1.0 of TDP: the mean is 0.3 at least
    rows = (row(3000.0, 70.0, mean=0.2, peak=1.0), row(3000.0, 70.0, mean=0.5, peak=1.0, prompt=256))

    found = imported(Splitwise(), write(tmp_path, *rows))

    assert [run.status_detail for run in found.runs] == [TOO_LITTLE_POWER, None]
    assert found.flagged == {TOO_LITTLE_POWER: 1}


def test_what_is_not_known_is_left_out_by_a_rule(tmp_path: Path) -> None:
    rows = (row(200.0, 40.0, hardware="mi300x"), row(200.0, 40.0, model="gpt3-175b"), row(0.0, 40.0))

    found = imported(Splitwise(), write(tmp_path, *rows))

    assert (found.runs, found.rejected) == ((), {NO_GPU: 1, NO_MODEL: 1, NOT_POSITIVE: 1})


def test_a_missing_column_is_an_error_that_names_it(tmp_path: Path) -> None:
    columns = COLUMNS.replace("token_time", "tbt")

    with pytest.raises(CorruptFile, match="token_time"):
        imported(Splitwise(), write(tmp_path, row(200.0, 40.0), columns=columns))


@pytest.mark.parametrize(("column", "cell"), [("e2e_time", "inf"), ("batch_size", "0"), ("token_size", "-1")])
def test_a_value_that_cannot_be_is_an_error(tmp_path: Path, column: str, cell: str) -> None:
    cells = row(200.0, 40.0).split(",")
    cells[COLUMNS.split(",").index(column)] = cell

    with pytest.raises(CorruptFile, match=column):
        imported(Splitwise(), write(tmp_path, ",".join(cells)))


def test_a_folder_without_the_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"perf_model\.csv"):
        imported(Splitwise(), tmp_path)


@pytest.fixture(scope="module")
def public() -> Imported:
    return imported(Splitwise(), shared("splitwise-sim"))


@pytest.mark.shared_data
def test_the_public_rows_are_all_accounted_for(public: Imported) -> None:
    assert_sound(public)
    assert (public.account.rows_in, public.account.rows_kept, len(public.runs)) == (1260, 760, 152)
    assert public.rejected == {SAME_ROW: 120, COMPUTED: 380}


@pytest.mark.shared_data
def test_public_repeats_that_ran_to_the_end_agree_with_their_phases(public: Imported) -> None:
    whole = [run for run in public.runs if run.duration_s is not None]
    phases = {(row.run_id, row.phase): row.duration_s or 0.0 for row in public.phases}

    assert (len(whole), {run.trials for run in whole}) == (127, {1, 3, 4, 5})
    for run in whole:
        total_s = phases[run.run_id, Phase.PREFILL] + phases[run.run_id, Phase.DECODE]
        assert run.duration_s == pytest.approx(total_s, rel=0.02)


@pytest.mark.shared_data
def test_power_is_there_for_44_public_configurations_and_for_no_h100(public: Imported) -> None:
    powered = [run for run in public.runs if run.energy_j is not None]

    assert len(powered) == 44
    assert {run.gpu for run in powered} == {"NVIDIA A100-SXM4-80GB"}
    assert all((run.mean_power_w or 0.0) < 400 * run.n_gpus for run in powered)


@pytest.mark.shared_data
def test_the_known_impossible_public_rows_are_flagged_and_no_others(public: Imported) -> None:
    too_fast = [run for run in public.runs if TOO_FAST in (run.status_detail or "")]
    too_little = [run for run in public.runs if TOO_LITTLE_POWER in (run.status_detail or "")]

    assert {(run.tensor_parallel, run.batch_size) for run in too_fast} == {(2, 64)}
    assert len(too_fast) == 2
    assert {(run.tensor_parallel, run.prompt_tokens) for run in too_little} == {(2, 8192), (4, 8192), (8, 8192)}
    assert {run.model for run in too_little} == {"meta-llama/Llama-2-70b-hf"}
