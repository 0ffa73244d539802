"""Publishing, with the Hub's real client against a stand-in on this machine: no network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.dataset.release.hub import Target, dataset_url, push
from harness.dataset.release.releasing import release
from harness.errors import DatasetError, UsageError
from tests.harness.dataset.release.hub_stand_in import TOKEN, StandIn, stand_in
from tests.harness.dataset.release.releasable import dataset, own_run, wanted


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks LFS
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in() as state:
        yield state


@pytest.fixture(scope="module")
def rel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.dataset.release.releasing._refuse_faulty", lambda _folder: None)
        release(wanted([dataset(home / "a", [own_run(0)])], home / "rel"))
    return home / "rel"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_release_goes_to_a_branch_of_its_own_and_main_stays_as_it_was(hub: StandIn, rel: Path) -> None:
    pushed = push(
        rel, Target(repository="me/energy", branch="release-1.0.0"), message="Release 1.0.0", endpoint=hub.url
    )

    branches = hub.repositories["me/energy"]
    assert branches["main"] == {".gitattributes": b""}
    assert branches["release-1.0.0"] == {".gitattributes": b"", **files_of(rel)}
    assert pushed.address == f"{hub.url}/datasets/me/energy/tree/release-1.0.0"
    assert pushed.files == len(files_of(rel))
    assert hub.messages == ["Release 1.0.0"]
    assert hub.blobs  # the tables went by LFS
    assert "me/energy" not in hub.private


def test_a_new_repository_is_private_if_asked(hub: StandIn, rel: Path) -> None:
    push(rel, Target(repository="me/secret", branch="r", private=True), message="Release", endpoint=hub.url)

    assert hub.private == {"me/secret"}


def test_a_pull_request_replaces_the_files_of_an_older_release_and_keeps_those_of_others(
    hub: StandIn, rel: Path
) -> None:
    old = {"data/runs/data-old-00000.parquet": b"old", "notes.md": b"mine", "README.md": b"old card"}
    hub.repositories["others/energy"] = {"main": dict(old)}

    pushed = push(rel, Target(repository="others/energy", branch=None), message="Release", endpoint=hub.url)

    assert hub.repositories["others/energy"]["main"] == old
    assert hub.pull_requests == [{"notes.md": b"mine", **files_of(rel)}]
    assert pushed.address == f"{hub.url}/datasets/others/energy/discussions/1"


@pytest.mark.parametrize("branch", ["main", "refs/pr/1", "refs/heads/main"])
def test_main_is_never_pushed_to(branch: str) -> None:
    with pytest.raises(UsageError, match="is not pushed to"):
        Target(repository="me/energy", branch=branch)


def test_a_branch_that_is_there_is_not_touched(hub: StandIn, rel: Path) -> None:
    target = Target(repository="me/energy", branch="release-1.0.0")
    push(rel, target, message="Release", endpoint=hub.url)
    before = dict(hub.repositories["me/energy"]["release-1.0.0"])

    with pytest.raises(DatasetError, match=r"branch release-1\.0\.0 is there already"):
        push(rel, target, message="Release", endpoint=hub.url)

    assert hub.repositories["me/energy"]["release-1.0.0"] == before


def test_without_a_token_it_says_how_to_log_in(hub: StandIn, rel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")

    with pytest.raises(DatasetError, match=r"no valid token was sent.*\n.*hf auth login"):
        push(rel, Target(repository="me/energy", branch="r"), message="Release", endpoint=hub.url)


def test_a_namespace_of_others_is_refused_with_the_way_out(hub: StandIn, rel: Path) -> None:
    with pytest.raises(DatasetError, match=r"may not write there.*\n.*--pull-request"):
        push(rel, Target(repository="others/energy", branch="r"), message="Release", endpoint=hub.url)


def test_a_dataset_that_is_not_there_gets_no_pull_request(hub: StandIn, rel: Path) -> None:
    with pytest.raises(DatasetError, match="no such dataset, or it is private"):
        push(rel, Target(repository="others/nothing", branch=None), message="Release", endpoint=hub.url)


def test_what_the_hub_says_is_passed_on(hub: StandIn, rel: Path) -> None:
    hub.refuse_with = 422

    with pytest.raises(DatasetError, match=r"it answered 422 \(not today\)"):
        push(rel, Target(repository="me/energy", branch="r"), message="Release", endpoint=hub.url)


def test_offline_and_unreachable_are_told_apart(hub: StandIn, rel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with pytest.raises(DatasetError, match="Check the network"):
        push(rel, Target(repository="me/energy", branch="r"), message="Release", endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set"):
        push(rel, Target(repository="me/energy", branch="r"), message="Release", endpoint=hub.url)


def test_a_name_that_no_repository_has_is_a_usage_error(hub: StandIn, rel: Path) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        push(rel, Target(repository="a/b/c", branch="r"), message="Release", endpoint=hub.url)


def test_the_page_of_a_dataset() -> None:
    assert dataset_url("me/energy") == "https://huggingface.co/datasets/me/energy"
