"""Load a model under test, with its own or with random weights, ready for inference."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.errors import MissingExtra, OutOfMemory, UnknownModel, UsageError
from harness.models.checkpoint import has_tokenizer
from harness.models.dtypes import torch_dtype
from harness.models.facts import ATTENTIONS, ModelFacts, model_facts, unquantised_config
from harness.models.memory import available_memory_bytes, translate_out_of_memory
from harness.models.quiet import quiet_transformers
from harness.models.source import ModelSource
from harness.records import Weights
from harness.units import gibibytes

_AUTO_MODEL: Any = AutoModelForCausalLM  # its class methods carry no types


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model on its device, in eval mode and without gradients."""

    model: Any  # a transformers causal language model
    tokenizer: Any | None  # None where the source ships none
    facts: ModelFacts
    source: ModelSource
    dtype: str
    attention: str
    device: torch.device


def load(source: ModelSource, *, dtype: str, attention: str, device: str, seed: int) -> LoadedModel:
    """Load a model onto ``device`` (``cpu``, ``cuda``, ``cuda:1``); ``seed`` makes random weights repeatable.

    Raises OutOfMemory, MissingExtra, UnknownModel for files that cannot be loaded, and UsageError for a dtype or
    attention that cannot be had; nothing is replaced silently.
    """
    target = torch.device(device)
    facts = model_facts(source)
    check_attention(attention, facts, source.name, device)
    _check_fit(facts, dtype, target)
    with translate_out_of_memory(f"loading {source.name}"), quiet_transformers():
        if source.weights is Weights.RANDOM:
            model = _random_model(source, dtype, attention, target, seed)
        else:
            model = _pretrained_model(source, dtype, attention, target)
    model.eval().requires_grad_(False)
    return LoadedModel(
        model=model,
        tokenizer=_tokenizer(source),
        facts=facts,
        source=source,
        dtype=dtype,
        attention=attention,
        device=target,
    )


def check_attention(attention: str, facts: ModelFacts, name: str, device: str) -> None:
    """Whether a model can run with an attention implementation here; raises ``UsageError`` or ``MissingExtra``."""
    if attention not in ATTENTIONS:
        raise UsageError(f"{attention!r} is no attention implementation. Use one of {', '.join(ATTENTIONS)}.")
    if attention not in facts.attentions:
        raise UsageError(
            f"{name} ({facts.model_type}) has no {attention} attention in transformers.\n"
            f"Use --attention {' or '.join(facts.attentions)}."
        )
    if attention != "flash_attention_2":
        return
    if torch.device(device).type == "cpu":
        raise UsageError("--attention flash_attention_2 needs a GPU. Use sdpa or eager on the CPU.")
    if importlib.util.find_spec("flash_attn") is None:
        raise MissingExtra("--attention flash_attention_2", "flash-attn", "pip install flash-attn --no-build-isolation")


def _check_fit(facts: ModelFacts, dtype: str, device: torch.device) -> None:
    """Refuse before the operating system kills the process, which is how memory ends on a CPU."""
    needed, available = facts.weight_bytes(dtype), available_memory_bytes(device)
    if needed > available:
        raise OutOfMemory(
            f"The weights alone need {gibibytes(needed)} in {dtype}; {device} has {gibibytes(available)} free.\n"
            "Use a smaller dtype, a smaller model, or a device with more memory."
        )


def _random_model(source: ModelSource, dtype: str, attention: str, device: torch.device, seed: int) -> Any:
    config = unquantised_config(source)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), device:
        torch.manual_seed(seed)
        return _AUTO_MODEL.from_config(
            config,
            dtype=torch_dtype(dtype),
            attn_implementation=attention,
            trust_remote_code=source.trust_remote_code,
        ).to(device)


def _pretrained_model(source: ModelSource, dtype: str, attention: str, device: torch.device) -> Any:
    try:
        model, report = _AUTO_MODEL.from_pretrained(
            source.location,
            dtype=torch_dtype(dtype),
            attn_implementation=attention,
            device_map={"": device} if device.type == "cuda" else None,
            trust_remote_code=source.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ImportError, ValueError) as error:  # what a quantised checkpoint needs and this machine does not have
        raise UsageError(f"{source.name} cannot be loaded here: {_reason(error)}\nInstall what it names.") from error
    except (OSError, KeyError, SafetensorError) as error:
        raise _unreadable(source, _reason(error)) from error
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        raise _unreadable(source, "they have other shapes than config.json says") from error
    if report["missing_keys"]:  # transformers fills them with random numbers
        raise _unreadable(source, f"{len(report['missing_keys'])} are missing, {min(report['missing_keys'])} for one")
    return model


def _unreadable(source: ModelSource, why: str) -> UnknownModel:
    return UnknownModel(f"The weights of {source.name} cannot be loaded: {why}.\nDownload or save the model again.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _tokenizer(source: ModelSource) -> Any | None:
    folder = source.location
    if not folder.is_dir() or not has_tokenizer(folder):
        return None
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(
                folder, trust_remote_code=source.trust_remote_code, local_files_only=True
            )
    except (ImportError, ValueError, OSError, KeyError, TypeError) as error:
        raise UsageError(
            f"The tokenizer of {source.name} cannot be loaded: {_reason(error)}\n"
            "Install what it names, or remove the tokenizer files to measure with random prompts."
        ) from error
