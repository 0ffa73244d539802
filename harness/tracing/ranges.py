"""Named ranges for run, phase, step and module, seen by NVTX tools and by the torch profiler.

NVTX ranges cost about a microsecond, or nothing where no tool listens, so they are on in the energy pass too.
``record_function`` and module hooks cost more and are used only in the tracing pass.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.profiler import record_function

try:
    import nvtx
except ImportError:  # NVTX exists for Linux only
    nvtx = None

MODULE_PREFIX = "module:"


@contextmanager
def marked(name: str, *, traced: bool = False) -> Iterator[None]:
    """Name a span of time, e.g. ``run:1f3a``, ``phase:decode``, ``step:7``; ``traced`` shows it to the profiler too."""
    with ExitStack() as stack:
        if nvtx is not None:
            stack.enter_context(nvtx.annotate(name, domain="joulegraph"))
        if traced:
            stack.enter_context(record_function(name))
        yield


@contextmanager
def module_ranges(model: torch.nn.Module) -> Iterator[None]:
    """Open a range named after its path around every module's forward, for as long as the context lasts."""
    open_ranges: list[Any] = []

    def enter(name: str) -> Any:
        def hook(_module: torch.nn.Module, _inputs: Any) -> None:
            span = record_function(MODULE_PREFIX + name)
            span.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            open_ranges.append(span)

        return hook

    def leave(_module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(enter(name)).remove)
                stack.callback(module.register_forward_hook(leave).remove)
        yield
