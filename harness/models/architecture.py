"""What a config tells at once about the model that it describes: nothing is built, not even on the meta device."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForCausalLM

from harness.errors import UnknownModel
from harness.models.facts import attentions_of, context_tokens_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The part of ``ModelFacts`` that needs no model."""

    attentions: tuple[str, ...]  # implementations that the architecture has, the best default first
    context_tokens: int | None  # None: the config says nothing


def architecture(config: Any) -> Architecture:
    """Facts of a transformers config; raises ``UnknownModel`` where transformers has no causal model for it."""
    mapping: Any = AutoModelForCausalLM._model_mapping
    try:
        found = mapping[type(config)]
        text = config.get_text_config(decoder=True)
    except (ImportError, KeyError, ValueError) as error:
        raise UnknownModel(
            f"transformers has no usable causal language model for {type(config).__name__}: {error}.\n"
            "Name a model for text generation, or install what its code asks for."
        ) from error
    model_class = found[0] if isinstance(found, tuple) else found
    return Architecture(attentions=attentions_of(model_class), context_tokens=context_tokens_of(text))
