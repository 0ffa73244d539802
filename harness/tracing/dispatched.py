"""Operators as torch dispatches them on the meta device, below the composite ones, and what each costs.

Names follow what a profiler shows on a device: a cast or a clone is ``copy_``, a tensor of zeros is ``zero_``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.kernels import KernelKind
from harness.tracing.costs import cost_of
from harness.tracing.fused import Launch
from harness.tracing.names import HOUSEKEEPING
from harness.tracing.operands import Cost, OpCall
from harness.tracing.sizes import operands, storage_of, tensors_in, unique_bytes
from harness.tracing.values import Values

_COPIES = frozenset({"_to_copy", "clone", "copy"})
_FILLS = {"zeros": "zero_", "new_zeros": "zero_", "zeros_like": "zero_"} | dict.fromkeys(
    ("ones", "ones_like", "new_ones", "full", "full_like", "new_full"), "fill_"
)
_PICKS = frozenset({"embedding", "index_select", "gather"})  # of a table they read only what they pick


class Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Sees every operator that is not composed of others, and says what it costs."""

    def __init__(self, launch: Launch, values: Values) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._launch = launch
        self._values = values

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator on the meta device."""
        kwargs = kwargs or {}
        namespace, _, op = func._schema.name.partition("::")
        answered = self._values.of_operator(op, args)
        output = answered.value if answered is not None else func(*args, **kwargs)
        if op in HOUSEKEEPING:
            return output
        inputs, outputs = tensors_in((args, kwargs)), tensors_in(output)
        if not any(tensor.numel() for tensor in outputs) or _only_views(func, inputs, outputs):
            return output
        self._values.note(op, args, outputs)
        if op in _COPIES:
            op, inputs = "copy_", [outputs[0], *inputs[:1]]
            self._launch(f"{namespace}::{op}", inputs, outputs, _copy_cost(inputs))
        elif op in _FILLS:
            op = _FILLS[op]
            self._launch(f"{namespace}::{op}", outputs, outputs, cost_of(OpCall(op=op, tensors=operands(outputs))))
        else:
            self._launch(f"{namespace}::{op}", inputs, outputs, _cost(func, op, args, inputs, outputs))
        return output


def _copy_cost(operands_: Sequence[torch.Tensor]) -> Cost:
    destination, source = operands_[0], operands_[-1]
    found = cost_of(OpCall(op="copy_", tensors=operands(operands_)))
    return replace(found, read_bytes=unique_bytes(source), write_bytes=unique_bytes(destination))


def _cost(func: Any, op: str, args: Any, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> Cost:
    """A cost without gaps: the outputs are known here, and inputs that are expanded are read once."""
    found = cost_of(OpCall(op=op, tensors=operands(inputs), dims=_dims(args)))
    written = sum(map(unique_bytes, outputs))
    read = found.read_bytes if op in _PICKS and found.read_bytes is not None else sum(map(unique_bytes, inputs))
    if op == "index":  # reads what it picks, and where that lies
        read = written + sum(map(unique_bytes, inputs[1:]))
    pointwise = torch.Tag.pointwise in func.tags
    flop = _PRODUCTS[op](inputs, outputs) if op in _PRODUCTS else found.flop
    if flop is None:
        flop = max((tensor.numel() for tensor in outputs), default=0) if pointwise else 0
    kind = KernelKind.ELEMENTWISE if pointwise and found.kind is KernelKind.OTHER else found.kind
    shape = found.shape or {"elements": max(tensor.numel() for tensor in outputs)}
    return Cost(kind=kind, shape=shape, flop=flop, read_bytes=read, write_bytes=written)


def _convolution_flop(inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> int:
    """Each output is a product with one filter, [channels out, channels in ÷ groups, …]."""
    return 2 * outputs[0].numel() * inputs[1][0].numel()


def _inner_product_flop(inputs: Sequence[torch.Tensor], _: Sequence[torch.Tensor]) -> int:
    """A matrix or vector times a vector; an addend comes first."""
    return 2 * max(tensor.numel() for tensor in inputs)


def _summed_products_flop(inputs: Sequence[torch.Tensor], _: Sequence[torch.Tensor]) -> int:
    """Products [batch, m, k] times [batch, k, n], added up and to an addend, which comes first."""
    return 2 * inputs[1].numel() * inputs[2].shape[-1]


def _triangular_solve_flop(inputs: Sequence[torch.Tensor], _: Sequence[torch.Tensor]) -> int:
    """Substitution in [.., n, n] for right sides [.., n, m]: n²/2 multiply-adds for each of the m."""
    return inputs[1].numel() * inputs[0].shape[-1]


_PRODUCTS = {
    "convolution": _convolution_flop,
    **dict.fromkeys(("mv", "dot", "vdot", "addmv"), _inner_product_flop),
    "addbmm": _summed_products_flop,
    "linalg_solve_triangular": _triangular_solve_flop,
}


def _dims(args: Any) -> tuple[int, ...]:
    """The axes a call states: the first list among its arguments, or a number in second place."""
    listed = next((value for value in args if isinstance(value, list)), None)
    if listed is None:
        listed = args[1:2]
    return tuple(axis for axis in listed if type(axis) is int)


def _only_views(func: Any, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> bool:
    if func._schema.is_mutable:
        return False
    given = {storage_of(tensor) for tensor in inputs}
    return all(storage_of(tensor) in given for tensor in outputs)
