from pathlib import Path

from benchmarks.execution import Execution, PhaseFlop, Status, read_executions, write_executions


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    phase = PhaseFlop(matmul_flop=1, attention_flop=2, convolution_flop=3, solve_flop=4)
    executions = [
        Execution(model_type="a", status=Status.OK, duration_s=0.5, parameters=7, prefill=phase, decode=phase),
        Execution(model_type="b", status=Status.CANNOT_RUN, duration_s=0.1, reason="it needs a GPU"),
    ]

    write_executions(tmp_path / "reference.json", executions)

    assert read_executions(tmp_path / "reference.json") == executions


def test_the_total_leaves_out_convolutions_and_triangular_systems() -> None:
    assert PhaseFlop(matmul_flop=1, attention_flop=2, convolution_flop=30, solve_flop=40).total_flop == 3
