"""The shipped file of graphs: one JSON member for what is served, one for each way of running eagerly.

Members are named after the hash of the config that they describe, so models of the same config share them and a
changed config finds none.
"""

import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import CorruptFile
from predictor.lowering_ops import ServedModel
from predictor.model_facts import ModelSizes
from predictor.templates_graph import PhaseGraph
from predictor.templates_json import phase_from, phase_json, served_from, served_json

VERSION = 1  # of what members hold; others are not read
SHIPPED = Path(__file__).with_name("data") / "graphs.zip"
_MAX_FILE_BYTES = 16 * 1024**2
_MAX_MEMBER_BYTES = 4 * 1024**2
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredServed:
    """A model as serving runtimes run it."""

    sizes: ModelSizes
    served: ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEager:
    """A model as transformers runs it with a cache."""

    prefill: PhaseGraph
    decode: PhaseGraph


def served_member(config_sha256: str) -> str:
    """Name of a member."""
    return f"{config_sha256[:20]}/served.json"


def eager_member(config_sha256: str, attention: str, tensor_parallel: int) -> str:
    """Name of a member."""
    return f"{config_sha256[:20]}/{attention}-tp{tensor_parallel}.json"


def stored_served(config_sha256: str, path: Path = SHIPPED) -> StoredServed | None:
    """None where the file does not have it; raises ``CorruptFile``."""
    values = _member(path, served_member(config_sha256))
    if values is None:
        return None
    try:
        return StoredServed(sizes=ModelSizes.from_json(values["sizes"]), served=served_from(values["served"]))
    except _MALFORMED as error:
        raise _damaged(str(error)) from error


def stored_eager(config_sha256: str, attention: str, tensor_parallel: int, path: Path = SHIPPED) -> StoredEager | None:
    """None where the file does not have it; raises ``CorruptFile``."""
    values = _member(path, eager_member(config_sha256, attention, tensor_parallel))
    if values is None:
        return None
    try:
        return StoredEager(prefill=phase_from(values["prefill"]), decode=phase_from(values["decode"]))
    except _MALFORMED as error:
        raise _damaged(str(error)) from error


def served_text(stored: StoredServed) -> str:
    """A member's text."""
    return _text({"sizes": stored.sizes.to_json(), "served": served_json(stored.served)})


def eager_text(stored: StoredEager) -> str:
    """A member's text."""
    return _text({"prefill": phase_json(stored.prefill), "decode": phase_json(stored.decode)})


def members(path: Path = SHIPPED) -> frozenset[str]:
    """Names of all members; none where there is no file."""
    opened = _opened(path)
    return frozenset() if opened is None else frozenset(opened.namelist())


def _text(values: dict[str, Any]) -> str:
    return json.dumps({"version": VERSION, **values}, separators=(",", ":"), allow_nan=False)


def _member(path: Path, name: str) -> dict[str, Any] | None:
    opened = _opened(path)
    if opened is None:
        return None
    try:
        info = opened.getinfo(name)
    except KeyError:
        return None
    if info.file_size > _MAX_MEMBER_BYTES:
        raise _damaged(f"{name} is too large")
    try:
        values = json.loads(opened.read(info))
    except (ValueError, OSError, zipfile.BadZipFile, RecursionError, NotImplementedError) as error:
        raise _damaged(f"{name}: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(f"{name} is no object")
    return values if values.get("version") == VERSION else None


@cache
def _opened(path: Path) -> zipfile.ZipFile | None:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise _damaged("the file is too large")
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        return None
    except (OSError, zipfile.BadZipFile) as error:
        raise _damaged(str(error)) from error


def _damaged(reason: str) -> CorruptFile:
    return CorruptFile(f"The shipped kernel graphs are damaged: {reason}.\nInstall joulegraph again.")
