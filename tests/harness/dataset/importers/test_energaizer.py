"""EnergAIzer: names of workloads, repeats, the locked clock, and passes that cannot have been complete."""

from pathlib import Path

import pytest

from harness.dataset.importers.energaizer import (
    CLOCK_FELL,
    NO_LANGUAGE_MODEL,
    NO_MODEL,
    NO_NAME,
    NOT_POSITIVE,
    NOT_PREFILL,
    TOO_FAST,
    Energaizer,
)
from harness.errors import CorruptFile, DatasetError
from harness.kernels import Phase
from harness.words import Part, Provenance, Weights
from tests.harness.dataset.importers.run_examples import Imported, assert_sound, imported, shared

HEADER = "workload,energy,time,avg_freq,temp"
OPT = "optmodel_opt-1p3b_pbf16_b4_s512_modeprefill"


def write(folder: Path, *rows: str, name: str = "a100.csv") -> Path:
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_a_row_becomes_a_prefill_alone_with_all_that_its_name_says(tmp_path: Path) -> None:
    found = imported(Energaizer(), write(tmp_path, f"{OPT}_attneager_freq900_iter100.csv,11.5,76.0,900.0,64.5"))

    (run,), (phase,), (reading,) = found.runs, found.phases, found.readings
    assert (run.model, run.dtype, run.attention, run.weights) == (
        "facebook/opt-1.3b",
        "bfloat16",
        "eager",
        Weights.RANDOM,
    )
    assert (run.batch_size, run.prompt_tokens, run.output_tokens) == (4, 512, 0)
    assert (run.energy_j, run.duration_s, run.energy_ci95_j, run.trials) == (11.5, 0.076, None, 1)
    assert (run.gpu, run.n_gpus, run.provenance) == ("NVIDIA A100-PCIE-40GB", 1, Provenance.IMPORTED)
    assert (phase.phase, phase.energy_j, phase.steps, phase.context_end_tokens) == (Phase.PREFILL, 11.5, 1, 512)
    assert (reading.part, reading.passes, reading.energy_j) == (Part.PREFILL, 100.0, 1150.0)
    assert reading.duration_s == pytest.approx(7.6)
    assert (reading.sm_clock_mhz, reading.temperature_c) == (900.0, 64.5)
    assert (found.environments[0].sm_clock_mhz, found.environments[0].power_limit_w) == (900.0, 250.0)
    assert run.status_detail is None


def test_a_row_without_an_attention_is_a_repeat_of_the_eager_one(tmp_path: Path) -> None:
    found = imported(
        Energaizer(),
        write(
            tmp_path,
            f"{OPT}_freq900_iter100.csv,10.0,76.0,900.0,64.5",
            f"{OPT}_attneager_freq900_iter50.csv,12.0,78.0,900.0,64.5",
            f"{OPT}_attnsdpa_freq900_iter50.csv,9.0,70.0,900.0,64.5",
        ),
    )

    eager, sdpa = found.runs
    assert eager.duration_s == pytest.approx(0.077)
    assert (eager.attention, eager.energy_j, eager.trials) == ("eager", 11.0, 2)
    assert eager.energy_ci95_j == pytest.approx(12.706, rel=1e-3)  # t(1) × 1.414 / √2
    assert (sdpa.attention, sdpa.trials) == ("sdpa", 1)
    assert [reading.trial for reading in found.readings_of(eager)] == [0, 1]


def test_rows_that_are_no_prefill_of_a_language_model_are_left_out_by_a_rule(tmp_path: Path) -> None:
    rows = (
        "vitmodel_large_pbf16_b8_freq900_iter100.csv,1.0,10.0,900.0,60.0",
        "resnet101__pbf16_b8_freq900_iter100.csv,1.0,10.0,900.0,60.0",
        "optmodel_opt-1p3b_pbf16_b4_s512_modedecode_freq900_iter10.csv,1.0,10.0,900.0,60.0",
        "optdecoder_opt-1p3b_pbf16_b4_s512_modeprefill_freq900_iter10.csv,1.0,10.0,900.0,60.0",
        "something else.csv,1.0,10.0,900.0,60.0",
        f"{OPT}_freq900_iter10.csv,0.0,10.0,900.0,60.0",
    )

    found = imported(Energaizer(), write(tmp_path, *rows))

    assert found.runs == ()
    assert found.rejected == {NO_LANGUAGE_MODEL: 2, NOT_PREFILL: 1, NO_MODEL: 1, NO_NAME: 1, NOT_POSITIVE: 1}


def test_a_clock_that_fell_below_its_lock_is_flagged(tmp_path: Path) -> None:
    found = imported(
        Energaizer(),
        write(
            tmp_path,
            f"{OPT}_freq900_iter10.csv,60.0,250.0,899.7,60.0",
            "bertmodel_large_pfp32_b1_s128_modeprefill_freq900_iter10.csv,2.0,18.0,899.9999999,60.0",
        ),
    )

    opt, bert = found.runs
    assert (opt.status_detail, found.phases[0].flags) == (CLOCK_FELL, CLOCK_FELL)
    assert (bert.model, bert.dtype, bert.status_detail) == ("google-bert/bert-large-uncased", "float32", None)
    assert found.flagged == {CLOCK_FELL: 1}


