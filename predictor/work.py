"""What kernels have to do at least: FLOP, bytes and link bytes by one rule for graphs and for imported kernels.

Attention is counted as it runs, not as it is drawn: of a causal square the half, of a window the window. Latent and
sparse attention modules are those of DeepSeek-V3 (arXiv 2412.19437) and V3.2, the only ones that were measured whole.
"""

from dataclasses import dataclass

import numpy as np

from predictor.families import Family, families, index_of
from predictor.kernel_table import DTYPES, Floats, Integers, KernelTable

_BITS = {"float32": 32, "tf32": 32, "float16": 16, "bfloat16": 16, "float8": 8, "int8": 8, "float4": 4.5}
_DTYPE_BITS = np.array([_BITS[name] for name in DTYPES])

_HIDDEN, _LATENT, _ROTATED, _NOPE, _VALUE, _QUERY_RANK = 7168, 512, 64, 128, 128, 1536
_INDEX_HEADS, _INDEX_WIDTH, _INDEX_KEYS = 64, 128, 2048  # DeepSeek-V3.2's indexer and the keys it keeps
_CACHED = _LATENT + _ROTATED
_UNBOUNDED = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of R kernels, per launch; every column has length R."""

    family: Integers  # index into FAMILIES
    dtype: Integers  # index into DTYPES: of the arithmetic
    launches: Floats
    flop: Floats
    read_bytes: Floats
    write_bytes: Floats
    link_bytes: Floats
    weight_bits: Floats
    activation_bits: Floats
    cache_bits: Floats
    keys: Floats  # attended by all queries of a sequence together; 0: no attention

    @property
    def traffic_bytes(self) -> Floats:
        """[R] read and written."""
        return self.read_bytes + self.write_bytes

    def of(self, *wanted: Family) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """[R] whether a kernel is of one of some families."""
        return np.isin(self.family, [index_of(family) for family in wanted])


def work(table: KernelTable) -> Work:
    """What every kernel of a table has to do in one launch."""
    family = families(table)
    bits = _bits(table)
    counter = _Counter(table, family, *bits)
    flop, read, write = counter.counts()
    return Work(
        family=family,
        dtype=table.dtype,
        launches=table.launches,
        flop=flop,
        read_bytes=read,
        write_bytes=write,
        link_bytes=table.link_bytes / table.launches,
        weight_bits=bits[0],
        activation_bits=bits[1],
        cache_bits=bits[2],
        keys=counter.keys,
    )


def _bits(table: KernelTable) -> tuple[Floats, Floats, Floats]:
    """Of weights, activations and KV cache: stated, or by the bytes and the arithmetic of a graph's kernel."""
    if table.details is not None:
        return table.details.weight_bits, table.details.activation_bits, table.details.cache_bits
    arithmetic = _DTYPE_BITS[table.dtype]
    numbers = table.launches * table.size("n") * table.size("k")
    stated = 8 * table.weight_bytes / np.where(numbers > 0, numbers, np.nan)
    gemm = table.weight_bytes > 0
    weights = np.where(gemm & np.isfinite(stated), stated, arithmetic)
    # A mixture reads its touched experts only; its weights are as wide as its arithmetic unless the bytes say less.
    held = table.launches * 3 * table.size("experts") * table.size("hidden") * table.size("intermediate")
    share = 8 * table.weight_bytes / np.where(held > 0, held * _touched(table), np.nan)
    weights = np.where(np.isfinite(share) & (share > 0), share, weights)
    return np.minimum(weights, 32.0), arithmetic, np.minimum(np.maximum(arithmetic, 16.0), 16.0)


def _touched(table: KernelTable) -> Floats:
    """[R] share of the experts that some token goes to, under even routing; NaN where there are none."""
    spread = np.where(np.isnan(table.size("expert_parallel")), 1.0, table.size("expert_parallel"))
    chosen = table.size("top_k") / (table.size("experts") * spread)
    return 1 - (1 - np.minimum(chosen, 1.0)) ** table.size("tokens")


