"""The fixed vocabulary of kernels: kinds, phases and named shapes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The two phases of generation; they stress different parts of a device."""

    PREFILL = "prefill"
    DECODE = "decode"


class KernelKind(StrEnum):
    """What a kernel does, whatever library it comes from."""

    GEMM = "gemm"
    ATTENTION = "attention"
    NORM = "norm"
    ACTIVATION = "activation"
    ELEMENTWISE = "elementwise"
    EMBEDDING = "embedding"
    MOE_GEMM = "moe_gemm"
    SCAN = "scan"
    COPY = "copy"
    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    OTHER = "other"


NULL_KERNEL = "null"  # the emptiest kernel there is: looped, it shows what launching alone costs


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class KernelCount:
    """How often one kernel of a phase is launched."""

    phase: Phase
    kernel_id: str  # as in the dataset, or NULL_KERNEL
    launches: int


def shape_text(dimensions: Mapping[str, int]) -> str:
    """Write named dimensions as the dataset stores them: JSON, in the order given.

    >>> shape_text({"m": 512, "n": 576, "k": 1536})
    '{"m":512,"n":576,"k":1536}'
    """
    return json.dumps(dict(dimensions), separators=(",", ":"))


def shape_dimensions(text: str) -> dict[str, int]:
    """Read what ``shape_text`` wrote; raises ``ValueError`` for anything else.

    >>> shape_dimensions('{"m":512}')
    {'m': 512}
    """
    dimensions = json.loads(text)
    if not isinstance(dimensions, dict) or not all(type(size) is int for size in dimensions.values()):
        raise ValueError(f"not a kernel shape: {text!r}; a shape is a JSON object of integers")
    return dimensions
