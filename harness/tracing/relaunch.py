"""A model's kernels run again, each alone and as often as wanted, on the inputs they had in the model.

    rows = trace(model, phase, work, …)                            # what ran, by the profiler
    kernels = Relaunch.record(model, phase, work, kernels=rows, …)  # two passes of the same work
    kernels.ready(["k0003"], cold=True, graph=True)                # copies and captures, outside any window
    kernels.run([LaunchCount(kernel_id="k0003", launches=10_000)])
    kernels.release()

What is launched is the operator of the model's own call: the same library chooses the same implementation for the same
sizes and strides, on the real weights and activations. Launches take the inputs of several layers in turn. An operator
that writes to what it is given writes to a scratch copy, so neither weights nor caches change.

On a GPU launches are asynchronous. Under tensor parallelism all ranks record and run in step, with the same counts.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.errors import RunError
from harness.kernels import Phase
from harness.tracing.operands import total
from harness.tracing.relaunch_calls import CallMode, seen_pass
from harness.tracing.relaunch_choice import Chosen, Skipped, choose
from harness.tracing.relaunch_inputs import Keeper, KeptCall, held_bytes, weight_storages
from harness.tracing.relaunch_loops import CacheState, How, Launching, Ready, make_ready, null_call
from harness.tracing.sizes import storage_of
from harness.tracing.timeline import TracedKernel

__all__ = ["CacheState", "Coverage", "How", "LaunchCount", "Launching", "Relaunch", "Skipped"]

LIMIT_BYTES = 2 * 1024**3  # held beside the model
# As many layers as most models have. With fewer their weights stay in the cache, which in the model they do not: small
# products of a decode step took 37 µs from one layer, 43 µs from 8 and 114 µs from all 30 of SmolLM2 (L3 of 32 MiB).
INSTANCES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchCount:
    """How often a kernel is launched."""

    kernel_id: str
    launches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Shares of the wanted kernels that can be run alone, between 0 and 1; 1 of nothing."""

    launches: float
    time: float  # of the traced time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernel:
    calls: tuple[KeptCall, ...]
    chosen: Chosen
    traffic_bytes: int | None  # of one call


