"""Which tensor-parallel plan a model has: transformers' own, or ours for families that transformers has none for.

Our plans follow Megatron-LM (arXiv 1909.08053): attention heads and the width of the MLP are split, so that each of
the two costs one all-reduce; the vocabulary is split over embedding and head as transformers does it in its own plans.
What the rows of a fused query-key-value matrix are differs by family, and is noted beside each.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UsageError
from harness.models.parallel_styles import Rule, Style

_COL, _ROW = Style.COLWISE, Style.ROWWISE
_HEAD, _VOCABULARY = Style.COLWISE_GATHER_OUTPUT, Style.EMBEDDING_ROWWISE
_OTHER_NAMES = {"colwise_rep": Style.COLWISE_GATHER_OUTPUT, "rowwise_rep": Style.ROWWISE_SPLIT_INPUT}
_BROKEN = {"doge"}  # transformers 5.23 splits its heads, and not what it adds to their scores: no degree runs
_NUMBER = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlan:
    """How a model is split over ranks."""

    rules: tuple[Rule, ...]
    origin: Literal["transformers", "joulegraph"]

    def module_style(self, path: str) -> Style | None:
        """Style of the module at ``path`` (``model.layers.3.mlp.up_proj``); None where it runs as it is."""
        return self._by_path().get(generic_path(path))

    def parameter_style(self, path: str) -> Style | None:
        """Style of the parameter at ``path``: its own rule, else its module's; None where there is neither."""
        rules, generic = self._by_path(), generic_path(path)
        own = rules.get(generic)
        return own if own is not None else rules.get(generic.rpartition(".")[0])

    def _by_path(self) -> dict[str, Style]:
        return {rule.path: rule.style for rule in self.rules}


def generic_path(path: str) -> str:
    """A path with * for its numbers, as plans are written.

    >>> generic_path("model.layers.3.mlp.experts.12.w1")
    'model.layers.*.mlp.experts.*.w1'
    """
    return _NUMBER.sub(".*", path)


def tensor_plan(model: Any) -> TensorPlan:
    """The plan of an instantiated model, which may be on the meta device: ours where we have one, else transformers'.

    Raises ``UsageError`` that names the family where there is none, or where the plan is in words unknown here.
    """
    family = str(model.config.model_type)
    if family in _OWN:
        rules = _OWN[family](model.config)
        return TensorPlan(
            rules=tuple(Rule(path=path, style=style) for path, style in rules.items()), origin="joulegraph"
        )
    stated: dict[str, str] = {} if family in _BROKEN else getattr(model, "tp_plan", None) or {}
    if not any("*" in path for path in stated):  # a rule for the head alone splits no layer
        raise UsageError(
            f"There is no tensor-parallel plan for {family}, neither in transformers nor here.\n"
            "Use --gpus 1, or --parallelism layers where one GPU is too small for it."
        )
    rules = {path: _style(style, family) for path, style in stated.items()}
    return TensorPlan(
        rules=tuple(Rule(path=path, style=style) for path, style in (rules | _tied_ends(model, rules)).items()),
        origin="transformers",
    )


