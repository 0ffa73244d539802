"""Functions of the sizes of a pass, of which the counts of kernels are sums."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from predictor.kernel_table import Floats


class Curve(StrEnum):
    """What is no power of a size."""

    SEEN = "seen"  # tokens that a window of [0] lets a query see
    CHUNKS = "chunks"  # pieces of [0] tokens that a query is cut into, the last one filled up
    TOUCHED = "touched"  # share of [0] experts that some token goes to, each token going to [1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSizes:
    """Sizes of P passes."""

    batch: Floats  # [P] sequences on this rank
    query: Floats  # [P] tokens of each that go through the model
    context: Floats  # [P] tokens of each in the cache after the pass
    tokens: Floats  # [P] that go through the model, over all ranks that share the experts

    def chosen(self, which: Any) -> "PassSizes":
        """Some of the passes: ``which`` is an index array or a mask."""
        return PassSizes(
            batch=self.batch[which], query=self.query[which], context=self.context[which], tokens=self.tokens[which]
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Basis:
    """batch^b · query^q · context^c · tokens^t · curve^power."""

    b: int = 0
    q: int = 0
    c: int = 0
    t: int = 0
    curve: Curve | None = None
    parameters: tuple[int, ...] = ()
    power: int = 1

    def __call__(self, sizes: PassSizes) -> Floats:
        """[P] the value for each pass."""
        value: Floats = sizes.batch**self.b * sizes.query**self.q * sizes.context**self.c * sizes.tokens**self.t
        if self.curve is None:
            return value
        return value * _CURVES[self.curve](sizes, self.parameters) ** self.power

    def to_json(self) -> list[Any]:
        """A short list."""
        plain: list[Any] = [self.b, self.q, self.c, self.t]
        return plain if self.curve is None else [*plain, str(self.curve), list(self.parameters), self.power]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> "Basis":
        """Inverse of ``to_json``; raises ``ValueError``, ``TypeError``."""
        b, q, c, t, *rest = values
        for exponent in (b, q, c, t):
            _check_exponent(exponent)
        if not rest:
            return cls(b=b, q=q, c=c, t=t)
        curve, parameters, power = rest
        _check_exponent(power)
        if not parameters or not all(type(each) is int and 0 < each < 2**31 for each in parameters):
            raise ValueError(f"{parameters!r} are no parameters")
        return cls(b=b, q=q, c=c, t=t, curve=Curve(curve), parameters=tuple(parameters), power=power)


def evaluated(bases: Sequence[Basis], sizes: PassSizes) -> Floats:
    """[P, len(bases)] each basis for each pass."""
    return np.stack([basis(sizes) for basis in bases], axis=1)


def _check_exponent(value: object) -> None:
    if type(value) is not int or not 0 <= value <= 4:
        raise ValueError(f"{value!r} is no exponent")


def _seen(sizes: PassSizes, parameters: Sequence[int]) -> Floats:
    return np.minimum(sizes.context, float(parameters[0]))


def _chunks(sizes: PassSizes, parameters: Sequence[int]) -> Floats:
    return np.ceil(sizes.query / parameters[0])


def _touched(sizes: PassSizes, parameters: Sequence[int]) -> Floats:
    """As ``harness.tracing.sizes.touched_share``."""
    experts, each = parameters
    return 1.0 - (1.0 - min(1.0, each / experts)) ** sizes.tokens


_CURVES: Mapping[Curve, Callable[[PassSizes, Sequence[int]], Floats]] = {
    Curve.SEEN: _seen,
    Curve.CHUNKS: _chunks,
    Curve.TOUCHED: _touched,
}
