"""What operator and module names tell: which move no data, which modules normalise or scan, which layer is which."""

import re

# Views and allocations: nothing runs on the device.
HOUSEKEEPING = frozenset(
    {"view", "_unsafe_view", "as_strided", "transpose", "t", "permute", "slice", "select", "narrow", "expand"}
    | {"expand_as", "unsqueeze", "squeeze", "unflatten", "flatten", "chunk", "split", "split_with_sizes", "unbind"}
    | {"as_strided_", "transpose_", "unsqueeze_", "squeeze_", "t_", "swapaxes", "movedim", "numpy_T", "mT", "mH"}
    | {"detach", "detach_", "alias", "lift_fresh", "_reshape_alias", "view_as", "diagonal", "unfold", "real", "imag"}
    | {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "result_type"}
    | {"resolve_conj", "resolve_neg", "conj", "_conj", "is_nonzero", "item", "can_cast", "broadcast_tensors"}
    | {"tensor_split", "unsafe_split", "is_floating_point", "scalar_tensor", "is_pinned"}
    | {"_nnpack_available", "_has_compatible_shallow_copy_type"}
)
NORM_MODULE = re.compile(r"(norm|^ln)[^.]*$|(^|\.)ln_[^.]*$", re.IGNORECASE)
# Classes of modules that carry a state along the sequence: state-space, linear attention, recurrent.
SCAN_CLASS = re.compile(
    r"Mamba|SSM|Ssm|Rwkv|RWKV|Recurrent|R[gG]L?[lL]ru|Delta|LinearAttention|Lightning|ShortConv|Retention|LSTM|K[dD][aA]"
)
_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def any_layer(module: str) -> str:
    """A module path with its layer numbers as ``*``.

    >>> any_layer("model.layers.17.mlp.up_proj")
    'model.layers.*.mlp.up_proj'
    """
    return _LAYER_NUMBER.sub("*", module)
