"""The Hub client against a Hub of our own on the loopback interface."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CannotWrite
from harness.models import hub
from harness.models.checkpoint import MAX_CONFIG_BYTES
from harness.models.hub import Refusal, fetch_snapshot, is_model_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "someone/tiny": {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": b"weights",
        "consolidated.safetensors": b"the same weights again",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"code",
        "original/params.json": b"{}",
        "README.md": b"card",
    },
    "someone/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "someone/empty": {"README.md": b"card"},
    "someone/bloated": {"config.json": b" " * (MAX_CONFIG_BYTES + 1), "model.safetensors": b"weights"},
    "someone/gated": {"config.json": b"{}", "model.safetensors": b"weights"},
}


class FakeHub(BaseHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[0] == "api"
        model_id = "/".join(parts[2:4] if is_api else parts[:2])
        if model_id == "someone/down":
            return self.answer(500, b"")
        files = REPOSITORIES.get(model_id)
        if files is None:
            return self.answer(401, b"{}", error="RepoNotFound")
        if is_api:
            return self.answer_api(parts[4:], files)
        if model_id == "someone/gated":
            return self.answer(403, b"{}", error="GatedRepo")
        return self.answer(200, files["/".join(parts[4:])])

    def answer_api(self, path: list[str], files: dict[str, bytes]) -> None:
        if path and path[0] == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": git_id(data)} for name, data in files.items()
            ]
            return self.answer(200, json.dumps(tree).encode())
        if path[:1] == ["revision"] and path[1] not in ("main", COMMIT):
            return self.answer(404, b"{}", error="RevisionNotFound")
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        return self.answer(200, json.dumps({"id": "x", "sha": COMMIT, "siblings": siblings}).encode())

    def answer(self, status: int, body: bytes, error: str | None = None) -> None:
        self.send_response(status)
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.send_header("ETag", f'"{git_id(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.fixture
def cache(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def fetched(model_id: str, revision: str | None = None, *, weights: bool = True, code: bool = False) -> set[str] | str:
    """Names of the files that came, or why none did."""
    found = fetch_snapshot(model_id, revision, weights=weights, code=code)
    return found.why if isinstance(found, Refusal) else {path.name for path in found.iterdir()}


def test_config_tokenizer_and_safetensors_are_fetched_and_nothing_else(cache: Path) -> None:
    assert fetched("someone/tiny") == {"config.json", "tokenizer.json", "model.safetensors"}
    assert hub.cached_snapshot("someone/tiny", None) == cache / "models--someone--tiny" / "snapshots" / COMMIT


def test_planning_fetches_no_weights_and_trust_fetches_code(cache: Path) -> None:
    assert fetched("someone/tiny", weights=False, code=True) == {"config.json", "tokenizer.json", "modeling.py"}


@pytest.mark.parametrize(
    ("model_id", "revision", "why", "remedy"),
    [
        ("someone/misspelt", None, "no such model, or it is private", "spelling"),
        ("someone/tiny", "v9", "no such revision", "--revision"),
        ("someone/gated", None, "the model is gated", "HF_TOKEN"),
        ("someone/pickled", None, "the repository holds no safetensors", "--random-weights"),
        ("someone/empty", None, "the repository holds no config.json of a plausible size", ""),
        ("someone/bloated", None, "the repository holds no config.json of a plausible size", ""),
    ],
)
def test_every_refusal_has_its_reason_and_its_remedy(
    cache: Path, model_id: str, revision: str | None, why: str, remedy: str
) -> None:
    refusal = fetch_snapshot(model_id, revision, weights=True, code=False)
    assert isinstance(refusal, Refusal)
    assert refusal.why == why
    assert remedy in refusal.remedy


def test_a_hub_that_fails_or_cannot_be_reached_gives_no_usable_answer(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    assert "no usable answer" in str(fetched("someone/down"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "no usable answer" in str(fetched("someone/tiny"))


def test_a_hub_that_hangs_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(hub, "_GIVE_UP_S", 0.01)
    monkeypatch.setattr(hub, "_files", lambda *_args: answer.wait())
    assert fetched("someone/tiny") == "no usable answer (none within 0.01 s)"
    answer.set()


def test_offline_mode_asks_nobody(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_files", lambda *_args: pytest.fail("asked"))
    assert fetched("someone/tiny") == "not asked, HF_HUB_OFFLINE is set"


def test_a_full_disk_is_not_blamed_on_the_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub, "_download", full)
    with pytest.raises(CannotWrite, match="No space left on device"):
        fetched("someone/tiny")


@pytest.mark.parametrize("good", ["gpt2", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B", "a_b/c.d-e"])
def test_ids_of_the_hub_have_one_or_two_parts(good: str) -> None:
    assert is_model_id(good)


@given(st.text())
def test_an_id_can_never_climb_out_of_the_cache(reference: str) -> None:
    if is_model_id(reference):
        assert ".." not in reference
        assert not reference.startswith(("/", ".", "~"))
        assert reference.count("/") <= 1
        assert "\n" not in reference
