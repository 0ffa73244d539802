"""The features of a kernel on a deployment: one table, which is also the order of the columns.

Hardware enters through physical attributes only. Those of the group ``hardware`` are hidden (0) from part of the
training rows, so that the network has an answer for a GPU whose attributes are unlike any it has seen: the kernels'
own sizes and the Roofline, in which the hardware is already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from predictor import feature_values as values
from predictor.deployments import KERNEL_SOURCES, Deployments
from predictor.families import FAMILIES
from predictor.feature_values import Sight
from predictor.kernel_table import DTYPES, Floats, KernelTable
from predictor.work import Work

# Words in the names of kernels that tell implementations apart.
IMPLEMENTATIONS = (
    "flashinfer",
    "fa3",
    "triton",
    "cutlass",
    "deepgemm",
    "marlin",
    "min_latency",
    "nongated",
    "trt_flow",
    "flash_attn",
    "linear",
    "eager",
)
_TILES = ((128, 128), (64, 64), (128, 256), (256, 128), (16, 128))


class Group(StrEnum):
    """What a feature describes; groups can be hidden from the network."""

    SIZE = "size"
    ROOFLINE = "roofline"
    OCCUPANCY = "occupancy"
    NUMBERS = "numbers"
    KIND = "kind"
    RUNTIME = "runtime"
    IMPLEMENTATION = "implementation"  # known of kernels measured alone only
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column."""

    name: str
    unit: str
    meaning: str
    group: Group
    value: Callable[[Sight], Floats]  # → [R]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What physics and network read of R kernels; every column has length R."""

    features: NDArray[np.float32]  # [R, F]
    family: NDArray[np.int64]
    launches: Floats
    compute_s: Floats  # one launch: FLOP at the peak
    memory_s: Floats
    link_s: Floats
    ranks: Floats  # of a collective; 1 for other kernels


def sight(table: KernelTable, work: Work, on: Deployments) -> Sight:
    """Put kernels and what they run on side by side; ``on`` has one entry per kernel."""
    rows = np.arange(len(work.family))
    peak = on.peak_flop_per_s[rows, work.dtype]
    return Sight(
        table=table,
        work=work,
        on=on,
        peak_flop_per_s=peak,
        emulated=on.emulated[rows, work.dtype],
        compute_s=work.flop / peak,
        memory_s=work.traffic_bytes / on.peak_bytes_per_s,
        link_s=work.link_bytes / on.link_bytes_per_s,
    )


def described(seen: Sight) -> Described:
    """All features, in the order of the table."""
    columns = np.empty((len(seen.work.family), len(FEATURES)), dtype=np.float32)
    for place, feature in enumerate(FEATURES):
        columns[:, place] = feature.value(seen)
    ranks = seen.table.size("ranks")
    return Described(
        features=columns,
        family=seen.work.family,
        launches=seen.work.launches,
        compute_s=seen.compute_s,
        memory_s=seen.memory_s,
        link_s=seen.link_s,
        ranks=np.where(np.isnan(ranks), 1.0, ranks),
    )


# ---- the table ----

_SIZES = (
    ("m", "rows of the product"),
    ("n", "columns of the product"),
    ("k", "length of its dot products"),
    ("matrices", "products in the batch"),
    ("batch", "sequences"),
    ("query_tokens", "new tokens of a sequence"),
    ("context_tokens", "tokens of a sequence in the cache, new ones included"),
    ("window_tokens", "width of a sliding window"),
    ("heads", "query heads on this rank"),
    ("kv_heads", "key-value heads on this rank"),
    ("head_dim", "width of a head"),
    ("tokens", "tokens that enter the mixture"),
    ("experts", "experts on this rank"),
    ("top_k", "experts of a token"),
    ("hidden", "width of the model at the mixture"),
    ("intermediate", "width of an expert on this rank"),
    ("elements", "numbers that a collective or a pointwise kernel moves"),
    ("ranks", "ranks of a collective"),
    ("expert_parallel", "ranks that share the experts"),
)


