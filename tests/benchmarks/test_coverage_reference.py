from pathlib import Path

import pytest

from benchmarks.coverage_reference import main
from benchmarks.execution import read_executions


def test_the_command_executes_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reference.json"

    assert main(["--only", "gpt2", "musicgen", "--json", str(path)]) == 0

    printed = capsys.readouterr().out
    assert "1 of 2 types executed (50.0%)" in printed
    assert "  musicgen: AutoModelForCausalLM hands" in printed
    assert [execution.model_type for execution in read_executions(path)] == ["gpt2", "musicgen"]


def test_a_type_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--only", "gpt17"])
