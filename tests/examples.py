"""Synthetic measurements for every test that needs a dataset; get them from the fixture ``example_measurements``."""

import random
from dataclasses import replace

from harness.kernels import Phase
from harness.records import Measurement, Part, RunRow, Status
from tests.example_ranks import example_rank_times, with_collectives
from tests.example_rows import (
    EXAMPLE_SOURCE,
    FAILURES,
    TRIALS,
    ExampleMachine,
    content_hash,
    example_graph,
    example_kernel_energies,
    example_kernels,
    example_machine,
    example_phase,
    example_power_trace,
    example_readings,
    example_run,
    known,
    mean_and_ci95_j,
    residual_j,
)


def failed_measurement(run: RunRow, machine: ExampleMachine, status: Status, detail: str) -> Measurement:
    environment = None if status is Status.SKIPPED else machine.environment
    environment_id = environment.environment_id if environment else None
    run = replace(run, status=status, status_detail=detail, environment_id=environment_id)
    return Measurement(run=run, environment=environment, source=EXAMPLE_SOURCE)


def measured_phase(
    run: RunRow, phase: Phase, kernel_count: int, draw: random.Random, machine: ExampleMachine
) -> Measurement:
    """What one phase adds to the measurement of its run."""
    kernels = example_kernels(run, phase, kernel_count, machine)
    if known(run.tensor_parallel) > 1:
        kernels = with_collectives(run, phase, kernels, rank=0)
    duration_s = 1.15 * sum(kernel.duration_s or 0.0 for kernel in kernels) or 0.5
    readings = example_readings(run, Part(phase.value), machine.load_power_w, duration_s, draw, machine)
    row = example_phase(run, phase, kernels, readings, machine)
    others = range(1, known(run.tensor_parallel))
    of_others = [with_collectives(run, phase, kernels[:kernel_count], rank=rank) for rank in others]
    of_all = (*kernels, *(kernel for found in of_others for kernel in found))
    return Measurement(
        run=run,
        phases=(row,),
        kernels=of_all,
        kernel_energies=example_kernel_energies(row, of_all, draw, machine),
        graphs=(example_graph(run, phase, kernels),),
        readings=readings,
    )


def finished_measurement(run: RunRow, kernels_per_phase: int, seed: int, machine: ExampleMachine) -> Measurement:
    draw = random.Random(f"{seed} {run.run_id}")
    wanted = Phase if known(run.output_tokens) > 1 else (Phase.PREFILL,)
    parts = [measured_phase(run, phase, kernels_per_phase, draw, machine) for phase in wanted]
    phases = tuple(row for part in parts for row in part.phases)
    energies = tuple(row for part in parts for row in part.kernel_energies)
    duration_s = 1.02 * sum(phase.duration_s or 0.0 for phase in phases)
    idle = example_readings(run, Part.IDLE, machine.idle_power_w, 2.0, draw, machine)
    windows = example_readings(run, Part.RUN, machine.load_power_w, duration_s, draw, machine)
    energy_j, energy_ci95_j = mean_and_ci95_j(windows)
    run = replace(run, energy_j=energy_j, energy_ci95_j=energy_ci95_j, duration_s=duration_s, trials=TRIALS)
    run = replace(run, idle_power_w=machine.idle_power_w, method=machine.method, peak_memory_bytes=3 * 1024**3)
    phase_windows = tuple(row for part in parts for row in part.readings)
    several = known(run.tensor_parallel) > 1
    left_j = residual_j(run, phases, energies, machine)
    return Measurement(
        run=replace(run, residual_j=left_j, residual_ci95_j=None if left_j is None else 0.03 * energy_j),
        environment=machine.environment,
        source=EXAMPLE_SOURCE,
        phases=phases,
        kernels=tuple(row for part in parts for row in part.kernels),
        kernel_energies=energies,
        graphs=tuple(row for part in parts for row in part.graphs),
        readings=(*idle, *phase_windows, *windows),
        rank_times=example_rank_times(run, (*phase_windows, *windows)) if several or run.n_gpus else (),
        power_traces=example_power_trace(run, machine.load_power_w) if run.n_gpus else (),
    )


def tensor_parallel_measurement(
    ranks: int, *, nodes: int = 1, kernels_per_phase: int = 12, seed: int = 0
) -> Measurement:
    """The first request of the examples on the CPU, computed by several ranks together."""
    machine = example_machine(cuda=False)
    run = example_run(0, seed, machine)
    run = replace(run, run_id=content_hash("run", seed, ranks, nodes), parallelism="tensor")
    run = replace(run, tensor_parallel=ranks, nodes=nodes)
    return finished_measurement(run, kernels_per_phase, seed, machine)


def make_measurements(
    n_runs: int = 6, kernels_per_phase: int = 12, seed: int = 0, failures: bool = True
) -> tuple[Measurement, ...]:
    """Every third run is on a GPU, the others estimated on a CPU; the last three end as oom, failed and skipped."""
    machines = {cuda: example_machine(cuda=cuda) for cuda in (False, True)}
    finished = max(min(n_runs, 1), n_runs - len(FAILURES)) if failures else n_runs
    measurements = []
    for index in range(n_runs):
        machine = machines[index % 3 == 1]
        run = example_run(index, seed, machine)
        if index < finished:
            measurements.append(finished_measurement(run, kernels_per_phase, seed, machine))
        else:
            measurements.append(failed_measurement(run, machine, *FAILURES[index - finished]))
    return tuple(measurements)
