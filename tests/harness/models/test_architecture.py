from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig

from harness.errors import UnknownModel
from harness.models import architecture as subject
from harness.models.facts import model_facts, unquantised_config
from harness.models.source import resolve


def test_an_architecture_is_what_the_built_model_says_of_itself(
    architecture: str, tiny_config: Callable[..., Path]
) -> None:
    source = resolve(str(tiny_config(architecture)), random_weights=True)

    found, facts = subject.architecture(unquantised_config(source)), model_facts(source)

    assert found.attentions == facts.attentions
    assert found.context_tokens == facts.context_tokens


def test_a_class_without_a_causal_model_is_refused() -> None:
    class Unregistered(BertConfig):  # type: ignore[misc]
        """A config that transformers knows no model for."""

    with pytest.raises(UnknownModel, match="no usable causal language model for Unregistered"):
        subject.architecture(Unregistered())
