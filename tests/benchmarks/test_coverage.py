"""docs/coverage.md says what is: every type is there, and what it says of them is what the capture gives."""

from functools import cache
from pathlib import Path

import pytest

from benchmarks.coverage import captured
from benchmarks.coverage_page import COMMAND, Captured, Line, Verdict, page, read_page, release
from benchmarks.executed_flop import executed_flop
from benchmarks.execution import Execution, PhaseFlop, Status
from harness.models.tiny import causal_lm_types

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
STALE = f"docs/coverage.md is stale: run `{COMMAND}`"
BAR = 0.85


@cache
def lines() -> tuple[Line, ...]:
    return read_page(PAGE.read_text(encoding="utf-8"))


def flop(total: int) -> PhaseFlop:
    return PhaseFlop(matmul_flop=total, attention_flop=0, convolution_flop=0, solve_flop=0)


def executed(**changes: object) -> Execution:
    known = {"prefill": flop(10), "decode": flop(5), "kv_cache": True, "flop_vary": False, "attention": "sdpa"}
    return Execution(model_type="m", status=Status.OK, duration_s=1.0, **known | changes)  # type: ignore[arg-type]


def graphs(execution: Execution, prefill_flop: int = 10, decode_flop: int = 5) -> Captured:
    return Captured(
        execution=execution,
        verdict=Verdict.CAPTURED,
        prefill_flop=prefill_flop,
        decode_flop=decode_flop,
        prefill_kernels=3,
        decode_kernels=4,
    )


def test_a_type_is_captured_only_if_both_phases_are_what_was_executed() -> None:
    assert graphs(executed()).judged(None).verdict is Verdict.CAPTURED
    assert graphs(executed(), prefill_flop=11).judged(None).verdict is Verdict.DIFFERS
    assert graphs(executed(), decode_flop=0).judged(None).verdict is Verdict.DIFFERS
    assert graphs(executed()).judged("layers differ").verdict is Verdict.DIFFERS


def test_without_an_execution_there_is_nothing_to_compare_with() -> None:
    execution = Execution(model_type="m", status=Status.CANNOT_RUN, duration_s=0.0, reason="no code")

    judged = graphs(execution).judged(None)

    assert (judged.verdict, judged.why) == (Verdict.NOT_EXECUTED, "no code")


def test_the_page_says_what_was_found_and_is_read_back() -> None:
    failed = Captured(execution=executed(), verdict=Verdict.NOT_CAPTURED, why="a | b <script>\nc")
    text = page([graphs(executed()).judged(None), failed])

    assert "**1 (50.0%) are captured**" in text
    assert "a \\| b &lt;script>" in text
    assert [(line.verdict, line.prefill_flop) for line in read_page(text)] == [
        (Verdict.CAPTURED, 10),
        (Verdict.NOT_CAPTURED, None),
    ]


def test_the_page_has_every_type_that_transformers_registers() -> None:
    assert [line.model_type for line in lines()] == sorted(causal_lm_types()), STALE


def test_the_page_is_of_the_versions_installed_here() -> None:
    text = PAGE.read_text(encoding="utf-8")

    for package in ("transformers", "torch"):
        assert f"{package} {release(package)} " in text.replace(";", " "), STALE


def test_the_bar_is_met() -> None:
    assert sum(line.verdict is Verdict.CAPTURED for line in lines()) >= BAR * len(lines())


@pytest.mark.parametrize("line", lines()[::8], ids=lambda line: line.model_type)
def test_what_the_page_says_of_a_type_is_what_executing_and_capturing_it_gives(line: Line) -> None:
    found = captured(executed_flop(line.model_type), unrolled=False)

    assert (found.verdict, found.prefill_flop, found.decode_flop) == (
        line.verdict,
        line.prefill_flop,
        line.decode_flop,
    ), STALE
