"""What can be said of a request without predicting anything: whether it names what is known, and whether it can be.

Models are looked up offline: the configurations that ship with the harness, a path, the local Hub cache.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import HarnessError, UnknownModel
from harness.hardware import Hardware
from harness.models.shipped import closest_ids, shipped_config, shipped_ids
from predictor.requests import PredictionRequest

SERVED: Final = frozenset(
    {"vllm", "trtllm", "sglang", "tgi"}
)  # inference servers: they refuse what is too long for a model
_CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "context_length")
# Contexts that transformers' configuration classes have where the file says nothing.
_CONTEXT_OF_CLASS: Final = {"falcon": 2048, "gemma3": 131_072, "gemma3_text": 131_072}
# Each position has a learned vector of its own: beyond the last there is nothing to compute with.
_LEARNED_POSITIONS: Final = frozenset({"gpt2", "gpt_neo", "gpt_bigcode", "opt", "openai-gpt", "biogpt", "codegen"})
_ARITHMETIC: Final = {"int4": "bfloat16", "mxfp4": "bfloat16"}  # weights alone are narrow
# A boost clock in the hardware table is the one of the published peak. Drivers allow some more: 1980 MHz on an H100
# (1830 in its peak), 3105 MHz on an RTX 4090 (2520).
_ABOVE_BOOST: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model whose config was found."""

    reference: str  # as it was asked for
    model_type: str
    context_tokens: int | None  # None: the config states no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is wrong with a request, and what should be known of its answer."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_model(reference: str) -> KnownModel:
    """Look a model up, without any network; raises ``UnknownModel`` naming close ones and how to add one."""
    path = _config_path(reference)
    if path is None:
        close = closest_ids(reference)
        nearest = f"Closest: {', '.join(close)}. " if close else ""
        raise UnknownModel(
            f"{reference[:200]!r} is not known offline: it is no file or folder here, none of the "
            f"{len(shipped_ids())} models that ship, and not in the local Hub cache.\n"
            f"{nearest}--list-models names all. For any other model give the path of its config.json, or of the folder "
            "that has it."
        )
    return _known(reference, path)


def _config_path(reference: str) -> Path | None:
    """The config.json that a reference leads to, None where there is none."""
    from harness.models.hub import Refusal, cached_snapshot, is_model_id

    shipped = shipped_config(reference)
    if shipped is not None:
        return shipped
    try:
        path = Path(reference).expanduser()
        if path.is_file():
            return path
        if reference and path.is_dir():
            return path / "config.json"
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user's home, a null byte
        return None
    if not is_model_id(reference):
        return None
    snapshot = cached_snapshot(reference, None)
    return None if isinstance(snapshot, Refusal) else snapshot / "config.json"


def _known(reference: str, path: Path) -> KnownModel:
    from harness.models.checkpoint import read_config

    config = read_config(path)
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else config
    model_type = str(text.get("model_type") or config.get("model_type") or "")
    if not model_type:
        raise UnknownModel(f"{path} names no model_type, so it is no model's config.json.\nDownload the model again.")
    stated = [value for key in _CONTEXT_KEYS if type(value := text.get(key)) is int and value > 0]
    return KnownModel(
        reference=reference,
        model_type=model_type,
        context_tokens=stated[0] if stated else _CONTEXT_OF_CLASS.get(model_type),
    )


def default_dtype(hardware: Hardware) -> str:
    """bfloat16 where the GPU has units for it, else float16, else float32."""
    return next((name for name in ("bfloat16", "float16") if hardware.supports(name)), "float32")


def check(request: PredictionRequest, model: KnownModel) -> Findings:
    """Everything that rules a request out or puts its answer in doubt, and needs no predictor to be seen."""
    errors: list[str] = []
    warnings: list[str] = []
    _check_context(request, model, errors, warnings)
    _check_device(request, errors, warnings)
    _check_parallel(request, errors)
    return Findings(errors=tuple(errors), warnings=tuple(warnings))


def _check_context(request: PredictionRequest, model: KnownModel, errors: list[str], warnings: list[str]) -> None:
    needed = request.prompt_tokens + max(0, request.output_tokens - 1)  # the last token is never fed back
    limit = model.context_tokens
    if limit is None or needed <= limit:
        return
    what = f"a context of {needed:,} tokens is longer than the {limit:,} that {model.reference} was made for"
    if request.runtime in SERVED:
        errors.append(f"{what}, and {request.runtime} refuses it; shorten prompt or output")
    elif model.model_type in _LEARNED_POSITIONS:
        errors.append(f"{what}, and its learned positions end there; shorten prompt or output")
    else:
        warnings.append(f"{what}: {request.runtime} computes it, but not to any use")


def _check_device(request: PredictionRequest, errors: list[str], warnings: list[str]) -> None:
    hardware = request.hardware
    if hardware.emulates(_ARITHMETIC.get(request.dtype, request.dtype)):
        warnings.append(
            f"no native {request.dtype} on {hardware.name}, as far as the hardware table knows: it is computed in "
            "another dtype"
        )
    clock_mhz, boost_mhz = request.sm_clock_mhz, hardware.boost_clock_mhz
    if clock_mhz is not None and boost_mhz is not None and clock_mhz > _ABOVE_BOOST * boost_mhz:
        errors.append(
            f"sm_clock_mhz: {hardware.name} cannot run at {clock_mhz:g} MHz; its boost clock is {boost_mhz:g} MHz"
        )
    limit_w, board_w = request.power_limit_w, hardware.board_power_w
    if limit_w is not None and board_w is not None and limit_w > board_w:
        errors.append(
            f"power_limit_w: {limit_w:g} W is above the {board_w:g} W of {hardware.name}; a board with a higher limit "
            "can be described in a --hardware file"
        )


def _check_parallel(request: PredictionRequest, errors: list[str]) -> None:
    replicas = request.data_parallel
    if replicas is not None and request.n_gpus % replicas:
        errors.append(f"data_parallel: {replicas} replicas do not divide {request.n_gpus} GPUs")
    ranks = request.expert_parallel
    if ranks is not None and request.n_gpus % ranks:
        errors.append(f"expert_parallel: {ranks} ranks do not divide {request.n_gpus} GPUs")


def kind_of(reason: str) -> str:
    """Equal for messages that differ in their numbers only.

    >>> kind_of("needs 80.5 GiB") == kind_of("needs 1,000 GiB")
    True
    """
    return re.sub(r"\d[\d.,]*", "#", reason)


def one_line(error: HarnessError | str) -> str:
    """A message on one line, for the row of a table: without examples, lists with commas."""
    text = str(error).split(":\n\n", 1)[0]
    text = text.replace(":\n  ", ": ").replace("\n  ", ", ")
    return " ".join(text.split())
