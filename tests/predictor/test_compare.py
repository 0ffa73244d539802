"""Comparing deployments: what is varied, how it is ranked, and how it is shown."""

import csv
import html
import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.hardware import find
from predictor.answers import Answer
from predictor.compare import Candidate, Comparison, front_of, ranked
from predictor.compare_axes import Axis, Bounds, read_axes, read_bounds
from predictor.compare_page import comparison_page
from predictor.compare_text import comparison_text
from predictor.predict import main
from predictor.requests import Prediction, PredictionRequest
from tests.predictor.fake_predictor import FakePredictor, phase

BASE = ("--model", "Qwen/Qwen3-8B", "--prompt", "512", "--output", "128")


def candidate(energy_j: float, time_s: float, *, meets: bool = True, batch: int = 1) -> Candidate:
    """One output token, so that energies are those per token; intervals reach 10 % to each side."""
    request = PredictionRequest(
        model="m", hardware=find("H200"), batch_size=batch, prompt_tokens=1, output_tokens=1, runtime="hf"
    )
    prediction = Prediction(
        prefill=phase(energy_j, time_s), decode=phase(0, 0), whole=phase(energy_j, time_s), in_distribution=True
    )
    answer = Answer(request=request, prediction=prediction)
    return Candidate(request=request, prediction=prediction, answer=answer, meets=meets)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main([*BASE, *arguments], predictor=FakePredictor())
    output = capsys.readouterr()
    assert code == 0, output.err
    return output.out


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("batch=1..64", "1 2 4 8 16 32 64"),
        ("batch=1..48", "1 2 4 8 16 32"),
        ("batch=3..24", "3 6 12 24"),
        ("batch=1..8:3", "1 4 7"),
        ("gpus=1,2,4..8:2,2", "1 2 4 6 8"),
        ("gpu=H200, A100-SXM4-80GB", "H200 A100-SXM4-80GB"),
    ],
)
def test_values_are_lists_doublings_and_steps(text: str, values: str) -> None:
    assert read_axes([text], ())[0].values == tuple(values.split())


@pytest.mark.parametrize(
    "texts",
    [
        ["batch"],
        ["batch="],
        ["batch=1,,2"],
        ["colour=red"],
        ["batch=0..8"],
        ["batch=8..1"],
        ["batch=1..8:0"],
        ["batch=a..b"],
        ["batch=1..9:1", "batch=3"],
        ["prompt=5"],
        ["batch=1..300:1", "gpus=1..300:1"],
        ["batch=1..999999999:1"],
    ],
)
def test_other_axes_are_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        read_axes(texts, ("prompt_tokens",))


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_text_breaks_the_reading_of_axes_and_bounds(axis: str, bounds: str) -> None:
    for read in (lambda: read_axes([axis], ()), lambda: read_bounds(bounds), lambda: read_axes([f"batch={axis}"], ())):
        with suppress(UsageError):
            read()


def test_bounds_are_in_seconds_and_each_once() -> None:
    assert read_bounds("ttft=0.5, tpot=.05,time=30") == Bounds(ttft_s=0.5, tpot_s=0.05, time_s=30)
    assert read_bounds(None) == Bounds()
    for wrong in ("", "ttft", "ttft=0", "ttft=-1", "ttft=nan", "ttft=1,ttft=2", "speed=3"):
        with pytest.raises(UsageError, match="Write bounds in seconds"):
            read_bounds(wrong)


def test_those_within_the_bounds_come_first_then_the_least_energy() -> None:
    order = ranked([candidate(1, 9, meets=False), candidate(20, 1), candidate(10, 2)])

    assert [one.energy_per_token_j for one in order] == [10, 20, 1]
    assert [one.rank for one in order] == [1, 2, 3]
    assert not any(one.tied for one in order)


def test_a_tie_ends_at_the_interval_of_its_cheapest() -> None:
    order = ranked([candidate(energy, 1) for energy in (100, 105, 110, 111, 121, 130)])

    assert [one.rank for one in order] == [1, 1, 1, 4, 4, 6]
    assert [one.tied for one in order] == [True, True, True, True, True, False]


def test_one_beyond_the_bounds_never_ties_with_one_within() -> None:
    order = ranked([candidate(100, 1), candidate(100, 1, meets=False)])

    assert [one.rank for one in order] == [1, 2]


def test_the_front_has_what_nothing_else_beats_in_both() -> None:
    order = ranked(
        [candidate(1, 9), candidate(2, 5), candidate(3, 6), candidate(4, 1), candidate(0.5, 10, meets=False)]
    )

    assert {(one.energy_per_token_j, one.time_s) for one in order if one.on_front} == {(1, 9), (2, 5), (4, 1)}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_front_is_exactly_what_is_not_dominated(pairs: list[tuple[int, int]]) -> None:
    members = [candidate(energy, time) for energy, time in pairs]
    front = {
        (one.energy_per_token_j, one.time_s)
        for one in members
        if id(one) in front_of(members, lambda candidate: candidate.time_s)
    }

    def dominated(pair: tuple[int, int]) -> bool:
        return any(other != pair and other[0] <= pair[0] and other[1] <= pair[1] for other in pairs)

    assert front == {pair for pair in pairs if not dominated(pair)}


