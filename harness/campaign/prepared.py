"""A loaded model with the prompts of one request: the works that its windows repeat, and the traces of its phases."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from harness.campaign.kernel_loops import KernelWork, Replayable, replayable
from harness.campaign.rows import Loaded
from harness.campaign.task import Task
from harness.campaign.works import WorkSpec, traced_steps
from harness.kernels import Phase
from harness.measuring.parts import DecodeWork, PrefillWork, RequestWork
from harness.measuring.results import Work
from harness.models.loading import load
from harness.models.memory import peak_memory_bytes
from harness.models.prompts import prompt_kind, prompt_token_ids
from harness.models.steps import Stepper
from harness.records import Part
from harness.tracing.relaunch import Relaunch
from harness.tracing.timeline import TracedKernel, trace

_TRACED_PASSES = 3


class Prepared:
    """One rank's model, or the whole of it."""

    def __init__(self, task: Task, *, late: bool = False) -> None:
        """``late``: this rank is the one that others wait for where a work is to show waiting."""
        self.request, deployment = task.job.request, task.job.deployment
        self._loaded = load(
            task.source,
            dtype=self.request.dtype,
            attention=deployment.attention,
            device=deployment.device,
            seed=task.seed,
            parallelism=deployment.parallelism,
        )
        self.model = self._loaded.model
        self.device = deployment.device
        self.stepper = Stepper(self._loaded, kv_cache=deployment.kv_cache)
        self._seed = task.seed
        self._ranks = deployment.ranks
        self._late = late
        self._rows: dict[Phase, tuple[TracedKernel, ...]] = {}
        self._relaunches: dict[Phase, Relaunch] = {}
        self._hows: set[str] = set()

    @property
    def how_replayed(self) -> str:
        """How kernels are launched in loops: ``eager, rotated``, or several of such where they differ."""
        return "; ".join(sorted(self._hows))

    def found(self) -> Loaded:
        """What is recorded of the model, with the memory used so far."""
        facts = self._loaded.facts
        return Loaded(
            config_sha256=facts.config_sha256,
            quantization=facts.quantization,
            prompts=prompt_kind(self._loaded).value,
            peak_memory_bytes=peak_memory_bytes(self._loaded.devices),
        )

    def prompt(self, tokens: int) -> torch.Tensor:  # [batch, tokens] int64
        """Prompts of exactly this many tokens; the same on every rank."""
        return prompt_token_ids(self._loaded, self.request.batch_size, tokens, self._seed)

    def work(self, spec: WorkSpec) -> Work:
        """The work that ``spec`` describes."""
        if spec.kernels:
            work = KernelWork(spec, self._relaunches, self.stepper.synchronize, late=self._late)
            self._hows.update(work.how())
            return work
        if spec.part is Part.PREFILL:
            return PrefillWork(self.stepper, self.prompt, self.request)
        if spec.part is Part.RUN:
            return RequestWork(self.stepper, self.prompt, self.request)
        return DecodeWork(self.stepper, self.prompt, self.request, context_tokens=spec.context_tokens, steps=spec.steps)

    def traced(self, phase: Phase, start: Callable[[], None] = lambda: None) -> tuple[TracedKernel, ...]:
        """Kernels of one phase on this rank, in passes of their own; every rank traces at the same time.

        ``start`` is called once the profiler runs, so that ranks can begin together: its own start takes them unequally
        long, and would pass for waiting in the first collective.
        Of a decode the step in the middle is traced (or both of them), a few times: what a step costs is linear in its
        context, so the middle step times the steps is the whole.
        """
        self._rows[phase] = self._traced(phase, start)
        return self._rows[phase]

    def replayable(self, phase: Phase, ids: Sequence[str] | None = None) -> Replayable:
        """Record the kernels of a traced phase, to run them alone; ``ids`` renames them as all ranks call them."""
        rows = self._rows[phase]
        if ids is not None:
            rows = tuple(replace(row, kernel_id=name) for row, name in zip(rows, ids, strict=True))
        spec = WorkSpec(part=Part.PREFILL) if phase is Phase.PREFILL else traced_steps(self.request)
        work = self.work(spec)
        work.prepare(_TRACED_PASSES)
        work.run(1)
        self._relaunches[phase] = Relaunch.record(
            self.model,
            phase,
            lambda: work.run(1),
            kernels=rows,
            dtype=self.request.dtype,
            device=self.device,
            ranks=self._ranks,
        )
        work.release()
        return replayable(self._relaunches[phase], rows)

    def release(self) -> None:
        """Let go of what was recorded; comes before the process group is left."""
        for relaunch in self._relaunches.values():
            relaunch.release()

    def _traced(self, phase: Phase, start: Callable[[], None]) -> tuple[TracedKernel, ...]:
        if phase is Phase.PREFILL:
            return self._trace(phase, self.work(WorkSpec(part=Part.PREFILL)), 1, start)
        middle = traced_steps(self.request)
        work = self.work(middle)
        work.prepare(1 + _TRACED_PASSES)
        work.run(1)  # the first step after a fill is slower
        kernels = self._trace(phase, work, _TRACED_PASSES, start)
        work.release()
        return tuple(kernel.scaled(self.request.decode_steps / (middle.steps * _TRACED_PASSES)) for kernel in kernels)

    def _trace(self, phase: Phase, work: Work, passes: int, start: Callable[[], None]) -> tuple[TracedKernel, ...]:
        def run() -> None:
            start()
            work.run(passes)

        return trace(
            self.model,
            phase,
            run,
            dtype=self.request.dtype,
            device=self.device,
            ranks=self._ranks,
        )
