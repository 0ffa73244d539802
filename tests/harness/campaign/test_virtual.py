"""Campaigns on virtual GPUs: the whole job, marked for what it is, and faults that leave no plausible wrong number."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import calibrate, run
from harness.campaign.campaign import look_around
from harness.campaign.execution import measure
from harness.campaign.plan import Plan
from harness.campaign.planning import kernel_methods
from harness.campaign.task import Task
from harness.campaign.virtual_crew import VirtualCrew, machine_of
from harness.campaign.virtual_launcher import VirtualLauncher, simulate
from harness.dataset.reading import read_rows
from harness.errors import CannotMeasure, DatasetError, MeterCause, MeterFailed, UsageError, WorkerDied
from harness.kernels import KernelKind
from harness.records import (
    EnergyMethod,
    KernelEnergyRow,
    KernelRow,
    Measurement,
    PhaseRow,
    Provenance,
    ReadingRow,
    RunRow,
    Status,
)
from harness.virtual.faults import Fault, FaultKind
from harness.virtual.machine import VirtualMachine

QUICK = ["--quality", "quick", "--device", "virtual:h100-sxm", "--models", "meta-llama/Llama-3.2-1B"]


def a_task(**changes: object) -> Task:
    """A quick run on two virtual GPUs."""
    plan = Plan.from_table(
        {
            "device": "virtual:h100-sxm",
            "gpus": [2],
            "models": ["meta-llama/Llama-3.2-1B"],
            "requests": ["2x128x16"],
            "quality": "quick",
            **changes,
        }
    )
    around = look_around(plan)
    (planned,) = around.planned(plan)
    return Task(
        job=planned.job,
        source=around.subjects[0].source,
        gpu=around.site.gpu,
        ceilings=around.site.ceilings,
        gpu_uuids=(),
        provenance=around.site.provenance,
        campaign_id=plan.campaign_id,
        configuration=plan.configuration,
        quality=plan.quality,
        limit_s=None,
        seed=plan.seed,
        cpu_threads=0,
        collective_timeout_s=600.0,
        trace_kernels=True,
        kernel_energy=kernel_methods(plan, around.site),
    )


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("virtual") / "campaign"
    assert run.main([*QUICK, "--gpus", "1", "2", "--requests", "2x128x16", "1x64x1", "--out", str(out)]) == 0
    return out


def faulty(task: Task, *faults: Fault) -> VirtualMachine:
    """The machine of a task with faults."""
    usual = machine_of(task)
    return VirtualMachine(usual.gpu, gpus=usual.gpus, seed=usual.seed, host_s_per_launch=1.4e-5, faults=faults)


def made(task: Task, *faults: Fault) -> Measurement:
    return measure(task, "2026-01-01T00:00:00+00:00", VirtualCrew(task, faulty(task, *faults)))


def test_every_row_of_a_virtual_campaign_says_that_it_is_simulated(folder: Path) -> None:
    runs, readings = tuple(read_rows(folder, RunRow)), tuple(read_rows(folder, ReadingRow))

    assert {row.provenance for row in runs} == {Provenance.SIMULATED}
    assert {row.provenance for row in readings} == {Provenance.SIMULATED}
    assert all(row.gpu.startswith("virtual: NVIDIA H100") for row in runs)
    assert {(row.n_gpus, row.tensor_parallel, row.status) for row in runs} == {(1, 1, Status.OK), (2, 2, Status.OK)}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>SIMULATED: " in page


def test_the_ledger_of_every_run_adds_up_to_its_energy_and_closes(folder: Path) -> None:
    for row in read_rows(folder, RunRow):
        assert row.ledger_method is EnergyMethod.REPLAY
        terms = (row.ledger_idle_j, row.ledger_kernels_j, row.ledger_gaps_j, row.residual_j)
        assert None not in terms
        assert sum(term or 0.0 for term in terms) == pytest.approx(row.energy_j)
        assert row.residual_j != 0
        assert abs(row.residual_j or 0.0) <= 0.02 * (row.energy_j or 0.0)


def test_bookkeeping_of_apportioned_kernels_fills_the_phases(folder: Path) -> None:
    kernels = tuple(read_rows(folder, KernelEnergyRow))
    for phase in read_rows(folder, PhaseRow):
        shares = [
            row.energy_j or 0.0
            for row in kernels
            if (row.run_id, row.phase) == (phase.run_id, phase.phase) and row.method is EnergyMethod.APPORTIONED
        ]
        assert sum(shares) + (phase.host_gap_energy_j or 0.0) == pytest.approx(phase.energy_j)


def test_all_reduces_have_moving_and_waiting_apart_on_every_rank(folder: Path) -> None:
    rows = {
        (row.run_id, row.phase, row.rank, row.kernel_id): row
        for row in read_rows(folder, KernelEnergyRow)
        if row.method is EnergyMethod.REPLAY
    }
    reduces = [row for row in read_rows(folder, KernelRow) if row.kind is KernelKind.ALL_REDUCE]

    assert {row.rank for row in reduces} == {0, 1}
    for kernel in reduces:
        energy = rows[kernel.run_id, kernel.phase, kernel.rank, kernel.kernel_id]
        assert energy.wait_energy_j is not None
        assert energy.energy_j is not None
        assert 0 <= energy.wait_energy_j < energy.energy_j
        assert kernel.wait_s is not None


def test_the_same_campaign_gives_the_same_numbers_whoever_makes_its_runs(task: Task) -> None:
    alone = simulate(task)
    with VirtualLauncher(iter([task]), processes=2) as launcher:  # the task is also the one that comes next
        ahead = launcher.launch(task, limit_s=1.0)

    assert replace(alone.run, started_at_utc="") == replace(ahead.run, started_at_utc="")
    assert alone.readings == ahead.readings


def test_an_interrupted_virtual_campaign_goes_on_and_repeats_nothing(folder: Path) -> None:
    before = tuple(read_rows(folder, RunRow))
    command = [*QUICK, "--gpus", "1", "2", "--requests", "2x128x16", "1x64x1", "--out", str(folder)]

    assert run.main(command) == 0

    assert sorted(row.run_id for row in read_rows(folder, RunRow)) == sorted(row.run_id for row in before)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"device": "virtual:nothing"}, "no virtual GPU"),
        ({"device": "virtual:h100-sxm", "gpus": [9]}, "1 to 8 GPUs"),
        ({"device": "virtual:h100-sxm", "gpus": [4], "nodes": 2}, "one machine"),
        ({"device": "vrtual:h100-sxm"}, "virtual:NAME"),
    ],
)
def test_a_virtual_machine_that_cannot_be_is_an_error(table: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        look_around(Plan.from_table(table))


def test_a_calibration_of_other_meters_ends_the_campaign_before_anything_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "a100.json"
    command = [*QUICK, "--gpus", "1", "--requests", "1x64x1", "--out", str(tmp_path / "campaign")]
    assert calibrate.main(["--device", "virtual:a100-sxm", "--quick", "--out", str(other)]) == 0

    assert run.main([*command, "--calibration", str(other)]) == 1

    told = capsys.readouterr().err
    assert "not for these meters" in told
    assert "harness.calibrate --out" in told
    with pytest.raises(DatasetError, match="no finished run"):
        tuple(read_rows(tmp_path / "campaign", RunRow))


# ---- faults ----


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (FaultKind.STANDS_STILL, MeterCause.COUNTER_STOOD_STILL),
        (FaultKind.GOES_BACK, MeterCause.COUNTER_WENT_BACK),
    ],
)
def test_a_counter_that_misbehaves_spoils_the_run_and_not_the_campaign(
    task: Task, kind: FaultKind, cause: MeterCause
) -> None:
    with pytest.raises(MeterFailed) as failure:
        made(task, Fault(kind=kind, gpu=1, at_s=20.0))

    assert failure.value.cause is cause
    assert failure.value.passing


@pytest.mark.parametrize("kind", [FaultKind.LOST, FaultKind.HANGS, FaultKind.NO_PERMISSION])
def test_a_gpu_that_is_gone_ends_the_campaign_with_its_cause(task: Task, kind: FaultKind) -> None:
    with pytest.raises(MeterFailed) as failure:
        made(task, Fault(kind=kind, gpu=0, at_s=20.0))

    assert failure.value.cause is not None
    assert not failure.value.passing


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(kind=FaultKind.FOREIGN_PROCESS, gpu=0, at_s=20.0, value=50.0), "other process"),
        (Fault(kind=FaultKind.THROTTLE, gpu=1, at_s=20.0, value=0.6), "slowed down"),
        (Fault(kind=FaultKind.POWER_LIMIT, gpu=0, at_s=20.0, value=400.0), "power limit"),
    ],
)
def test_what_disturbs_windows_is_recorded_with_them_and_leaves_no_number_behind(
    task: Task, fault: Fault, reason: str
) -> None:
    measured = made(task, fault)

    rejected = [row for row in measured.readings if row.rejected is not None]
    assert rejected
    assert any(reason in (row.rejected or "") for row in rejected)
    if measured.run.energy_j is None:
        assert measured.run.status is Status.FAILED
    assert reason in (measured.run.status_detail or "")


def test_a_fault_in_the_launcher_is_a_death_that_is_tried_again_or_the_machines_fault(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(cause: MeterCause) -> None:
        def carry_out(*_: object, **__: object) -> Measurement:
            raise MeterFailed("a counter", cause=cause)

        monkeypatch.setattr("harness.campaign.virtual_launcher.carry_out", carry_out)

    fails(MeterCause.COUNTER_RESET)
    with pytest.raises(WorkerDied):
        simulate(task)
    fails(MeterCause.DEVICE_LOST)
    with pytest.raises(CannotMeasure):
        simulate(task)


def test_a_virtual_gpu_of_ones_own_is_a_file(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "harness" / "data" / "virtual" / "a100-sxm.toml"
    mine = tmp_path / "mine.toml"
    mine.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    task = a_task(device=f"virtual:{mine}")

    measured = simulate(task)

    assert measured.run.status is Status.OK
    assert json.loads(task.configuration)["device"].endswith("mine.toml")
