"""The kernels of several ranks that ran in step: the same kernel has the same id, and waits become known."""

from collections.abc import Sequence
from dataclasses import replace

from harness.tracing.collectives import waits_s
from harness.tracing.timeline import TracedKernel

_Key = tuple[str, str | None, str, str]


def align(ranks: Sequence[Sequence[TracedKernel]]) -> tuple[tuple[TracedKernel, ...], ...]:
    """Give kernels that are alike on several ranks one id, that of the first rank to have it, and set ``wait_s``.

    A rank's kernels stay in their order. Of a collective that not all ranks launched equally often ``wait_s`` is None.
    """
    ids: dict[_Key, str] = {}
    for kernels in ranks:
        for kernel in kernels:
            ids.setdefault(_key(kernel), f"k{len(ids):04d}")
    waits = _waits(ranks)
    return tuple(
        tuple(
            replace(kernel, kernel_id=ids[_key(kernel)], wait_s=waits.get((rank, _key(kernel)), kernel.wait_s))
            for kernel in kernels
        )
        for rank, kernels in enumerate(ranks)
    )


def _key(kernel: TracedKernel) -> _Key:
    return kernel.op, kernel.module, kernel.dtype, kernel.shape


def _waits(ranks: Sequence[Sequence[TracedKernel]]) -> dict[tuple[int, _Key], float]:
    """Waiting time by rank and kernel, over as many passes as the kernel's own counts are."""
    found: dict[tuple[int, _Key], float] = {}
    collectives = {_key(kernel): None for kernels in ranks for kernel in kernels if kernel.launch_durations_s}
    for key in collectives:
        members = [kernel for kernels in ranks for kernel in kernels if _key(kernel) == key]
        traced_s = waits_s([member.launch_durations_s for member in members])
        if traced_s is None or len(members) != len(ranks):
            continue
        for rank, (member, wait_s) in enumerate(zip(members, traced_s, strict=True)):
            found[rank, key] = wait_s * member.launches / len(member.launch_durations_s)
    return found
