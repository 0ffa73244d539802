"""Splits: which rows are trained on and which are predicted. Fixed by content, and nothing is on both sides."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.scores_records import Fold
from harness.hardware import Hardware
from predictor.assembly import Assembled
from predictor.familiar import attributes, near
from predictor.kernel_examples import KernelExamples
from predictor.kernel_table import Integers
from predictor.kernel_training import RELIABLE_S
from predictor.run_examples import RunExample

HELD_OUT_SHARE = 20  # of 100 buckets of shapes
_BUCKETS = 100
_MOST_TEST_ROWS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSplit:
    """Rows of kernels; no two parts share a shape, or no two share a GPU."""

    held_out: str
    train: Integers
    watched: Integers  # to stop early and to choose settings by
    calibration: Integers  # to learn the width of intervals from
    test: Integers


class Leak(AssertionError):
    """Something is on both sides of a split."""


def bucket(examples: KernelExamples) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """[N] bucket of each kernel's shape, 0–99; equal shapes have equal buckets, whatever they ran on."""
    found: np.ndarray[tuple[int], np.dtype[np.uint64]] = (examples.shape_key >> np.uint64(7)) % np.uint64(_BUCKETS)
    return found


def unseen_shapes(examples: KernelExamples) -> KernelSplit:
    """A fifth of all shapes is held out, on every GPU and runtime at once."""
    place = bucket(examples)
    split = KernelSplit(
        held_out="shapes",
        train=np.flatnonzero(place >= HELD_OUT_SHARE + 2),
        watched=np.flatnonzero(place == HELD_OUT_SHARE),
        calibration=np.flatnonzero(place == HELD_OUT_SHARE + 1),
        test=_some(np.flatnonzero(place < HELD_OUT_SHARE)),
    )
    apart(examples.shape_key[split.train].tolist(), examples.shape_key[split.test].tolist())
    return split


def unseen_gpus(examples: KernelExamples, gpus: Sequence[str]) -> KernelSplit:
    """All rows of some GPUs are held out; those with reliable power are predicted."""
    place, out = bucket(examples), np.isin(examples.gpu, list(gpus))
    reliable = np.isfinite(examples.power_w) & (examples.duration_s > RELIABLE_S)
    split = KernelSplit(
        held_out=", ".join(gpus),
        train=np.flatnonzero(~out & (place >= 4)),
        watched=np.flatnonzero(~out & (place < 2)),
        calibration=np.flatnonzero(~out & (place >= 2) & (place < 4)),
        test=_some(np.flatnonzero(out & reliable)),
    )
    apart(set(examples.gpu[split.train]), set(examples.gpu[split.test]))
    return split


def _some(rows: Integers) -> Integers:
    """At most so many rows, always the same."""
    if len(rows) <= _MOST_TEST_ROWS:
        return rows
    return np.sort(np.random.default_rng(0).permutation(rows)[:_MOST_TEST_ROWS])


def kernel_fold(task: str, examples: KernelExamples, split: KernelSplit) -> Fold:
    """What a split of kernels is, by content."""

    def identities(rows: Integers) -> list[str]:
        parts = (examples.shape_key, examples.gpu, examples.runtime)
        return ["|".join(map(str, entry)) for entry in zip(*(part[rows] for part in parts), strict=True)]

    train = np.concatenate((split.train, split.watched, split.calibration))
    return _fold(task, split.held_out, identities(train), identities(split.test))


# ---- requests ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSplit:
    """Places of runs; models of one family, a GPU or a source are on one side."""

    held_out: str
    train: Integers
    test: Integers


def families(runs: Sequence[RunExample], assembled: Sequence[Assembled]) -> list[str]:
    """The family of each run's model: all models of the same layers, widths and experts, whatever they were tuned to.

    Stricter than names: Llama-3.1-70B and Llama-3.3-70B, or a model and its FP8 copy, are one family. Named after the
    shortest of its names.
    """
    keys = [_shape(entry) for entry in assembled]
    names: dict[Hashable, set[str]] = {}
    for run, key in zip(runs, keys, strict=True):
        names.setdefault(key, set()).add(run.model)
    return [min(names[key], key=lambda name: (len(name), name)) for key in keys]


def _shape(entry: Assembled) -> Hashable:
    sizes = entry.graphs.sizes
    return sizes.layers, sizes.hidden_size, sizes.heads, sizes.kv_heads, sizes.experts, sizes.top_k


def models_out(runs: Sequence[RunExample], families: Sequence[str], *, source: str, folds: int) -> list[RunSplit]:
    """The families of one source by turns, in ``folds`` groups or, with 0, each alone; out of all other sources too."""
    own = sorted({family for run, family in zip(runs, families, strict=True) if run.source == source})
    groups = [own[place :: folds or len(own)] for place in range(min(folds or len(own), len(own)))]
    sources, of = np.array([run.source for run in runs]), np.array(families)
    splits = []
    for group in groups:
        out = np.isin(of, group)
        splits.append(
            RunSplit(
                held_out=", ".join(group), train=np.flatnonzero(~out), test=np.flatnonzero(out & (sources == source))
            )
        )
        apart(of[splits[-1].train].tolist(), of[splits[-1].test].tolist())
    return splits


def source_out(runs: Sequence[RunExample], source: str) -> RunSplit:
    """A whole source, and whatever another source repeats of it."""
    test = np.array([run.source == source for run in runs])
    asked = {run.request for run, mine in zip(runs, test, strict=True) if mine}
    train = np.array([not mine and run.request not in asked for run, mine in zip(runs, test, strict=True)])
    return RunSplit(held_out=source, train=np.flatnonzero(train), test=np.flatnonzero(test))


def gpu_out(runs: Sequence[RunExample], gpu: str, *, source: str) -> RunSplit:
    """All runs on a GPU and on those that are one with it to the network (B200, GB200, B300)."""
    names = np.array([run.request.hardware.name for run in runs])
    out = np.isin(names, list(siblings(gpu, [run.request.hardware for run in runs])))
    test = (names == gpu) & np.array([run.source == source for run in runs])
    split = RunSplit(held_out=gpu, train=np.flatnonzero(~out), test=np.flatnonzero(test))
    apart(names[split.train].tolist(), names[split.test].tolist())
    return split


def siblings(gpu: str, hardware: Iterable[Hardware]) -> tuple[str, ...]:
    """Names of the devices that are as good as a GPU, itself among them."""
    devices = {device.name: device for device in hardware}
    if gpu not in devices:
        return (gpu,)
    values = attributes(list(devices.values()))
    alike = near(values, attributes([devices[gpu]]))
    return tuple(sorted(name for name, same in zip(devices, alike, strict=True) if same))


def run_fold(task: str, runs: Sequence[RunExample], split: RunSplit) -> Fold:
    """What a split of runs is, by content."""
    return _fold(
        task,
        split.held_out,
        [runs[place].run_id for place in split.train],
        [runs[place].run_id for place in split.test],
    )


def apart(train: Iterable[Hashable], test: Iterable[Hashable]) -> None:
    """Raise ``Leak`` where something is on both sides."""
    both = set(train) & set(test)
    if both:
        raise Leak(f"{len(both)} are trained on and predicted, among them {min(map(str, both))}")


def _fold(task: str, held_out: str, train: Sequence[str], test: Sequence[str]) -> Fold:
    return Fold(
        task=task,
        held_out=held_out,
        train=len(train),
        test=len(test),
        train_sha256=_digest(train),
        test_sha256=_digest(test),
    )


def _digest(identities: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for identity in sorted(identities):
        digest.update(identity.encode() + b"\n")
    return digest.hexdigest()
