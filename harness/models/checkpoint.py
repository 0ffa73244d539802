"""What a model folder holds: its config.json, read with care, and whether its weights can be loaded safely."""

import hashlib
import json
from pathlib import Path

from harness.errors import UnknownModel

MAX_CONFIG_BYTES = 8 * 1024**2  # published configs are below 1 MiB; anything larger is no config
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_VOLATILE_KEYS = frozenset({"transformers_version", "_name_or_path", "_commit_hash", "_attn_implementation"})


def read_config(path: Path) -> dict[str, object]:
    """The JSON object of a config.json. Raises UnknownModel for anything else, and for a file that is too large."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UnknownModel(f"{path} is larger than {MAX_CONFIG_BYTES // 1024**2} MiB, so it is no model's config.")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnknownModel(
            f"{path.parent} holds no readable {path.name} ({error.strerror}), so it is no Hugging Face model.\n"
            "Name a folder with config.json and *.safetensors, a config.json, or a Hub id."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{path} is not valid JSON ({error}).\nDownload or export the model again.") from error
    if not isinstance(config, dict):
        raise UnknownModel(f"{path} holds no JSON object, so it is no model's config.\nDownload the model again.")
    return config


def config_sha256(config: dict[str, object]) -> str:
    """Hash of a config as canonical JSON, without what changes from one saving to the next."""
    text = json.dumps(_without_volatile(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_volatile(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_volatile(item) for key, item in value.items() if key not in _VOLATILE_KEYS}
    if isinstance(value, list):
        return [_without_volatile(item) for item in value]
    return value


def check_causal_lm(config: dict[str, object], path: Path, *, trust_remote_code: bool) -> None:
    """Raise UnknownModel unless transformers has a causal language model for this config.

    A checkpoint made for another task (an encoder, a classifier) is refused even where its family also has a causal
    model: its output layer would be random.
    """
    model_type, auto_map = config.get("model_type"), config.get("auto_map")
    own_code = isinstance(auto_map, dict) and "AutoModelForCausalLM" in auto_map
    if own_code and trust_remote_code:
        return
    known, masked = _architectures()
    if not isinstance(model_type, str) or model_type not in known:
        raise UnknownModel(_no_causal_lm(model_type, path, own_code))
    stated = config.get("architectures")
    names = {str(name) for name in stated} if isinstance(stated, list) else set()
    encoder = model_type in masked and not names and not config.get("is_decoder")
    if encoder or (names and not names & known[model_type]):
        what = ", ".join(sorted(names)) or "an encoder"
        raise UnknownModel(
            f"{path} describes {what} ({model_type}), which is no causal language model: it does not generate text.\n"
            f"Name a checkpoint made for generation ({', '.join(sorted(known[model_type]))})."
        )


def _no_causal_lm(model_type: object, path: Path, own_code: bool) -> str:
    if own_code:
        return (
            f"{path} describes a model ({model_type}) that needs code from its own repository.\n"
            "Read that code, and if you trust it add --trust-remote-code."
        )
    return (
        f"{path} describes no causal language model: this version of transformers has none for model_type "
        f"{model_type!r}.\nName a text generation model, or upgrade transformers if the architecture is newer."
    )


def _architectures() -> tuple[dict[str, set[str]], frozenset[str]]:
    """Causal classes by model_type, and the model_types that are encoders unless they say otherwise."""
    from transformers.models.auto import modeling_auto as auto

    def classes(value: object) -> set[str]:
        return {str(name) for name in value} if isinstance(value, (list, tuple)) else {str(value)}

    causal = {name: classes(value) for name, value in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    return causal, frozenset(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)


def weights_problem(folder: Path) -> str | None:
    """Why the weights of a folder cannot be loaded; None if all of them are there as safetensors."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _missing_shards(folder, index)
    if (folder / "model.safetensors").is_file():
        return None
    names = [path.name for path in folder.iterdir() if path.stem != "training_args"]
    if any(name.endswith(_PICKLED) for name in names):
        return (
            "its weights are pickled (.bin), and loading a pickle runs whatever code it contains; "
            "only safetensors are loaded"
        )
    if any(name.endswith(".gguf") for name in names):
        return "its weights are a GGUF file; only safetensors are loaded"
    return "it holds no weights (no model.safetensors)"


def _missing_shards(folder: Path, index: Path) -> str | None:
    try:
        if index.stat().st_size > 16 * MAX_CONFIG_BYTES:
            return f"{index.name} is too large"
        shards = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return f"{index.name} cannot be read"
    if any(Path(name).name != name or not name.endswith(".safetensors") for name in shards):
        return f"{index.name} names files that are no safetensors of this folder"
    missing = sorted(name for name in shards if not (folder / name).is_file())
    return f"{len(missing)} of its {len(shards)} weight files are missing ({missing[0]}, …)" if missing else None


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds any file that a tokenizer is made from."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
