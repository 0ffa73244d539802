"""The Hugging Face Hub and its local cache. Every failure comes back as a Refusal: a reason and a remedy."""

import errno
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import CannotWrite
from harness.models.checkpoint import MAX_CONFIG_BYTES

CACHE = "the local Hub cache"
HUB = "the Hub"
_ANSWER_S = 5.0  # patience with each connection to the Hub
_GIVE_UP_S = 8.0  # patience with the Hub as a whole: name servers that do not answer have a timeout of their own
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
_Answer = TypeVar("_Answer")
_SMALL_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a model was not found in one place."""

    where: str
    why: str
    remedy: str = ""


def is_model_id(reference: str) -> bool:
    """Whether a reference has the form of a Hub id: ``name`` or ``owner/name``."""
    return _MODEL_ID.fullmatch(reference) is not None and ".." not in reference and len(reference) <= 96


def snapshot_identity(folder: Path) -> tuple[str, str | None]:
    """Name and revision of a model folder: Hub id and commit if it lies in a Hub cache, else the folder's name."""
    folder = folder.absolute()
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/"), folder.name
    return folder.resolve().name, None


def cached_snapshot(model_id: str, revision: str | None) -> Path | Refusal:
    """The folder of a model in the local Hub cache; it may be incomplete."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    if isinstance(config, str):
        return Path(config).parent
    return Refusal(where=CACHE, why="not there" if revision is None else f"revision {revision} is not there")


def fetch_snapshot(model_id: str, revision: str | None, *, weights: bool, code: bool) -> Path | Refusal:
    """Download config, tokenizer and, if wanted, safetensors and code of a model; returns its snapshot folder."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Refusal(
            where=HUB, why="not asked, HF_HUB_OFFLINE is set", remedy="Unset HF_HUB_OFFLINE to download the model."
        )
    listing = _guarded(model_id, lambda: _within(_GIVE_UP_S, lambda: _files(model_id, revision)))
    if isinstance(listing, Refusal):
        return listing
    problem = _unsuitable(listing, weights)
    if problem is not None:
        return problem
    wanted = [name for name, size in listing.items() if _is_wanted(name, size, weights=weights, code=code)]
    return _guarded(model_id, lambda: _download(model_id, revision, wanted))


def _files(model_id: str, revision: str | None) -> dict[str, int]:
    """Size in bytes of each file at the top level of a model repository."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(model_id, revision=revision, timeout=_ANSWER_S, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}


def _unsuitable(sizes: dict[str, int], weights: bool) -> Refusal | None:
    if "config.json" not in sizes or sizes["config.json"] > MAX_CONFIG_BYTES:
        return Refusal(where=HUB, why="the repository holds no config.json of a plausible size")
    if weights and not any(name.endswith(".safetensors") for name in sizes):
        return Refusal(
            where=HUB,
            why="the repository holds no safetensors",
            remedy="Pickled or GGUF weights are not loaded: look for a conversion, or add --random-weights.",
        )
    return None


def _is_wanted(name: str, size: int, *, weights: bool, code: bool) -> bool:
    if name.endswith(".safetensors"):
        # Some repositories hold the weights twice; transformers reads model*.safetensors.
        return weights and name.startswith("model")
    if name.endswith(".safetensors.index.json"):
        return weights
    if name.endswith(".py"):
        return code
    return name.endswith(_SMALL_FILES) and size < 256 * 1024**2


def _download(model_id: str, revision: str | None, files: list[str]) -> Path:
    """Asks for the revision by its name, so that the cache remembers which commit it meant."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model_id, revision=revision, allow_patterns=files, etag_timeout=_ANSWER_S))


def _guarded(model_id: str, ask: Callable[[], _Answer]) -> _Answer | Refusal:
    """Translate what the Hub client raises."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its transport, e.g. no connection

    try:
        return ask()
    except errors.GatedRepoError:
        return Refusal(
            where=HUB,
            why="the model is gated",
            remedy=f"Accept the licence of {model_id} on its page, then set HF_TOKEN or run `hf auth login`.",
        )
    except errors.RevisionNotFoundError:
        return Refusal(where=HUB, why="no such revision", remedy="Check --revision: a branch, tag or commit.")
    except errors.RepositoryNotFoundError:
        return Refusal(
            where=HUB,
            why="no such model, or it is private",
            remedy="Check the spelling (owner/name); a private or gated model needs HF_TOKEN or `hf auth login`.",
        )
    except (OSError, HTTPError) as error:
        if getattr(error, "errno", None) in _DISK_ERRORS:
            raise CannotWrite(
                f"{model_id} cannot be stored in {CACHE}: {error}.\nFree space, or set HF_HOME."
            ) from error
        return Refusal(
            where=HUB,
            why=f"no usable answer ({(str(error) or type(error).__name__).splitlines()[0]})",
            remedy="Check the network and the spelling of the id, or give a local folder with config.json.",
        )


def _within(limit_s: float, ask: Callable[[], _Answer]) -> _Answer:
    """Run ``ask`` for at most ``limit_s``; raises TimeoutError. A call that hangs is left behind in a daemon thread."""
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"none within {limit_s:g} s")
    return answers[0]
