"""What the ablations learn from and are scored on: measured runs as passes and graphs, and who is left out of what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from predictor.assembly import Assembled, assemble
from predictor.graph_batches import GraphBatch, graph_batch
from predictor.kernel_table import Integers
from predictor.licences import is_open
from predictor.model_facts import ModelSizes
from predictor.network import KernelNetwork
from predictor.pass_training import RunBatch, chosen_passes, run_batch, taken
from predictor.passes import pass_tensors
from predictor.run_examples import RunExample, run_examples

FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Measured parts of runs, the passes they are made of, and the kernel graphs of those."""

    runs: tuple[RunExample, ...]
    shape: tuple[int, ...]  # of the model of each run: equal for models whose kernel graphs are alike
    batch: RunBatch
    graph: GraphBatch

    def some(self, runs: Integers) -> "Lessons":
        """Only some runs, with nothing left of the others. Places in ``runs`` are kept by their order."""
        batch = taken(self.batch, runs)
        passes = torch.unique(batch.of_pass)
        place = torch.full((self.graph.passes,), -1, dtype=torch.int64)
        place[passes] = torch.arange(len(passes))
        kept = np.unique(batch.example)
        return Lessons(
            runs=tuple(self.runs[run] for run in kept),
            shape=tuple(self.shape[run] for run in kept),
            batch=replace(
                batch,
                passes=chosen_passes(batch.passes, passes),
                of_pass=place[batch.of_pass],
                example=np.searchsorted(kept, batch.example),
            ),
            graph=self.graph.chosen(passes),
        )

    def drawn(self, count: int, generator: torch.Generator) -> "Lessons":
        """Some runs at random; all where there are no more."""
        if len(self.runs) <= count:
            return self
        order = torch.randperm(len(self.runs), generator=generator)[:count]
        return self.some(np.sort(order.numpy()))


def lessons_of(folders: Sequence[Path], kernels: KernelNetwork) -> Lessons:
    """All runs of some datasets that have a graph. A source counts with the root of its number of runs."""
    pairs = [(run, assemble(run.request)) for folder in folders for run in run_examples(folder)]
    usable = [(run, entry) for run, entry in pairs if isinstance(entry, Assembled)]
    runs = tuple(run for run, _ in usable)
    assembled = [entry for _, entry in usable]
    sources, counts = np.unique([run.source for run in runs], return_counts=True)
    weight = dict(zip(sources, 1 / np.sqrt(counts), strict=True))
    importance = np.array([weight[run.source] for run in runs])
    return Lessons(
        runs=runs,
        shape=shapes([entry.graphs.sizes for entry in assembled]),
        batch=run_batch(runs, pass_tensors(assembled, kernels, power=True), importance / importance.mean()),
        graph=graph_batch(assembled, kernels),
    )


def shapes(sizes: Sequence[ModelSizes]) -> tuple[int, ...]:
    """A number for each model, equal for those of as many layers, heads and experts of one width."""
    keys = [(each.hidden_size, each.layers, each.heads, each.kv_heads, each.experts, each.top_k) for each in sizes]
    place = {key: number for number, key in enumerate(sorted(set(keys), key=str))}
    return tuple(place[key] for key in keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One fit: what is learned from and what is scored."""

    task: str
    learned: Integers  # places of runs
    scored: Integers


def splits(lessons: Lessons) -> Iterator[Split]:
    """All fits. Sources without an open licence are learned from only where their own models are left out."""
    source = np.array([run.source for run in lessons.runs])
    model = np.array([run.model for run in lessons.runs])
    gpu = np.array([run.request.hardware.name for run in lessons.runs])
    opened = np.array([is_open(run.licence) for run in lessons.runs])
    yield from _folds(model, opened, opened, "one model in five left out")
    for name in np.unique(source[~opened]):
        mine = source == name
        yield Split(task="trained on none of it", learned=_places(opened), scored=_places(mine))
        yield from _folds(model, opened | mine, mine, "one model in five left out")
    for name in np.unique(source[opened]):
        if len(np.unique(source[opened])) > 1:
            rest = opened & (source != name)
            yield Split(task="trained on none of it", learned=_places(rest), scored=_places(source == name))
    for name in np.unique(source[opened]):
        devices = np.unique(gpu[source == name])
        for device in devices if len(devices) > 1 else ():
            yield Split(
                task="one GPU left out",
                learned=_places(opened & (gpu != device)),
                scored=_places((source == name) & (gpu == device)),
            )
    yield from _folds(np.array(lessons.shape), opened, opened, "one shape in five left out")


def _folds(kind: NDArray[Any], learned: NDArray[np.bool_], scored: NDArray[np.bool_], task: str) -> Iterator[Split]:
    """Five splits, or as many as there are kinds; a kind is on one side only."""
    names = np.unique(kind[scored])  # sorted, so that a family is spread over folds
    for fold in range(min(FOLDS, len(names))):
        out = np.isin(kind, names[fold::FOLDS])
        yield Split(task=task, learned=_places(learned & ~out), scored=_places(scored & out))


def _places(mask: NDArray[np.bool_]) -> Integers:
    return np.flatnonzero(mask).astype(np.int64)
