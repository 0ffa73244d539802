"""energy-inference: duplicates, start-up, warm-ups, early ends, variants of the A100, and the batch that is not one."""

from pathlib import Path

import pytest

from harness.dataset.importers.energy_inference import (
    ALL_EARLY,
    BATCH_OPEN,
    BATCH_REFUTED,
    ENDED_EARLY,
    NO_VARIANT,
    OTHER_PROMPT,
    WARM_UP,
    EnergyInference,
)
from harness.dataset.importers.energy_inference_samples import (
    NO_GPU,
    NO_MODEL,
    NOT_POSITIVE,
    RAW_FILE,
    SAME_RUN,
    START_UP,
)
from harness.dataset.importers.names import size_of
from harness.dataset.importers.repeats_cache import CacheReading, Generation, generation_flop
from harness.errors import CorruptFile, DatasetError
from harness.words import Part
from tests.harness.dataset.importers.run_examples import Imported, assert_sound, imported, shared

COLUMNS = (
    "Phase,Runtime (s),CPU Energy (J),GPU Energy (J),Number of Output Tokens,Number of Input Tokens,Iteration,Model,"
    "Number of GPUs,Prompt,Total Number of Tokens,Batch Size,System"
)
SWING, PALMETTO = "Swing AMD+A100", "Palmetto Intel+A100"
MISTRAL = size_of("mistralai/Mistral-7B-v0.1")


def generation(
    duration_s: float,
    energy_j: float,
    *,
    prompt: int = 33,
    output: int = 32,
    iteration: int = 1,
    total: int | None = None,
    stated_prompt: int | None = None,
    system: str = SWING,
    model: str = "Mistral (7B)",
    n_gpus: int = 1,
) -> str:
    counted = prompt + output if total is None else total
    stated = prompt if stated_prompt is None else stated_prompt
    return (
        f"start-inference-A-{iteration},{duration_s},{duration_s * 2},{energy_j},{output},{stated},{iteration},{model},"
        f"{n_gpus},prompt of {prompt},{counted},32,{system}"
    )


def took(prompt: int, output: int, *, batch_size: int, kv_cache: bool, flop_per_s: float) -> float:
    assert MISTRAL is not None
    asked = Generation(prompt_tokens=prompt, output_tokens=output, duration_s=1.0)
    return generation_flop(MISTRAL, asked, CacheReading(batch_size=batch_size, kv_cache=kv_cache)) / flop_per_s


def sweeps(*, batch_size: int = 1, kv_cache: bool = False, rates: tuple[float, float] = (160e12, 150e12)) -> list[str]:
    """The longest prompt and the longest output of a machine, 300 W for long enough to tell its variant."""
    long_prompt = took(2048, 32, batch_size=batch_size, kv_cache=kv_cache, flop_per_s=rates[0])
    long_output = took(33, 4096, batch_size=batch_size, kv_cache=kv_cache, flop_per_s=rates[1])
    return [
        generation(long_prompt, long_prompt * 300, prompt=2048),
        generation(long_output, long_output * 300, output=4096),
    ]


def write(folder: Path, *rows: str, name: str = "plots/one/all-stats.csv", columns: str = COLUMNS) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([columns, *rows]) + "\n")
    return folder


def test_repeats_become_one_run_without_the_warm_up(tmp_path: Path) -> None:
    repeats = [(5.0, 400.0, 0), (1.0, 100.0, 1), (1.2, 120.0, 2), (1.1, 130.0, 3)]
    rows = [generation(seconds, joules, iteration=number) for seconds, joules, number in repeats]

    found = imported(EnergyInference(), write(tmp_path, *rows, *sweeps()))

    run = next(run for run in found.runs if (run.prompt_tokens, run.output_tokens) == (33, 32))
    assert (run.energy_j, run.duration_s, run.trials) == (120.0, 1.1, 3)
    assert run.host_energy_j == pytest.approx(2.2)
    assert run.energy_ci95_j is not None
    assert [(reading.part, reading.energy_j, reading.rejected) for reading in found.readings_of(run)] == [
        (Part.RUN, 400.0, WARM_UP),
        (Part.RUN, 100.0, None),
        (Part.RUN, 120.0, None),
        (Part.RUN, 130.0, None),
    ]
    assert (run.model, run.dtype, run.runtime, run.parallelism) == (
        "mistralai/Mistral-7B-v0.1",
        "bfloat16",
        "hf",
        "none",
    )


def test_the_same_generation_in_another_file_under_another_name_of_the_machine_counts_once(tmp_path: Path) -> None:
    rows = [generation(1.0, 100.0), *sweeps()]
    again = [generation(1.0, 100.0, system="argonne-swing", stated_prompt=32), generation(1.0, 101.0)]
    write(tmp_path, *rows)

    found = imported(EnergyInference(), write(tmp_path, *again, name="plots/two/all-output-stats.csv"))

    assert found.rejected == {SAME_RUN: 1}
    run = next(run for run in found.runs if run.output_tokens == 32 and run.prompt_tokens == 33)
    assert (run.trials, {run.gpu for run in found.runs}) == (2, {"NVIDIA A100-SXM4-40GB"})


