import dataclasses
import json
from pathlib import Path

import pytest
import torch

from harness.errors import UsageError
from predictor.checkpoint import SHIPPED, card_path, read_checkpoint, write_checkpoint
from predictor.features import NAMES
from predictor.licences import is_open
from predictor.model_card import page

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    shipped = read_checkpoint(SHIPPED)
    write_checkpoint(shipped, tmp_path / "a.safetensors")
    again = read_checkpoint(tmp_path / "a.safetensors")

    assert again.card == shipped.card
    for name, value in shipped.kernels.state_dict().items():
        assert torch.equal(again.kernels.state_dict()[name], value)


def test_the_shipped_checkpoint_is_small_and_learned_from_open_measurements_only() -> None:
    card = read_checkpoint(SHIPPED).card

    assert SHIPPED.stat().st_size <= 5_000_000
    assert card.features == NAMES
    assert card.allowed == ()
    for entry in card.learned_from:
        assert all(is_open(licence) for licence in (entry.licence or "").split(", ")), entry
        assert "simulated" not in entry.provenance
        assert "estimated" not in entry.provenance


def test_the_page_of_the_shipped_checkpoint_is_up_to_date() -> None:
    written = (ROOT / "docs" / "predictor.md").read_text(encoding="utf-8")

    assert written == page(read_checkpoint(SHIPPED).card), "run: python -m predictor.model_card > docs/predictor.md"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda values: values | {"format": 99}, "format 99"),
        (lambda values: values | {"surprise": 1}, "unknown entries: surprise"),
        (lambda values: values | {"features": ["m"]}, "other features"),
        (lambda values: {"format": 1}, "cannot be read"),
    ],
)
def test_a_card_of_something_else_is_refused_with_a_reason(tmp_path: Path, change: object, text: str) -> None:
    path = tmp_path / "b.safetensors"
    write_checkpoint(read_checkpoint(SHIPPED), path)
    values = json.loads(card_path(path).read_text())
    card_path(path).write_text(json.dumps(change(values)))  # type: ignore[operator]

    with pytest.raises(UsageError, match=text):
        read_checkpoint(path)


def test_a_damaged_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(read_checkpoint(SHIPPED), path)
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(UsageError, match="is no checkpoint"):
        read_checkpoint(path)


def test_cards_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_checkpoint(SHIPPED).card.seed = 1  # type: ignore[misc]
