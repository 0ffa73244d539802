"""Publishing a release on the Hugging Face Hub: to a branch of its own, or as a pull request; never to ``main``.

The one door to the Hub's client for datasets; every failure of it becomes an error of the harness here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

_TYPE = "dataset"
_MAIN = "main"
# Folders of a release: files that lie there on the Hub and are in no release any more would be read with the others.
_OWN_FOLDERS = ("data/", "figures/", "LICENSES/")
_AGAIN = "The release itself is complete: `python -m harness.release REL --version … --push …` pushes it as it is."
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a release goes."""

    repository: str  # owner/name
    branch: str | None  # null: a pull request
    private: bool = False  # of a repository that is made by this

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a branch that releases are not pushed to."""
        if self.branch is not None and (self.branch == _MAIN or self.branch.startswith("refs/")):
            raise UsageError(
                f"A release is not pushed to {self.branch}: what people load by default changes only after a look.\n"
                "Name another --branch, or use --pull-request."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What the Hub made of it."""

    address: str  # of the branch or the pull request
    files: int


def dataset_url(repository: str) -> str:
    """The page of a dataset on the Hub."""
    return f"https://huggingface.co/datasets/{repository}"


def push(folder: Path, target: Target, *, message: str, endpoint: str | None = None) -> Pushed:
    """Upload a release folder in one commit.

    Raises ``UsageError`` for a name that no repository has, and ``DatasetError`` where the Hub refuses or cannot be
    reached; nothing is changed on it then, but for a branch or repository without the release.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    return _guarded(target, lambda: _push(api, folder, target, message))


def _push(api: "HfApi", folder: Path, target: Target, message: str) -> Pushed:
    repository, branch = target.repository, target.branch
    if branch is not None:
        api.create_repo(repository, repo_type=_TYPE, private=target.private or None, exist_ok=True)
        api.create_branch(repository, branch=branch, repo_type=_TYPE)
    there = api.list_repo_files(repository, repo_type=_TYPE, revision=branch or _MAIN)
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = []
    operations += _additions(folder)
    operations += _deletions(folder, there)
    made = api.create_commit(
        repository,
        operations,
        commit_message=message,
        repo_type=_TYPE,
        revision=branch or _MAIN,
        create_pr=branch is None,
    )
    address = made.pr_url or f"{api.endpoint}/datasets/{repository}/tree/{branch}"
    return Pushed(address=address, files=sum(1 for _ in _names(folder)))


def _names(folder: Path) -> Iterator[str]:
    """Files of the release, by their path in it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in name.split("/")):
            yield name


def _additions(folder: Path) -> "Iterator[CommitOperationAdd]":
    from huggingface_hub import CommitOperationAdd

    for name in _names(folder):
        yield CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name)


def _deletions(folder: Path, there: list[str]) -> "Iterator[CommitOperationDelete]":
    from huggingface_hub import CommitOperationDelete

    kept = set(_names(folder))
    for name in there:
        if name.startswith(_OWN_FOLDERS) and name not in kept:
            yield CommitOperationDelete(path_in_repo=name)


def _guarded(target: Target, act: Callable[[], Answer]) -> Answer:
    """Translate what the Hub's client raises."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its transport, e.g. no connection

    try:
        return act()
    except errors.HFValidationError as error:
        raise UsageError(
            f"{target.repository[:96]!r} is no name of a repository on the Hub.\nWrite it as OWNER/NAME."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise DatasetError(f"The Hub is not asked: HF_HUB_OFFLINE is set.\nUnset it to push. {_AGAIN}") from error
    except errors.HfHubHTTPError as error:
        raise _refused(target, error.response.status_code, error.server_message) from error
    except errors.LocalTokenNotFoundError as error:
        raise _refused(target, 401, None) from error
    except (HTTPError, OSError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else "no answer"
        raise DatasetError(
            f"{target.repository} could not be pushed to: {why}.\nCheck the network. {_AGAIN}"
        ) from error


def _refused(target: Target, status: int, said: str | None) -> DatasetError:
    quoted = f" ({' '.join(said.split())[:200]})" if said else ""
    reasons = {
        401: ("no valid token was sent", "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."),
        403: ("the token may not write there", "Ask its owner for access, or propose it with --pull-request."),
        404: ("there is no such dataset, or it is private", "Check the name and the token."),
        409: (f"branch {target.branch} is there already", "Name another one with --branch, or raise --version."),
        413: ("it is larger than the Hub takes at once", "Push it in parts with `hf upload-large-folder`."),
    }
    why, remedy = reasons.get(status, (f"it answered {status}", f"Try again later. {_AGAIN}"))
    return DatasetError(f"The Hub refused {target.repository}: {why}{quoted}.\n{remedy}")