def test_start_up_and_what_is_not_known_is_left_out_by_a_rule(tmp_path: Path) -> None:
    odd = [
        "tokenizer,0.1,0.2,5.0,32,0,0,Mistral (7B),1,startup,0,32,Swing AMD+A100",
        "model load,50,60,3000,32,0,0,Mistral (7B),1,startup,0,32,Swing AMD+A100",
        generation(1.0, 100.0, model="Phi (2B)"),
        generation(1.0, 100.0, system="M1-Pro"),
        generation(1.0, 0.0),
    ]

    found = imported(EnergyInference(), write(tmp_path, *odd, *sweeps()))

    assert found.rejected == {START_UP: 2, NO_MODEL: 1, NO_GPU: 1, NOT_POSITIVE: 1}


def test_the_batch_column_is_refuted_where_only_single_sequences_without_a_cache_fit_the_times(tmp_path: Path) -> None:
    found = imported(EnergyInference(), write(tmp_path, *sweeps()))

    assert {(run.batch_size, run.kv_cache, run.status_detail) for run in found.runs} == {(1, False, BATCH_REFUTED)}
    assert found.flagged == {BATCH_REFUTED: 2}


def test_the_batch_column_stays_where_the_times_do_not_refute_it(tmp_path: Path) -> None:
    rows = sweeps(batch_size=32, kv_cache=True, rates=(150e12, 8e12))  # decode is bound by memory

    found = imported(EnergyInference(), write(tmp_path, *rows))

    assert {(run.batch_size, run.kv_cache, run.status_detail) for run in found.runs} == {(32, None, BATCH_OPEN)}


def test_one_sweep_alone_decides_nothing(tmp_path: Path) -> None:
    found = imported(EnergyInference(), write(tmp_path, generation(20.0, 6000.0)))

    assert (found.runs[0].batch_size, found.runs[0].kv_cache, found.runs[0].status_detail) == (32, None, BATCH_OPEN)


def test_repeats_that_ended_early_are_readings_and_not_in_the_median(tmp_path: Path) -> None:
    repeats = [(20.0, 1000), (21.0, 1000), (18.0, 920)]
    rows = [
        generation(seconds, seconds * 300, output=1000, total=33 + made, iteration=number)
        for number, (seconds, made) in enumerate(repeats, 1)
    ]

    found = imported(EnergyInference(), write(tmp_path, *rows, *sweeps()))

    run = next(run for run in found.runs if run.output_tokens == 1000)
    assert (run.duration_s, run.trials) == (20.5, 2)
    assert [reading.rejected for reading in found.readings_of(run)] == [None, None, ENDED_EARLY]


def test_where_every_repeat_ended_early_all_are_used_and_flagged(tmp_path: Path) -> None:
    early = generation(18.0, 5400.0, output=1000, total=33 + 920)

    found = imported(EnergyInference(), write(tmp_path, early, *sweeps()))

    run = next(run for run in found.runs if run.output_tokens == 1000)
    assert (run.duration_s, run.trials) == (18.0, 1)
    assert run.status_detail == f"{BATCH_REFUTED}; {ALL_EARLY}"


def test_prompt_tokens_are_counted_not_taken_from_the_nominal_column(tmp_path: Path) -> None:
    rows = [generation(1.0, 100.0, prompt=21, stated_prompt=16), *sweeps()]

    found = imported(EnergyInference(), write(tmp_path, *rows))

    run = next(run for run in found.runs if run.prompt_tokens == 21)
    assert run.status_detail == f"{BATCH_REFUTED}; {OTHER_PROMPT}"


@pytest.mark.parametrize(
    ("power_w", "gpu"), [(248.0, "NVIDIA A100-PCIE-40GB"), (395.0, "NVIDIA A100-SXM4-40GB")], ids=["pcie", "sxm"]
)
def test_the_variant_of_the_a100_follows_from_its_level_of_power(tmp_path: Path, power_w: float, gpu: str) -> None:
    row = generation(20.0, 20.0 * power_w * 3, system=PALMETTO, n_gpus=3)

    found = imported(EnergyInference(), write(tmp_path, row))

    assert (found.runs[0].gpu, found.runs[0].n_gpus, found.runs[0].parallelism) == (gpu, 3, "layers")


@pytest.mark.parametrize(("duration_s", "power_w"), [(5.0, 200.0), (20.0, 4000.0)], ids=["short", "millijoules"])
def test_without_a_level_of_power_there_is_no_variant_and_no_stand_in(
    tmp_path: Path, duration_s: float, power_w: float
) -> None:
    found = imported(EnergyInference(), write(tmp_path, generation(duration_s, duration_s * power_w)))

    assert (found.runs, found.rejected) == ((), {NO_VARIANT: 1})


