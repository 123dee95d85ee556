"""A hub on loopback: answers the requests of huggingface_hub for the repositories that a test puts on it."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal["cut", "missing", "gated", "error", "silent"]


@dataclass
class Repo:
    """One repository with a single commit.

    Attributes:
        kind: `models` or `datasets`, as in the addresses of the hub.
        name: `owner/name`.
        files: Path in the repository -> content.
        commit: The commit's hash.
    """

    kind: Literal["models", "datasets"]
    name: str
    files: dict[str, bytes]
    commit: str

    def describe(self) -> dict[str, Any]:
        """Return the answer to a request for the repository's facts."""
        return {
            "_id": "0" * 24,
            "id": self.name,
            "author": self.name.split("/")[0],
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(self.files)],
        }

    def list_tree(self, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Return the entries below a folder, directories first."""
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in sorted(self.files) if path.startswith(prefix)]
        parents = {path[: path.index("/", len(prefix))] for path in inside if "/" in path[len(prefix) :]}
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "oid": _hash_blob(path.encode()), "size": 0} for path in sorted(parents)
        ]
        entries += [self.describe_file(path) for path in inside if recursive or "/" not in path[len(prefix) :]]
        return entries

    def describe_file(self, path: str) -> dict[str, Any]:
        """Return the entry of one file."""
        return {"type": "file", "path": path, "oid": _hash_blob(self.files[path]), "size": len(self.files[path])}


def _hash_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class HubServer:
    """The server; use it in a `with` block.

    Attributes:
        repos: Repositories by (kind, name).
        fault: Fault of the server: `cut` ends the files in `cut_files` halfway, at the same byte on every attempt,
            `missing` knows no repository, `gated` asks for a login, `error` answers 500, and `silent` accepts
            connections without an answer.
        cut_files: Files whose content `cut` concerns.
        requests: Method and path of every request so far.
    """

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    fault: Fault | None = None
    cut_files: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Shut down; later connections are refused. Stopping twice does no harm."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_repo(self, kind: Literal["models", "datasets"], name: str, files: dict[str, bytes]) -> Repo:
        """Add a repository; its commit hash follows from the content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        repo = self.repos[kind, name] = Repo(kind, name, files, digest.hexdigest())
        return repo

    def add_folder(self, kind: Literal["models", "datasets"], name: str, folder: Path) -> Repo:
        """Add a repository with the files of a folder."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return self.add_repo(kind, name, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


def _make_handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing; `requests` has the requests."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            hub.requests.append(f"{self.command} {url.path}")
            if hub.fault == "silent":
                hub._released.wait(60)
                self.close_connection = True
            elif hub.fault == "error":
                self._send(500, b"the hub has a bad day")
            elif hub.fault == "gated":
                self._refuse(401, "GatedRepo", "Access to this model is restricted.")
            elif parts[0] == "api" and len(parts) >= 4:
                self._answer_api(parts[1], f"{parts[2]}/{parts[3]}", parts[4:], url.query, body)
            elif "resolve" in parts:
                split = parts.index("resolve")
                kind = "datasets" if parts[0] == "datasets" else "models"
                name = "/".join(parts[split - 2 : split])
                self._answer_file(self._find_repo(kind, name), parts[split + 1], "/".join(parts[split + 2 :]))
            else:
                self._refuse(404, "EntryNotFound", "no such address")

        def _find_repo(self, kind: str, name: str) -> Repo | None:
            return None if hub.fault == "missing" else hub.repos.get((kind, name))

        def _answer_api(self, kind: str, name: str, rest: list[str], query: str, body: bytes) -> None:
            repo = self._find_repo(kind, name)
            options = parse_qs(query)
            if repo is None:
                self._refuse(404, "RepoNotFound", "Repository not found")
            elif not rest:
                self._send_json(repo.describe())
            elif len(rest) > 1 and rest[1] not in ("main", repo.commit):
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
            elif rest[0] == "revision":
                self._send_json(repo.describe())
            elif rest[0] == "tree":
                folder = "/".join(rest[2:])
                recursive = options.get("recursive", ["false"])[0].lower() in ("true", "1")
                entries = repo.list_tree(folder, recursive=recursive)
                if folder and not entries:
                    self._refuse(404, "EntryNotFound", f"{folder} does not exist")
                else:
                    self._send_json(entries)
            elif rest[0] == "paths-info":
                self._send_json(self._list_paths(repo, body))
            else:
                self._refuse(404, "EntryNotFound", "no such address")

        def _list_paths(self, repo: Repo, body: bytes) -> list[dict[str, Any]]:
            is_json = "json" in (self.headers.get("Content-Type") or "")
            asked = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
            entries = []
            for path in asked:
                if path in repo.files:
                    entries.append(repo.describe_file(path))
                elif any(name.startswith(f"{path}/") for name in repo.files):
                    entries.append({"type": "directory", "path": path, "oid": _hash_blob(path.encode()), "size": 0})
            return entries

        def _answer_file(self, repo: Repo | None, revision: str, path: str) -> None:
            if repo is None:
                self._refuse(404, "RepoNotFound", "Repository not found")
            elif revision not in ("main", repo.commit):
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            elif path not in repo.files:
                self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
            else:
                self._send_file(repo, path)

        def _send_file(self, repo: Repo, path: str) -> None:
            content = repo.files[path]
            headers = {
                "ETag": f'"{_hash_blob(content)}"',
                "X-Repo-Commit": repo.commit,
                "Accept-Ranges": "bytes",
                "Content-Disposition": f'inline; filename="{path.rsplit("/", maxsplit=1)[-1]}"',
            }
            status, start, stop = 200, 0, len(content)
            if asked := self.headers.get("Range"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, stop, status = int(first), int(last) + 1 if last else stop, 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            is_cut = hub.fault == "cut" and path in hub.cut_files and self.command == "GET"
            end = min(stop, len(content) // 2) if is_cut else stop
            self._send(status, content[start : max(start, end)], headers, length=stop - start)
            if is_cut:
                self.close_connection = True

        def _send_json(self, values: Any) -> None:
            self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

        def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
            self._send(
                status,
                json.dumps({"error": message}).encode(),
                {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})},
            )

        def _send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler
