"""Training a predictor from dataset folders: kernels first, then passes, then the width of its intervals."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import UsageError
from harness.hardware import find
from predictor.assembly import Assembled, assemble, is_served
from predictor.checkpoint import FORMAT, Card, Checkpoint, LearnedFrom, SeenHardware, Spread
from predictor.familiar import attributes
from predictor.features import NAMES
from predictor.intervals import hedge, spreads_of
from predictor.kernel_examples import KernelExamples, joined, kernel_examples, taken
from predictor.kernel_table import Integers
from predictor.kernel_training import KernelSettings, fit_kernels, fit_physics, kernel_batches
from predictor.licences import check_provenance, is_open
from predictor.network import KernelNetwork
from predictor.pass_model import PassModel
from predictor.pass_training import PassSettings, fit_passes, run_batch
from predictor.passes import pass_tensors
from predictor.requests import Refusal
from predictor.run_examples import RunExample, run_examples

TEST_SHAPES = 0.2  # of all kernel shapes, by hash: never learned from, so that anybody can score a checkpoint on them
_COPIES = {"leadgreen-mcp": "ml-energy"}  # sources that hold figures of another one


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train a predictor."""

    kernels: KernelSettings = field(default_factory=KernelSettings)
    passes: PassSettings = field(default_factory=PassSettings)
    most_kernels_per_gpu: int | None = 500_000
    allow: tuple[str, ...] = ()  # provenances beside measured and imported
    allow_unlicensed: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """All that is learned from."""

    kernels: KernelExamples | None
    runs: tuple[RunExample, ...]
    assembled: tuple[Assembled, ...]  # of the runs, in order
    learned_from: tuple[LearnedFrom, ...]


Told = Callable[[str], None]


def gather(
    folders: Sequence[Path],
    settings: TrainSettings,
    told: Told = lambda _text: None,
    *,
    keep_kernels: bool = False,
) -> Lessons:
    """Read datasets; raises ``UsageError`` for rows that may not be learned from.

    ``keep_kernels``: kernels measured alone are not read, because those of a checkpoint are kept.
    """
    kernels: list[KernelExamples] = []
    runs: list[RunExample] = []
    origins: list[LearnedFrom] = []
    for folder in folders:
        told(f"reading {folder.name}")
        own = None if keep_kernels else kernel_examples(folder, most_per_gpu=settings.most_kernels_per_gpu)
        found = run_examples(folder)
        _check(folder, own, found, settings)
        own = _new_gpus(own, kernels)
        if own is not None:
            kernels.append(own)
        runs.extend(found)
        origins.append(_origin(folder, own, found))
    distinct = _distinct(runs)
    told(f"{sum(map(len, kernels)):,} kernels and {len(distinct):,} of {len(runs):,} runs; building graphs")
    assembled = [(run, assemble(run.request)) for run in distinct]
    usable = [(run, entry) for run, entry in assembled if isinstance(entry, Assembled)]
    refused = [entry for _, entry in assembled if isinstance(entry, Refusal)]
    if refused:
        told(f"{len(refused):,} runs have no graph; the first: {refused[0].reason.splitlines()[0][:200]}")
    if not kernels and not usable:
        raise UsageError(
            "There is nothing to learn from: no kernels measured alone, and no run on a known GPU that has a graph."
        )
    return Lessons(
        kernels=joined(kernels),
        runs=tuple(run for run, _ in usable),
        assembled=tuple(entry for _, entry in usable),
        learned_from=tuple(origins),
    )


def train(
    lessons: Lessons,
    settings: TrainSettings,
    *,
    told: Told = lambda _text: None,
    state: Path | None = None,
    start: Checkpoint | None = None,
    commit: str | None = None,
) -> Checkpoint:
    """Train on lessons. ``start``: its kernels are kept, and only passes are trained."""
    torch.manual_seed(settings.seed)
    kernels, seen = _kernels(lessons, settings, told, state, start)
    model = PassModel()
    spreads: tuple[Spread, ...] = ()
    if lessons.runs:
        told(f"{len(lessons.runs):,} runs: kernels of their passes")
        batch = run_batch(lessons.runs, pass_tensors(lessons.assembled, kernels), importance(lessons.runs))
        torch.manual_seed(settings.passes.seed)
        model = PassModel()
        told("figures and correction of passes")
        fit_passes(model, batch, settings.passes)
        hedge(model, lessons.runs)
        told("intervals, by models left out")
        spreads = spreads_of(lessons.runs, batch, settings.passes)
    return Checkpoint(
        kernels=kernels.eval(), passes=model.eval(), card=_card(lessons, settings, seen, tuple(spreads), commit, start)
    )


def _kernels(
    lessons: Lessons, settings: TrainSettings, told: Told, state: Path | None, start: Checkpoint | None
) -> tuple[KernelNetwork, tuple[str, ...]]:
    """A network and the GPUs its kernels ran on."""
    if start is not None:
        return start.kernels, tuple(entry.name for entry in start.card.seen_hardware)
    if lessons.kernels is None:
        told("no kernels measured alone: kernels are physics only")
        return KernelNetwork(width=settings.kernels.width, layers=settings.kernels.layers), ()
    network = KernelNetwork(width=settings.kernels.width, layers=settings.kernels.layers)
    data = kernel_batches(lessons.kernels)
    rows, watched = held_out(lessons.kernels, settings.kernels)
    told(f"{len(rows):,} kernels: physics")
    fit_physics(network, data, rows, settings.kernels)
    fit_kernels(
        network,
        data,
        rows=rows,
        watched=watched,
        settings=settings.kernels,
        told=lambda epoch, loss, seen: told(f"kernels, epoch {epoch + 1}: loss {loss:.4f}, held out {seen:.4f}"),
        state=state,
    )
    return network, tuple(sorted(set(lessons.kernels.gpu)))


def held_out(examples: KernelExamples, settings: KernelSettings) -> tuple[Integers, Integers]:
    """Rows to train on and rows to stop by. No shape is on both sides, and those below ``TEST_SHAPES`` on neither."""
    place = shape_place(examples.shape_key)
    most = TEST_SHAPES + settings.held_out
    watched = np.random.default_rng(settings.seed).permutation(np.flatnonzero((place >= TEST_SHAPES) & (place < most)))
    return np.flatnonzero(place >= most), watched[:60_000]


def shape_place(shape_key: "np.ndarray[Any, np.dtype[np.uint64]]") -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """[N] where in 0 … 1 the hash of a kernel's shape lies. Below ``TEST_SHAPES`` no checkpoint has seen it."""
    return np.asarray(((shape_key >> np.uint64(7)) % np.uint64(100)).astype(np.float64) / 100)


def importance(runs: Sequence[RunExample]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """[runs] weights by which a source counts with the root of its number of runs."""
    names, counts = np.unique([run.source for run in runs], return_counts=True)
    of = dict(zip(names, counts, strict=True))
    weights: np.ndarray[tuple[int], np.dtype[np.float64]] = np.array([1 / np.sqrt(of[run.source]) for run in runs])
    return np.asarray(weights / weights.mean())


# ---- what was learned from ----


def _new_gpus(examples: KernelExamples | None, before: Sequence[KernelExamples]) -> KernelExamples | None:
    """Kernels of GPUs that no folder before has: a clone and a package of one source hold the same measurements."""
    if examples is None:
        return None
    known = {name for part in before for name in set(part.gpu)}
    rows = np.flatnonzero([name not in known for name in examples.gpu])
    return taken(examples, rows) if len(rows) else None


def _check(folder: Path, kernels: KernelExamples | None, runs: Sequence[RunExample], settings: TrainSettings) -> None:
    for provenance in sorted({run.provenance for run in runs} | set(() if kernels is None else kernels.provenances)):
        check_provenance(provenance, settings.allow, str(folder))
    closed = sorted({run.source for run in runs if run.provenance == "imported" and not is_open(run.licence)})
    if closed and not settings.allow_unlicensed:
        raise UsageError(
            f"{folder} holds rows of {', '.join(closed)}, whose licence does not allow to give away what is learned "
            "from them.\nLeave the folder out, or keep the checkpoint to yourself: --allow-unlicensed."
        )


def _origin(folder: Path, kernels: KernelExamples | None, runs: Sequence[RunExample]) -> LearnedFrom:
    digest = hashlib.sha256()
    for run in sorted(run.run_id for run in runs):
        digest.update(run.encode())
    if kernels is not None:
        digest.update(np.sort(kernels.shape_key).tobytes())
    sources = sorted({run.source for run in runs} | set(() if kernels is None else kernels.sources))
    licences = sorted({run.licence or "none stated" for run in runs} | set(() if kernels is None else kernels.licences))
    provenances = sorted({run.provenance for run in runs} | set(() if kernels is None else kernels.provenances))
    return LearnedFrom(
        source=", ".join(sources) or folder.name,
        licence=", ".join(licences) or None,
        provenance=", ".join(provenances),
        content_sha256=digest.hexdigest(),
        kernels=0 if kernels is None else len(kernels),
        runs=len(runs),
    )


def _distinct(runs: Sequence[RunExample]) -> list[RunExample]:
    """Each measurement once, and none of another regime: servers that wait for their host or are several."""
    sources = {run.source for run in runs}
    kept: dict[object, RunExample] = {}
    for run in runs:
        if run.host_bound or run.request.data_parallel or _COPIES.get(run.source) in sources:
            continue
        kept.setdefault((run.request, tuple(target.part for target in run.targets)), run)
    return list(kept.values())


def _card(
    lessons: Lessons,
    settings: TrainSettings,
    seen: Sequence[str],
    spreads: tuple[Spread, ...],
    commit: str | None,
    start: Checkpoint | None,
) -> Card:
    devices = [find(name) for name in seen]
    values = attributes(devices) if devices else np.zeros((0, 0))
    before = () if start is None else tuple(replace(one, runs=0) for one in start.card.learned_from if one.kernels)
    return Card(
        format=FORMAT,
        features=NAMES,
        width=settings.kernels.width if start is None else start.card.width,
        layers=settings.kernels.layers if start is None else start.card.layers,
        learned_from=(*before, *lessons.learned_from),
        allowed=settings.allow,
        seen_hardware=tuple(
            SeenHardware(name=device.name, attributes=tuple(map(float, row)))
            for device, row in zip(devices, values, strict=True)
        ),
        seen_runtimes=tuple(sorted({"served" if is_served(run.request.runtime) else "eager" for run in lessons.runs})),
        spreads=spreads,
        scores={},
        splits={
            "kernel shapes never learned from": TEST_SHAPES,
            "to stop early": settings.kernels.held_out,
            "intervals": "5 folds by model",
        },
        settings={"kernels": asdict(settings.kernels), "passes": asdict(settings.passes)},
        seed=settings.seed,
        commit=commit,
        made_at_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
