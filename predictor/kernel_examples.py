"""Examples to learn from: kernels that others measured alone, each with its time and, for some, its power."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.dataset.lessons import SIZES, kernel_lessons
from harness.errors import UnknownHardware
from harness.hardware import find
from harness.kernels import KernelKind
from predictor import deployments
from predictor.deployments import Deployment, Deployments
from predictor.families import Family, index_of
from predictor.features import IMPLEMENTATIONS, Described, described, sight
from predictor.kernel_table import DIMENSIONS, DTYPES, KINDS, Floats, Integers, KernelDetails, KernelTable
from predictor.work import work

_FAMILY_OF_OP = {
    "encoder_attention": Family.ENCODER_ATTENTION,
    "generation_attention": Family.GENERATION_ATTENTION,
    "context_attention": Family.CONTEXT_ATTENTION,
    "mla_generation": Family.LATENT_GENERATION_ATTENTION,
    "generation_mla": Family.LATENT_GENERATION_ATTENTION,
    "mla_context": Family.LATENT_CONTEXT_ATTENTION,
    "context_mla": Family.LATENT_CONTEXT_ATTENTION,
    "mla_context_module": Family.LATENT_CONTEXT_MODULE,
    "mla_generation_module": Family.LATENT_GENERATION_MODULE,
    "dsa_context_module": Family.SPARSE_CONTEXT_MODULE,
    "dsa_generation_module": Family.SPARSE_GENERATION_MODULE,
}
# Of the numbers that aiconfigurator's names of quantisations stand for: (weight bits, activation bits, arithmetic).
_QUANTISATION = {
    "fp8": (8.0, 8.0, "float8"),
    "fp8_block": (8.0, 8.0, "float8"),
    "nvfp4": (4.5, 4.0, "float4"),
    "int4_wo": (4.5, 16.0, "bfloat16"),
    "int8_wo": (8.0, 16.0, "bfloat16"),
    "sq": (8.0, 8.0, "int8"),
    "w4a16_mxfp4": (4.25, 16.0, "bfloat16"),
    "w4a8_mxfp4_mxfp8": (4.25, 8.0, "float8"),
}
_SKEW = {"power_law_1.2": 1.2, "power_law_1.01": 1.01}
_CHUNK_ROWS = 200_000
_COLUMNS = ("duration_s", "power_w", "gpu", "runtime", "shape_key")
_ORIGINS = ("provenances", "sources", "licences")
_KEY_SIZES = tuple(name for name in SIZES if name != "window_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelExamples:
    """N kernels with what was measured of them; every column has length N."""

    described: Described
    on: Deployments
    duration_s: Floats
    power_w: Floats  # NaN: not known
    gpu: "np.ndarray[Any, np.dtype[np.object_]]"  # for splits only, never a feature
    runtime: "np.ndarray[Any, np.dtype[np.object_]]"
    shape_key: "np.ndarray[Any, np.dtype[np.uint64]]"  # equal for equal kernels, whatever they ran on
    provenances: frozenset[str]
    sources: frozenset[str]
    licences: frozenset[str]

    def __len__(self) -> int:
        return len(self.duration_s)


def kernel_examples(folder: Path, *, most_per_gpu: int | None = None) -> KernelExamples | None:
    """The kernels of a dataset that were measured alone on known GPUs; None where there are none."""
    lessons = kernel_lessons(folder, most_per_gpu=most_per_gpu)
    if lessons.num_rows == 0:
        return None
    chunks = [_examples(lessons.slice(start, _CHUNK_ROWS)) for start in range(0, lessons.num_rows, _CHUNK_ROWS)]
    return joined([chunk for chunk in chunks if chunk is not None])


def joined(parts: Sequence[KernelExamples]) -> KernelExamples | None:
    """One after the other; None for none."""
    if not parts:
        return None
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    origins: dict[str, Any] = {name: frozenset().union(*(getattr(part, name) for part in parts)) for name in _ORIGINS}
    return KernelExamples(
        described=_stacked([part.described for part in parts], Described),
        on=_stacked([part.on for part in parts], Deployments),
        **columns,
        **origins,
    )


def taken(examples: KernelExamples, rows: Integers) -> KernelExamples:
    """Some of them, in the order of ``rows``."""
    columns: dict[str, Any] = {name: getattr(examples, name)[rows] for name in _COLUMNS}
    origins: dict[str, Any] = {name: getattr(examples, name) for name in _ORIGINS}
    return KernelExamples(
        described=Described(**{name: getattr(examples.described, name)[rows] for name in Described.__slots__}),
        on=deployments.take(examples.on, rows),
        **columns,
        **origins,
    )


def _stacked(parts: Sequence[Any], cls: Any) -> Any:
    return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__})


def _examples(lessons: pa.Table) -> KernelExamples | None:
    known = _known_gpus(lessons["gpu"])
    lessons = lessons.filter(pc.is_in(lessons["gpu"], pa.array(known, pa.string())))
    if lessons.num_rows == 0:
        return None
    table = kernel_table(lessons)
    done, on = work(table), _deployments(lessons)
    return KernelExamples(
        described=described(sight(table, done, on)),
        on=on,
        duration_s=_floats(lessons, "duration_s"),
        power_w=_floats(lessons, "power_w"),
        gpu=_texts(lessons, "gpu"),
        runtime=_texts(lessons, "runtime"),
        shape_key=_shape_keys(lessons, done.family),
        provenances=frozenset(pc.unique(lessons["provenance"]).to_pylist()),
        sources=frozenset(pc.unique(lessons["source"]).to_pylist()),
        licences=frozenset(name or "none stated" for name in pc.unique(lessons["licence"]).to_pylist()),
    )


def _known_gpus(names: pa.ChunkedArray) -> list[str]:
    known = []
    for name in pc.unique(names).to_pylist():
        try:
            hardware = find(name)
        except UnknownHardware:
            continue  # a device of somebody's --hardware file: its attributes are not here to learn from
        if hardware.peak_bytes_per_s and hardware.board_power_w:
            known.append(name)
    return known


def kernel_table(lessons: pa.Table) -> KernelTable:
    """The kernels as a table, each a pass of its own."""
    rows = lessons.num_rows
    quantisation = _first(lessons, ("gemm_dtype", "moe_dtype", "gemm_type"))
    stated = _texts(lessons, "dtype")
    arithmetic = [
        _QUANTISATION[name][2] if name in _QUANTISATION else (own if own in DTYPES else "bfloat16")
        for name, own in zip(quantisation, stated, strict=True)
    ]
    kinds = _texts(lessons, "kind")
    flop = np.nan_to_num(_floats(lessons, "flop"))
    return KernelTable(
        pass_index=np.arange(rows),
        kind=np.array([KINDS.index(KernelKind(kind)) for kind in kinds], dtype=np.int64),
        dtype=np.array([DTYPES.index(name) for name in arithmetic], dtype=np.int64),
        launches=np.ones(rows),
        flop=flop,
        read_bytes=np.nan_to_num(_floats(lessons, "read_bytes")),
        write_bytes=np.nan_to_num(_floats(lessons, "write_bytes")),
        weight_bytes=np.zeros(rows),
        link_bytes=_link_bytes(lessons, kinds),
        sizes=_sizes(lessons, kinds),
        edges=np.zeros((2, 0), dtype=np.int64),
        passes=rows,
        details=_details(lessons, quantisation),
    )


def _sizes(lessons: pa.Table, kinds: Any) -> Floats:
    given = {name: _floats(lessons, name) for name in SIZES}
    expert_parallel = np.where(np.isnan(given["expert_parallel"]), 1.0, given["expert_parallel"])
    tensor_parallel = np.where(np.isnan(given["tensor_parallel"]), 1.0, given["tensor_parallel"])
    given["experts"] = given["experts"] / expert_parallel
    given["intermediate"] = given["intermediate"] / tensor_parallel
    products = np.isin(kinds, [str(KernelKind.GEMM)]) & np.isfinite(given["batch"])
    given["matrices"] = np.where(products, given["batch"], np.nan)
    given["batch"] = np.where(products, np.nan, given["batch"])
    absent = np.full(lessons.num_rows, np.nan)
    return np.stack([given.get(name, absent) for name in DIMENSIONS], axis=1)


def _link_bytes(lessons: pa.Table, kinds: Any) -> Floats:
    sent = np.nan_to_num(_floats(lessons, "link_bytes"))
    moved = 2 * _floats(lessons, "tokens") * _floats(lessons, "top_k") * _floats(lessons, "hidden")
    exchanged = (kinds == str(KernelKind.ALL_TO_ALL)) & (sent == 0) & np.isfinite(moved)
    return np.where(exchanged, moved, sent)


def _details(lessons: pa.Table, quantisation: Sequence[str]) -> KernelDetails:
    sources = [
        f"{source or ''} {backend or ''}".lower()
        for source, backend in zip(_texts(lessons, "kernel_source"), _texts(lessons, "backend"), strict=True)
    ]
    ops, stated = _texts(lessons, "op"), _texts(lessons, "dtype")
    bits = [_QUANTISATION.get(name, (16.0, 16.0, "")) for name in quantisation]
    eight = stated == "float8"
    attends = _texts(lessons, "kind") == str(KernelKind.ATTENTION)
    activation = np.where(attends & eight, 8.0, [entry[1] for entry in bits])
    return KernelDetails(
        family=np.array([index_of(_FAMILY_OF_OP[op]) if op in _FAMILY_OF_OP else -1 for op in ops], dtype=np.int64),
        implementation=np.array([_mentions(text) for text in sources], dtype=np.int64),
        weight_bits=np.array([entry[0] for entry in bits]),
        activation_bits=activation,
        cache_bits=np.where(_texts(lessons, "kv_cache_dtype") == "fp8", 8.0, 16.0),
        block_scaled=np.array([float(name in {"fp8_block", "nvfp4"}) for name in quantisation]),
        routing_skew=np.array([_SKEW.get(name, 0.0) for name in _texts(lessons, "distribution")]),
    )


def _mentions(text: str) -> int:
    return sum(1 << place for place, word in enumerate(IMPLEMENTATIONS) if word in text)


def _deployments(lessons: pa.Table) -> Deployments:
    names = ("gpu", "runtime", "runtime_version")
    keys = list(zip(*(_texts(lessons, name) for name in names), _floats(lessons, "power_limit_w"), strict=True))
    clean = [(*key[:3], None if np.isnan(key[3]) else float(key[3])) for key in keys]
    distinct = list(dict.fromkeys(clean))
    unique = deployments.columns(
        [
            Deployment(
                hardware=find(gpu), runtime=runtime or "", runtime_version=version, power_limit_w=limit, alone=True
            )
            for gpu, runtime, version, limit in distinct
        ]
    )
    places = {key: place for place, key in enumerate(distinct)}
    return deployments.take(unique, np.array([places[key] for key in clean], dtype=np.int64))


def _shape_keys(lessons: pa.Table, family: Integers) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    columns = [family, *(np.nan_to_num(_floats(lessons, name), nan=-1.0) for name in _KEY_SIZES)]
    keys = np.zeros(lessons.num_rows, dtype=np.uint64)
    for column in columns:  # FNV-1a over 64-bit words: the same key in every process
        keys = (keys ^ np.asarray(column, dtype=np.float64).view(np.uint64)) * np.uint64(1099511628211)
        keys ^= keys >> np.uint64(29)
    return keys


def _first(lessons: pa.Table, names: Sequence[str]) -> list[str]:
    texts: list[str] = pc.coalesce(*(lessons[name] for name in names), pa.scalar("")).to_pylist()
    return texts


def _floats(lessons: pa.Table, name: str) -> Floats:
    values = pc.cast(lessons[name], pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)


def _texts(lessons: pa.Table, name: str) -> "np.ndarray[Any, np.dtype[np.object_]]":
    return np.asarray(lessons[name].to_numpy(zero_copy_only=False), dtype=object)