class Relaunch:
    """The recorded kernels of one phase of one rank."""

    def __init__(
        self,
        kernels: Mapping[str, _Kernel],
        *,
        phase: Phase,
        device: str,
        coverage: Coverage,
        skipped: tuple[Skipped, ...],
        held: int,
        limit_bytes: int,
    ) -> None:
        """Use ``record``."""
        self.phase = phase
        self.coverage = coverage
        self.skipped = skipped  # what cannot be run alone, with the reason
        self.held_bytes = held  # beside the model; copies that ``ready`` makes are not among them
        self._kernels = dict(kernels)  # in the order of the model
        self._limit_bytes = limit_bytes
        self._null = null_call(torch.device(device))
        self._ready: dict[str | None, Ready] = {}  # None: the null kernel
        self._released = False

    @classmethod
    def record(
        cls,
        model: torch.nn.Module,
        phase: Phase,
        work: Callable[[], None],
        *,
        kernels: Sequence[TracedKernel],
        dtype: str,
        device: str,
        ranks: int = 1,
        wanted: Collection[str] | None = None,
        instances: int = INSTANCES,
        limit_bytes: int = LIMIT_BYTES,
    ) -> "Relaunch":
        """Record the operator calls behind the kernels of a trace.

        ``work`` is called twice and must do the same both times: first to see which call launches which kernel, then
        to keep the inputs of up to ``instances`` calls of each, spread over its launches. It has run before. Nothing of
        it is timed, and no energy may be read meanwhile. ``kernels`` are the rows that ``trace`` returned for this
        work, scaled or not; ids are theirs. ``wanted`` limits what is kept, None is all; ``limit_bytes`` is what may
        be held beside the model. ``dtype``, ``device`` and ``ranks`` are as in ``trace``.

        Kernels that cannot be had are in ``skipped``. Raises ``RunError`` for a ``wanted`` id that no row has, and
        where the two passes differ.
        """
        ids = _known(kernels) if wanted is None else _checked(wanted, kernels)
        weights = weight_storages(model)
        whole = {kernel.op for kernel in kernels}
        seen = seen_pass(
            model,
            work,
            held_bytes=lambda func, args, kwargs: held_bytes(func, args, kwargs, weights),
            dtype=dtype,
            device=device,
            ranks=ranks,
            whole=whole,
        )
        choice = choose(seen, kernels, ids, instances=instances, limit_bytes=limit_bytes)
        keeper = Keeper(seen.calls, [call for each in choice.chosen for call in each.calls], weights)
        with torch.inference_mode(), CallMode(keeper.make, device=device, whole=whole):
            work()
        keeper.finish()
        rows = {kernel.kernel_id: kernel for kernel in kernels}
        with torch.inference_mode():
            kept = {each.kernel_id: _kept(each, keeper, rows[each.kernel_id]) for each in choice.chosen}
        return cls(
            kept,
            phase=phase,
            device=device,
            coverage=_coverage([rows[each] for each in rows if each in ids], kept),
            skipped=choice.skipped,
            held=_held_bytes(kept.values(), weights),
            limit_bytes=limit_bytes,
        )

    @property
    def kernel_ids(self) -> tuple[str, ...]:
        """Kernels that can be run, in the order in which the model first launches them."""
        return tuple(self._kernels)

    def companions(self, kernel_id: str) -> tuple[str, ...]:
        """Kernels that every launch of this one launches too, because one operator is made of both."""
        return self._kernel(kernel_id).chosen.companions

    def ready(self, kernel_ids: Collection[str], *, cold: bool = False, graph: bool = False) -> None:
        """Make copies of inputs and CUDA graphs for these kernels and the null kernel; drop those of all others.

        ``cold``: a round through all inputs exceeds twice the L2 cache of the GPU. ``graph``: chunks of launches are
        CUDA graphs, the rest is eager. What could not be had, and why, is in ``how``; on a CPU it is neither.
        """
        kernels = {kernel_id: self._kernel(kernel_id) for kernel_id in kernel_ids}
        self._ready = {}
        with torch.inference_mode():
            for kernel_id, kernel in kernels.items():
                self._ready[kernel_id] = self._made(kernel.calls, kernel.traffic_bytes, cold=cold, graph=graph)
            self._ready[None] = self._made((self._null,), None, cold=False, graph=graph)

    def how(self, kernel_id: str | None) -> How:
        """How a kernel is launched, as ``ready`` left it; None is the null kernel."""
        return self._at_hand(kernel_id).how

    def run(self, launches: Sequence[LaunchCount]) -> None:
        """Launch kernels in the order of the model, each so many times, and do not wait for the device.

        What ``ready`` was not called for is launched eagerly from the recorded inputs. A kernel that comes several
        times per call is launched that often at least. Raises ``RunError`` for a kernel that cannot be run alone, and
        after ``release``.
        """
        counts: dict[str, int] = {}
        for each in launches:
            if each.launches < 0:
                raise ValueError(f"{each.kernel_id} cannot be launched {each.launches} times")
            self._kernel(each.kernel_id)
            counts[each.kernel_id] = counts.get(each.kernel_id, 0) + each.launches
        with torch.inference_mode():
            for kernel_id in self._kernels:
                if kernel_id in counts:
                    per_call = self._kernels[kernel_id].chosen.launches_per_call
                    self._at_hand(kernel_id).loop.run(-(-counts[kernel_id] // per_call))

    def null(self, launches: int) -> None:
        """Launch the emptiest kernel so many times: what launching alone costs."""
        if launches < 0:
            raise ValueError(f"the null kernel cannot be launched {launches} times")
        with torch.inference_mode():
            self._at_hand(None).loop.run(launches)

    def release(self) -> None:
        """Give back all memory; nothing can be run any more. Comes before a process group is destroyed."""
        self._kernels, self._ready = {}, {}
        self._released = True

    def _made(self, calls: Sequence[KeptCall], traffic_bytes: int | None, *, cold: bool, graph: bool) -> Ready:
        copies_bytes = sum(each.copies_bytes for each in self._ready.values())
        spare_bytes = max(0, self._limit_bytes - self.held_bytes - copies_bytes)
        return make_ready(calls, traffic_bytes=traffic_bytes, cold=cold, graph=graph, spare_bytes=spare_bytes)

    def _at_hand(self, kernel_id: str | None) -> Ready:
        if kernel_id not in self._ready:
            kernel = None if kernel_id is None else self._kernel(kernel_id)
            calls = (self._null,) if kernel is None else kernel.calls
            traffic_bytes = None if kernel is None else kernel.traffic_bytes
            self._ready[kernel_id] = self._made(calls, traffic_bytes, cold=False, graph=False)
        return self._ready[kernel_id]

    def _kernel(self, kernel_id: str) -> _Kernel:
        found = self._kernels.get(kernel_id)
        if found is not None:
            return found
        if self._released:
            raise RunError(f"The kernels of {self.phase} were released, so {kernel_id} cannot be run.\nRecord again.")
        reason = next((each.reason for each in self.skipped if each.kernel_id == kernel_id), "it was not recorded")
        raise RunError(
            f"Kernel {kernel_id} of {self.phase} cannot be run alone: {reason}.\n"
            f"Those that can: {', '.join(self._kernels) or 'none'}."
        )


def _known(kernels: Sequence[TracedKernel]) -> frozenset[str]:
    return frozenset(kernel.kernel_id for kernel in kernels)


def _checked(wanted: Collection[str], kernels: Sequence[TracedKernel]) -> frozenset[str]:
    unknown = sorted(set(wanted) - _known(kernels))
    if unknown:
        raise RunError(f"The trace has no kernel {', '.join(unknown)}.\nIts kernels: {', '.join(_known(kernels))}.")
    return frozenset(wanted)


def _kept(chosen: Chosen, keeper: Keeper, row: TracedKernel) -> _Kernel:
    calls = [keeper.kept[number] for number in chosen.calls]
    moved = total((row.read_bytes, row.write_bytes))
    per_call = chosen.launches_per_call / max(1, row.launches)
    return _Kernel(
        calls=tuple(call.in_place() for call in calls) if chosen.in_place else tuple(calls),
        chosen=chosen,
        traffic_bytes=None if moved is None or chosen.companions else round(moved * per_call),
    )


def _coverage(wanted: Sequence[TracedKernel], kept: Collection[str]) -> Coverage:
    had = [kernel for kernel in wanted if kernel.kernel_id in kept]

    def share(part: float, whole: float) -> float:
        return part / whole if whole else 1.0

    return Coverage(
        launches=share(sum(kernel.launches for kernel in had), sum(kernel.launches for kernel in wanted)),
        time=share(sum(row.traced_duration_s for row in had), sum(row.traced_duration_s for row in wanted)),
    )


def _held_bytes(kernels: Collection[_Kernel], weights: Collection[int]) -> int:
    held = {
        storage_of(tensor): tensor.untyped_storage().nbytes()
        for kernel in kernels
        for call in kernel.calls
        for tensor in call.tensors()
    }
    return sum(size_bytes for storage, size_bytes in held.items() if storage not in weights)
