"""A rank's share of a model on the meta device: local shapes, and the collectives that join the ranks as kernels."""

from dataclasses import dataclass, field
from typing import Any

import torch

from harness.kernels import KernelKind
from harness.models.parallel import Collective, check_degree, share_on_meta, tensor_plan
from harness.tracing.collectives import cost_of_collective
from harness.tracing.recorder import Recorder
from harness.tracing.sizes import operands

OPS = {KernelKind.ALL_REDUCE: "c10d::allreduce_", KernelKind.ALL_GATHER: "c10d::_allgather_base_"}


@dataclass(slots=True)
class Sharding:
    """What the ranks exchange, told to whoever records at the moment."""

    degree: int
    recorder: Recorder | None = field(default=None, init=False)

    def exchange(self, module: Any, collective: Collective, given: torch.Tensor) -> torch.Tensor:
        """What every rank has after a collective to which this one gives ``given``."""
        received = given
        if collective.kind is KernelKind.ALL_GATHER:
            width = int(getattr(module, "out_features", None) or module.embedding_dim)
            received = torch.empty((*given.shape[:-1], width), dtype=given.dtype, device=given.device)
        moved = cost_of_collective(collective.kind, operands([given])[0], self.degree)
        if self.recorder is not None:
            self.recorder.launch(
                OPS[collective.kind], [given], [received], moved.cost, link_bytes=moved.link_bytes or 0
            )
        return received


def sharded(model: Any, degree: int, name: str) -> Sharding:
    """Cut a meta model to rank 0's share, in place; raises ``UsageError``, before it changes anything.

    Rank 0 holds the most where a dimension does not divide.
    """
    sharding = Sharding(degree)
    if degree > 1:
        plan = tensor_plan(model)
        check_degree(model, plan, degree, name)
        share_on_meta(model, plan, degree=degree, exchange=sharding.exchange)
    return sharding