def _feature(name: str, unit: str, meaning: str, group: Group, value: Callable[[Sight], Floats]) -> Feature:
    return Feature(name=name, unit=unit, meaning=meaning, group=group, value=value)


def _occupancy() -> tuple[Feature, ...]:
    fills = tuple(
        _feature(
            f"fill_{m}x{n}", "1", f"share of the last wave of {m}×{n} tiles in use", Group.OCCUPANCY, values.fill(m, n)
        )
        for m, n in _TILES
    )
    waves = tuple(
        _feature(f"waves_{m}x{n}", "log2 / 5", f"{m}×{n} tiles per SM", Group.OCCUPANCY, values.wave_count(m, n))
        for m, n in _TILES
    )
    rests = tuple(
        _feature(f"rest_{name}", "1", f"{name} mod {of} / {of}", Group.OCCUPANCY, values.remainder(name, of))
        for name, of in (("m", 128), ("n", 128), ("k", 64))
    )
    blocks = tuple(
        feature
        for heads, queries in (("heads", True), ("kv_heads", False))
        for feature in (
            _feature(
                f"block_fill_{heads}",
                "1",
                f"share of the last wave of blocks of {heads}",
                Group.OCCUPANCY,
                values.block_fill(heads, queries),
            ),
            _feature(
                f"blocks_{heads}",
                "log2 / 5",
                f"blocks of {heads} per SM",
                Group.OCCUPANCY,
                values.block_count(heads, queries),
            ),
        )
    )
    return (
        *fills,
        *waves,
        *rests,
        *blocks,
        _feature("grouping", "log2 / 4", "query heads per key-value head", Group.OCCUPANCY, values.grouping),
        _feature(
            "rows_per_expert", "log2 / 5", "rows of an expert under even routing", Group.OCCUPANCY, values.per_expert
        ),
        _feature(
            "l2_share",
            "1, at most 4",
            "traffic over L2",
            Group.OCCUPANCY,
            lambda seen: np.minimum(seen.work.traffic_bytes / seen.on.l2_bytes, 4.0),
        ),
    )


def _roofline() -> tuple[Feature, ...]:
    group = Group.ROOFLINE
    return (
        _feature("compute_time", "ln µs / 5", "FLOP over peak", group, lambda seen: values.log_time(seen.compute_s)),
        _feature(
            "memory_time", "ln µs / 5", "traffic over bandwidth", group, lambda seen: values.log_time(seen.memory_s)
        ),
        _feature(
            "link_time", "ln µs / 5", "link bytes over bandwidth", group, lambda seen: values.log_time(seen.link_s)
        ),
        _feature("roofline_time", "ln µs / 5", "the slowest of the three", group, values.slowest),
        _feature("intensity", "ln / 5", "arithmetic intensity over the ridge", group, values.intensity),
        _feature(
            "flop", "ln / 20", "FLOP of a launch", group, lambda seen: np.log(np.maximum(seen.work.flop, 1e-3)) / 20
        ),
        _feature(
            "traffic",
            "ln B / 15",
            "memory traffic of a launch",
            group,
            lambda seen: np.log(np.maximum(seen.work.traffic_bytes, 1.0)) / 15,
        ),
        _feature("read_to_written", "ln / 5", "bytes read over bytes written", group, values.read_to_written),
    )


def _numbers() -> tuple[Feature, ...]:
    group = Group.NUMBERS
    return (
        _feature("weight_bits", "16 bit", "width of a weight", group, lambda seen: seen.work.weight_bits / 16),
        _feature(
            "activation_bits", "16 bit", "width of an activation", group, lambda seen: seen.work.activation_bits / 16
        ),
        _feature(
            "cache_bits", "16 bit", "width of a number in the KV cache", group, lambda seen: seen.work.cache_bits / 16
        ),
        _feature(
            "eight_bit",
            "0 or 1",
            "arithmetic in 8 bits",
            group,
            lambda seen: (seen.work.dtype == DTYPES.index("float8")).astype(np.float64),
        ),
        _feature(
            "block_scaled",
            "0 or 1",
            "scales for blocks of weights",
            Group.IMPLEMENTATION,
            values.detail("block_scaled"),
        ),
        _feature(
            "emulated", "0 or 1", "the hardware computes the dtype in a wider one", group, lambda seen: seen.emulated
        ),
        _feature(
            "routing_skew", "exponent", "power law by which tokens choose experts", group, values.detail("routing_skew")
        ),
        _feature("windowed", "0 or 1", "attention in a sliding window", group, values.windowed),
    )


