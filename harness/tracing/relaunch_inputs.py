"""Operator calls kept with their arguments, to be made again without changing anything but a scratch copy.

Weights are kept as they are, other tensors too as long as nothing writes to them: before anything does, what is kept
of them is copied. What a call itself writes to is a scratch copy from the start. A call that builds on what it finds
there (``add_``, an all-reduce) would leave the range of its dtype when repeated, so its scratch is refilled now and
then.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch

from harness.errors import RunError
from harness.tracing.relaunch_calls import SeenCall
from harness.tracing.relaunch_quick import quickest
from harness.tracing.sizes import storage_of, tensors_in, unique_bytes

_COLLECTIVES = "c10d::"
# Made twice these leave what they left the first time.
_SETTLED = frozenset(
    {"copy_", "fill_", "zero_", "index_copy_", "index_fill_", "scatter_", "masked_fill_", "masked_scatter_", "clamp_"}
    | {"relu_", "tril_", "triu_", "index_put_", "_index_put_impl_"}
)
_GROWING = frozenset({"allreduce_", "allreduce_coalesced_", "reduce_"})
_ACCUMULATE = 3  # place of this argument of index_put_
# A sum of 8 ranks doubles three times: 16 of them stay inside float32 and bfloat16, whose largest number is 2^127.
_REFILL_CALLS = 16
_REFILL_CALLS_HALF = 4  # float16 ends at 2^16


def weight_storages(model: torch.nn.Module) -> frozenset[int]:
    """The memory of all parameters and buffers, a rank's own part of those that are split."""
    return frozenset(
        storage_of(part)
        for tensors in (model.parameters(), model.buffers())
        for tensor in tensors
        for part in _parts(tensor)
    )


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    flatten = getattr(tensor, "__tensor_flatten__", None)  # of subclasses that wrap other tensors
    if flatten is None:
        return [tensor]
    inner = [getattr(tensor, name) for name in flatten()[0]]
    return [part for each in inner if isinstance(each, torch.Tensor) for part in _parts(each)]


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides, gaps and overlaps included, in memory of its own."""
    if tensor.numel() == 0 or tensor.layout is not torch.strided:
        return tensor.clone()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    region = tensor.as_strided((extent,), (1,), tensor.storage_offset())
    return region.clone().as_strided(tensor.shape, tensor.stride(), 0)


@cache
def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments an operator writes to; a collective does to its first, and does not say so."""
    arguments = func._schema.arguments
    if func._schema.name.startswith(_COLLECTIVES):
        return ((0, arguments[0].name),) if func._schema.name.endswith("_") else ()
    return tuple(
        (place, argument.name)
        for place, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def written_tensors(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors a call writes to, in the order of its arguments."""
    given = [
        args[place] if place < len(args) else kwargs[name]
        for place, name in _written_arguments(func)
        if place < len(args) or name in kwargs
    ]
    return tensors_in(given)


def _grows(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call builds on what is in the tensors it writes to; one told where to put its result does not."""
    namespace, _, op = func._schema.name.partition("::")
    written = _written_arguments(func)
    if not written or all(func._schema.arguments[place].kwarg_only for place, _ in written):
        return False
    if f"{namespace}::" == _COLLECTIVES:
        return op in _GROWING
    accumulates = kwargs.get("accumulate", args[_ACCUMULATE] if len(args) > _ACCUMULATE else False)
    return op not in _SETTLED or (op in {"index_put_", "_index_put_impl_"} and bool(accumulates))


def held_bytes(func: Any, args: Any, kwargs: Any, weights: Collection[int]) -> int:
    """Memory that keeping a call would hold, at most: all but weights, and what it writes to up to twice more."""
    shown = {storage_of(tensor): tensor for tensor in tensors_in((args, kwargs))}
    kept = sum(tensor.untyped_storage().nbytes() for storage, tensor in shown.items() if storage not in weights)
    return kept + 2 * sum(tensor.untyped_storage().nbytes() for tensor in written_tensors(func, args, kwargs))


class KeptCall:
    """One operator call that can be made again."""

    def __init__(self, func: Any, args: Any, kwargs: Any, originals: Sequence[torch.Tensor]) -> None:
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._originals = tuple(originals)  # of the scratch copies, in the order of ``written_tensors``; or none

    @classmethod
    def keep(cls, func: Any, args: Any, kwargs: Any, *, copied: Callable[[torch.Tensor], bool]) -> "KeptCall":
        """Keep a call about to be made; ``copied`` says of a tensor whether a copy of it is kept."""
        written = written_tensors(func, args, kwargs)
        scratch = {id(tensor): copy_of(tensor) for tensor in written}

        def change(tensor: torch.Tensor) -> torch.Tensor:
            found = scratch.get(id(tensor))
            if found is None:
                return copy_of(tensor) if copied(tensor) else tensor
            return found

        originals = [copy_of(tensor) for tensor in written] if _grows(func, args, kwargs) else []
        return cls(func, _changed(args, change), _changed(kwargs, change), originals)

    @property
    def op(self) -> str:
        """The operator with its overload."""
        return str(self._func.name())

    @property
    def refill_calls(self) -> int | None:
        """After so many calls its scratch is filled again; None where it never has to be."""
        if not self._originals:
            return None
        half = any(tensor.dtype is torch.float16 for tensor in self._originals)
        return _REFILL_CALLS_HALF if half else _REFILL_CALLS

    def in_place(self) -> "KeptCall":
        """The same call writing to its first argument: a dispatch mode makes torch prefer the other where it may."""
        name = self._func._schema.name.partition("::")[2]
        twin = getattr(getattr(torch.ops.aten, f"{name}_"), self._func._overloadname)
        return KeptCall.keep(twin, self._args, self._kwargs, copied=lambda _: False)

    def tensors(self) -> list[torch.Tensor]:
        """Everything it holds."""
        return [*tensors_in((self._args, self._kwargs)), *self._originals]

    def copy_storage(self, storage: int) -> None:
        """Keep copies of what lies in a storage that is about to be written to."""

        def change(tensor: torch.Tensor) -> torch.Tensor:
            return copy_of(tensor) if storage_of(tensor) == storage else tensor

        self._args, self._kwargs = _changed(self._args, change), _changed(self._kwargs, change)

    def copied(self) -> "KeptCall":
        """The same call on memory of its own, weights included."""
        copies: dict[int, torch.Tensor] = {}

        def change(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in copies:
                copies[id(tensor)] = copy_of(tensor)
            return copies[id(tensor)]

        return KeptCall(
            self._func,
            _changed(self._args, change),
            _changed(self._kwargs, change),
            list(map(copy_of, self._originals)),
        )

    def launcher(self) -> Callable[[], object]:
        """Makes the call, and on the host waits for a collective as the model does."""
        function = quickest(self._func, self._args, self._kwargs)
        call: Callable[[], object] = partial(function, *self._args, **self._kwargs)
        if self._func._schema.name.startswith(_COLLECTIVES):
            call = partial(_wait_for, call)
        every = self.refill_calls
        if every is None:
            return call
        return _Refilled(call, written_tensors(self._func, self._args, self._kwargs), self._originals, every)

    def shown_bytes(self, seen: set[tuple[object, ...]]) -> int:
        """Bytes of the tensors it is given that ``seen`` does not name yet; names them."""
        size_bytes = 0
        for tensor in tensors_in((self._args, self._kwargs)):
            place = (storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape))
            if place not in seen:
                seen.add(place)
                size_bytes += unique_bytes(tensor)
        return size_bytes


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Nested arguments with each tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_changed(item, change) for item in value)
    return value


def _wait_for(call: Callable[[], Any]) -> None:
    """Wait for a collective; on a GPU this makes the stream wait, not the host."""
    result = call()
    for part in result if isinstance(result, list | tuple) else (result,):
        if isinstance(part, torch.ScriptObject):
            torch.distributed.Work.unbox(part).wait()


class _Refilled:
    """A call whose scratch is filled again before every n-th time."""

    def __init__(
        self, call: Callable[[], object], scratch: Sequence[torch.Tensor], originals: Sequence[torch.Tensor], every: int
    ) -> None:
        self._call = call
        self._pairs = tuple(zip(scratch, originals, strict=True))
        self._every = every
        self._left = 0

    def restart(self) -> None:
        """Fill before the next call."""
        self._left = 0

    def __call__(self) -> object:
        if self._left == 0:
            for scratch, original in self._pairs:
                scratch.copy_(original)
            self._left = self._every
        self._left -= 1
        return self._call()


class Keeper:
    """Keeps chosen calls of a pass that makes the very calls of an earlier one; ``make`` is for ``CallMode``."""

    def __init__(self, expected: Sequence[SeenCall], chosen: Collection[int], weights: Collection[int]) -> None:
        self.kept: dict[int, KeptCall] = {}  # by number
        self._expected = expected
        self._chosen = frozenset(chosen)
        self._weights = weights
        self._made = 0
        self._written: set[int] = set()  # storages
        self._holders: dict[int, list[KeptCall]] = {}  # of tensors that are no copies, by storage

    def make(self, number: int, func: Any, args: Any, kwargs: Any) -> Any:
        """Keep the call if it is chosen, and make it. Raises ``RunError`` where the pass differs from the first."""
        if number >= len(self._expected) or self._expected[number].op != func.name():
            raise self._differ(f"operator call {number} is now {func.name()}")
        for tensor in written_tensors(func, args, kwargs):
            storage = storage_of(tensor)
            self._written.add(storage)
            for holder in self._holders.pop(storage, ()):
                holder.copy_storage(storage)
        if number in self._chosen:
            self._keep(number, func, args, kwargs)
        self._made = number + 1
        return func(*args, **kwargs)

    def finish(self) -> None:
        """Raises ``RunError`` where the pass ended before the first did."""
        if self._made != len(self._expected):
            raise self._differ(f"there were {len(self._expected)} operator calls, and now {self._made}")

    def _keep(self, number: int, func: Any, args: Any, kwargs: Any) -> None:
        call = KeptCall.keep(func, args, kwargs, copied=lambda tensor: storage_of(tensor) in self._written)
        self.kept[number] = call
        for tensor in tensors_in((args, kwargs)):
            storage = storage_of(tensor)
            if storage not in self._written and storage not in self._weights:
                self._holders.setdefault(storage, []).append(call)

    def _differ(self, what: str) -> RunError:
        return RunError(
            f"Two passes of the same work differ: {what}. So it is not known which call launches which kernel.\n"
            "These kernels cannot be run alone; their energy can be apportioned or regressed."
        )
