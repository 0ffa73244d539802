"""A model built from its config on the meta device: every module and shape, no weights, no GPU."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.initialization import meta_device_safe_creation_ops, no_init_weights

from harness.models.quiet import quiet_transformers
from harness.models.stand_ins import RepeatedLayers, layers_built_once

_AUTO_MODEL: Any = AutoModelForCausalLM  # its class methods carry no types
_MAX_LAYERS = 4096  # a config that states more is a mistake, and building it would not end


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaModel:
    """A model without weights."""

    model: Any  # a transformers causal language model on the meta device
    repeated: RepeatedLayers | None  # None: every layer was built


def meta_model(
    config: Any,
    *,
    dtype: torch.dtype,
    attention: str | None = None,
    once: bool = False,
    trust_remote_code: bool = False,
) -> MetaModel:
    """Build a model from a transformers config; ``once``: equal layers are built once and stood in for.

    Raises whatever the config makes transformers raise, and ``ValueError`` for an absurd number of layers.
    """
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", 1)
    if not 0 < layers <= _MAX_LAYERS:
        raise ValueError(f"it states {layers} layers, and 1 to {_MAX_LAYERS} can be run")
    options = {} if attention is None else {"attn_implementation": attention}
    with ExitStack() as stack:
        for context in (quiet_transformers(), no_init_weights(), meta_device_safe_creation_ops(), torch.device("meta")):
            stack.enter_context(context)
        repeated = stack.enter_context(_built_once(config)) if once and not trust_remote_code else None
        model = _AUTO_MODEL.from_config(config, trust_remote_code=trust_remote_code, dtype=dtype, **options)
        model.tie_weights()  # left out together with the initialisation
    return MetaModel(model=model.eval(), repeated=repeated)


@contextmanager
def _built_once(config: Any) -> Iterator[RepeatedLayers | None]:
    model_class = _model_class(config)
    if model_class is None:  # code of its own
        yield None
        return
    with layers_built_once(model_class, config) as repeated:
        yield repeated


def _model_class(config: Any) -> type | None:
    mapping: Any = AutoModelForCausalLM._model_mapping
    if type(config) not in mapping:
        return None
    found: type | tuple[type, ...] = mapping[type(config)]
    return found[0] if isinstance(found, tuple) else found
