"""ATen operators that models call and that hold no matrix product, reviewed one by one.

Only operators whose kernel is elementary belong here: one that calls a matrix product inside would be counted as 0.
"""

_VIEWS = (
    "alias detach detach_ expand lift_fresh permute select slice split split_with_sizes squeeze t transpose unbind "
    "unfold unsqueeze unsqueeze_ view view_as_complex view_as_real _unsafe_view"
)
_CREATION = (
    "arange empty empty_like eye full full_like new_empty new_full new_ones new_zeros ones ones_like randn "
    "scalar_tensor uniform_ zeros zeros_like"
)
_MOVEMENT = (
    "_to_copy cat clone constant_pad_nd copy_ embedding flip gather index index_add index_add_ index_put_ index_select "
    "repeat scatter scatter_ scatter_reduce stack tril triu"
)
_ELEMENTWISE = (
    "abs add add_ bitwise_and bitwise_not bitwise_or bitwise_xor clamp clamp_min cos div div_ eq erfinv exp expm1 "
    "floor floor_divide ge gelu gt le log log1p log_sigmoid_forward logical_and logical_not lt masked_fill "
    "masked_fill_ maximum minimum mul mul_ ne neg polar pow reciprocal relu remainder rsqrt rsub sigmoid sign silu "
    "sin softplus sqrt sub sub_ tanh where"
)
_REDUCTIONS = (
    "_is_all_true _safe_softmax _softmax all any argmax cummax cumsum histc linalg_vector_norm logsumexp max mean "
    "native_layer_norm nonzero sort std sum topk var"
)
_HOST = "_assert_async _local_scalar_dense"  # checks, and values read by Python

PLAIN = frozenset(
    f"aten.{name}"
    for names in (_VIEWS, _CREATION, _MOVEMENT, _ELEMENTWISE, _REDUCTIONS, _HOST)
    for name in names.split()
)