def test_a_pass_faster_than_the_peak_at_the_locked_clock_is_flagged(tmp_path: Path) -> None:
    # OPT-1.3B, 4 × 512 tokens: 2 × 1.208e9 × 2048 = 4.95e12 FLOP, and 0.1e12 of attention.
    # Peak at 900 of 1410 MHz: 312e12 × 0.638 = 199e12 FLOP/s: 25.4 ms at least. At the full clock 16.2 ms would do.
    found = imported(
        Energaizer(),
        write(
            tmp_path,
            f"{OPT}_freq900_iter10.csv,4.0,25.0,900.0,60.0",
            f"{OPT}_freq1410_iter10.csv,4.0,25.0,1410.0,60.0",
        ),
    )

    locked, full = found.runs
    assert (locked.status_detail, full.status_detail) == (TOO_FAST, None)
    assert [found.environment_of(run).sm_clock_mhz for run in found.runs] == [900.0, 1410.0]


@pytest.mark.parametrize(
    ("folder", "gpu", "clock_mhz"),
    [("a10", "NVIDIA A10", 900), ("dvfs", "NVIDIA A100-PCIE-40GB", 900), ("h100", "NVIDIA H100 80GB HBM3", 1830)],
)
def test_a_clone_names_the_gpu_by_its_folder(tmp_path: Path, folder: str, gpu: str, clock_mhz: int) -> None:
    place = tmp_path / "test" / "data" / "measurements" / folder / "nvml"
    place.mkdir(parents=True)
    write(
        place, "qwen2model_qwen2-1p5b_pbf16_b1_s128_modeprefill_iter10.csv,9.0,30.0,900.0,60.0", name="nvml_parsed.csv"
    )

    found = imported(Energaizer(), tmp_path)

    assert (found.runs[0].gpu, found.runs[0].model) == (gpu, "Qwen/Qwen2-1.5B")
    assert found.environments[0].sm_clock_mhz == clock_mhz


def test_equal_rows_give_equal_ids_wherever_they_lie(tmp_path: Path) -> None:
    row = "gpt2model_gpt2-medium_pbf16_b1_s128_modeprefill_freq900_iter10.csv,1.0,8.0,900.0,60.0"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    one, two = (imported(Energaizer(), write(tmp_path / name, row)) for name in ("one", "two"))

    assert one.runs == two.runs
    assert one.runs[0].model == "openai-community/gpt2-medium"


def test_a_missing_column_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a100.csv").write_text(f"workload,energy,avg_freq,temp\n{OPT}_freq900_iter10.csv,1,900,60\n")

    with pytest.raises(CorruptFile, match="'time'"):
        imported(Energaizer(), tmp_path)


@pytest.mark.parametrize("cell", ["nan", "inf", "many"])
def test_a_value_that_is_no_finite_number_is_an_error(tmp_path: Path, cell: str) -> None:
    with pytest.raises(CorruptFile, match=r"a100\.csv, line 2"):
        imported(Energaizer(), write(tmp_path, f"{OPT}_freq900_iter10.csv,{cell},10.0,900.0,60.0"))


def test_a_gpu_that_is_not_known_is_an_error_and_no_stand_in(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no GPU is known for l40s"):
        imported(Energaizer(), write(tmp_path, f"{OPT}_freq900_iter10.csv,1,10,900,60", name="l40s.csv"))


def test_a_folder_without_data_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Give a clone"):
        imported(Energaizer(), tmp_path)


@pytest.fixture(scope="module")
def public() -> Imported:
    return imported(Energaizer(), shared("energaizer"))


@pytest.mark.shared_data
def test_the_public_rows_are_all_accounted_for(public: Imported) -> None:
    assert_sound(public)
    assert (public.account.rows_in, public.account.rows_kept, len(public.runs)) == (133, 109, 94)
    assert public.rejected == {NO_LANGUAGE_MODEL: 24}
    assert {run.model for run in public.runs} == {
        "facebook/opt-1.3b",
        "Qwen/Qwen2-1.5B",
        "openai-community/gpt2",
        "google-bert/bert-large-uncased",
    }
    assert public.sources[0].licence == "MIT"
    assert public.sources[0].version is not None


@pytest.mark.shared_data
def test_of_the_public_rows_the_known_impossible_one_and_those_at_the_power_limit_are_flagged(public: Imported) -> None:
    too_fast = [run for run in public.runs if run.status_detail == TOO_FAST]
    fell = [run for run in public.runs if run.status_detail == CLOCK_FELL]

    assert [(run.model, run.batch_size, run.prompt_tokens) for run in too_fast] == [("Qwen/Qwen2-1.5B", 8, 4096)]
    assert sorted((run.batch_size, run.prompt_tokens) for run in fell) == [(4, 1024), (16, 1024)]


@pytest.mark.shared_data
def test_public_rows_without_an_attention_do_take_the_time_of_eager_ones(public: Imported) -> None:
    repeated = [run for run in public.runs if run.trials == 2]

    # Either reading of such a row is a guess unless both times agree; short passes scatter by the host's launches.
    assert len(repeated) == 15
    for run in repeated:
        first, second = (
            reading.duration_s / reading.passes for reading in public.readings_of(run) if reading.duration_s
        )
        assert first == pytest.approx(second, rel=0.03 if run.prompt_tokens != 128 else 0.2)


@pytest.mark.shared_data
def test_the_power_of_the_public_rows_is_that_of_a_250_watt_card(public: Imported) -> None:
    powers_w = [run.energy_j / run.duration_s for run in public.runs if run.energy_j and run.duration_s]

    # The largest is that of CUDA-core fp32 or bf16 at a locked clock, far from the 400 W of the other module.
    assert 150 < max(powers_w) < 250