def _hardware() -> tuple[Feature, ...]:
    group = Group.HARDWARE
    return (
        _feature(
            "peak",
            "log2 PFLOP/s / 2",
            "peak of the dtype at the clock in use",
            group,
            lambda seen: np.log2(seen.peak_flop_per_s / 1e15) / 2,
        ),
        _feature(
            "bandwidth",
            "log2 of 4 TB/s",
            "memory bandwidth",
            group,
            lambda seen: np.log2(seen.on.peak_bytes_per_s / 4e12),
        ),
        _feature("l2", "log2 of 60 MB", "L2 cache", group, lambda seen: np.log2(seen.on.l2_bytes / 6e7)),
        _feature("sms", "of 132, less 1", "streaming multiprocessors", group, lambda seen: seen.on.sm_count / 132 - 1),
        _feature(
            "power_limit",
            "log2 of 700 W",
            "enforced power limit",
            group,
            lambda seen: np.log2(seen.on.power_limit_w / 700),
        ),
        _feature(
            "process",
            "of 4 nm, less 1",
            "process node as the vendor names it",
            group,
            lambda seen: seen.on.process_nm / 4 - 1,
        ),
        _feature(
            "clock",
            "of 1.8 GHz, less 1",
            "SM clock in use",
            group,
            lambda seen: seen.on.boost_clock_mhz * seen.on.clock_share / 1800 - 1,
        ),
        _feature(
            "link",
            "log2 of 450 GB/s",
            "link bandwidth in one direction",
            group,
            lambda seen: np.log2(seen.on.link_bytes_per_s / 450e9),
        ),
        _feature(
            "ridge",
            "log2 of 300 / 2",
            "FLOP per byte at which compute and memory take as long",
            group,
            lambda seen: np.log2(seen.peak_flop_per_s / seen.on.peak_bytes_per_s / 300) / 2,
        ),
        _feature(
            "stacked_memory", "0 or 1", "HBM rather than GDDR or LPDDR", group, lambda seen: seen.on.stacked_memory
        ),
    )


FEATURES: tuple[Feature, ...] = (
    *(_feature(name, "log2 / 8", meaning, Group.SIZE, values.size(name)) for name, meaning in _SIZES),
    *_roofline(),
    *_occupancy(),
    *_numbers(),
    *(_feature(f"is_{family}", "0 or 1", f"family {family}", Group.KIND, values.family(family)) for family in FAMILIES),
    *(
        _feature(f"from_{name}", "0 or 1", f"kernels that {name} launches", Group.RUNTIME, values.source(place))
        for place, name in enumerate(KERNEL_SOURCES)
    ),
    *(
        _feature(
            f"version_{name}",
            "about -1 to 1",
            f"how far along the version of {name} is",
            Group.IMPLEMENTATION,
            values.version(place),
        )
        for place, name in enumerate(KERNEL_SOURCES)
    ),
    *(
        _feature(
            f"by_{name}", "0 or 1", f"the kernel's name says {name}", Group.IMPLEMENTATION, values.implementation(place)
        )
        for place, name in enumerate(IMPLEMENTATIONS)
    ),
    *_hardware(),
)
NAMES = tuple(feature.name for feature in FEATURES)


def columns_of(*groups: Group) -> NDArray[np.int64]:
    """Places of the features of some groups."""
    return np.array([place for place, feature in enumerate(FEATURES) if feature.group in groups], dtype=np.int64)
