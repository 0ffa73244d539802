"""The parts of a kernel graph, top to bottom: what comes before the layers, the layers, what comes after."""

import math
import re
from dataclasses import dataclass
from itertools import groupby

from harness.tracing.graph import GraphKernel, KernelGraph

# model.layers.*.mlp.up_proj → model.layers.*, and where layers are unrolled model.layers.17
_LAYER = re.compile(r"(?:[^.]+\.)*?[^.]+\.(?:\*|\d+)(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Kernels that follow one another in a graph, with indices from ``start`` to before ``end``."""

    start: int
    end: int
    layer: str | None  # path of the layer they belong to; None: they are outside the layers
    repeats: int  # how often the whole segment runs; 1 where its kernels have nothing in common

    @property
    def title(self) -> str | None:
        """What its frame says; None: it has no frame."""
        if self.layer is None:
            return None
        return f"{self.layer} × {self.repeats}" if self.repeats > 1 else self.layer


def segments(graph: KernelGraph) -> tuple[Segment, ...]:
    """Cut a graph where its kernels enter or leave a layer. Edges never lead from a later segment to an earlier one."""
    found = []
    for layer, group in groupby(range(len(graph.kernels)), key=lambda index: layer_of(graph.kernels[index])):
        indices = list(group)
        launches = [graph.kernels[index].launches for index in indices]
        repeats = 1 if layer is None else math.gcd(*launches)
        found.append(Segment(start=indices[0], end=indices[-1] + 1, layer=layer, repeats=repeats))
    return tuple(found)


def layer_of(kernel: GraphKernel) -> str | None:
    """Path of the layer that a kernel belongs to; None outside the layers.

    A layer of a layer (one expert of many) is part of the outer one.
    """
    match = _LAYER.match(kernel.module) if kernel.module else None
    return match[0] if match else None
