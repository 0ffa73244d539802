"""How the values of features are computed from kernels and what they run on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from predictor.deployments import Deployments
from predictor.families import FAMILIES, Family
from predictor.kernel_table import Floats, KernelTable
from predictor.work import Work

SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a feature is computed from: R kernels and the R deployments they run on."""

    table: KernelTable
    work: Work
    on: Deployments
    peak_flop_per_s: Floats  # of each kernel's dtype
    emulated: Floats
    compute_s: Floats
    memory_s: Floats
    link_s: Floats


def log_time(seconds: Floats) -> Floats:
    """Logarithm of microseconds."""
    return np.log(np.maximum(seconds * 1e6, SMALLEST)) / 5


def size(name: str) -> Callable[[Sight], Floats]:
    """Logarithm of one size; 0 where a kernel has no such size."""

    def value(seen: Sight) -> Floats:
        size = np.nan_to_num(seen.table.size(name), nan=1.0)
        return np.log2(np.maximum(size, 1.0)) / 8

    return value


def family(family: Family) -> Callable[[Sight], Floats]:
    """1 for the kernels of a family."""
    return lambda seen: seen.work.of(family).astype(np.float64)


def source(place: int) -> Callable[[Sight], Floats]:
    """1 for the kernels of one runtime."""
    return lambda seen: (seen.on.source == place).astype(np.float64)


def version(place: int) -> Callable[[Sight], Floats]:
    """How far along the runtime's version is; 0 where it is not known."""
    return lambda seen: np.where(seen.on.source == place, seen.on.version, 0.0) / 2


def implementation(place: int) -> Callable[[Sight], Floats]:
    """1 where a kernel's name mentions one word."""

    def value(seen: Sight) -> Floats:
        if seen.table.details is None:
            return np.zeros(len(seen.work.family))
        return ((seen.table.details.implementation >> place) & 1).astype(np.float64)

    return value


def detail(name: str) -> Callable[[Sight], Floats]:
    """A column of the details; 0 for kernels of graphs."""

    def value(seen: Sight) -> Floats:
        if seen.table.details is None:
            return np.zeros(len(seen.work.family))
        return np.asarray(getattr(seen.table.details, name), dtype=np.float64)

    return value


def is_product(seen: Sight) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """[R] whether a kernel is a dense product."""
    return seen.work.of(Family.GEMM, Family.NARROW_GEMM)


def waves_of(seen: Sight, rows: int, columns: int) -> Floats:
    """[R] tiles of a product over streaming multiprocessors."""
    tiles = np.ceil(seen.table.size("m") / rows) * np.ceil(seen.table.size("n") / columns)
    return tiles / seen.on.sm_count


def fill(rows: int, columns: int) -> Callable[[Sight], Floats]:
    """Share of the last wave that has work."""

    def value(seen: Sight) -> Floats:
        waves = waves_of(seen, rows, columns)
        return np.where(is_product(seen), np.nan_to_num(waves / np.ceil(waves)), 0.0)

    return value


def wave_count(rows: int, columns: int) -> Callable[[Sight], Floats]:
    """Logarithm of the waves."""

    def value(seen: Sight) -> Floats:
        waves = np.maximum(waves_of(seen, rows, columns), SMALLEST)
        return np.where(is_product(seen), np.nan_to_num(np.log2(waves)) / 5, 0.0)

    return value


def remainder(name: str, of: int) -> Callable[[Sight], Floats]:
    """Part of a size that does not fill a tile."""
    return lambda seen: np.where(is_product(seen), np.nan_to_num(np.mod(seen.table.size(name), of) / of), 0.0)


_ATTENTION = tuple(family for family in FAMILIES if "attention" in family or "module" in family)


def blocks_of(seen: Sight, heads: str, queries: bool) -> Floats:
    """[R] independent blocks of attention over streaming multiprocessors."""
    count = seen.table.size("batch") * np.nan_to_num(seen.table.size(heads), nan=1.0)
    if queries:
        count = count * np.ceil(np.nan_to_num(seen.table.size("query_tokens"), nan=1.0) / 128)
    return np.maximum(np.nan_to_num(count / seen.on.sm_count), 1e-6)


def block_fill(heads: str, queries: bool) -> Callable[[Sight], Floats]:
    """Share of the last wave of blocks that has work."""

    def value(seen: Sight) -> Floats:
        blocks = blocks_of(seen, heads, queries)
        return np.where(seen.work.of(*_ATTENTION), blocks / np.ceil(blocks), 0.0)

    return value


def block_count(heads: str, queries: bool) -> Callable[[Sight], Floats]:
    """Logarithm of the waves of blocks."""
    return lambda seen: np.where(seen.work.of(*_ATTENTION), np.log2(blocks_of(seen, heads, queries)) / 5, 0.0)


def grouping(seen: Sight) -> Floats:
    """Logarithm of query heads per key-value head."""
    share = np.maximum(np.nan_to_num(seen.table.size("heads") / seen.table.size("kv_heads"), nan=1.0), 1.0)
    return np.where(seen.work.of(*_ATTENTION), np.log2(share) / 4, 0.0)


def per_expert(seen: Sight) -> Floats:
    """Logarithm of the rows of an expert."""
    spread = np.nan_to_num(seen.table.size("expert_parallel"), nan=1.0)
    rows = seen.table.size("tokens") * seen.table.size("top_k") / (seen.table.size("experts") * spread)
    return np.where(
        seen.work.of(Family.EXPERTS, Family.NARROW_EXPERTS),
        np.log2(np.maximum(np.nan_to_num(rows, nan=1.0), 1e-3)) / 5,
        0.0,
    )


def intensity(seen: Sight) -> Floats:
    """Logarithm of arithmetic intensity over the ridge."""
    ratio = np.log(np.maximum(seen.compute_s, SMALLEST)) - np.log(np.maximum(seen.memory_s, SMALLEST))
    return np.where(seen.work.flop > 0, ratio / 5, 0.0)


def windowed(seen: Sight) -> Floats:
    """1 for attention in a sliding window."""
    return np.isfinite(seen.table.size("window_tokens")).astype(np.float64)


def slowest(seen: Sight) -> Floats:
    """Logarithm of the Roofline time."""
    return log_time(np.maximum(np.maximum(seen.compute_s, seen.memory_s), seen.link_s))


def read_to_written(seen: Sight) -> Floats:
    """Logarithm of bytes read over bytes written."""
    read, written = np.maximum(seen.work.read_bytes, 1.0), np.maximum(seen.work.write_bytes, 1.0)
    return (np.log(read) - np.log(written)) / 5
