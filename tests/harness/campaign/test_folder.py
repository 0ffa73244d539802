"""One campaign at a time in a folder; the kernel lets go when it ends, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.campaign.folder import STATE_FOLDER, CampaignFolder
from harness.errors import CannotWrite, FolderBusy

HOLDER = """
import subprocess, sys
from pathlib import Path
from harness.campaign.folder import CampaignFolder
folder = CampaignFolder.open(Path(sys.argv[1]))
{then}
print("locked", flush=True)
sys.stdin.read()
"""


def start_holder(folder: Path, then: str = "") -> "subprocess.Popen[str]":
    """A process that locks the folder and waits until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(then=then), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_folder_is_made_with_a_place_for_the_campaign(tmp_path: Path) -> None:
    with CampaignFolder.open(tmp_path / "a" / "b") as folder:
        assert folder.state == tmp_path / "a" / "b" / STATE_FOLDER
        assert folder.state.is_dir()


def test_a_second_campaign_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    with process:
        with pytest.raises(FolderBusy, match=rf"process {process.pid}, since 20\d\d-\d\d-\d\dT"):
            CampaignFolder.open(tmp_path)
        assert process.stdin is not None
        process.stdin.close()
    CampaignFolder.open(tmp_path).close()


def test_a_killed_campaign_lets_go_of_its_folder(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    CampaignFolder.open(tmp_path).close()


@pytest.mark.parametrize(
    "child",
    [
        "child = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, close_fds=False)",
        "import os\nif os.fork() != 0:\n    sys.stdin.read()",  # the child goes on and says that it runs
    ],
    ids=["subprocess", "fork"],
)
def test_a_worker_that_outlives_its_campaign_does_not_hold_the_folder(tmp_path: Path, child: str) -> None:
    with start_holder(tmp_path, then=child) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        CampaignFolder.open(tmp_path).close()


def test_a_fork_does_not_let_go_of_the_parents_lock(tmp_path: Path) -> None:
    with CampaignFolder.open(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(FolderBusy):
            CampaignFolder.open(tmp_path)


def test_the_same_process_cannot_take_a_folder_twice(tmp_path: Path) -> None:
    with CampaignFolder.open(tmp_path), pytest.raises(FolderBusy, match=str(os.getpid())):
        CampaignFolder.open(tmp_path)
    CampaignFolder.open(tmp_path).close()


def test_a_holder_that_has_not_signed_is_still_a_busy_folder(tmp_path: Path) -> None:
    with CampaignFolder.open(tmp_path) as folder:
        (folder.state / "lock").write_bytes(b"{junk")
        with pytest.raises(FolderBusy, match="not signed"):
            CampaignFolder.open(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(CannotWrite, match="there is a file where a folder is needed"):
            CampaignFolder.open(path)


@pytest.mark.parametrize("path", ["null\0byte", "x" * 300, "/proc/joulegraph"])
def test_a_folder_that_cannot_be_made_is_an_error(path: str) -> None:
    with pytest.raises(CannotWrite, match="--out"):
        CampaignFolder.open(Path(path))


def test_a_folder_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CannotWrite, match="Permission denied"):
        CampaignFolder.open(tmp_path)
