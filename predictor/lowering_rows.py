"""Operators of a served model as kernels of one rank, in 16 bits; counts as ``harness.tracing`` makes them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from harness.kernels import KernelKind, Phase
from predictor.lowering_ops import Deployment, Role, ServedModel, ServedOp
from predictor.lowering_sums import (
    ALL_TOKENS,
    BYTES,
    ONE,
    SEQUENCES,
    STATE_BYTES,
    TOKENS,
    Row,
    Sum,
    by_head,
    graph_of,
    plus,
    product,
    times,
)
from predictor.templates_basis import Basis, Curve
from predictor.templates_graph import PhaseGraph, Region

_INDEX_BYTES = 8
_NORM_FLOP = 4  # for each number: square, sum, scale, weight


def served_graph(served: ServedModel, phase: Phase, deployment: Deployment) -> PhaseGraph:
    """The kernels of one rank, as a function of a pass."""
    rows: list[Row] = []
    spans: list[tuple[int, int]] = []
    maker = _Rows(phase, deployment)
    for op in served.ops:
        start = len(rows)
        rows.extend(maker.rows(op))
        spans.append((start, len(rows)))
    inside = [(index, index + 1) for start, end in spans for index in range(start, end - 1)]
    between = [
        (spans[source][1] - 1, spans[target][0])
        for source, target in served.edges
        if spans[source][0] < spans[source][1] and spans[target][0] < spans[target][1]
    ]
    return PhaseGraph(
        regions=(Region(last_context=None, single=None, graph=graph_of(rows, sorted({*inside, *between}))),)
    )


class _Rows:
    """Makes the rows of operators on one rank of a deployment."""

    def __init__(self, phase: Phase, deployment: Deployment) -> None:
        self._phase, self._at = phase, deployment
        self._makers: Mapping[Role, Callable[[ServedOp], Iterator[Row]]] = {
            Role.EMBEDDING: self._embedding,
            Role.NORM: self._norm,
            Role.LINEAR: self._linear,
            Role.LATENT: self._latent,
            Role.HEAD: self._head,
            Role.EXPERTS: self._experts,
            Role.ATTENTION: self._attention,
            Role.CACHE: self._cache,
            Role.INDEXER: self._indexer,
            Role.POINTWISE: self._pointwise,
            Role.SCAN: self._scan,
        }

    def rows(self, op: ServedOp) -> Iterator[Row]:
        """The kernels of one operator, in order."""
        return self._makers[op.role](op)

    @property
    def _ranks(self) -> int:
        return self._at.tensor_parallel

    def _n(self, op: ServedOp, kv_heads: int = 0) -> float:
        """Columns on one rank."""
        copies = min(self._ranks, kv_heads) if kv_heads else self._ranks
        return op.n_whole + op.n_cut / self._ranks + op.n_kv / copies

    def _k(self, op: ServedOp) -> float:
        return op.k_whole + op.k_cut / self._ranks

    def _embedding(self, op: ServedOp) -> Iterator[Row]:
        picked = {TOKENS: BYTES * op.n_whole}
        yield Row(
            kind=KernelKind.EMBEDDING,
            launches=op.launches,
            read={TOKENS: BYTES * op.n_whole + _INDEX_BYTES},
            write=picked,
            weights=picked,
            sizes={"tokens": {TOKENS: 1}, "hidden": {ONE: op.n_whole}},
        )
        if op.reduced:
            yield from self._all_reduce(op.launches, {TOKENS: op.n_whole})

    def _norm(self, op: ServedOp) -> Iterator[Row]:
        numbers = {TOKENS: float(op.n_whole)}
        moved = times(numbers, BYTES * (1 + op.residuals / op.launches))
        weights = {ONE: float(BYTES * op.n_whole)}
        yield Row(
            kind=KernelKind.NORM,
            launches=op.launches,
            flop=times(numbers, _NORM_FLOP + op.residuals / op.launches),
            read=plus(moved, weights),
            write=moved,
            weights=weights,
            sizes={"elements": numbers},
        )

    def _linear(self, op: ServedOp) -> Iterator[Row]:
        n, k = self._n(op, op.kv_heads), self._k(op)
        yield product(op, TOKENS, n, k)
        if op.reduced:
            yield from self._all_reduce(op.launches, {TOKENS: n})

    def _latent(self, op: ServedOp) -> Iterator[Row]:
        """Opened up for new tokens in prefill; in decode, one matrix for each head into the latent space."""
        if self._phase is Phase.PREFILL:
            yield from self._linear(op)
            return
        heads = op.heads / self._ranks
        yield by_head(op, heads, n=op.k_whole, k=op.head_dim)

    def _head(self, op: ServedOp) -> Iterator[Row]:
        columns = op.n_whole + op.n_cut
        local = -(-columns // self._ranks) if op.n_cut else columns
        yield product(op, SEQUENCES, local, self._k(op))
        if op.n_cut and self._ranks > 1:
            share = (self._ranks - 1) / self._ranks
            yield Row(
                kind=KernelKind.ALL_GATHER,
                launches=op.launches,
                read={SEQUENCES: BYTES * local},
                write={SEQUENCES: BYTES * columns},
                link={SEQUENCES: BYTES * columns * share},
                sizes={"elements": {SEQUENCES: local}, "ranks": {ONE: self._ranks}},
            )
        yield Row(
            kind=KernelKind.ELEMENTWISE,
            launches=op.launches,
            flop={SEQUENCES: columns},
            read={SEQUENCES: BYTES * columns},
            write={SEQUENCES: _INDEX_BYTES},
            sizes={"elements": {SEQUENCES: columns}},
        )

    def _experts(self, op: ServedOp) -> Iterator[Row]:
        router = replace(
            op, n_whole=op.experts, k_whole=op.n_whole, n_cut=0, k_cut=0, stored=False, reduced=False, bias=False
        )
        yield product(router, TOKENS, op.experts, op.n_whole)
        yield Row(
            kind=KernelKind.ELEMENTWISE,
            launches=2 * op.launches,  # the choice, and the order of tokens by expert
            flop={TOKENS: 2 * op.experts},
            read={TOKENS: BYTES * op.experts},
            write={TOKENS: _INDEX_BYTES * op.top_k},
            sizes={"elements": {TOKENS: op.experts}},
        )
        if self._at.replicas > 1:
            yield self._exchange(op)
        yield self._grouped(op)
        if self._at.replicas > 1:
            yield self._exchange(op)
        elif self._ranks > 1:
            yield from self._all_reduce(op.launches, {TOKENS: op.n_whole})

    def _grouped(self, op: ServedOp) -> Row:
        """All products of experts as one: each token goes to ``top_k`` of them, spread evenly over ranks."""
        tokens = ALL_TOKENS if self._at.replicas > 1 else TOKENS
        spread = self._at.expert_parallel
        width = op.k_cut / self._at.expert_tensor_parallel
        weights = BYTES * op.matrices * op.n_whole * width * op.experts / spread
        touched = Basis(curve=Curve.TOUCHED, parameters=(op.experts, op.top_k))
        numbers = {tokens: op.n_whole * min(1.0, op.top_k / spread)}
        return Row(
            kind=KernelKind.MOE_GEMM,
            launches=op.launches,
            flop={tokens: 2.0 * op.top_k / spread * op.matrices * op.n_whole * width},
            read=plus(times(numbers, BYTES), {touched: weights}),
            write=times(numbers, BYTES),
            weights={touched: weights},
            sizes={
                "tokens": {tokens: 1},
                "experts": {ONE: op.experts / spread},
                "expert_parallel": {ONE: spread},
                "top_k": {ONE: op.top_k},
                "hidden": {ONE: op.n_whole},
                "intermediate": {ONE: width},
            },
            experts=True,
        )

    def _exchange(self, op: ServedOp) -> Row:
        """Tokens go to the ranks of their experts, or come back: to as many as there are, ``top_k`` at most."""
        ranks = self._at.expert_parallel
        numbers = op.n_whole * min(op.top_k, ranks)
        return Row(
            kind=KernelKind.ALL_TO_ALL,
            launches=op.launches,
            read={TOKENS: BYTES * numbers},
            write={TOKENS: BYTES * numbers},
            link={TOKENS: BYTES * numbers * (ranks - 1) / ranks},
            sizes={"elements": {TOKENS: numbers}, "ranks": {ONE: ranks}},
        )

    def _attention(self, op: ServedOp) -> Iterator[Row]:
        heads = op.heads / (self._ranks if op.cut_heads else 1)
        kv_heads = op.kv_heads / (min(self._ranks, op.kv_heads) if op.cut_heads else 1)
        key, value, latent = op.head_dim, op.value_dim, op.latent and self._phase is Phase.DECODE
        if latent:
            kv_heads, key, value = 1, op.latent + op.rotated, op.latent
        most = op.window or op.selected
        seen: dict[str, object] = {"curve": Curve.SEEN, "parameters": (most,)} if most else {"c": 1}
        pairs, visible = Basis(b=1, q=1, **seen), Basis(b=1, **seen)  # type: ignore[arg-type]
        prefill = self._phase is Phase.PREFILL
        cached = Basis(b=1, c=1) if prefill else visible  # a prompt's keys are all read, by one query or another
        stored = kv_heads * (key if latent else key + value)
        yield Row(
            kind=KernelKind.ATTENTION,
            launches=op.launches,
            flop={pairs: 2.0 * heads * (key + value)},
            read=plus({TOKENS: BYTES * heads * key}, {cached: BYTES * stored}),
            write={TOKENS: BYTES * heads * value},
            sizes=self._attention_sizes(op, heads, kv_heads),
        )
        if latent:
            yield by_head(op, heads, n=op.value_dim, k=op.latent)

    def _attention_sizes(self, op: ServedOp, heads: float, kv_heads: float) -> dict[str, Sum]:
        """Latent attention has the sizes of its cache, which all heads share, in both phases."""
        sizes: dict[str, Sum] = {
            "batch": {SEQUENCES: 1},
            "query_tokens": {Basis(q=1): 1},
            "context_tokens": {Basis(c=1): 1},
            "heads": {ONE: heads},
            "kv_heads": {ONE: 1 if op.latent else kv_heads},
            "head_dim": {ONE: op.latent + op.rotated if op.latent else op.head_dim},
        }
        most = op.window or op.selected
        return sizes | ({"window_tokens": {ONE: most}} if most else {})

    def _indexer(self, op: ServedOp) -> Iterator[Row]:
        """On every rank alike: heads of the indexer are not shared. The choice itself is one more kernel."""
        pairs, keys = Basis(b=1, q=1, c=1), Basis(b=1, c=1)
        width = op.heads * op.head_dim
        yield Row(
            kind=KernelKind.GEMM,
            launches=op.launches,
            flop={pairs: 2.0 * width},
            read=plus({TOKENS: float(BYTES * width)}, {keys: float(BYTES * op.head_dim)}),
            write={pairs: STATE_BYTES},
            sizes={
                "matrices": {SEQUENCES: 1},
                "m": {Basis(q=1): op.heads},
                "n": {Basis(c=1): 1},
                "k": {ONE: op.head_dim},
            },
        )
        yield Row(
            kind=KernelKind.ELEMENTWISE,
            launches=op.launches,
            flop={pairs: 1},
            read={pairs: STATE_BYTES},
            write={TOKENS: _INDEX_BYTES},
            sizes={"elements": {pairs: 1}},
        )

    def _cache(self, op: ServedOp) -> Iterator[Row]:
        numbers = self._n(op, op.kv_heads)
        yield Row(
            kind=KernelKind.ELEMENTWISE,
            launches=op.launches,
            flop={TOKENS: 3 * numbers},  # two products and a sum
            read={TOKENS: BYTES * numbers},
            write={TOKENS: BYTES * numbers},
            sizes={"elements": {TOKENS: numbers}},
        )

    def _pointwise(self, op: ServedOp) -> Iterator[Row]:
        read, written = self._k(op), self._n(op)
        yield Row(
            kind=KernelKind.ACTIVATION,
            launches=op.launches,
            flop={TOKENS: 2 * written},
            read={TOKENS: BYTES * read},
            write={TOKENS: BYTES * written},
            sizes={"elements": {TOKENS: written}},
        )

    def _scan(self, op: ServedOp) -> Iterator[Row]:
        decode = self._phase is Phase.DECODE
        flop = (op.flop_per_step if decode else op.flop_per_token) / self._ranks
        state = {SEQUENCES: STATE_BYTES * op.state_elements / self._ranks}
        read, written = {TOKENS: BYTES * self._k(op)}, {TOKENS: BYTES * self._n(op)}
        yield Row(
            kind=KernelKind.SCAN,
            launches=op.launches,
            flop={TOKENS: flop},
            read=plus(read, state) if decode else read,
            write=plus(written, state),
            sizes={"batch": {SEQUENCES: 1}, "tokens": {TOKENS: 1}, "elements": {TOKENS: self._n(op)}},
        )

    def _all_reduce(self, launches: int, numbers: Sum) -> Iterator[Row]:
        ranks = self._ranks
        if ranks == 1:
            return
        share = (ranks - 1) / ranks
        yield Row(
            kind=KernelKind.ALL_REDUCE,
            launches=launches,
            flop=times(numbers, share),
            read=times(numbers, BYTES),
            write=times(numbers, BYTES),
            link=times(numbers, 2 * share * BYTES),
            sizes={"elements": numbers, "ranks": {ONE: ranks}},
        )
