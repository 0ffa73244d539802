"""Collect the kernels of one forward pass on the meta device and how data flows between them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules import module as hooks

from harness.kernels import KernelKind, shape_text
from harness.models.stand_ins import LayerCall, RepeatedLayers, is_layer
from harness.tracing.dispatched import Dispatched
from harness.tracing.fused import FusedOps
from harness.tracing.graph import Edge, GraphKernel
from harness.tracing.names import NORM_MODULE, SCAN_CLASS, any_layer
from harness.tracing.operands import Cost
from harness.tracing.sizes import dtype_name, storage_of, unique_bytes
from harness.tracing.values import Values

_SCANNED = frozenset({KernelKind.ELEMENTWISE, KernelKind.ACTIVATION, KernelKind.GEMM, KernelKind.OTHER})
_COUNTED = ("launches", "flop", "read_bytes", "write_bytes", "weight_bytes", "link_bytes")


@dataclass(frozen=True, slots=True)
class _Key:
    """What makes two launches one kernel, as in the dataset's ``kernels``."""

    op: str
    module: str | None
    dtype: str
    shape: str


@dataclass(slots=True)
class _Counts:
    launches: int = 0
    flop: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    weight_bytes: int = 0
    link_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class _Recorded:
    kind: KernelKind
    number: int
    counts: dict[LayerCall | None, _Counts] = field(default_factory=dict)  # by the layer that ran: it is repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Kernels and edges, as a graph holds them."""

    kernels: tuple[GraphKernel, ...]
    edges: tuple[Edge, ...]


class Recorder:
    """Collects the kernels of one forward pass of ``model``: ``with recorder.recording(…)``, then ``result``."""

    def __init__(self, model: torch.nn.Module, repeated: RepeatedLayers | None, *, unroll: bool) -> None:
        self._repeated = repeated
        self._unroll = unroll
        self._names = {module: name for name, module in model.named_modules()}
        self._weights = {storage_of(parameter) for parameter in model.parameters()}
        self._modules: list[torch.nn.Module] = []
        self._kernels: dict[_Key, _Recorded] = {}
        self._edges: set[Edge] = set()
        self._writers: dict[int, tuple[int, ...]] = {}  # by storage: who wrote it, and what later kernel flowed into it
        self._alive: list[Any] = []  # the address of a storage that died could be another's
        self._on = False

    @contextmanager
    def recording(self, *, tokens: int, on: bool = True) -> Iterator[None]:
        """See every operator run inside; ``tokens`` go through the model. ``on=False`` sees and records nothing."""
        if self._repeated is not None:
            self._repeated.clear()
        with ExitStack() as stack:
            stack.callback(hooks.register_module_forward_pre_hook(self._enter).remove)
            stack.callback(hooks.register_module_forward_hook(self._leave, always_call=True).remove)
            values = Values(tokens=tokens)
            stack.enter_context(FusedOps(self.launch, values, tokens=tokens))
            stack.enter_context(Dispatched(self.launch, values))
            self._on = on
            yield
        self._on = False

    def _enter(self, module: torch.nn.Module, _inputs: Any) -> None:
        self._modules.append(module)

    def _leave(self, _module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
        self._modules.pop()

    def launch(
        self,
        op: str,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        cost: Cost,
        *,
        link_bytes: int = 0,
    ) -> None:
        """Record one launch, in the module that is running."""
        if not self._on:
            return
        module = self._module()
        dtype = dtype_name((*inputs, *outputs)[0].dtype)
        key = _Key(op, module, dtype, shape_text(cost.shape))
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = _Recorded(kind=self._kind(cost.kind, module), number=len(self._kernels))
            self._kernels[key] = kernel
        counts = kernel.counts.setdefault(self._layer_call(), _Counts())
        read = cost.read_bytes or 0
        counts.launches += 1
        counts.flop += cost.flop or 0
        counts.read_bytes += read
        counts.write_bytes += cost.write_bytes or 0
        counts.link_bytes += link_bytes
        counts.weight_bytes += min(read, self._weight_bytes(inputs, outputs, read))
        self._connect(kernel.number, inputs, outputs)

    def _weight_bytes(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], read: int) -> int:
        """Parameters among what was read; of a table of which rows are picked, what was read beside the rest."""
        weights = [tensor for tensor in inputs if storage_of(tensor) in self._weights]
        if not weights:
            return 0
        written = {storage_of(tensor) for tensor in outputs}  # a copy lists where it writes to first
        whole = sum(unique_bytes(tensor) for tensor in inputs if storage_of(tensor) not in written)
        of_weights = sum(map(unique_bytes, weights))
        return of_weights if read >= whole else max(0, read - (whole - of_weights))

    def _layer_call(self) -> LayerCall | None:
        return self._repeated.current[-1] if self._repeated is not None and self._repeated.current else None

    def _module(self) -> str | None:
        for module in reversed(self._modules):
            name = self._names.get(module)
            if name:
                return name if self._unroll else any_layer(name)
        return None

    def _kind(self, kind: KernelKind, module: str | None) -> KernelKind:
        if module is None:
            return kind
        if kind is KernelKind.ELEMENTWISE and NORM_MODULE.search(module):
            return KernelKind.NORM
        return KernelKind.SCAN if kind in _SCANNED and self._in_mixer() else kind

    def _in_mixer(self) -> bool:
        """Whether what runs is a mixer itself: neither one of its projections nor the layer that adds what it gave."""
        running = self._modules[-1]
        return bool(running._modules and not is_layer(running) and SCAN_CLASS.search(type(running).__name__))

    def _connect(self, number: int, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        writers = {writer for tensor in inputs for writer in self._writers.get(storage_of(tensor), ())}
        self._edges.update(Edge(source=writer, target=number) for writer in writers if writer < number)
        # A kernel launched again may read from a later one, and no edge leads back: whoever reads next reads from both.
        written_by = (number, *(writer for writer in writers if writer > number))
        for tensor in outputs:
            self._writers[storage_of(tensor)] = written_by
            self._alive.append(tensor.untyped_storage())

    def result(self) -> Recording:
        """What was recorded, each kernel with the launches of all layers that its layer stands for."""
        kernels = tuple(self._kernel(key, recorded) for key, recorded in self._kernels.items())
        return Recording(kernels=kernels, edges=tuple(sorted(self._edges)))

    def _kernel(self, key: _Key, recorded: _Recorded) -> GraphKernel:
        totals = dict.fromkeys(_COUNTED, 0)
        for call, counts in recorded.counts.items():
            times = 1 if call is None or self._repeated is None else self._repeated.repeats[call]
            for name in _COUNTED:
                totals[name] += times * getattr(counts, name)
        return GraphKernel(kind=recorded.kind, op=key.op, module=key.module, dtype=key.dtype, shape=key.shape, **totals)
