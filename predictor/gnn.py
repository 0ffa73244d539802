"""The twin of ``predictor.graph_model`` in PyTorch Geometric, to train with: same parameters, same names, same outputs.

Operator: ``SAGEConv`` with mean aggregation (arXiv 1706.02216); formula and shapes stand in ``predictor.graph_model``,
which is what predicts: importing PyTorch Geometric takes longer than a prediction may.
"""

from typing import cast

import torch
from torch import Tensor
from torch_geometric.nn import SAGEConv  # type: ignore[import-untyped]
from torch_geometric.utils import scatter  # type: ignore[import-untyped]

from predictor.graph_batches import GraphBatch
from predictor.graph_model import GraphEncoder


def _operator(width: int) -> torch.nn.Module:
    return cast("torch.nn.Module", SAGEConv(width, width, aggr="mean"))


class GeometricEncoder(GraphEncoder):
    """``GraphEncoder`` with PyTorch Geometric's operators; either loads the other's ``state_dict``."""

    def __init__(self, *, width: int = 16, rounds: int = 2) -> None:
        super().__init__(width=width, rounds=rounds, operator=_operator)

    def pooled(self, weighted: Tensor, graph: GraphBatch) -> Tensor:
        """[N, width] of kernels → [P, width], sums."""
        return cast("Tensor", scatter(weighted, graph.pass_index, dim=0, dim_size=graph.passes, reduce="sum"))
