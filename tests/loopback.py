"""A small stand-in of the hub, on loopback: a model and a data set, whose commits a test makes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

NAME, DATA = "someone/tiny-t5", "someone/reviews"
LARGE = (".safetensors", ".parquet")


class Hub:
    """What the hub holds, by commit, and what was asked of it."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.main = self.data = ""
        self.asked: list[str] = []
        self.cut: str | None = None  # the file whose sending breaks off, once
        self.fails: dict[str, int] = {}  # the status that is answered where a path has this
        self.waits = 0.0  # seconds before each answer
        self.url = ""

    def commit(self, files: dict[str, bytes]) -> str:
        """A new state of the model, which `main` names; returns its name."""
        self.main = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[self.main] = files
        return self.main

    def give_data(self, files: dict[str, bytes]) -> None:
        """The same for the data set."""
        before = self.main
        self.data, self.main = self.commit(files), before

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Answer while the context lasts."""
        handler = type("Handler", (Handler,), {"hub": self})
        server = Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()
        server.server_close()


class Server(ThreadingHTTPServer):
    """A client that has left is none of its concern."""

    def handle_error(self, *given: object) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    """The two questions of the client: what is in a commit, and a file's bytes."""

    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        """/api/models/NAME/revision/COMMIT or /NAME/resolve/COMMIT/FILE; datasets/ for models/."""
        path = unquote(self.path)
        self.hub.asked.append(f"{self.command} {path}")
        time.sleep(self.hub.waits)
        for part, status in self.hub.fails.items():
            if part in path:
                self.answer(status, b"", {"X-Error-Code": "GatedRepo"} if status == 403 else {})
                return
        if NAME not in path and DATA not in path:
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/"):
            self.tell(self.commit(path.partition("/revision/")[2]))
        else:
            revision, _, name = path.partition("/resolve/")[2].partition("/")
            self.give(self.commit(revision), name)

    def commit(self, revision: str) -> str:
        """The commit that is asked for."""
        main = self.hub.data if f"/{DATA}" in self.path else self.hub.main
        return main if revision in ("", "main") else revision

    def tell(self, commit: str) -> None:
        """Name the commit and its files."""
        files = [{"rfilename": name} for name in self.hub.commits[commit]]
        content = json.dumps({"id": NAME, "sha": commit, "siblings": files}).encode()
        self.answer(200, content, {"Content-Type": "application/json"})

    def give(self, commit: str, name: str) -> None:
        """Send a file, from where the client has it on."""
        content = self.hub.commits[commit].get(name)
        if content is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if name.endswith(LARGE):
            mark = hashlib.sha256(content).hexdigest()
        else:
            mark = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        facts = {"X-Repo-Commit": commit, "ETag": f'"{mark}"', "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, content[start:], facts, name == self.hub.cut)

    def answer(self, code: int, content: bytes, facts: dict[str, Any], cut: bool = False) -> None:
        """Send an answer, or half of one."""
        self.send_response(code)
        for key, value in facts.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            if cut:
                self.hub.cut = None
            self.wfile.write(content[: len(content) // 2] if cut else content)
