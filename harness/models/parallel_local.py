"""What a rank's share needs besides weights: head counts, split sizes, ALiBi slopes, norms of its own heads.

transformers' own plans need none of it, for their attention counts heads by the width it is given. The families of our
plans keep counts as attributes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from harness.models.parallel_styles import Style
from harness.models.plans import TensorPlan

# Attributes of the attention module that count heads, or widths made of heads.
_COUNTS: dict[str, tuple[str, ...]] = {
    "BioGptAttention": ("num_heads",),
    "BloomAttention": ("num_heads",),
    "CodeGenAttention": ("num_attention_heads",),
    "FalconAttention": ("num_heads",),
    "FalconFlashAttention2": ("num_heads",),
    "GPT2Attention": ("num_heads", "split_size"),
    "GPTBigCodeAttention": ("num_heads", "embed_dim"),
    "GPTNeoSelfAttention": ("num_heads",),
    "GPTNeoFlashAttention2": ("num_heads",),
    "GPTNeoXJapaneseAttention": ("num_attention_heads",),
    "GPTJAttention": ("num_attention_heads",),
    "GPTJFlashAttention2": ("num_attention_heads",),
    "MptAttention": ("n_heads",),
    "OPTAttention": ("num_heads",),
    "PersimmonAttention": ("num_heads",),
    "StableLmAttention": ("num_heads", "num_key_value_heads"),
    "XGLMAttention": ("num_heads", "embed_dim"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    degree: int
    rank: int

    def of(self, count: int) -> int:
        if count % self.degree:
            raise ValueError(f"{count} does not divide by {self.degree}; check_degree comes first")
        return count // self.degree

    def slice(self, count: int) -> slice:
        part = self.of(count)
        return slice(self.rank * part, (self.rank + 1) * part)


def localise(model: Any, plan: TensorPlan, *, degree: int, rank: int) -> None:
    """Give the modules of a rank's share the counts of that share, in place. Call it once.

    Works on a really sharded model and on one on the meta device whose parameters have local shapes. Touches neither
    ``weight`` and ``bias`` nor forward calls. Raises ``ValueError`` for a degree that ``check_degree`` refuses.
    """
    if degree == 1 or plan.origin == "transformers":
        return
    share = _Share(degree=degree, rank=rank)
    for path, module in list(model.named_modules()):
        kind = type(module).__name__
        for attribute in _COUNTS.get(kind, ()):
            setattr(module, attribute, share.of(getattr(module, attribute)))
        if kind in _MORE:
            _MORE[kind](module, share)
        if plan.module_style(path) in {Style.CONV1D_COLWISE, Style.CONV1D_COLWISE_3_BLOCKS}:
            module.nf = share.of(module.nf)


Hook = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def _own_heads(argument: str, share: _Share, heads: int, cut: Callable[[torch.Tensor, slice], torch.Tensor]) -> Hook:
    """A hook before a forward call that leaves of one argument the part of this rank's heads, in views if it can."""

    def narrow(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tensor = kwargs.get(argument)
        if tensor is not None:
            kwargs[argument] = cut(tensor, share.slice(heads))
        return args, kwargs

    return narrow


def _bloom_attention(module: Any, share: _Share) -> None:
    _exact_in_one(module, share)
    heads = module.num_heads * share.degree

    def cut(alibi: torch.Tensor, own: slice) -> torch.Tensor:  # [batch * heads, 1, context]
        return alibi.view(-1, heads, *alibi.shape[1:])[:, own].flatten(0, 1)

    module.register_forward_pre_hook(_own_heads("alibi", share, heads, cut), with_kwargs=True)


def _exact_in_one(module: Any, _share: _Share) -> None:
    # ``slow_but_exact`` sums slices as the ranks of the training did; a rank's share is such a slice already.
    module.pretraining_tp = 1


def _falcon_attention(module: Any, share: _Share) -> None:
    if module.new_decoder_architecture or not module.multi_query:
        module.num_kv_heads = share.of(module.num_kv_heads)
    if not module.config.alibi:
        return
    heads = module.num_heads * share.degree

    def cut(tensor: torch.Tensor, own: slice) -> torch.Tensor:  # [batch, heads, 1 or query, context]
        return tensor[:, own] if tensor.dim() == 4 and tensor.shape[1] == heads else tensor

    for argument in ("alibi", "attention_mask"):  # the model adds the slopes to the mask
        module.register_forward_pre_hook(_own_heads(argument, share, heads, cut), with_kwargs=True)


def _gpt_bigcode_attention(module: Any, share: _Share) -> None:
    if module.multi_query:
        module.num_key_value_groups = share.of(module.num_key_value_groups)
    else:
        module.kv_heads = share.of(module.kv_heads)


def _mpt_attention(module: Any, share: _Share) -> None:
    heads = module.n_heads * share.degree

    def cut(bias: torch.Tensor, own: slice) -> torch.Tensor:  # [heads, 1, context]
        return bias[own]

    module.register_forward_pre_hook(_own_heads("position_bias", share, heads, cut), with_kwargs=True)


def _stablelm_norm(module: Any, share: _Share) -> None:
    module.norms = module.norms[share.slice(module.num_heads)]
    module.num_heads = share.of(module.num_heads)


def _gpt_oss_experts(module: Any, share: _Share) -> None:
    if share.rank:  # the outputs are summed over the ranks, and the bias belongs into the sum once
        module.down_proj_bias.data.zero_()


_MORE: dict[str, Callable[[Any, _Share], None]] = {
    "BloomAttention": _bloom_attention,
    "BloomMLP": _exact_in_one,
    "FalconAttention": _falcon_attention,
    "FalconFlashAttention2": _falcon_attention,
    "GPTBigCodeAttention": _gpt_bigcode_attention,
    "GptOssExperts": _gpt_oss_experts,
    "MptAttention": _mpt_attention,
    "StableLmLayerNormPerHead": _stablelm_norm,
}