class _Counter:
    def __init__(
        self, table: KernelTable, family: Integers, weight_bits: Floats, activation_bits: Floats, cache_bits: Floats
    ) -> None:
        self._table, self._family = table, family
        self._weight, self._activation, self._cache = weight_bits / 8, activation_bits / 8, cache_bits / 8
        self._flop = table.flop / table.launches
        self._read = table.read_bytes / table.launches
        self._write = table.write_bytes / table.launches
        self.keys = self._keys()

    def counts(self) -> tuple[Floats, Floats, Floats]:
        """FLOP, bytes read, bytes written; what has no rule of its own keeps what it was counted with."""
        self._products()
        self._attention()
        self._latent()
        self._modules()
        self._experts()
        return self._flop, self._read, self._write

    def _size(self, name: str) -> Floats:
        return self._table.size(name)

    def _keys(self) -> Floats:
        query, context, window = self._size("query_tokens"), self._size("context_tokens"), self._size("window_tokens")
        past = context - query
        window = np.where(np.isnan(window), _UNBOUNDED, window)
        uncut = np.clip(window - past, 0, query)  # queries that see everything before them
        keys = uncut * past + uncut * (uncut + 1) / 2 + (query - uncut) * np.minimum(window, context)
        return np.nan_to_num(keys, nan=0.0)

    def _put(self, families_: tuple[Family, ...], flop: Floats, read: Floats, write: Floats) -> None:
        mask = np.isin(self._family, [index_of(family) for family in families_])
        mask &= np.isfinite(flop) & np.isfinite(read) & np.isfinite(write)
        self._flop = np.where(mask, flop, self._flop)
        self._read = np.where(mask, read, self._read)
        self._write = np.where(mask, write, self._write)

    def _products(self) -> None:
        m, n, k = self._size("m"), self._size("n"), self._size("k")
        self._put(
            (Family.GEMM, Family.NARROW_GEMM), 2 * m * n * k, m * k * self._activation + n * k * self._weight, 2 * m * n
        )

    def _attention(self) -> None:
        batch, query, context = self._size("batch"), self._size("query_tokens"), self._size("context_tokens")
        heads, kv_heads, width = self._size("heads"), self._size("kv_heads"), self._size("head_dim")
        window = np.where(np.isnan(self._size("window_tokens")), _UNBOUNDED, self._size("window_tokens"))
        seen = np.minimum(context, window + query)
        asked = batch * query * heads * width
        stored = 2 * batch * seen * kv_heads * width
        flop = 4 * batch * heads * width * self.keys
        self._put((Family.CONTEXT_ATTENTION,), flop, asked * self._activation + stored * 2, 2 * asked)
        self._put((Family.GENERATION_ATTENTION,), flop, asked * self._activation + stored * self._cache, 2 * asked)
        square = 4 * batch * heads * width * query * context
        self._put((Family.ENCODER_ATTENTION,), square, 2 * (asked + stored), 2 * asked)

    def _latent(self) -> None:
        batch, query, context = self._size("batch"), self._size("query_tokens"), self._size("context_tokens")
        heads = self._size("heads")
        self._put(
            (Family.LATENT_GENERATION_ATTENTION,),
            2 * batch * heads * (_CACHED + _LATENT) * context,
            batch * context * _CACHED * self._cache + 2 * batch * heads * _CACHED,
            2 * batch * heads * _LATENT,
        )
        per_key = _NOPE + _ROTATED + _VALUE
        self._put(
            (Family.LATENT_CONTEXT_ATTENTION,),
            2 * batch * heads * per_key * self.keys,
            2 * batch * heads * (query * (_NOPE + _ROTATED) + context * per_key),
            2 * batch * query * heads * _VALUE,
        )

    def _modules(self) -> None:
        batch, query, context = self._size("batch"), self._size("query_tokens"), self._size("context_tokens")
        heads = self._size("heads")
        tokens = batch * query
        per_key = _NOPE + _ROTATED + _VALUE
        weights = (
            _HIDDEN * (_QUERY_RANK + _CACHED)
            + _QUERY_RANK * heads * (_NOPE + _ROTATED)
            + _LATENT * heads * (_NOPE + _VALUE)
            + heads * _VALUE * _HIDDEN
        )
        sparse = np.isin(
            self._family, [index_of(Family.SPARSE_CONTEXT_MODULE), index_of(Family.SPARSE_GENERATION_MODULE)]
        )
        indexed = np.where(sparse, 2 * batch * _INDEX_HEADS * _INDEX_WIDTH * self.keys, 0)
        keys = np.where(sparse, np.minimum(self.keys, query * _INDEX_KEYS), self.keys)
        written = 2 * tokens * (_HIDDEN + heads * per_key)
        self._put(
            (Family.LATENT_CONTEXT_MODULE, Family.SPARSE_CONTEXT_MODULE),
            2 * tokens * weights + 2 * batch * heads * per_key * keys + indexed,
            weights * self._weight + 6 * tokens * _HIDDEN + batch * context * _CACHED * self._cache,
            2 * written,
        )
        seen = np.where(sparse, np.minimum(context, _INDEX_KEYS), context)
        index_bytes = np.where(sparse, batch * context * (_INDEX_WIDTH + 4), 0)
        self._put(
            (Family.LATENT_GENERATION_MODULE, Family.SPARSE_GENERATION_MODULE),
            2 * tokens * weights + 2 * batch * heads * (_CACHED + _LATENT) * seen + indexed,
            weights * self._weight + batch * seen * _CACHED * self._cache + index_bytes,
            written,
        )

    def _experts(self) -> None:
        tokens, experts, top_k = self._size("tokens"), self._size("experts"), self._size("top_k")
        hidden, inner = self._size("hidden"), self._size("intermediate")
        spread = np.where(np.isnan(self._size("expert_parallel")), 1.0, self._size("expert_parallel"))
        rows = top_k * tokens / spread
        read = _touched(self._table) * experts * 3 * hidden * inner * self._weight + tokens * hidden * self._activation
        self._put(
            (Family.EXPERTS, Family.NARROW_EXPERTS), 6 * rows * hidden * inner, read, 2 * rows * (hidden + 3 * inner)
        )
