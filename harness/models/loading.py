"""Load a model under test, with its own or with random weights, ready for inference.

Whole on one device, as this rank's share of a tensor-parallel group, or with its layers dealt out over several GPUs.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.errors import MissingExtra, OutOfMemory, UnknownModel, UsageError
from harness.models import parallel_adapter, parallel_layers, parallel_loading
from harness.models.checkpoint import has_tokenizer
from harness.models.dtypes import torch_dtype
from harness.models.facts import ATTENTIONS, ModelFacts, model_facts, unquantised_config
from harness.models.memory import available_memory_bytes, translate_out_of_memory
from harness.models.meta import meta_model
from harness.models.parallel import check_degree, tensor_plan
from harness.models.parallel_layers import LayerSplit
from harness.models.quiet import quiet_transformers
from harness.models.source import ModelSource
from harness.records import Weights
from harness.units import gibibytes

_AUTO_MODEL: Any = AutoModelForCausalLM  # its class methods carry no types
PARALLELISMS = ("none", "tensor", "layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, or this rank's share of it, on its devices, in eval mode and without gradients."""

    model: Any  # a transformers causal language model
    tokenizer: Any | None  # None where the source ships none
    facts: ModelFacts  # of the whole model
    source: ModelSource
    dtype: str
    attention: str
    device: torch.device  # where prompts go
    parallelism: str = "none"
    ranks: int = 1  # of the tensor-parallel group
    rank: int = 0
    split: LayerSplit | None = None  # which GPU holds what, with parallelism "layers"

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Every device this process computes on, the one for prompts first."""
        return (self.device,) if self.split is None else tuple(torch.device("cuda", gpu) for gpu in self.split.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    source: ModelSource
    facts: ModelFacts
    dtype: str
    attention: str
    device: torch.device
    seed: int

    @property
    def weight_bytes(self) -> int:
        return self.facts.weight_bytes(self.dtype)

    @property
    def random(self) -> bool:
        return self.source.weights is Weights.RANDOM


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    model: Any
    ranks: int = 1
    rank: int = 0
    split: LayerSplit | None = None


def load(
    source: ModelSource, *, dtype: str, attention: str, device: str, seed: int, parallelism: str = "none"
) -> LoadedModel:
    """Load a model onto ``device`` (``cpu``, ``cuda``, ``cuda:1``); ``seed`` makes random weights repeatable.

    ``parallelism`` "tensor" loads this rank's share, of a process group that the caller has set up on that device;
    every rank calls. "layers" deals whole layers out over all visible GPUs. Raises OutOfMemory, MissingExtra,
    UnknownModel for files that cannot be loaded, and UsageError for a dtype, attention or number of ranks that cannot
    be had; nothing is replaced silently.
    """
    if parallelism not in PARALLELISMS:
        raise UsageError(f"{parallelism!r} is no way to use several GPUs. Use one of {', '.join(PARALLELISMS)}.")
    facts = model_facts(source)
    check_attention(attention, facts, source.name, device)
    wanted = _Wanted(
        source=source, facts=facts, dtype=dtype, attention=attention, device=torch.device(device), seed=seed
    )
    with translate_out_of_memory(f"loading {source.name}"), quiet_transformers():
        loaded = {"none": _load_whole, "tensor": _load_share, "layers": _load_layers}[parallelism](wanted)
    loaded.model.eval().requires_grad_(False)
    return LoadedModel(
        model=loaded.model,
        tokenizer=_tokenizer(source),
        facts=facts,
        source=source,
        dtype=dtype,
        attention=attention,
        device=wanted.device if loaded.split is None else torch.device("cuda", loaded.split.gpus[0]),
        parallelism=parallelism,
        ranks=loaded.ranks,
        rank=loaded.rank,
        split=loaded.split,
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


def _load_whole(wanted: _Wanted) -> _Loaded:
    _check_fit(wanted)
    if wanted.random:
        return _Loaded(model=_random_model(wanted))
    return _Loaded(
        model=_pretrained_model(wanted, device_map={"": wanted.device} if wanted.device.type == "cuda" else None)
    )


def _load_share(wanted: _Wanted) -> _Loaded:
    ranks = parallel_loading.ranks_of_group()
    if ranks.degree == 1:
        return _load_whole(wanted)
    on_meta = _meta_model(wanted)
    plan = tensor_plan(on_meta)
    check_degree(on_meta, plan, ranks.degree, wanted.source.name)
    parallel_loading.check_share_fits(
        on_meta,
        plan,
        ranks,
        weight_bytes=wanted.weight_bytes,
        random=wanted.random,
        available_bytes=available_memory_bytes(wanted.device),
        device=wanted.device,
    )
    with parallel_adapter.bound_to(wanted.device):
        if wanted.random:
            model = parallel_loading.random_share(
                on_meta,
                plan,
                ranks,
                whole=lambda: _random_model(wanted),
                size_bytes=wanted.weight_bytes,
                device=wanted.device,
                seed=wanted.seed,
            )
        else:
            model = _pretrained_model(
                wanted, distributed_config=parallel_adapter.distributed_config(plan, ranks.degree)
            )
    parallel_loading.finish_share(model, plan, ranks)
    return _Loaded(model=model, ranks=ranks.degree, rank=ranks.rank)


def _load_layers(wanted: _Wanted) -> _Loaded:
    on_meta = _meta_model(wanted)
    split = parallel_layers.layer_split(
        on_meta,
        free_bytes=parallel_layers.free_gpu_bytes(),
        weight_bytes=wanted.weight_bytes,
        name=wanted.source.name,
    )
    if wanted.random:
        return _Loaded(model=parallel_layers.random_layers(on_meta, split, seed=wanted.seed), split=split)
    return _Loaded(model=_pretrained_model(wanted, device_map=split.device_map()), split=split)


def _meta_model(wanted: _Wanted) -> Any:
    model = meta_model(
        unquantised_config(wanted.source),
        dtype=torch_dtype(wanted.dtype),
        attention=wanted.attention,
        trust_remote_code=wanted.source.trust_remote_code,
    ).model
    model.tie_weights()
    return model


def _check_fit(wanted: _Wanted) -> None:
    """Refuse before the operating system kills the process, which is how memory ends on a CPU."""
    needed, available = wanted.weight_bytes, available_memory_bytes(wanted.device)
    if needed > available:
        raise OutOfMemory(
            f"The weights alone need {gibibytes(needed)} in {wanted.dtype}; {wanted.device} has "
            f"{gibibytes(available)} free.\nUse a smaller dtype, a smaller model, or a device with more memory."
        )


def _random_model(wanted: _Wanted) -> Any:
    config = unquantised_config(wanted.source)
    devices = [wanted.device] if wanted.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), wanted.device:
        torch.manual_seed(wanted.seed)
        return _AUTO_MODEL.from_config(
            config,
            dtype=torch_dtype(wanted.dtype),
            attn_implementation=wanted.attention,
            trust_remote_code=wanted.source.trust_remote_code,
        ).to(wanted.device)


def _pretrained_model(wanted: _Wanted, **placement: Any) -> Any:
    source = wanted.source
    try:
        model, report = _AUTO_MODEL.from_pretrained(
            source.location,
            dtype=torch_dtype(wanted.dtype),
            attn_implementation=wanted.attention,
            **placement,
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
