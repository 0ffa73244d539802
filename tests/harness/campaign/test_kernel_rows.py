"""The energy of a phase among ranks, their kernels and their host gaps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.campaign.campaign import Campaign, Surroundings
from harness.campaign.kernel_rows import Counted, PhaseKernels, kernel_energy_rows, kernel_rows, split_phase
from harness.campaign.plan import Plan
from harness.campaign.task import Task
from harness.kernels import KernelKind, Phase
from harness.measuring.precision import Precision
from harness.measuring.results import IdleFloor, PartResult, SessionResult
from harness.measuring.statistics import Mean
from harness.records import Part, Provenance
from harness.requests import Deployment
from harness.tracing.timeline import TracedKernel
from tests.harness.measuring import made

GEMM = TracedKernel(
    kernel_id="k0000",
    kind=KernelKind.GEMM,
    op="aten::mm",
    module="m",
    dtype="float32",
    shape="{}",
    launches=2,
    flop=10**9,
    read_bytes=1000,
    write_bytes=1000,
    traced_duration_s=0.4,
)
REDUCE = replace(
    GEMM, kernel_id="k0001", kind=KernelKind.ALL_REDUCE, op="c10d::allreduce_", link_bytes=500, wait_s=0.2, flop=0
)
PHASE_J, PHASE_S = 100.0, 1.0


@pytest.fixture
def task(tmp_path: Path, plan: Plan, look: Callable[[], Surroundings]) -> Task:
    with Campaign.open(tmp_path / "campaign", plan, look) as campaign:
        job = campaign.queue.next()
        assert job is not None
        return campaign._task(job)


def spanning(task: Task, **deployment: object) -> Task:
    known: dict[str, object] = {"device": "cpu", "n_gpus": 0, "parallelism": "tensor"}
    return replace(task, job=replace(task.job, deployment=Deployment(**known | deployment)))  # type: ignore[arg-type]


def counted(*ranks: int) -> Counted:
    count = len(ranks)
    return Counted(
        names=tuple(f"meter:{number}" for number in range(count)),
        device_sha256=(None,) * count,
        ranks=ranks,
        method="replay",
        provenance=Provenance.SIMULATED,
    )


def session(*energies_j: float, idle_j: tuple[float, ...] | None = None) -> SessionResult:
    """A prefill window with one entry per counter, and idle windows of a second each."""

    idle = made.window(*(idle_j or tuple(10.0 for _ in energies_j)))
    part = PartResult(
        part=Part.PREFILL,
        energy_j=Mean(value=PHASE_J, ci95=None, samples=1),
        duration_s=Mean(value=PHASE_S, ci95=None, samples=1),
    )
    return SessionResult(
        windows=(made.taken(Part.PREFILL, *energies_j),),
        idle=IdleFloor(windows=(idle,)),
        parts=(part,),
        precision=Precision(),
        step_s=0.1,
    )


def energy_by_rank(task: Task, result: SessionResult, meters: Counted, ranks: int) -> list[float]:
    """Energy of kernels and host gaps of each rank."""
    traced = PhaseKernels(phase=Phase.PREFILL, ranks=((GEMM, REDUCE),) * ranks)
    split = split_phase(task, result, meters, traced)
    assert split is not None
    kernels_j = [0.0] * ranks
    for row in kernel_energy_rows("r", split):
        kernels_j[row.rank] += row.energy_j or 0.0
    return [own_j + each.host_gap_energy_j for own_j, each in zip(kernels_j, split.ranks, strict=True)]


def test_on_a_cpu_the_ranks_share_the_energy_of_their_machine_evenly(task: Task) -> None:
    shares = energy_by_rank(spanning(task, ranks=3), session(300.0), counted(0), 3)

    assert shares == pytest.approx([PHASE_J / 3] * 3)
    assert sum(shares) == pytest.approx(PHASE_J, rel=1e-12)


def test_on_gpus_every_rank_has_what_its_own_counter_read(task: Task) -> None:
    on_gpus = spanning(task, device="cuda", n_gpus=2, ranks=2)

    assert energy_by_rank(on_gpus, session(100.0, 300.0), counted(0, 1), 2) == pytest.approx([25.0, 75.0])


def test_on_two_machines_each_machines_ranks_share_its_own_counter(task: Task) -> None:
    shares = energy_by_rank(spanning(task, ranks=4, nodes=2), session(100.0, 300.0), counted(0, 2), 4)

    assert shares == pytest.approx([12.5, 12.5, 37.5, 37.5])


def test_gpus_that_take_turns_belong_to_one_process(task: Task) -> None:
    layers = spanning(task, device="cuda", n_gpus=2, parallelism="layers")

    assert energy_by_rank(layers, session(100.0, 300.0), counted(0, 0), 1) == pytest.approx([PHASE_J])


def test_idle_power_is_split_as_the_idle_counters_say(task: Task) -> None:
    on_gpus = spanning(task, device="cuda", n_gpus=2, ranks=2)
    split = split_phase(
        on_gpus,
        session(100.0, 100.0, idle_j=(10.0, 30.0)),
        counted(0, 1),
        PhaseKernels(phase=Phase.PREFILL, ranks=((GEMM,), (GEMM,))),
    )
    assert split is not None

    idle_w = [
        ((row.energy_j or 0) - (row.active_energy_j or 0)) / kernel.duration_s
        for row, kernel in zip(kernel_energy_rows("r", split), kernel_rows("r", split), strict=True)
        if kernel.duration_s
    ]

    assert idle_w == pytest.approx([10.0, 30.0])


def test_rows_say_their_rank_and_what_crosses_links_and_was_waited_for(task: Task) -> None:
    traced = PhaseKernels(phase=Phase.PREFILL, ranks=((GEMM, REDUCE), (GEMM, replace(REDUCE, wait_s=0.0))))
    split = split_phase(spanning(task, ranks=2), session(300.0), counted(0), traced)
    assert split is not None

    rows = kernel_rows("r", split)

    assert [(row.rank, row.kernel_id, row.link_bytes, row.wait_s) for row in rows] == [
        (0, "k0000", 0, None),
        (0, "k0001", 500, 0.2),
        (1, "k0000", 0, None),
        (1, "k0001", 500, 0.0),
    ]


def test_waiting_is_shortened_with_the_kernel_it_is_part_of(task: Task) -> None:
    slow = replace(REDUCE, traced_duration_s=4.0, wait_s=2.0)  # four times as long as the phase itself
    traced = PhaseKernels(phase=Phase.PREFILL, ranks=((slow,),))
    split = split_phase(task, session(300.0), counted(0), traced)
    assert split is not None

    (row,) = kernel_rows("r", split)

    assert (row.duration_s, row.wait_s, row.traced_duration_s) == pytest.approx((1.0, 0.5, 4.0))
