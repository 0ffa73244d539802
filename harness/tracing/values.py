"""What to answer where a forward pass asks for the values of a tensor that has none.

Models ask rarely: whether all entries of a mask are set, or which tokens go to which expert. For the experts the answer
is that the router spreads tokens evenly: then the number of rows is right, whatever expert they go to. The count of
ones in a selection (``scatter`` of a one for each index, ``one_hot``) is followed through sums and comparisons to the
place where it is asked for. Whatever else is asked has no answer, and the model is not captured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.tracing.sizes import storage_of, touched_share

_KEEPS_COUNT = frozenset({"sum", "gt", "ne", "_to_copy", "clone", "ge", "cumsum"})
_ALL = frozenset({"all", "_is_all_true"})
_SELECTS = frozenset({"scatter", "scatter_"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A stand-in for a value; ``value`` may be anything the operator returns."""

    value: Any


def even_split(count: int, parts: int) -> list[int]:
    """``count`` in ``parts`` whole numbers that differ by one at most.

    >>> even_split(7, 3)
    [3, 2, 2]
    """
    least, more = divmod(count, parts)
    return [least + (place < more) for place in range(parts)]


class Values:
    """Answers for one forward pass, in which ``tokens`` go through the model."""

    def __init__(self, *, tokens: int) -> None:
        self._tokens = tokens
        self._ones: dict[int, int] = {}  # ones in a tensor, by its storage
        self._all: set[int] = set()  # results of `all`
        self._rows: Iterator[int] = iter(())  # of the experts that are still to be asked about
        self._alive: list[Any] = []

    def note(self, op: str, args: Any, outputs: Sequence[torch.Tensor]) -> None:
        """Remember what an operator's result says of its values."""
        if not outputs or not args or not isinstance(args[0], torch.Tensor):
            return
        result = storage_of(outputs[0])
        if op in _SELECTS and len(args) == 4 and type(args[3]) is int and args[3] == 1:
            self._remember(outputs[0], args[2].numel())
        elif op in _KEEPS_COUNT and storage_of(args[0]) in self._ones:
            self._remember(outputs[0], self._ones[storage_of(args[0])])
        elif op in _ALL:
            self._all.add(result)
            self._alive.append(outputs[0].untyped_storage())

    def _remember(self, tensor: torch.Tensor, ones: int) -> None:
        self._ones[storage_of(tensor)] = ones
        self._alive.append(tensor.untyped_storage())

    def of_operator(self, op: str, args: Any) -> Answer | None:
        """The answer to an operator that reads values; None for any other."""
        if op == "_local_scalar_dense":
            return Answer(self._scalar(args[0]))
        if op == "nonzero":
            return self._places(args[0])
        return None

    def _scalar(self, tensor: torch.Tensor) -> bool | int | float:
        if tensor.dtype is torch.bool:
            return storage_of(tensor) in self._all
        return 0.0 if tensor.dtype.is_floating_point else 0

    def _places(self, tensor: torch.Tensor) -> Answer:
        ones = self._ones.get(storage_of(tensor))
        if ones is None:
            raise ValueError("how many kernels there are depends on the values of a tensor (nonzero)")
        if tensor.dim() == 1:  # which experts have any token
            hit = self._experts_hit(ones, tensor.shape[0])
            self._rows = iter(even_split(ones, hit))
        else:  # the tokens of the next of them
            hit = next(self._rows, 0)
        return Answer(torch.empty((hit, tensor.dim()), dtype=torch.int64, device="meta"))

    def _experts_hit(self, ones: int, experts: int) -> int:
        return max(1, round(experts * touched_share(experts, ones, self._tokens)))

    def as_list(self, tensor: torch.Tensor) -> list[int] | None:
        """``tensor.tolist()`` of counts per expert; None where nothing is known of them."""
        ones = self._ones.get(storage_of(tensor))
        return None if ones is None or tensor.dim() != 1 else even_split(ones, tensor.shape[0])