def test_raw_files_beside_the_merged_ones_are_counted_and_left_out(tmp_path: Path) -> None:
    raw = "Timestamp,Phase,Runtime (s),GPU Energy (mJ)"
    write(tmp_path, "1,tokenizer,0.3,16202", name="plots/one/all-stats-raw.csv", columns=raw)

    found = imported(EnergyInference(), write(tmp_path, *sweeps()))

    assert found.rejected == {RAW_FILE: 1}
    with pytest.raises(DatasetError, match="merged tables"):
        imported(EnergyInference(), tmp_path / "plots" / "one" / "all-stats-raw.csv")


def test_the_older_name_of_the_output_column_is_read_too(tmp_path: Path) -> None:
    columns = COLUMNS.replace("Number of Output Tokens", "Output Token Limit")

    found = imported(EnergyInference(), write(tmp_path, *sweeps(), columns=columns))

    assert {run.output_tokens for run in found.runs} == {32, 4096}


@pytest.mark.parametrize(("column", "cell"), [("Runtime (s)", "nan"), ("Number of GPUs", "0"), ("Iteration", "1.5")])
def test_a_value_that_cannot_be_is_an_error(tmp_path: Path, column: str, cell: str) -> None:
    cells = generation(1.0, 100.0).split(",")
    cells[COLUMNS.split(",").index(column)] = cell

    with pytest.raises(CorruptFile, match=column.partition(" (")[0]):
        imported(EnergyInference(), write(tmp_path, ",".join(cells)))


def test_a_missing_column_is_an_error_that_names_it(tmp_path: Path) -> None:
    columns = COLUMNS.replace("GPU Energy (J)", "GPU Energy (kJ)")

    with pytest.raises(CorruptFile, match=r"GPU Energy \(J\)"):
        imported(EnergyInference(), write(tmp_path, generation(1.0, 100.0), columns=columns))


@pytest.fixture(scope="module")
def public() -> Imported:
    return imported(EnergyInference(), shared("energy-inference"))


@pytest.mark.shared_data
def test_the_public_rows_are_all_accounted_for(public: Imported) -> None:
    assert_sound(public)
    assert (public.account.rows_in, public.account.rows_kept, len(public.runs)) == (2258, 1647, 144)
    assert public.rejected == {START_UP: 46, SAME_RUN: 565}
    assert (public.sources[0].licence, "do not redistribute" in (public.sources[0].citation or "")) == (None, True)


@pytest.mark.shared_data
def test_both_names_of_the_swing_machine_are_one_and_its_a100s_are_the_400_watt_ones(public: Imported) -> None:
    assert {row.device_name: (row.gpu, row.power_limit_w) for row in public.environments} == {
        SWING: ("NVIDIA A100-SXM4-40GB", 400.0),
        PALMETTO: ("NVIDIA A100-PCIE-40GB", 250.0),
    }


@pytest.mark.shared_data
def test_every_public_sweep_refutes_its_batch_column(public: Imported) -> None:
    assert {(run.batch_size, run.kv_cache) for run in public.runs} == {(1, False)}
    assert all(BATCH_REFUTED in (run.status_detail or "") for run in public.runs)


@pytest.mark.shared_data
def test_mistral_computes_at_one_rate_in_both_public_sweeps_read_as_single_sequences(public: Imported) -> None:
    assert MISTRAL is not None
    own = [run for run in public.runs if run.model == "mistralai/Mistral-7B-v0.1" and run.gpu.endswith("SXM4-40GB")]
    longest = max(own, key=lambda run: run.prompt_tokens or 0), max(own, key=lambda run: run.output_tokens or 0)

    rates = [
        took(run.prompt_tokens or 0, run.output_tokens or 0, batch_size=1, kv_cache=False, flop_per_s=1.0)
        / (run.duration_s or 1.0)
        for run in longest
    ]

    assert rates == [pytest.approx(170e12, rel=0.04), pytest.approx(170e12, rel=0.04)]


@pytest.mark.shared_data
def test_every_public_run_keeps_its_warm_ups_as_readings_and_no_warm_up_is_in_a_median(public: Imported) -> None:
    for run in public.runs:
        readings = public.readings_of(run)
        used = sorted(reading.energy_j for reading in readings if reading.rejected is None and reading.energy_j)
        assert any(reading.rejected == WARM_UP for reading in readings)
        assert run.trials == len(used)
        assert run.energy_j == pytest.approx((used[(len(used) - 1) // 2] + used[len(used) // 2]) / 2)


@pytest.mark.shared_data
def test_the_public_run_on_three_gpus_is_a_layer_split(public: Imported) -> None:
    split = {run.n_gpus: run.parallelism for run in public.runs}

    assert split == {1: "none", 3: "layers"}
