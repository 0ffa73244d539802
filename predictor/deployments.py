"""What passes run on, as columns: physical attributes of the hardware, never its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.errors import UsageError
from harness.hardware import Hardware
from predictor.kernel_table import DTYPES, Floats, Integers

# Whose kernels a runtime launches. transformers calls the libraries that vLLM calls for its dense products.
KERNEL_SOURCES = ("vllm", "trtllm", "sglang", "nccl")
_SOURCE_OF = {"hf": "vllm", "vllm": "vllm", "trtllm": "trtllm", "sglang": "sglang", "nccl": "nccl", "tgi": "vllm"}
# Versions are numbers so that a newer one is further along; (centre, width) of those that measurements exist of.
_VERSION_SCALE = {"vllm": (18.0, 5.0), "trtllm": (102.0, 1.0), "sglang": (5.5, 0.5), "nccl": (227.0, 2.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What one pass runs on. None: the runtime's or the board's default, or not known."""

    hardware: Hardware
    runtime: str = "hf"
    runtime_version: str | None = None
    sm_clock_mhz: float | None = None
    power_limit_w: float | None = None
    alone: bool = False  # a kernel launched again and again, outside any model


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployments:
    """P deployments; every column has length P. Hardware attributes that are not known are an error before this."""

    peak_flop_per_s: Floats  # [P, len(DTYPES)] at the clock in use; of the next wider dtype where one is emulated
    emulated: Floats  # [P, len(DTYPES)] 1: computed in a wider dtype
    peak_bytes_per_s: Floats
    link_bytes_per_s: Floats
    l2_bytes: Floats
    sm_count: Floats
    process_nm: Floats
    clock_share: Floats  # of the boost clock
    boost_clock_mhz: Floats
    board_power_w: Floats
    power_limit_w: Floats  # enforced
    stacked_memory: Floats  # 1: HBM; 0: GDDR or LPDDR
    source: Integers  # [P] index into KERNEL_SOURCES, -1: none of them
    hf: Floats  # 1: transformers' eager code
    version: Floats  # centred and scaled within its runtime; 0: not known
    alone: Floats


def columns(deployments: Sequence[Deployment]) -> Deployments:
    """Columns of some deployments; raises ``UsageError`` naming what the hardware table does not say."""
    hardware = [_hardware_row(entry) for entry in deployments]
    values = {name: np.array([getattr(row, name) for row in hardware]) for name in _HardwareRow.__slots__}
    runtimes = [entry.runtime for entry in deployments]
    sources = [_SOURCE_OF.get(runtime, "") for runtime in runtimes]
    return Deployments(
        **values,
        source=np.array([KERNEL_SOURCES.index(name) if name else -1 for name in sources], dtype=np.int64),
        hf=np.array([runtime == "hf" for runtime in runtimes], dtype=np.float64),
        version=np.array(
            [_version(name, entry.runtime_version) for name, entry in zip(sources, deployments, strict=True)]
        ),
        alone=np.array([entry.alone for entry in deployments], dtype=np.float64),
    )


def check(deployment: Deployment) -> None:
    """Raise as ``columns`` does."""
    _hardware_row(deployment)


def take(deployments: Deployments, rows: Integers) -> Deployments:
    """Deployments of some rows, in their order."""
    return Deployments(**{name: getattr(deployments, name)[rows] for name in Deployments.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class _HardwareRow:
    peak_flop_per_s: Floats
    emulated: Floats
    peak_bytes_per_s: float
    link_bytes_per_s: float
    l2_bytes: float
    sm_count: float
    process_nm: float
    clock_share: float
    boost_clock_mhz: float
    board_power_w: float
    power_limit_w: float
    stacked_memory: float


_NEEDED = ("peak_bytes_per_s", "board_power_w")
_PCIE_BYTES_PER_S = 16e9  # a board without links talks over PCIe 3 x16 at least
_L2_BYTES_PER_MEMORY = 2e-5  # of boards whose L2 is not published: seconds of memory traffic it holds (A100: 2e-5)


@lru_cache(maxsize=4096)
def _hardware_row(deployment: Deployment) -> _HardwareRow:
    hardware = deployment.hardware
    for name in _NEEDED:
        if getattr(hardware, name) is None:
            raise UsageError(
                f"{hardware.name} has no {name} in the hardware table, and nothing stands in for it.\n"
                "Add it in a --hardware file."
            )
    bandwidth, power = float(hardware.peak_bytes_per_s or 0), float(hardware.board_power_w or 0)
    boost = hardware.boost_clock_mhz or 1500.0
    share = 1.0 if deployment.sm_clock_mhz is None else min(1.0, deployment.sm_clock_mhz / boost)
    peaks, emulated = _peaks(hardware)
    return _HardwareRow(
        peak_flop_per_s=peaks * share,
        emulated=emulated,
        peak_bytes_per_s=bandwidth,
        link_bytes_per_s=hardware.link_bytes_per_s or _PCIE_BYTES_PER_S,
        l2_bytes=hardware.l2_bytes or _L2_BYTES_PER_MEMORY * bandwidth,
        sm_count=hardware.sm_count or 64,
        process_nm=hardware.process_nm or 7,
        clock_share=share,
        boost_clock_mhz=boost,
        board_power_w=power,
        power_limit_w=power if deployment.power_limit_w is None else deployment.power_limit_w,
        stacked_memory=float((hardware.memory_type or "").upper().startswith("HBM")),
    )


_WIDER = {
    "float4": ("float8", "bfloat16", "float16"),
    "float8": ("bfloat16", "float16"),
    "int8": ("bfloat16", "float16"),
    "bfloat16": ("float16", "float32"),
    "float16": ("bfloat16", "float32"),
    "tf32": ("float32",),
    "float32": ("bfloat16", "float16"),
}


def _peaks(hardware: Hardware) -> tuple[Floats, Floats]:
    peaks, emulated = np.zeros(len(DTYPES)), np.zeros(len(DTYPES))
    for place, dtype in enumerate(DTYPES):
        native = next((name for name in (dtype, *_WIDER[dtype]) if hardware.supports(name)), None)
        if native is None:
            raise UsageError(
                f"{hardware.name} has no peak FLOP/s in the hardware table.\nAdd peak_flop_per_s in a --hardware file."
            )
        peaks[place], emulated[place] = hardware.peak_flop_per_s_for(native), float(native != dtype)
    return peaks, emulated


def _version(source: str, version: str | None) -> float:
    """How far along a version is; 0 for one that is not known.

    >>> _version("vllm", "0.23.0")
    1.0
    """
    if version is None or source not in _VERSION_SCALE:
        return 0.0
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in version.split("rc")[0].split(".")[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    centre, width = _VERSION_SCALE[source]
    return float(np.clip((100 * major + minor + patch / 20 - centre) / width, -2, 2))
