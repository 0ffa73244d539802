"""Named ranges for run, phase, step and module, seen by NVTX tools and by the torch profiler.

Where nothing listens a range costs well under a microsecond, so they are on in the energy pass too. While the torch
profiler records, ``marked`` shows its ranges to it as well; module hooks cost more and are used in that pass only.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch._C._autograd import _profiler_enabled
from torch.profiler import record_function

try:
    import nvtx
except ImportError:  # NVTX exists for Linux only
    nvtx = None

MODULE_PREFIX = "module:"


def marked(name: str) -> AbstractContextManager[object]:
    """Name a span of time, e.g. ``run:1f3a``, ``phase:decode``, ``step:7``."""
    span: AbstractContextManager[object] = nullcontext() if nvtx is None else nvtx.annotate(name, domain="joulegraph")
    return _recorded(name, span) if _profiler_enabled() else span


@contextmanager
def _recorded(name: str, span: AbstractContextManager[object]) -> Iterator[None]:
    with span, record_function(name):
        yield


@contextmanager
def module_ranges(model: torch.nn.Module) -> Iterator[None]:
    """Open a range named after its path around every module's forward, for as long as the context lasts.

    A forward that raises closes its range too, and no hook outlives the context.
    """
    open_ranges: list[Any] = []

    def enter(name: str) -> Any:
        def hook(_module: torch.nn.Module, _inputs: Any) -> None:
            span = marked(MODULE_PREFIX + name)
            span.__enter__()
            open_ranges.append(span)

        return hook

    def leave(_module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(enter(name)).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield
