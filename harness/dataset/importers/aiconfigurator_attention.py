"""Attention and scans among aiconfigurator's files.

Attention counts the full square of query and context, masked or not, as ``harness.tracing`` does; the bound below it
counts what a causal mask leaves. In decode, ``step`` is the number of tokens in the KV cache: with the new one for
vLLM until 0.22, without it for TensorRT-LLM and SGLang by their collectors, a token that is not added here. Of a whole
module (projections, indexer and attention in one time) only sizes are given, no counts.
"""

from harness.dataset.importers.aiconfigurator_kinds import (
    Bound,
    FileKind,
    Kernel,
    Size,
    activation_bits,
    whole_bytes,
)
from harness.kernels import KernelKind

_Q, _KV = activation_bits("attn_dtype"), activation_bits("kv_cache_dtype")
_SEEN_PAIRS = "(isl * least(isl, {window}) - least(isl, {window}) * (least(isl, {window}) - 1) // 2)"


def _sizes(query: str, context: str, *, heads: bool = True) -> tuple[Size, ...]:
    found = (
        Size(name="batch", sql="batch_size"),
        Size(name="query_tokens", sql=query),
        Size(name="context_tokens", sql=context),
        Size(name="heads", sql="num_heads"),
    )
    more = (Size(name="kv_heads", sql="num_key_value_heads"), Size(name="head_dim", sql="head_dim"))
    return (*found, *more) if heads else found


def _context(window: str | None) -> Kernel:
    """Prefill: every query sees the keys before it, or the last ``window`` of them."""
    widest = f"(CASE WHEN {window} > 0 THEN {window} ELSE isl END)" if window else "isl"
    pairs = _SEEN_PAIRS.format(window=widest)
    tokens = "batch_size::HUGEINT * isl * head_dim"
    read = f"{tokens} * (num_heads + 2 * num_key_value_heads) * {_Q}"
    return Kernel(
        kind=KernelKind.ATTENTION,
        op="op_name",
        dtype="attn_dtype",
        sizes=_sizes("isl", "isl"),
        window_tokens=f"CASE WHEN {window} BETWEEN 1 AND isl - 1 THEN {window} ELSE 0 END" if window else None,
        flop=f"4 * {tokens} * num_heads * least(isl, {widest})",
        read_bytes=whole_bytes(read),
        write_bytes=f"2 * {tokens} * num_heads",
        bound=Bound(
            flop=f"4::HUGEINT * batch_size * num_heads * head_dim * {pairs}",
            bytes=f"{whole_bytes(read)} + {whole_bytes(f'{tokens} * num_heads * least(16, {_Q})')}",
        ),
        fastest_dtypes=("kv_cache_dtype",),
    )


def _generation(window: str | None) -> Kernel:
    """Decode: one query for each sequence, against its cache or the last ``window`` tokens of it."""
    seen = f"CASE WHEN {window} > 0 THEN least(step, {window}) ELSE step END" if window else "step"
    heads = "batch_size::HUGEINT * head_dim"
    return Kernel(
        kind=KernelKind.ATTENTION,
        op="op_name",
        dtype="attn_dtype",
        sizes=_sizes("isl", "step"),
        window_tokens=f"CASE WHEN {window} BETWEEN 1 AND step - 1 THEN {window} ELSE 0 END" if window else None,
        flop=f"4 * {heads} * num_heads * isl * ({seen})",
        read_bytes=whole_bytes(f"{heads} * (num_heads * {_Q} + 2 * num_key_value_heads * ({seen}) * {_KV})"),
        write_bytes=f"2 * {heads} * num_heads",
        fastest_dtypes=("kv_cache_dtype",),
    )


def attention_kind(kind: str, *, windowed: bool) -> FileKind:
    """The same kernels stand in files with a column for the window and, older, without one."""
    make = _context if kind == "context_attention_perf" else _generation
    return FileKind(kernels=(make("window_size" if windowed else None),))


_ENCODER = Kernel(
    kind=KernelKind.ATTENTION,
    op="op_name",
    dtype="attn_dtype",
    sizes=(
        *_sizes("isl", "isl", heads=False),
        Size(name="kv_heads", sql="num_heads"),
        Size(name="head_dim", sql="head_dim"),
    ),
    flop="4::HUGEINT * batch_size * isl * isl * num_heads * head_dim",
    read_bytes=whole_bytes(f"3::HUGEINT * batch_size * isl * num_heads * head_dim * {_Q}"),
    write_bytes="2::HUGEINT * batch_size * isl * num_heads * head_dim",
)


