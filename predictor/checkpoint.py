"""A trained predictor in two files: weights as safetensors, and a JSON card that says what they were learned from."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from harness.errors import CannotWrite, UsageError
from predictor.features import NAMES
from predictor.network import KernelNetwork
from predictor.pass_model import PassModel

FORMAT = 1
SHIPPED = Path(__file__).parent / "data" / "reference.safetensors"
_MOST_BYTES = 64 * 1024**2
_MOST_CARD_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedFrom:
    """One dataset behind a checkpoint."""

    source: str
    licence: str | None
    provenance: str
    content_sha256: str  # of the identities of its rows
    kernels: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Half width of the 90 % interval of one quantity of one group, as a natural logarithm."""

    runtime_class: str  # eager or served
    part: str  # prefill, decode, whole
    quantity: str  # energy or time
    half_width: float
    residuals: int  # held-out labels behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenHardware:
    """A GPU that kernels were learned from."""

    name: str
    attributes: tuple[float, ...]  # the features of the group hardware, 16-bit arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a checkpoint is."""

    format: int
    features: tuple[str, ...]
    width: int
    layers: int
    learned_from: tuple[LearnedFrom, ...]
    allowed: tuple[str, ...]  # provenances other than measured and imported that were asked for by name
    seen_hardware: tuple[SeenHardware, ...]
    seen_runtimes: tuple[str, ...]  # of whole requests
    spreads: tuple[Spread, ...]
    scores: dict[str, Any]
    splits: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    commit: str | None
    made_at_utc: str

    def to_json(self) -> str:
        """Readable JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Networks and their card."""

    kernels: KernelNetwork
    passes: PassModel
    card: Card


def card_path(path: Path) -> Path:
    """Where the card of a checkpoint lies: beside it."""
    return path.with_suffix(".json")


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write both files; raises ``CannotWrite``."""
    tensors = {f"kernels.{name}": value for name, value in checkpoint.kernels.state_dict().items()}
    tensors |= {f"passes.{name}": value for name, value in checkpoint.passes.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
        card_path(path).write_text(checkpoint.card.to_json(), encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"The checkpoint {path} cannot be written: {error}.\nChoose another --out.") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read both files; raises ``UsageError`` for anything that is not a checkpoint of this version."""
    card = _card(card_path(path))
    if card.features != NAMES:
        raise UsageError(
            f"{path} was trained on other features than this version has.\nTrain it again: python -m predictor.train."
        )
    kernels, passes = KernelNetwork(width=card.width, layers=card.layers), PassModel()
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than any checkpoint of this project, so it is not read.")
        tensors = load_file(path)
        kernels.load_state_dict(_part(tensors, "kernels."))
        passes.load_state_dict(_part(tensors, "passes."))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(f"{path} is no checkpoint: {reason}.\nTrain one: python -m predictor.train.") from error
    return Checkpoint(kernels=kernels.eval(), passes=passes.eval(), card=card)


def read_card(path: Path) -> Card:
    """The card of a checkpoint; raises ``UsageError``."""
    return _card(card_path(path))


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _card(path: Path) -> Card:
    try:
        if path.stat().st_size > _MOST_CARD_BYTES:
            raise ValueError("it is too large")
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"it is of format {values['format']}, and this version reads {FORMAT}")
        return _card_from(values)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(
            f"The checkpoint's card {path} cannot be read: {error}.\nIt lies beside the .safetensors file and is "
            "written with it by python -m predictor.train."
        ) from error


def _card_from(values: dict[str, Any]) -> Card:
    unknown = set(values) - {field.name for field in fields(Card)}
    if unknown:
        raise ValueError(f"it has unknown entries: {', '.join(sorted(unknown))}")
    lists = {"features", "allowed", "seen_runtimes"}
    plain: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in values.items()}
    plain["learned_from"] = tuple(LearnedFrom(**entry) for entry in values["learned_from"])
    plain["spreads"] = tuple(Spread(**entry) for entry in values["spreads"])
    plain["seen_hardware"] = tuple(
        SeenHardware(name=entry["name"], attributes=tuple(entry["attributes"])) for entry in values["seen_hardware"]
    )
    return Card(**plain)
