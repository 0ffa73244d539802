"""A bundle offered to the Hub: what it is sent, and what people are told where that fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.dataset.contributions.bundle import Bundle, BundledFile
from harness.dataset.contributions.offering import HubRepository, Offer, offer_of, steps_by_hand
from harness.dataset.schema import Table
from harness.errors import DatasetError, UsageError
from tests.harness.dataset.release.hub_stand_in import TOKEN, StandIn, stand_in

BUNDLE = Bundle(
    harness="0.1.0",
    lab="green-lab",
    contact="https://green-lab.example",
    gpu="NVIDIA L4",
    created_utc="2026-11-30T10:00:00+00:00",
    files=(BundledFile(table=Table.RUNS, sha256="0" * 64, size_bytes=10, rows=1234),),
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks LFS
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in() as state:
        state.repositories["o/n"] = {"main": {"README.md": b"card"}}
        yield state


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    path = tmp_path / "joulegraph-green-lab-nvidia-l4-0.zip"
    path.write_bytes(b"PK the bundle")
    return offer_of(path, BUNDLE)


def test_a_pull_request_holds_the_bundle_and_nothing_else(hub: StandIn, offer: Offer) -> None:
    address = HubRepository(name="o/n", endpoint=hub.url).open_pull_request(offer)

    assert address == f"{hub.url}/datasets/o/n/discussions/1"
    assert hub.messages == ["Measurements on NVIDIA L4 by green-lab"]
    assert hub.pull_requests == [{"README.md": b"card", f"contributions/{offer.path.name}": b"PK the bundle"}]
    assert hub.repositories["o/n"]["main"] == {"README.md": b"card"}


def test_what_a_pull_request_says(offer: Offer) -> None:
    assert "`runs`: 1,234 rows" in offer.text
    assert "Contact: https://green-lab.example" in offer.text
    assert "--dry-run" in offer.text


@pytest.mark.parametrize(
    ("status", "why"), [(401, "hf auth login"), (403, "may not open pull requests"), (418, "it answered 418")]
)
def test_a_refusal_says_why_and_that_the_bundle_is_written(hub: StandIn, offer: Offer, status: int, why: str) -> None:
    hub.refuse_with = status

    with pytest.raises(DatasetError, match=f"(?s){why}.*The bundle is written"):
        HubRepository(name="o/n", endpoint=hub.url).open_pull_request(offer)
    assert hub.pull_requests == []


def test_a_dataset_that_there_is_not_is_told(hub: StandIn, offer: Offer) -> None:
    with pytest.raises(DatasetError, match="there is no such dataset"):
        HubRepository(name="o/other", endpoint=hub.url).open_pull_request(offer)


def test_offline_mode_is_told(hub: StandIn, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set"):
        HubRepository(name="o/n", endpoint=hub.url).open_pull_request(offer)


def test_a_name_that_no_repository_has_is_a_usage_error(offer: Offer) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        HubRepository(name="not a name", endpoint="http://127.0.0.1:9").open_pull_request(offer)


def test_the_steps_by_hand_are_exact(offer: Offer) -> None:
    text = "\n".join(steps_by_hand(offer, "o/n"))

    assert f"hf upload o/n {offer.path} contributions/{offer.path.name} --repo-type dataset --create-pr" in text
    assert "https://huggingface.co/datasets/o/n" in text
