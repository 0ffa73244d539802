"""Offering a bundle to the dataset's repository: as a pull request on the Hugging Face Hub, or by hand.

The one door through which a bundle leaves this machine. A pull request holds one file, ``contributions/<bundle>``;
nothing that people load changes until a maintainer has taken it (``python -m harness.accept``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.dataset.contributions.bundle import Bundle
from harness.dataset.contributions.writing import bundle_name
from harness.dataset.release.hub import dataset_url
from harness.errors import DatasetError, UsageError

FOLDER = "contributions"
_TYPE = "dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A bundle as a pull request shows it."""

    path: Path
    title: str
    text: str

    @property
    def place(self) -> str:
        """Where the bundle lies in the repository."""
        return f"{FOLDER}/{self.path.name}"


class Repository(Protocol):
    """Where offers go."""

    def open_pull_request(self, offer: Offer) -> str:
        """Returns the address of the pull request; raises ``DatasetError`` and ``UsageError``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepository:
    """A dataset repository on the Hugging Face Hub."""

    name: str  # owner/name
    endpoint: str | None = None  # null: what HF_ENDPOINT says, or the Hub itself

    def open_pull_request(self, offer: Offer) -> str:
        """Upload the bundle as a pull request; nothing is changed on the Hub where that fails."""
        from huggingface_hub import CommitOperationAdd, HfApi, errors
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its transport

        operation = CommitOperationAdd(path_in_repo=offer.place, path_or_fileobj=offer.path)
        try:
            made = HfApi(endpoint=self.endpoint).create_commit(
                self.name,
                [operation],
                commit_message=offer.title,
                commit_description=offer.text,
                repo_type=_TYPE,
                create_pr=True,
            )
        except errors.HFValidationError as error:
            raise UsageError(
                f"{self.name[:96]!r} is no name of a repository.\nWrite --repository as OWNER/NAME."
            ) from error
        except errors.OfflineModeIsEnabled as error:
            raise _not_offered(self.name, "HF_HUB_OFFLINE is set") from error
        except errors.HfHubHTTPError as error:
            raise _not_offered(self.name, _answer(error.response.status_code)) from error
        except errors.LocalTokenNotFoundError as error:
            raise _not_offered(self.name, _answer(401)) from error
        except (HTTPError, OSError, ValueError) as error:
            why = str(error).splitlines()[0] if str(error) else "it does not answer"
            raise _not_offered(self.name, why) from error
        return made.pr_url or f"{made.commit_url}"


def offer_of(path: Path, bundle: Bundle) -> Offer:
    """What the pull request of a bundle says."""
    rows = "\n".join(f"- `{file.table.title}`: {file.rows:,} rows" for file in bundle.files)
    contact = "" if bundle.contact is None else f"\n\nContact: {bundle.contact}"
    return Offer(
        path=path,
        title=f"Measurements on {bundle.gpu} by {bundle.lab}",
        text=f"Written by `python -m harness.submit` (joulegraph {bundle.harness}), CC-BY-4.0.\n\n{rows}{contact}\n\n"
        f"To check it: `python -m harness.accept {bundle_name(bundle)} --into RELEASE --dry-run`.",
    )


def steps_by_hand(offer: Offer, repository: str | None) -> tuple[str, ...]:
    """What to do with a bundle where no pull request can be opened from here."""
    name = repository or "OWNER/NAME"
    upload = f"hf upload {name} {offer.path} {offer.place} --repo-type {_TYPE} --create-pr"
    page = dataset_url(repository) if repository else "the page of the dataset"
    return (
        "On a machine with network, either",
        f'  pip install huggingface_hub && hf auth login\n  {upload} --commit-message "{offer.title}"',
        f"or open {page}, choose Community, then New pull request, and add the file as {offer.place};",
        "or attach it to an issue of the dataset's repository (form: New measurements).",
    )


def _answer(status: int) -> str:
    reasons = {
        401: "no valid token was sent; log in with `hf auth login`, or set HF_TOKEN",
        403: "the token may not open pull requests there",
        404: "there is no such dataset, or it is private",
    }
    return reasons.get(status, f"it answered {status}")


def _not_offered(name: str, why: str) -> DatasetError:
    return DatasetError(f"No pull request could be opened on {name}: {why}.\nThe bundle is written; offer it by hand:")