def test_the_terminal_shows_ranks_bounds_marks_and_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(
        capsys,
        "--compare",
        "gpu=A100-SXM4-80GB,H200",
        "gpus=1,2",
        "batch=1,1000,2000",
        "--under",
        "tpot=0.006",
        "--top",
        "3",
    )
    lines = text.splitlines()

    assert lines[0] == "model Qwen/Qwen3-8B, prompt 512, output 128, dtype bfloat16, runtime hf"
    assert lines[1] == "8 deployments answered, 4 within the bounds (each further token 6 ms)"
    assert lines[3].split()[:5] == ["rank", "GPU", "GPUs", "batch", "J/token"]
    assert lines[4].startswith("1     NVIDIA A100-SXM4-80GB  2     1000 ")
    assert lines[4].endswith("front !")
    assert "5 more; --top 0 shows all" in text
    assert "4 deployments have no answer:" in text
    assert "2 × Qwen/Qwen3-8B needs more memory than NVIDIA H200 has." in text
    assert "(first: H200, 1, 2000)" in text


def test_a_bound_that_none_meets_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--gpu", "H200", "--compare", "batch=1..4", "--under", "ttft=1e-9")

    assert "None meets the bounds" in text
    assert text.count("too slow") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gpu=A100,H200",), "Say which:\n  NVIDIA A100-SXM4-40GB"),
        (("gpu=H200", "dtype=int2"), "dtype: 'int2' is not known"),
        (("gpu=H200", "batch=-1"), "batch_size: '-1' is not a whole number"),
        (("gpu=H200", "prompt=5"), "prompt_tokens is given twice"),
        (("batch=1,2",), "lacks --gpu"),
        (("gpu=H200", "batch=2000,3000"), "None of the 2 deployments has an answer:\n  2 × Qwen/Qwen3-8B needs more"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main([*BASE, "--compare", *arguments], predictor=FakePredictor()) == 2
    assert said in capsys.readouterr().err


def test_without_output_there_is_nothing_to_rank_by(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "gpt2", "--gpu", "H200", "--prompt", "5", "--output", "0", "--compare", "batch=1,2"]
    assert main(flags, predictor=FakePredictor()) == 2
    assert "here is no output" in capsys.readouterr().err


def test_json_and_table_hold_every_deployment_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    found = json.loads(
        printed(capsys, "--compare", "gpu=H200", "batch=1..2048", "--json", "--out", str(out), "--intensity", "50")
    )
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [row["batch_size"] for row in rows] == [str(one["batch_size"]) for one in found["deployments"]]
    assert found["refused"] == [
        {
            "reason": "Qwen/Qwen3-8B needs more memory than NVIDIA H200 has. Take a smaller batch.",
            "times": 2,
            "first": "H200, 1024",
        }
    ]
    best = found["deployments"][0]
    assert best["energy_per_output_token_j"] == pytest.approx(best["energy_j"] / (512 * 128))
    assert best["tpot_s"] == pytest.approx(0.01)
    assert best["operational_gco2e"] > 0
    assert float(rows[0]["ttft_s"]) == pytest.approx(best["prefill_time_s"])


def test_the_page_stands_alone_and_shows_every_deployment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    printed(capsys, "--compare", "gpu=A100-SXM4-80GB,H200", "batch=1..64", "--html", str(page), "--under", "time=0.7")
    text = page.read_text()

    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text.split("<script>")[0])
    assert text.count("<tr><td") == 14
    spec = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    drawn = [trace for trace in spec["data"] if trace["meta"] != "Pareto front"]
    assert sum(len(trace["y"]) for trace in drawn) == 14
    assert len(spec["views"]) == 3


def test_text_from_outside_is_escaped_everywhere() -> None:
    evil = "<img src=x onerror=alert(1)>"
    one = candidate(1, 1)
    request = replace(one.request, model=evil)
    answer = Answer(request=request, prediction=one.prediction, warnings=(evil,))
    mine = Candidate(request=request, prediction=one.prediction, answer=answer, meets=True, rank=1, on_front=True)
    comparison = Comparison(
        axes=(Axis(column="model", values=(evil,)),), bounds=Bounds(), predictor=evil, candidates=(mine,), refused=()
    )
    text = comparison_page(comparison)

    assert evil not in text
    assert html.escape(evil) in text
    assert "\x1b" not in comparison_text(replace(comparison, candidates=(with_model(mine, "\x1b[2J"),)), top=0)


def with_model(one: Candidate, model: str) -> Candidate:
    return replace(one, request=replace(one.request, model=model))
