"""A small stand-in of the hub, on loopback: one model, whose commits a test makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

NAME = "someone/tiny-t5"
LARGE = ".safetensors"


class Hub:
    """What the hub holds, by commit, and what was asked of it."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.main = ""
        self.asked: list[str] = []
        self.cut: str | None = None  # the file whose sending breaks off, once
        self.url = ""

    def commit(self, files: dict[str, bytes]) -> str:
        """A new state of the model, which `main` names; returns its name."""
        self.main = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[self.main] = files
        return self.main

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Answer while the context lasts."""
        handler = type("Handler", (Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """The two questions of the client: what is in a commit, and a file's bytes."""

    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        """/api/models/NAME/revision/COMMIT or /NAME/resolve/COMMIT/FILE."""
        path = unquote(self.path)
        self.hub.asked.append(f"{self.command} {path}")
        if path.startswith("/api/"):
            self.tell(path.rpartition("/")[2])
        else:
            revision, _, name = path.partition("/resolve/")[2].partition("/")
            self.give(revision, name)

    def tell(self, revision: str) -> None:
        """Name the commit and its files."""
        commit = self.hub.main if revision == "main" else revision
        files = [{"rfilename": name} for name in self.hub.commits[commit]]
        content = json.dumps({"id": NAME, "sha": commit, "siblings": files}).encode()
        self.answer(200, content, {"Content-Type": "application/json"})

    def give(self, revision: str, name: str) -> None:
        """Send a file, from where the client has it on."""
        commit = self.hub.main if revision == "main" else revision
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
