"""One operator call as the profiler records it, and what such a call costs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.kernels import KernelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtype:
    """A dtype the profiler can name; ``rank`` orders dtypes by what wins when operands are mixed."""

    name: str  # as torch spells it
    item_bytes: int
    rank: int


_BOOLEAN, _INTEGER, _FLOAT = 0, 10, 20
DTYPES = {
    "float": Dtype(name="float32", item_bytes=4, rank=_FLOAT + 4),
    "double": Dtype(name="float64", item_bytes=8, rank=_FLOAT + 8),
    "c10::Half": Dtype(name="float16", item_bytes=2, rank=_FLOAT + 2),
    "c10::BFloat16": Dtype(name="bfloat16", item_bytes=2, rank=_FLOAT + 2),
    "c10::Float8_e4m3fn": Dtype(name="float8_e4m3fn", item_bytes=1, rank=_FLOAT + 1),
    "c10::Float8_e5m2": Dtype(name="float8_e5m2", item_bytes=1, rank=_FLOAT + 1),
    "int": Dtype(name="int32", item_bytes=4, rank=_INTEGER + 4),
    "long int": Dtype(name="int64", item_bytes=8, rank=_INTEGER + 8),
    "short": Dtype(name="int16", item_bytes=2, rank=_INTEGER + 2),
    "signed char": Dtype(name="int8", item_bytes=1, rank=_INTEGER + 1),
    "unsigned char": Dtype(name="uint8", item_bytes=1, rank=_INTEGER + 1),
    "bool": Dtype(name="bool", item_bytes=1, rank=_BOOLEAN),
}
PROFILER_NAMES = {dtype.name: spelt for spelt, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Shape and dtype of one operand; dtype as the profiler spells it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar tensor."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int | None:
        """Bytes the tensor occupies; None for a dtype not known here."""
        dtype = DTYPES.get(self.dtype)
        return None if dtype is None else self.elements * dtype.item_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCall:
    """One operator call: name without namespace, tensor operands in order, and the axes among its arguments."""

    op: str
    tensors: tuple[Tensor, ...]
    dims: tuple[int, ...] = ()  # axes the call states, e.g. those of a reduction; none: it states none


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one call costs; bytes and FLOP are None where shapes do not tell."""

    kind: KernelKind
    shape: dict[str, int] = field(default_factory=dict)
    flop: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None


def total(counts: Iterable[int | None]) -> int | None:
    """Sum of counts; None as soon as one is not known."""
    counted = list(counts)
    known = [count for count in counted if count is not None]
    return sum(known) if len(known) == len(counted) else None


def bytes_read(tensors: Iterable[Tensor]) -> int | None:
    """Bytes of all operands that have a dimension: the profiler lists a Python number as a tensor without one."""
    return total(tensor.size_bytes for tensor in tensors if tensor.shape)


def bytes_of(elements: int, dtype: str) -> int | None:
    """Bytes of so many elements."""
    return Tensor(shape=(elements,), dtype=dtype).size_bytes


def result_dtype(tensors: Iterable[Tensor]) -> str:
    """Dtype of a result of mixed operands; numbers and scalar tensors do not widen it (torch's promotion, in short)."""
    operands = list(tensors)
    shaped = [tensor for tensor in operands if tensor.shape] or operands
    return max(shaped, key=lambda tensor: DTYPES[tensor.dtype].rank if tensor.dtype in DTYPES else -1).dtype
