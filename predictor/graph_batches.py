"""Kernel graphs of many passes as one graph without connections between passes: what message passing reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from predictor import deployments
from predictor.assembly import Assembled, regrouped
from predictor.features import Group, columns_of, described, sight
from predictor.kernel_table import Integers, KernelTable
from predictor.network import KernelNetwork
from predictor.physics import IDLE_SHARE, KernelTensors
from predictor.tensors import kernel_tensors
from predictor.work import work

# What a kernel is and has to do. Hardware is in its Roofline; runtime and clocks are features of the pass.
_COLUMNS = columns_of(Group.SIZE, Group.ROOFLINE, Group.OCCUPANCY, Group.NUMBERS, Group.KIND)
NODE_FEATURES = len(_COLUMNS) + 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBatch:
    """N kernels and E edges of P passes."""

    passes: int  # P
    pass_index: Tensor  # [N] int64, never falling
    nodes: Tensor  # [N, NODE_FEATURES] what the kernel is, log10 of its seconds, its shares of time and of energy
    share: Tensor  # [N] of the time of its pass's kernels; adds up to 1 in every pass
    edges: Tensor  # [2, E] int64: from, to

    def chosen(self, passes: Tensor) -> "GraphBatch":
        """The graphs of some passes [Q] int64, in that order; each at most once."""
        place = torch.full((self.passes,), -1, dtype=torch.int64)
        place[passes] = torch.arange(len(passes))
        rows = torch.nonzero(place[self.pass_index] >= 0)[:, 0]
        rows = rows[torch.argsort(place[self.pass_index[rows]], stable=True)]
        number = torch.full((len(self.pass_index),), -1, dtype=torch.int64)
        number[rows] = torch.arange(len(rows))
        edges = number[self.edges]
        return GraphBatch(
            passes=len(passes),
            pass_index=place[self.pass_index[rows]],
            nodes=self.nodes[rows],
            share=self.share[rows],
            edges=edges[:, (edges >= 0).all(0)],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPiece:
    """Passes of one graph template."""

    of_pass: Integers  # [passes of the piece] place of each among all
    table: KernelTable
    nodes: Tensor
    share: Tensor


@torch.no_grad()
def graph_batch(
    assembled: Sequence[Assembled], network: KernelNetwork, *, hide: Sequence[bool] | None = None
) -> GraphBatch:
    """The graphs of the passes of some requests, in the order of ``predictor.passes.pass_tensors``."""
    return gathered(list(_pieces(assembled, network, hide)), sum(len(entry.times) for entry in assembled))


def gathered(pieces: Sequence[GraphPiece], passes: int) -> GraphBatch:
    """One graph of all pieces, the kernels of a pass together."""
    starts = np.cumsum([0, *(len(piece.share) for piece in pieces)])
    owner = torch.from_numpy(np.concatenate([piece.of_pass[piece.table.pass_index] for piece in pieces]))
    order = torch.argsort(owner, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    edges = np.concatenate([piece.table.edges + start for piece, start in zip(pieces, starts, strict=False)], axis=1)
    return GraphBatch(
        passes=passes,
        pass_index=owner[order],
        nodes=torch.cat([piece.nodes for piece in pieces])[order],
        share=torch.cat([piece.share for piece in pieces])[order],
        edges=place[torch.from_numpy(edges)],
    )


def _pieces(
    assembled: Sequence[Assembled], network: KernelNetwork, hide: Sequence[bool] | None
) -> Iterator[GraphPiece]:
    starts = np.cumsum([0, *(len(entry.times) for entry in assembled)])
    unique = deployments.columns([entry.deployment for entry in assembled])
    for places in regrouped(assembled).values():
        graphs = assembled[places[0]].graphs
        for decode in (False, True):
            parts = [np.flatnonzero(assembled[place].decode == decode) for place in places]
            owner = np.repeat(places, [len(part) for part in parts])
            if len(owner) == 0:
                continue
            each = list(zip(places, parts, strict=True))
            batch = np.concatenate([assembled[place].batch[part] for place, part in each])
            context = np.concatenate([assembled[place].context[part] for place, part in each])
            table = graphs.decode(batch, context) if decode else graphs.prefill(batch, context)
            hidden = None if hide is None else np.asarray(hide)[owner][table.pass_index]
            rows = deployments.take(unique, owner[table.pass_index])
            nodes, share = _node_rows(table, rows, network, hidden)
            of_pass = np.concatenate([starts[place] + part for place, part in each])
            yield GraphPiece(of_pass=of_pass, table=table, nodes=nodes, share=share)


def _node_rows(
    table: KernelTable,
    rows: deployments.Deployments,
    network: KernelNetwork,
    hidden: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None" = None,
) -> tuple[Tensor, Tensor]:
    """``node_inputs`` of a table. ``rows`` has one deployment per kernel; ``hidden`` [R]: on unfamiliar hardware."""
    seen = described(sight(table, work(table), rows))
    kernels = kernel_tensors(seen, rows)
    mask = None if hidden is None else torch.from_numpy(hidden.astype(np.float32))
    estimate = network(kernels, hidden=mask)
    busy = torch.from_numpy(seen.launches) * estimate.duration_s.double()
    energy = busy * (estimate.power_w - IDLE_SHARE * kernels.board_power_w).double()
    index = torch.from_numpy(table.pass_index)
    return node_inputs(network, kernels, busy_s=busy, active_j=energy, pass_index=index, passes=table.passes)


def node_inputs(
    network: KernelNetwork,
    kernels: KernelTensors,
    *,
    busy_s: Tensor,
    active_j: Tensor,
    pass_index: Tensor,
    passes: int,
) -> tuple[Tensor, Tensor]:
    """[R, NODE_FEATURES] and [R]: inputs of kernels, and their shares of the time of their passes.

    ``busy_s`` and ``active_j`` [R] float64: seconds, and joules above idle, of all launches of a kernel in its pass.
    """
    share = _shares(busy_s, pass_index, passes)
    what = network.seen(kernels.features, None)[:, torch.from_numpy(_COLUMNS)]
    known = (torch.log10(busy_s + 1e-12).float() / 3 + 1, share, _shares(active_j, pass_index, passes))
    return torch.cat((what, torch.stack(known, 1)), 1), share


def _shares(values: Tensor, index: Tensor, passes: int) -> Tensor:
    total = torch.zeros(passes, dtype=torch.float64).index_add_(0, index, values)
    return (values / total[index]).float()
