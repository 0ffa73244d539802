"""From columns to tensors."""

import numpy as np
import torch

from predictor.deployments import Deployments
from predictor.features import Described
from predictor.kernel_table import DTYPES, Integers
from predictor.physics import KernelTensors, draws

_SIXTEEN_BIT = (DTYPES.index("bfloat16"), DTYPES.index("float16"))


def sixteen_bit_peak(on: Deployments) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """[P] peak FLOP/s in 16 bits at the boost clock."""
    peak: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        on.peak_flop_per_s[:, _SIXTEEN_BIT].max(axis=1) / on.clock_share
    )
    return peak


def kernel_tensors(described: Described, on: Deployments, rows: Integers | None = None) -> KernelTensors:
    """R kernels, or some ``rows`` of them; ``on`` has one entry per kernel."""

    def column(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> torch.Tensor:
        return torch.from_numpy(np.asarray(values if rows is None else values[rows], dtype=np.float32))

    board_power_w = column(on.board_power_w)
    compute_draw, memory_draw = draws(
        peak_flop_per_s=column(sixteen_bit_peak(on)),
        bytes_per_s=column(on.peak_bytes_per_s),
        board_power_w=board_power_w,
        process_nm=column(on.process_nm),
        stacked=column(on.stacked_memory),
    )
    return KernelTensors(
        features=torch.from_numpy(described.features if rows is None else described.features[rows]),
        family=torch.from_numpy(described.family if rows is None else described.family[rows]),
        compute_s=column(described.compute_s),
        memory_s=column(described.memory_s),
        link_s=column(described.link_s),
        ranks=column(described.ranks),
        board_power_w=board_power_w,
        power_limit_w=column(on.power_limit_w),
        compute_draw=compute_draw,
        memory_draw=memory_draw,
        clock_share=column(on.clock_share),
    )