def _tied_ends(model: Any, rules: dict[str, Style]) -> dict[str, Style]:
    """A rule for an embedding that shares its matrix with a split head, which transformers forgets (GPT-NeoX)."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    paths = {id(module): path for path, module in model.named_modules()}
    path = paths.get(id(embedding), "")
    tied = getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False)
    if head is None or not tied or path in rules:
        return {}
    return {path: _VOCABULARY} if rules.get(paths.get(id(head), "")) is _HEAD else {}


def _style(name: str, family: str) -> Style:
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    if name not in set(Style):
        raise UsageError(
            f"transformers splits {family} with the style {name!r}, which is not known here.\n"
            "Use --gpus 1, or a version of transformers that this version was made for."
        )
    return Style(name)


def _ends(*, embedding: str, head: str = "lm_head") -> dict[str, Style]:
    return {embedding: _VOCABULARY, head: _HEAD}


def _pairs(layer: str, columns: Iterable[str], rows: Iterable[str]) -> dict[str, Style]:
    return {f"{layer}.{name}": _COL for name in columns} | {f"{layer}.{name}": _ROW for name in rows}


_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _opt(_config: Any) -> dict[str, Style]:
    return _ends(embedding="model.decoder.embed_tokens") | _pairs(
        "model.decoder.layers.*", (*_QKV, "fc1"), ("self_attn.out_proj", "fc2")
    )


def _xglm(_config: Any) -> dict[str, Style]:
    return _ends(embedding="model.embed_tokens") | _pairs(
        "model.layers.*", (*_QKV, "fc1"), ("self_attn.out_proj", "fc2")
    )


def _biogpt(_config: Any) -> dict[str, Style]:
    return _ends(embedding="biogpt.embed_tokens", head="output_projection") | _pairs(
        "biogpt.layers.*", (*_QKV, "fc1"), ("self_attn.out_proj", "fc2")
    )


def _bloom(_config: Any) -> dict[str, Style]:  # rows: of each head q, k, v
    return _ends(embedding="transformer.word_embeddings") | _pairs(
        "transformer.h.*",
        ("self_attention.query_key_value", "mlp.dense_h_to_4h"),
        ("self_attention.dense", "mlp.dense_4h_to_h"),
    )


def _falcon(config: Any) -> dict[str, Style]:
    # Rows: of each group its queries, k, v (40B, 180B); or all queries, then one k and v (7B); or as in BLOOM (RW).
    single_kv_head = config.multi_query and not config.new_decoder_architecture
    fused = Style.QKV_MULTI_QUERY if single_kv_head else _COL
    return _bloom(config) | {"transformer.h.*.self_attention.query_key_value": fused}


def _gpt2(_config: Any) -> dict[str, Style]:  # columns: all q, all k, all v
    return _ends(embedding="transformer.wte") | {
        "transformer.h.*.attn.c_attn": Style.CONV1D_COLWISE_3_BLOCKS,
        "transformer.h.*.attn.c_proj": Style.CONV1D_ROWWISE,
        "transformer.h.*.mlp.c_fc": Style.CONV1D_COLWISE,
        "transformer.h.*.mlp.c_proj": Style.CONV1D_ROWWISE,
    }


def _gpt_bigcode(config: Any) -> dict[str, Style]:  # rows: all queries, then one k and v; or of each head q, k, v
    rules = _pairs("transformer.h.*", ("attn.c_attn", "mlp.c_fc"), ("attn.c_proj", "mlp.c_proj"))
    fused = Style.QKV_MULTI_QUERY if config.multi_query else _COL
    return _ends(embedding="transformer.wte") | rules | {"transformer.h.*.attn.c_attn": fused}


def _gpt_neo(_config: Any) -> dict[str, Style]:
    names = ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj", "mlp.c_fc")
    return _ends(embedding="transformer.wte") | _pairs(
        "transformer.h.*", names, ("attn.attention.out_proj", "mlp.c_proj")
    )


def _gptj(_config: Any) -> dict[str, Style]:
    names = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in")
    return _ends(embedding="transformer.wte") | _pairs("transformer.h.*", names, ("attn.out_proj", "mlp.fc_out"))


def _codegen(_config: Any) -> dict[str, Style]:
    # Rows: four times [q, v, k] of a quarter of the heads. The forward call counts on four, so each is split.
    return (
        _ends(embedding="transformer.wte")
        | _pairs("transformer.h.*", ("mlp.fc_in",), ("mlp.fc_out",))
        | {
            "transformer.h.*.attn.qkv_proj": Style.COLWISE_12_BLOCKS,
            "transformer.h.*.attn.out_proj": Style.ROWWISE_4_BLOCKS,
        }
    )


def _mpt(_config: Any) -> dict[str, Style]:  # rows: all q, all k, all v
    return (
        _ends(embedding="transformer.wte")
        | _pairs("transformer.blocks.*", ("ffn.up_proj",), ("attn.out_proj", "ffn.down_proj"))
        | {"transformer.blocks.*.attn.Wqkv": Style.COLWISE_3_BLOCKS}
    )


def _gpt_neox_japanese(_config: Any) -> dict[str, Style]:  # rows: of each head q, k, v
    return _ends(embedding="gpt_neox_japanese.embed_in", head="embed_out") | _pairs(
        "gpt_neox_japanese.layers.*",
        ("attention.query_key_value", "mlp.dense_h_to_4h"),
        ("attention.dense", "mlp.dense_4h_to_h"),
    )


def _persimmon(_config: Any) -> dict[str, Style]:  # rows: of each head q, k, v
    return _ends(embedding="model.embed_tokens") | _pairs(
        "model.layers.*",
        ("self_attn.query_key_value", "mlp.dense_h_to_4h"),
        ("self_attn.dense", "mlp.dense_4h_to_h"),
    )


def _stablelm(_config: Any) -> dict[str, Style]:
    return _ends(embedding="model.embed_tokens") | _pairs(
        "model.layers.*", (*_QKV, "mlp.gate_proj", "mlp.up_proj"), ("self_attn.o_proj", "mlp.down_proj")
    )


def _gpt_oss(_config: Any) -> dict[str, Style]:
    # Experts are [experts, in, out]; columns of gate and up alternate, so any even part holds whole pairs.
    layer = "model.layers.*"
    return (
        _ends(embedding="model.embed_tokens")
        | _pairs(layer, (*_QKV, "self_attn.sinks", "mlp.experts.down_proj"), ("self_attn.o_proj",))
        | {
            f"{layer}.self_attn": Style.LOCAL_PARAMS,
            f"{layer}.mlp.experts": Style.MOE_TP_EXPERTS,
            f"{layer}.mlp.experts.gate_up_proj": _ROW,
            f"{layer}.mlp.experts.gate_up_proj_bias": _ROW,
        }
    )


_OWN: dict[str, Callable[[Any], dict[str, Style]]] = {
    "biogpt": _biogpt,
    "bloom": _bloom,
    "codegen": _codegen,
    "falcon": _falcon,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neo": _gpt_neo,
    "gpt_neox_japanese": _gpt_neox_japanese,
    "gpt_oss": _gpt_oss,
    "gptj": _gptj,
    "mpt": _mpt,
    "opt": _opt,
    "persimmon": _persimmon,
    "stablelm": _stablelm,
    "xglm": _xglm,
}
