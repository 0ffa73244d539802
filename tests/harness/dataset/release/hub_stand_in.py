"""A local stand-in for the Hub: the few endpoints that publishing a dataset uses, with real HTTP and LFS uploads."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_stand_in_token"


@dataclass(slots=True)
class StandIn:
    """What the server holds: branches of repositories, blobs of LFS, pull requests."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    pull_requests: list[dict[str, bytes]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    refuse_with: int | None = None  # every commit is refused with this status
    url: str = ""


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serve on a free port of this machine until the end of the block."""
    state = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(state: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(*_get(state, self.path) if self._known() else _unknown())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(*_post(state, self.path, body) if self._known() else _unknown())

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            state.blobs[self.path.rpartition("/")[2]] = content
            self._answer(200, {})

        def _known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def _answer(self, status: int, found: Any) -> None:
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def _unknown() -> tuple[int, Any]:
    return 401, {"error": "Invalid username or password."}


def _get(state: StandIn, path: str) -> tuple[int, Any]:
    parts = unquote(urlsplit(path).path).strip("/").split("/")
    name = "/".join(parts[2:4])
    if name not in state.repositories:
        return 404, {"error": "Repository not found"}
    if parts[4:5] == ["tree"]:
        files = state.repositories[name]["/".join(parts[5:])]
        found = [{"type": "file", "path": at, "oid": "0" * 40, "size": len(files[at])} for at in sorted(files)]
        return 200, found
    return 200, {"id": name, "sha": "0" * 40}


def _post(state: StandIn, path: str, body: bytes) -> tuple[int, Any]:
    url = urlsplit(path)
    parts = unquote(url.path).strip("/").split("/")
    if url.path == "/api/repos/create":
        return _create(state, json.loads(body))
    if url.path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if url.path.endswith("/info/lfs/objects/batch"):
        return 200, {"transfer": "basic", "objects": [_upload(state, blob) for blob in json.loads(body)["objects"]]}
    if parts[-1] == "verify":
        known = {hash_of(content): len(content) for content in state.blobs.values()}
        sent = json.loads(body)
        return (200 if known.get(sent["oid"]) == sent["size"] else 422), {}
    name = "/".join(parts[2:4])
    if name not in state.repositories:
        return 404, {"error": "Repository not found"}
    what, revision = parts[4], "/".join(parts[5:])
    if what == "branch":
        return _branch(state, name, revision)
    if what == "preupload":
        modes = (
            {"path": file["path"], "uploadMode": _mode(file["path"]), "shouldIgnore": False, "oid": None}
            for file in json.loads(body)["files"]
        )
        return 200, {"files": list(modes)}
    return _commit(state, name, revision, body, pull_request="create_pr" in parse_qs(url.query))


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".parquet") else "regular"


def _create(state: StandIn, wanted: dict[str, Any]) -> tuple[int, Any]:
    name = f"{wanted['organization']}/{wanted['name']}"
    url = {"url": f"{state.url}/datasets/{name}"}
    if wanted["organization"] == "others":
        return 403, {"error": "You don't have the rights to create a dataset under this namespace"}
    if name in state.repositories:
        return 409, url
    state.repositories[name] = {"main": {".gitattributes": b""}}
    if wanted.get("visibility") == "private":
        state.private.add(name)
    return 200, url


def _branch(state: StandIn, name: str, branch: str) -> tuple[int, Any]:
    branches = state.repositories[name]
    if branch in branches:
        return 409, {"error": f"Reference {branch} already exists"}
    branches[branch] = dict(branches["main"])
    return 200, {}


def _upload(state: StandIn, blob: dict[str, Any]) -> dict[str, Any]:
    actions = {"upload": {"href": f"{state.url}/lfs/{blob['oid']}"}, "verify": {"href": f"{state.url}/lfs/verify"}}
    return {"oid": blob["oid"], "size": blob["size"], "actions": actions}


def _commit(state: StandIn, name: str, revision: str, body: bytes, *, pull_request: bool) -> tuple[int, Any]:
    if state.refuse_with is not None:
        return state.refuse_with, {"error": "not today"}
    files = dict(state.repositories[name][revision])
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            state.messages.append(value["summary"])
        elif entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = state.blobs[value["oid"]]
        elif entry["key"] == "deletedFile":
            del files[value["path"]]
    if pull_request:
        state.pull_requests.append(files)
    else:
        state.repositories[name][revision] = files
    url = f"{state.url}/datasets/{name}"
    made = {"commitUrl": f"{url}/commit/{'1' * 40}", "commitOid": "1" * 40}
    return 200, made | ({"pullRequestUrl": f"{url}/discussions/1"} if pull_request else {})


def hash_of(content: bytes) -> str:
    """As LFS names it."""
    return hashlib.sha256(content).hexdigest()
