"""The crew of a run on virtual GPUs: nothing is loaded, time is virtual, and every energy is simulated.

What is measured here is measured as on a real machine: meters are read, works are repeated, kernels are traced. Only
this file and those beside it know the virtual machine; estimators see its meters and its clock.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from harness.campaign.kernel_loops import Replayable
from harness.campaign.kernel_rows import Counted, counted_by
from harness.campaign.plan import VIRTUAL
from harness.campaign.rows import Loaded
from harness.campaign.task import Task
from harness.campaign.virtual_load import bank_of
from harness.campaign.virtual_programs import Programs, kernel_id
from harness.campaign.works import WorkSpec, traced_steps
from harness.kernels import KernelCount, Phase
from harness.measuring.precision import Precision
from harness.measuring.results import SessionResult, Work
from harness.measuring.windows import PausingClock
from harness.meters.selection import MeterBank
from harness.models.facts import model_facts
from harness.models.source import ModelSource
from harness.records import Part, RankTimeRow
from harness.tracing.graph import COLLECTIVES, GraphKernel
from harness.tracing.timeline import TracedKernel
from harness.virtual.gpu import read_virtual_gpu
from harness.virtual.machine import Program, Timings, VirtualMachine

HOST_S_PER_LAUNCH = 1.4e-5  # an eager host on real machines takes 12 to 17 µs to launch a kernel
_TRACE_NOISE = 0.003  # relative: no two traces of one kernel agree better


class VirtualWork:
    """A work that a virtual machine runs."""

    def __init__(
        self,
        spec: WorkSpec,
        machine: VirtualMachine,
        program: Program,
        decode_steps: int,
        *,
        label: Callable[[], str],
    ) -> None:
        """``label`` says at each run under which name the machine is to keep what it takes."""
        self.part = spec.part
        self.kernels: tuple[KernelCount, ...] = spec.kernels
        decode = spec.part is Part.DECODE
        self.share = spec.steps / decode_steps if decode else 1.0
        self.context_start_tokens = spec.context_tokens if decode else None
        self.mean_context_tokens = spec.context_tokens + (spec.steps + 1) / 2 if decode else None
        self._machine, self._program = machine, program
        self._label = label

    def prepare(self, passes: int) -> None:
        """Nothing to set up."""

    def run(self, passes: int) -> None:
        """Let the machine run the passes."""
        self._machine.run(self._program, passes, label=self._label())

    def release(self) -> None:
        """Nothing is held."""


def label_of(spec: WorkSpec) -> str:
    """Under which label a machine keeps the truth of a work."""
    if spec.kernels:
        loop = ",".join(f"{each.phase.value}/{each.kernel_id}x{each.launches}" for each in spec.kernels)
        return f"{spec.part.value}:{loop}"
    return f"{spec.part.value}:{spec.context_tokens}+{spec.steps}" if spec.part is Part.DECODE else spec.part.value


class VirtualCrew:
    """Virtual GPUs that compute one run in step."""

    def __init__(self, task: Task, machine: VirtualMachine | None = None) -> None:
        """``machine`` replaces the one that the task asks for: for benches that look at its truth."""
        self._task = task
        self.machine = machine or machine_of(task)
        self.clock: PausingClock = self.machine.clock
        self.stage = ""  # before the labels under which the machine keeps what works take
        self._noise = np.random.default_rng(_seed(task, "trace"))

    def meters(self) -> MeterBank:
        """The meters of the virtual GPUs."""
        return bank_of(self.machine)

    def precision(self, bank: MeterBank) -> Precision:  # noqa: ARG002  as every crew
        """What the maker of these sensors states."""
        return Precision(gain95=self.machine.gpu.sensor.stated_gain_95, source="stated in the virtual GPU's file")

    def counted(self, bank: MeterBank) -> Counted:
        """One meter per rank, or all for one rank that uses several GPUs in turn."""
        ranks = self._task.job.deployment.ranks
        return counted_by(bank, range(ranks) if ranks > 1 else [0] * len(bank.meters))

    def load(self) -> None:
        """Capture the graphs, and make a context."""
        self._programs = Programs(self._task, self.machine)
        self.machine.load_context()

    def work(self, spec: WorkSpec) -> Work:
        """A work for the machine."""
        steps = self._task.job.request.decode_steps or 1
        label = label_of(spec)
        return VirtualWork(spec, self.machine, self.program(spec), steps, label=lambda: self.stage + label)

    def program(self, spec: WorkSpec) -> Program:
        """What the machine runs for a work."""
        return self._programs.of(spec)

    def traced(self, phase: Phase) -> tuple[tuple[TracedKernel, ...], ...]:
        """What a tracer on each rank would see of a phase."""
        request = self._task.job.request
        spec, factor = WorkSpec(part=Part.PREFILL), 1.0
        if phase is Phase.DECODE:
            spec = traced_steps(request)
            factor = request.decode_steps / spec.steps
        timings = self.machine.timeline(self._programs.of(spec))
        graph = self._programs.graphs[phase]
        passes = 1 if phase is Phase.PREFILL else spec.steps
        ranks = range(self._task.job.deployment.ranks)
        return tuple(
            tuple(
                self._traced_kernel(index, kernel, timings, rank, passes).scaled(factor)
                for index, kernel in enumerate(graph.kernels)
            )
            for rank in ranks
        )

    def replayable(self, phase: Phase) -> Replayable:
        """All of them."""
        return Replayable(kernel_ids=frozenset(map(kernel_id, range(len(self._programs.graphs[phase].kernels)))))

    def how_replayed(self) -> str:
        """As on a GPU that can."""
        return "cuda_graph, hot (simulated)"

    def found(self) -> Loaded:
        """What is known without loading."""
        return Loaded(
            config_sha256=_config_sha256(self._task.source), quantization=None, prompts="random", peak_memory_bytes=None
        )

    def rank_times(self, session: SessionResult) -> tuple[RankTimeRow, ...]:  # noqa: ARG002  as every crew
        """None: ranks of a virtual machine end in step, and wait inside their collectives."""
        return ()

    def _traced_kernel(self, index: int, kernel: GraphKernel, timings: Timings, rank: int, passes: int) -> TracedKernel:
        noise = 1 + _TRACE_NOISE * float(self._noise.standard_normal())
        collective = kernel.kind in COLLECTIVES
        return TracedKernel(
            kernel_id=kernel_id(index),
            kind=kernel.kind,
            op=kernel.op,
            module=kernel.module,
            dtype=kernel.dtype,
            shape=kernel.shape,
            launches=kernel.launches * passes,
            flop=kernel.flop * passes,
            read_bytes=kernel.read_bytes * passes,
            write_bytes=kernel.write_bytes * passes,
            traced_duration_s=float(timings.duration_s[rank, index]) * noise,
            link_bytes=kernel.link_bytes * passes,
            wait_s=float(timings.wait_s[rank, index]) * noise if collective else None,
        )


@lru_cache(maxsize=16)
def _config_sha256(source: ModelSource) -> str | None:
    return model_facts(source).config_sha256


def machine_of(task: Task) -> VirtualMachine:
    """The machine that a task asks for; the same task gets the same machine."""
    deployment = task.job.deployment
    gpu = read_virtual_gpu(deployment.device.removeprefix(VIRTUAL))
    return VirtualMachine(
        gpu,
        gpus=max(1, deployment.n_gpus),
        seed=_seed(task, "machine"),
        host_s_per_launch=0.0 if deployment.cuda_graphs else HOST_S_PER_LAUNCH,
    )


def _seed(task: Task, purpose: str) -> int:
    digest = hashlib.sha256(f"{purpose} {task.seed} {task.job.run_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
