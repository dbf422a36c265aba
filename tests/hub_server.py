"""A small server of the Hugging Face Hub's API on 127.0.0.1, for huggingface_hub's own client.

It keeps model repositories in memory: creating them, asking how a file is to be uploaded, uploading large files by the
LFS protocol, commits, branches, tags, listings and downloads.
"""

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"
LFS_SUFFIXES = (".safetensors", ".png", ".bin", ".pkl", ".pt")


@dataclass
class Repository:
    """Files by name at each commit; the newest commit of each branch and tag."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Make a commit of ``main``; its name."""
        names = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in files.items())
        name = hashlib.sha1(json.dumps([len(self.commits), names]).encode()).hexdigest()
        self.commits[name] = files
        self.references["main"] = name
        return name

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.references.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


class Hub:
    """The server's state.

    Attributes:
        repositories: by ``user/name``.
        large: uploaded contents by their SHA-256.
        requests: method, path and whether the token came with it, in their order.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.url = ""

    def downloads(self, since: int = 0) -> list[str]:
        """Names of the files whose contents were asked for, from a number of requests on."""
        asked = [path for method, path, _ in self.requests[since:] if method == "GET" and "/resolve/" in path]
        return [path.split("/", 5)[5] for path in asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    do_GET = do_POST = do_PUT = do_HEAD

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.hub.requests.append((self.command, path, known))
        match [self.command, *path.strip("/").split("/")]:
            case ["POST", "api", "validate-yaml"]:
                self._json({"warnings": [], "errors": []})
            case ["POST", "api", "repos", "create"]:
                self._create(json.loads(body), known)
            case ["PUT", "large", digest]:
                right = hashlib.sha256(body).hexdigest() == digest
                self.hub.large |= {digest: body} if right else {}
                self._answer(200 if right else 400, b"")
            case [_, "api", "models", user, name, *rest]:
                self._api(f"{user}/{name}", rest, body, known)
            case ["POST", user, name, "info", "lfs", "objects", "batch"] if known:
                self._batch(f"{user}/{name.removesuffix('.git')}", json.loads(body))
            case ["GET" | "HEAD", user, name, "resolve", revision, *file]:
                self._resolve(f"{user}/{name}", revision, "/".join(file), known)
            case _:
                self._refuse(404, "EntryNotFound")

    def _create(self, asked: dict, known: bool) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if not known:
            self._refuse(401, "Unauthorized")
        elif name.startswith("echo/"):
            self._refuse(403, f"{self.headers['Authorization']} may not write here")
        elif name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            repository = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
            repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
            self.hub.repositories[name] = repository
            self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _api(self, name: str, rest: list[str], body: bytes, known: bool) -> None:
        repository = self._visible(name, known)
        if repository is None:
            return
        match [self.command, *rest]:
            case ["GET"]:
                self._info(name, repository, "main")
            case ["GET", "revision", revision]:
                self._info(name, repository, revision)
            case ["GET", "tree", revision, *_]:
                self._list(repository, revision)
            case ["POST", "preupload", _] if known:
                files = json.loads(body)["files"]
                modes = ["lfs" if each["path"].endswith(LFS_SUFFIXES) else "regular" for each in files]
                told = [
                    {"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
                    for each, mode in zip(files, modes, strict=True)
                ]
                self._json({"files": told})
            case ["POST", "commit", "main"] if known:
                self._commit(name, repository, [json.loads(line) for line in body.splitlines()])
            case _:
                self._refuse(401 if not known else 404, "Unauthorized" if not known else "EntryNotFound")

    def _info(self, name: str, repository: Repository, revision: str) -> None:
        found = repository.files(revision)
        if found is None:
            return self._refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": file} for file in found[1]]
        self._json({"id": name, "sha": found[0], "private": repository.private, "siblings": siblings, "tags": []})

    def _list(self, repository: Repository, revision: str) -> None:
        found = repository.files(revision)
        if found is None:
            return self._refuse(404, "RevisionNotFound")
        self._json([_entry(name, content) for name, content in found[1].items()])

    def _batch(self, name: str, asked: dict) -> None:
        upload = {each["oid"]: {"href": f"{self.hub.url}/large/{each['oid']}"} for each in asked["objects"]}
        objects = [{**each, "actions": {"upload": upload[each["oid"]]}} for each in asked["objects"]]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, lines: list[dict]) -> None:
        files = dict(repository.commits[repository.references["main"]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = repository.commit(files)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None})

    def _resolve(self, name: str, revision: str, file: str, known: bool) -> None:
        repository = self._visible(name, known)
        if repository is None:
            return
        found = repository.files(revision)
        if found is None:
            return self._refuse(404, "RevisionNotFound")
        commit, files = found
        if file not in files:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        content = files[file]
        entry = _entry(file, content)
        digest = entry.get("lfs", entry)["oid"]
        self._answer(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": commit})

    def _visible(self, name: str, known: bool) -> Repository | None:
        """A repository; None where there is none that this caller may see, which is answered then."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not known):
            self._refuse(401 if not known else 404, "RepoNotFound")
            return None
        return repository

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}
        self._answer(status, json.dumps({"error": code}).encode(), told)

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(name: str, content: bytes) -> dict:
    """A file as listings have it: large ones with the SHA-256 of their content."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if name.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub, while it runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
