"""The command: tables, JSON, mistakes, and that it loads no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracing.nsys import main
from tests.harness.tracing.nsys_examples import START_END, HandMade, global_tid
from tests.harness.tracing.test_nsys_export import ALL_REDUCE, a_run


@pytest.fixture
def example(tmp_path: Path) -> Path:
    made = a_run()
    made.launched(ALL_REDUCE, 50, call_at=2_060, start=7_300, length=100, streamId=20)
    made.launched("loading", 51, call_at=8_000, start=8_100, length=10)
    return made.write(tmp_path / "run.sqlite")


def test_the_tables_show_places_and_time(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example)]) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "run.sqlite, process 4711: places" in shown
    assert "device kernels, copies and fills 8 100.00%" in shown
    assert "in a phase 7 87.50%" in shown
    assert "in a module 3 37.50%" in shown
    assert "loading 1 10 ns it was launched outside any phase run:1f3a" in shown
    assert "prefill – – ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8_f2f_s gemm 1 300 ns 52.17%" in shown
    assert "decode traced model.layers.*.mlp void at::native::vectorized_elementwise_kernel<(int)4, activation" in shown
    assert "all_reduce 1 100 ns" in shown
    assert "0 / all 8" in shown


def test_the_same_as_json(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    (process,) = found["processes"]
    assert (found["export"], found["schema_version"], found["gpus"]) == ("run.sqlite", "3.16.1", [])
    assert (process["process_id"], process["rank"], process["whole_graphs"]) == (4711, None, 0)
    assert process["placed"]["in_phase"] == 7
    assert [group["name"] for group in process["unplaced"]] == ["loading"]
    assert (process["kernels"][0]["phase"], process["kernels"][0]["launches"]) == ("prefill", 1)
    assert [group["kind"] for group in process["collectives"]] == ["all_reduce"]


def test_graphs_without_kernels_and_ranges_not_used_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = a_run()
    made.call(70, 2_060, name="cudaGraphLaunch_v10000")
    made.device("GRAPH_TRACE", 7_500, 100, 70, graphId=3)
    made.range("phase:prefill", 0, 10, eventType=START_END, endGlobalTid=global_tid(tid=1))

    assert main([str(made.write(tmp_path / "run.sqlite"))]) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "CUDA graphs without their kernels: record with --cuda-graph-trace=node 1" in shown
    assert "NVTX ranges not used: begun and ended on different threads 1" in shown


def test_each_process_has_tables_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = HandMade(domain=None)
    for device, pid in enumerate((12, 11)):
        made.range("phase:decode", 0, 100, pid=pid, tid=pid)
        made.launched("gemm", 1, call_at=50, start=200, length=10, pid=pid, tid=pid, deviceId=device)

    assert main([str(made.write(tmp_path / "run.sqlite"))]) == 0

    shown = capsys.readouterr().out
    assert 0 < shown.index("process 12, rank 0: places") < shown.index("process 11, rank 1: places")


def test_a_long_table_is_cut_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 100)
    for number in range(45):
        made.launched(f"kernel {number}", number + 1, call_at=50, start=200 + number, length=1)

    assert main([str(made.write(tmp_path / "run.sqlite"))]) == 0
    assert "time by phase, module and kernel: 40 of 45, the longest" in capsys.readouterr().out


def test_a_mistake_is_a_sentence_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.nsys-rep").write_text("no database")
    empty = HandMade().write(tmp_path / "empty.sqlite")

    assert main([str(tmp_path / "missing.sqlite")]) == 2
    assert main([str(tmp_path / "run.nsys-rep")]) == 1
    assert main([str(empty)]) == 1

    missing, report, without = capsys.readouterr().err.split("error: ")[1:]
    assert missing.startswith("There is no file ")
    assert "nsys export --type sqlite" in report
    assert "holds no device kernel" in without


def test_limits_can_be_lowered_and_raised(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with example.open("ab") as file:
        file.truncate(2**20 + 4096)

    assert main([str(example), "--largest-mib", "1"]) == 1
    assert "more than the 1 MiB" in capsys.readouterr().err
    assert main([str(example), "--largest-mib", "2"]) == 0
    assert main([str(example), "--most-events", "5"]) == 1
    for wrong in ("0", "-1", "x", "²", "9" * 20):
        for option in ("--largest-mib", "--most-events"):
            with pytest.raises(SystemExit):
                main([str(example), option, wrong])


def test_names_in_an_export_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 100)
    made.range("module:[bold]m\x1b[2J", 10, 80)
    made.launched("\x1b]0;title\x07[red]kernel[/red]", 1, call_at=50, start=200, length=10)

    assert main([str(made.write(tmp_path / "run.sqlite"))]) == 0

    shown = capsys.readouterr().out
    assert "?]0;title?[red]kernel[/red]" in shown
    assert "[bold]m?[2J" in shown
    assert "\x1b" not in shown


def test_an_export_is_read_without_torch(example: Path) -> None:
    code = (
        "import sys; from harness.tracing.nsys import main; from harness.tracing.nsys_export import read_export; "
        f"main([{str(example)!r}, '--json']); print(sorted({{'torch', 'transformers', 'numpy'}} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
