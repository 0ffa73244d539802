"""Which tensor-parallel degrees a model allows, and why others do not work.

A degree must divide every count of things that are handed out whole: attention heads, KV heads, and, so that all ranks
do the same work, the widths of MLPs and experts. The vocabulary may be split unevenly, and so may matrices whose whole
output or input every rank has.
"""

from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.models.parallel_styles import Style, cut_of
from harness.models.plans import TensorPlan

_ATTENTIONS = {"self_attn", "attn", "attention", "self_attention"}
_OUTPUTS = {"o_proj", "out_proj", "dense", "c_proj"}  # as wide as the heads before them
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", *_HEADS)
_ATTENTION_HEADS = "attention heads"
_KV_HEADS_OF = "KV heads"
_GROUPED_GEMM_BYTES = 16  # torch's grouped GEMM takes rows of a multiple of this
_UNEVEN = {
    Style.COLWISE_GATHER_OUTPUT,
    Style.ROWWISE_SPLIT_INPUT,
    Style.EMBEDDING_ROWWISE,
    Style.EMBEDDING_COLWISE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Things of which every rank gets the same number."""

    number: int
    of: str  # "attention heads"
    text: str  # "9 attention heads"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One parameter that is cut, and where it stands."""

    path: str
    attention: Any | None  # the attention module it belongs to
    config: Any
    style: Style
    width: int
    blocks: int
    aligned: int  # elements that must stay together

    @property
    def names(self) -> list[str]:
        return self.path.split(".")


def working_degrees(model: Any, plan: TensorPlan, *, up_to: int = 64) -> tuple[int, ...]:
    """The degrees from 1 to ``up_to`` that work. The model may be on the meta device."""
    numbers = {count.number for count in counts_of(model, plan)}
    return tuple(
        degree for degree in range(1, up_to + 1) if degree == 1 or all(number % degree == 0 for number in numbers)
    )


def check_degree(model: Any, plan: TensorPlan, degree: int, name: str) -> None:
    """Raise ``UsageError`` with the reason and the degrees that work where ``degree`` does not; ``name`` is said."""
    works = working_degrees(model, plan, up_to=max(degree, 64))
    if degree in works:
        return
    smallest: dict[str, Count] = {}  # of each kind: where the width of an expert fails, twice that says no more
    for count in counts_of(model, plan):
        known = smallest.get(count.of)
        if count.number % degree and (known is None or count.number < known.number):
            smallest[count.of] = count
    raise UsageError(
        f"{name} cannot be split over {degree} GPUs: {_listed([count.text for count in smallest.values()], 'and')} "
        f"do not divide by {degree}.\n--gpus {_listed([str(other) for other in works], 'or')} "
        f"{'work' if len(works) > 1 else 'works'}."
    )


def _listed(words: list[str], conjunction: str) -> str:
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def counts_of(model: Any, plan: TensorPlan) -> tuple[Count, ...]:
    """What a degree must divide, each count once; heads first. Multi-head attention has no KV heads of its own."""
    found = _found_counts(model, plan)
    heads = {count.number for count in found if count.of == _ATTENTION_HEADS}
    own = [count for count in found if count.of != _KV_HEADS_OF or count.number not in heads]
    return tuple(sorted(own, key=lambda count: (count.of != _ATTENTION_HEADS, count.of != _KV_HEADS_OF)))


def _found_counts(model: Any, plan: TensorPlan) -> list[Count]:
    modules = dict(model.named_modules())
    config = model.config.get_text_config(decoder=True)
    found: dict[Count, None] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        style = plan.parameter_style(path)
        owner, _, name = path.rpartition(".")
        cut = None if style is None or style in _UNEVEN else cut_of(style, name, parameter.dim())
        if style is None or cut is None:
            continue
        place = path if plan.module_style(path) is not None else owner
        parent = place.rpartition(".")[0]
        in_attention = not _ATTENTIONS.isdisjoint(parent.split("."))
        piece = _Piece(
            path=place,
            attention=modules[parent] if in_attention else None,
            config=config,
            style=style,
            width=int(parameter.shape[cut.dim]),
            blocks=cut.blocks,
            aligned=_GROUPED_GEMM_BYTES // parameter.element_size() if parameter.dim() == 3 else 1,
        )
        count = _mlp_count(piece) if piece.attention is None else _attention_count(piece)
        if count is not None:
            found.setdefault(count)
    return list(found)


def _mlp_count(piece: _Piece) -> Count:
    width = piece.width // piece.blocks
    if not any("expert" in name for name in piece.names):
        return Count(number=width, of="MLP", text=f"an MLP width of {width}")
    text = f"an expert width of {width}"
    if piece.aligned > 1 and width % piece.aligned == 0:
        return Count(number=width // piece.aligned, of="expert", text=f"{text} in pieces of {piece.aligned}")
    return Count(number=width, of="expert", text=text)


def _attention_count(piece: _Piece) -> Count | None:
    name = piece.names[-1]
    if name in _OUTPUTS:
        return None
    if name in {"k_proj", "v_proj"}:
        sizes = ("v_head_dim", "head_dim") if name == "v_proj" else ("head_dim",)
        return _things(_per(piece, sizes) or _first_int(piece.config, _KV_HEADS) or piece.width, _KV_HEADS_OF)
    if getattr(piece.config, "new_decoder_architecture", False):  # Falcon hands out groups
        return _things(_first_int(piece.config, _KV_HEADS) or piece.width, _KV_HEADS_OF)
    heads = _first_int(piece.config, _HEADS) or _first_int(piece.attention, _HEADS) or _per(piece, ("head_dim",))
    if heads is None or (piece.width % heads and piece.style is not Style.QKV_MULTI_QUERY):
        return Count(number=piece.width, of=name, text=f"a width of {piece.width} of {name}")
    if piece.blocks > 3:
        blocks = piece.blocks // 3
        return _things(heads // blocks, f"attention heads in each of {blocks} blocks")
    return _things(heads, _ATTENTION_HEADS)


def _things(number: int, of: str) -> Count:
    return Count(number=number, of=of, text=f"{number} {of}")


def _per(piece: _Piece, sizes: tuple[str, ...]) -> int | None:
    """How many heads of the size that the attention module states make up the width."""
    size = _first_int(piece.attention, sizes)
    return piece.width // size if size is not None and piece.width % size == 0 else None


def _first_int(holder: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        try:
            value = getattr(holder, name, None)
        except RuntimeError:  # transformers' answer where layers differ in it
            continue
        if type(value) is int and value > 0:
            return value
    return None
