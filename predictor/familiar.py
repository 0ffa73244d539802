"""What a predictor has seen: which hardware, runtimes and sizes lie inside its experience."""

from collections.abc import Sequence

import numpy as np

from harness.hardware import Hardware
from predictor import deployments
from predictor.deployments import Deployment
from predictor.features import FEATURES, Group, sight
from predictor.kernel_table import DIMENSIONS, DTYPES, KINDS, Floats, KernelTable
from predictor.work import work

NEAR = 0.12  # mean distance of attributes up to which two GPUs are one to the network
# What makes two boards alike whatever they are linked to and however much power they may draw.
_CHIP = ("peak", "bandwidth", "l2", "sms", "process", "ridge", "stacked_memory")
_HARDWARE = tuple(feature for feature in FEATURES if feature.group is Group.HARDWARE and feature.name in _CHIP)


def attributes(hardware: Sequence[Hardware]) -> Floats:
    """[P, A] the features of some devices' chips, for 16-bit arithmetic at their boost clock."""
    count = len(hardware)
    table = KernelTable(
        pass_index=np.arange(count),
        kind=np.full(count, KINDS.index(KINDS[0])),
        dtype=np.full(count, DTYPES.index("bfloat16")),
        launches=np.ones(count),
        flop=np.ones(count),
        read_bytes=np.ones(count),
        write_bytes=np.ones(count),
        weight_bytes=np.zeros(count),
        link_bytes=np.zeros(count),
        sizes=np.full((count, len(DIMENSIONS)), np.nan),
        edges=np.zeros((2, 0), dtype=np.int64),
        passes=count,
    )
    seen = sight(table, work(table), deployments.columns([Deployment(hardware=device) for device in hardware]))
    return np.stack([feature.value(seen) for feature in _HARDWARE], axis=1)


def near(values: Floats, seen: Floats) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """[P] whether attributes [P, A] are those of some seen GPU [S, A], within ``NEAR`` on average."""
    if len(seen) == 0:
        return np.zeros(len(values), dtype=np.bool_)
    distance = np.abs(values[:, None, :] - seen[None, :, :]).mean(axis=2)  # [P, S]
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = distance.min(axis=1) <= NEAR
    return found
