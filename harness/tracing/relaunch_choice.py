"""Which calls of a pass stand for which kernel, and which kernels cannot be run alone, with the reason."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.tracing.relaunch_calls import KernelKey, SeenPass
from harness.tracing.timeline import TracedKernel
from harness.units import gibibytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A kernel that cannot be run alone."""

    kernel_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The calls that stand for a kernel."""

    kernel_id: str
    first_call: int  # of all its launches: kernels of a pass are in this order
    calls: tuple[int, ...]  # those kept, spread over its launches
    launches_per_call: int
    companions: tuple[str, ...]  # kernels that the same calls launch too
    in_place: bool  # it was seen writing elsewhere, and in the trace to its first argument


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is kept of a pass, in its order."""

    chosen: tuple[Chosen, ...]
    skipped: tuple[Skipped, ...]


def choose(
    seen: SeenPass, kernels: Sequence[TracedKernel], wanted: Collection[str], *, instances: int, limit_bytes: int
) -> Choice:
    """Choose up to ``instances`` calls for each wanted kernel of a trace, as many as fit into ``limit_bytes``.

    Where memory is short every kernel gets one call before any gets two, the first in ``kernels`` first.
    """
    ways = _Ways(seen, kernels)
    found = [ways.way(kernel) for kernel in kernels if kernel.kernel_id in wanted]
    skipped = [each for each in found if isinstance(each, Skipped)]
    spread = [_spread(each, instances) for each in found if isinstance(each, Chosen)]
    kept: dict[str, list[int]] = {each.kernel_id: [] for each in spread}
    left_bytes = limit_bytes
    for turn in range(instances):
        for each in spread:
            size_bytes = seen.calls[each.calls[turn]].held_bytes if turn < len(each.calls) else 0
            if turn < len(each.calls) and size_bytes <= left_bytes:
                kept[each.kernel_id].append(each.calls[turn])
                left_bytes -= size_bytes
    for each in spread:
        if not kept[each.kernel_id]:
            size_bytes = seen.calls[each.calls[0]].held_bytes
            skipped.append(Skipped(kernel_id=each.kernel_id, reason=_too_large(size_bytes, limit_bytes)))
    chosen = [replace(each, calls=tuple(kept[each.kernel_id])) for each in spread if kept[each.kernel_id]]
    return Choice(chosen=tuple(sorted(chosen, key=lambda each: each.first_call)), skipped=tuple(skipped))


def _too_large(size_bytes: int, limit_bytes: int) -> str:
    return f"its inputs take {gibibytes(size_bytes)}, and {gibibytes(limit_bytes)} may be held for all kernels together"


def _spread(chosen: Chosen, instances: int) -> Chosen:
    """Evenly over all its calls, the first among them."""
    count = min(instances, len(chosen.calls))
    return replace(chosen, calls=tuple(chosen.calls[place * len(chosen.calls) // count] for place in range(count)))


class _Ways:
    """How the kernels of a trace were launched in a pass."""

    def __init__(self, seen: SeenPass, kernels: Sequence[TracedKernel]) -> None:
        self._rows: Mapping[KernelKey, TracedKernel] = {KernelKey.of(kernel): kernel for kernel in kernels}
        self._seen = {launch.key for launch in seen.launches}
        self._in_call: dict[int, Counter[KernelKey]] = defaultdict(Counter)
        self._ops = [call.op for call in seen.calls]
        for launch in seen.launches:
            if launch.call is not None:
                self._in_call[launch.call][launch.key] += 1
        self._calls: dict[KernelKey, list[int]] = defaultdict(list)
        for call, keys in self._in_call.items():
            for key in keys:
                self._calls[key].append(call)

    def way(self, kernel: TracedKernel) -> Chosen | Skipped:
        """All calls that can stand for a kernel, or why there are none."""
        own = KernelKey.of(kernel)
        key = own if own in self._seen else replace(own, op=own.op.removesuffix("_"))
        calls = self._calls.get(key, [])
        alone = [call for call in calls if len(self._in_call[call]) == 1]
        leading = alone or [call for call in calls if self._longest(call) == key]
        if leading:
            keys = self._in_call[leading[0]]
            others = (self._rows.get(other) for other in keys if other != key)
            return Chosen(
                kernel_id=kernel.kernel_id,
                first_call=min(calls),
                calls=tuple(sorted(call for call in leading if self._in_call[call] == keys)),
                launches_per_call=keys[key],
                companions=tuple(sorted(row.kernel_id for row in others if row is not None)),
                in_place=key != own,
            )
        return Skipped(kernel_id=kernel.kernel_id, reason=self._why_not(key, calls))

    def _longest(self, call: int) -> KernelKey:
        """The kernel of a call that takes most of its time, by the trace."""
        keys = self._in_call[call]

        def duration_s(key: KernelKey) -> float:
            row = self._rows.get(key)
            return 0.0 if row is None else keys[key] * row.traced_duration_s / max(1, row.launches)

        return max(keys, key=duration_s)

    def _why_not(self, key: KernelKey, calls: Sequence[int]) -> str:
        if calls:
            return f"{self._ops[calls[0]]} launches it together with {self._longest(calls[0]).op}, which takes longer"
        if key in self._seen:
            return "no one operator call launches it"
        return "it was not launched when the calls were recorded"
