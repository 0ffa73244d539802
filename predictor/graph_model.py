"""The pass model with message passing over its kernel graph, on plain torch (``predictor.gnn`` is the twin to train).

One round of GraphSAGE with mean aggregation (Hamilton, Ying, Leskovec: arXiv 1706.02216, algorithm 1; the operator of
LLMCO2, arXiv 2410.02950), for kernels i and the kernels N(i) whose results they read:

    h'ᵢ = silu( W₁ · mean { hⱼ : j ∈ N(i) } + b + W₂ · hᵢ )          h: [N, width]; 0 is the mean over no kernels

After K rounds a pass is the mean of its kernels, each weighted by its share of the time: [P, width]. That vector joins
the features of the pass where the correction reads them. The correction's last layer starts at zero, so that the
untrained model is the fitted physics.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from predictor.graph_batches import NODE_FEATURES, GraphBatch
from predictor.pass_model import BOUND, PassEstimate, PassModel, bounded, limited, pass_class, pass_features
from predictor.passes import PassTensors


class MeanAggregation(nn.Module):
    """One round; parameters are named as those of ``torch_geometric.nn.SAGEConv``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(width, width)
        self.lin_r = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, edges: Tensor) -> Tensor:
        """[N, width] and [2, E] → [N, width], before the nonlinearity."""
        source, target = edges
        count = torch.zeros(len(hidden)).index_add(0, target, torch.ones(len(target)))
        total = torch.zeros_like(hidden).index_add(0, target, hidden[source])
        mean: Tensor = self.lin_l(total / count.clamp_min(1.0)[:, None])
        own: Tensor = self.lin_r(hidden)
        return mean + own


class GraphEncoder(nn.Module):
    """Kernel graphs → one vector per pass. Without rounds: a weighted mean of kernels, edges unused."""

    def __init__(
        self, *, width: int = 16, rounds: int = 2, operator: Callable[[int], nn.Module] = MeanAggregation
    ) -> None:
        super().__init__()
        self.project = nn.Linear(NODE_FEATURES, width)
        self.rounds = nn.ModuleList(operator(width) for _ in range(rounds))
        # Range of every input in the training data: outside it that of its edge is read.
        self.register_buffer("lowest", torch.full((NODE_FEATURES,), -torch.inf))
        self.register_buffer("highest", torch.full((NODE_FEATURES,), torch.inf))
        self.lowest: Tensor
        self.highest: Tensor

    @torch.no_grad()
    def learn_ranges(self, graph: GraphBatch) -> None:
        """Note what kernels the encoder is learned on."""
        self.lowest.copy_(graph.nodes.amin(0))
        self.highest.copy_(graph.nodes.amax(0))

    def forward(self, graph: GraphBatch) -> Tensor:
        """[P, width]."""
        inside = torch.minimum(torch.maximum(graph.nodes, self.lowest), self.highest)
        hidden = functional.silu(self.project(inside))
        for each in self.rounds:
            hidden = functional.silu(each(hidden, graph.edges))
        return self.pooled(hidden * graph.share[:, None], graph)

    def pooled(self, weighted: Tensor, graph: GraphBatch) -> Tensor:
        """[N, width] of kernels → [P, width], sums."""
        return torch.zeros(graph.passes, weighted.shape[1]).index_add(0, graph.pass_index, weighted)


class GraphPassModel(PassModel):
    """A pass from its kernels and from how they are connected. Its correction needs the graphs."""

    def __init__(self, *, width: int = 32, encoder: GraphEncoder | None = None) -> None:
        super().__init__(width=width)
        self.encoder = GraphEncoder() if encoder is None else encoder
        # With the first layer of the body: one layer that reads features and graph side by side.
        self.joined = nn.Linear(self.encoder.project.out_features, width, bias=False)

    def forward(self, passes: PassTensors, graph: GraphBatch | None = None, *, corrected: bool = True) -> PassEstimate:
        """Time and energy of each pass, run once; corrected estimates need ``graph``, of the same passes."""
        if not corrected:
            return super().forward(passes, corrected=False)
        if graph is None:
            raise ValueError("The correction of a GraphPassModel reads the kernel graphs of the passes.")
        kind = pass_class(passes)
        busy, host, duration, active = self._plain(passes, kind)
        features = pass_features(passes, busy, host, active)
        inside = torch.minimum(torch.maximum(features, self.lowest[kind]), self.highest[kind])
        first = self.body[0](inside) + self.joined(self.encoder(graph))
        raw = self.head(self.body[1:](first)) * self.learned[kind].float()[:, None]
        factor = (bounded(raw, BOUND) * self.trust[kind]).exp()
        return limited(passes, duration * factor[:, 0], active * factor[:, 1])