def _mla(*, decode: bool) -> Kernel:
    """Multi-head latent attention without its projections, ``num_heads`` being those of one rank.

    Prefill computes heads of 192 (128 and 64 rotated) against values of 128; decode, absorbed, works on the latent
    cache of 576 (512 and 64), which all heads share. Widths: DeepSeek-V2, arXiv 2405.04434, section 2.1 and table of
    hyper-parameters.
    """
    bits, cache = activation_bits("mla_dtype"), activation_bits("kv_cache_dtype")
    if decode:
        return Kernel(
            kind=KernelKind.ATTENTION,
            op="op_name",
            dtype="mla_dtype",
            sizes=_sizes("isl", "step", heads=False),
            flop="2::HUGEINT * batch_size * num_heads * isl * step * (576 + 512)",
            read_bytes=whole_bytes(f"batch_size * 576 * (num_heads * isl * {bits} + step * {cache})"),
            write_bytes="2 * batch_size * num_heads * isl * 512",
            fastest_dtypes=("kv_cache_dtype",),
        )
    read = whole_bytes(f"batch_size * isl * num_heads * (192 + 192 + 128) * {bits}")
    write = "2 * batch_size * isl * num_heads * 128"
    return Kernel(
        kind=KernelKind.ATTENTION,
        op="op_name",
        dtype="mla_dtype",
        sizes=_sizes("isl", "isl", heads=False),
        flop="2::HUGEINT * batch_size * num_heads * isl * isl * (192 + 128)",
        read_bytes=read,
        write_bytes=write,
        bound=Bound(
            flop="batch_size::HUGEINT * num_heads * isl * (isl + 1) * (192 + 128)",
            bytes=f"batch_size * isl * num_heads * 128 * {bits} / 8",  # up-projection may be part of the kernel
        ),
        fastest_dtypes=("kv_cache_dtype",),
    )


def _module(query: str, context: str, *, prefix: str = "", kind: KernelKind = KernelKind.ATTENTION) -> FileKind:
    kernel = Kernel(
        kind=kind, op=f"'{prefix}' || op_name", dtype="mla_dtype", sizes=_sizes(query, context, heads=False)
    )
    return FileKind(kernels=(kernel,))


def _scan(state: str, dims: tuple[str, ...]) -> FileKind:
    """Linear attention: the kernel's own name stands in ``kernel_source``, and its dtype nowhere."""
    named = (Size(name="batch", sql="batch_size"), Size(name="tokens", sql="num_tokens"))
    kernel = Kernel(
        kind=KernelKind.SCAN,
        op="op_name || ':' || kernel_source",
        dtype="NULL",  # their files do not say
        sizes=(*named, *(Size(name=dim.removeprefix("num_"), sql=dim) for dim in (*dims, state))),
        unlike=("seq_len",),
    )
    return FileKind(kernels=(kernel,))


_PREFIXED, _CACHED = ("isl", "isl + step"), ("isl", "step")
_DELTA = ("d_model", "num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim")
_MAMBA = ("d_model", "d_state", "nheads", "head_dim", "n_groups", "chunk_size")

ATTENTION = {
    "encoder_attention_perf": FileKind(kernels=(_ENCODER,)),
    "context_mla_perf": FileKind(kernels=(_mla(decode=False),)),
    "generation_mla_perf": FileKind(kernels=(_mla(decode=True),)),
    "wideep_context_mla_perf": _module("isl", "isl", prefix="wideep_"),
    "wideep_generation_mla_perf": _module("1", "isl", prefix="wideep_"),
    **{f"{name}_context_module_perf": _module(*_PREFIXED) for name in ("mla", "dsa", "msa", "dsv4_csa", "dsv4_hca")},
    **{f"{name}_generation_module_perf": _module(*_CACHED) for name in ("mla", "dsa", "msa", "dsv4_csa", "dsv4_hca")},
    "dsv4_hca_attn_module_perf": _module(*_PREFIXED),
    "dsv4_paged_mqa_logits_module_perf": _module(*_PREFIXED),
    "glm5_dsa_attn_module_perf": _module(*_PREFIXED),
    "glm5_mqa_logits_module_perf": _module(*_PREFIXED),
    "glm5_topk_module_perf": _module(*_PREFIXED, kind=KernelKind.OTHER),
    "dsv4_csa_topk_calib_perf": _module(*_PREFIXED, kind=KernelKind.OTHER),
    "gdn_perf": _scan("d_conv", _DELTA),
    "kda_perf": _scan("d_conv", _DELTA),
    "mamba2_perf": _scan("d_conv", _MAMBA),
}
