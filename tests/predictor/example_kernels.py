"""Kernels with known work, for tests of features, physics and networks."""

from collections.abc import Mapping

import numpy as np

from harness.hardware import find
from harness.kernels import KernelKind
from predictor import deployments
from predictor.deployments import Deployment, Deployments
from predictor.features import Described, described, sight
from predictor.kernel_table import DIMENSIONS, DTYPES, KINDS, KernelTable
from predictor.work import work

H100 = find("NVIDIA H100 80GB HBM3")


def kernels(
    *sizes: Mapping[str, float], kind: KernelKind = KernelKind.GEMM, dtype: str = "bfloat16", launches: float = 1.0
) -> KernelTable:
    """One kernel per pass, of given sizes."""
    count = len(sizes)
    shaped = np.full((count, len(DIMENSIONS)), np.nan)
    for row, values in enumerate(sizes):
        for name, value in values.items():
            shaped[row, DIMENSIONS.index(name)] = value
    return KernelTable(
        pass_index=np.arange(count),
        kind=np.full(count, KINDS.index(kind)),
        dtype=np.full(count, DTYPES.index(dtype)),
        launches=np.full(count, launches),
        flop=np.ones(count),
        read_bytes=np.ones(count),
        write_bytes=np.ones(count),
        weight_bytes=np.zeros(count),
        link_bytes=np.zeros(count),
        sizes=shaped,
        edges=np.zeros((2, 0), dtype=np.int64),
        passes=count,
    )


def on(count: int, deployment: Deployment | None = None) -> Deployments:
    """The same deployment for every kernel."""
    return deployments.columns([deployment or Deployment(hardware=H100, runtime="vllm")] * count)


def seen(table: KernelTable, deployment: Deployment | None = None) -> Described:
    """Features of kernels."""
    return described(sight(table, work(table), on(table.passes, deployment)))
