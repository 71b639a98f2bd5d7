"""A small web server on this machine that serves one file as well or as badly as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served and how; `asked` and `sent` tell what was asked for and how many bytes of the file went out.

    `answers` are statuses given before the file is; `cuts` end the first answers after so many bytes of content.
    """

    content: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    if_range: bool = True
    says_length: bool = True
    length: int | None = None
    chunked: bool = False
    shift: int = 0
    redirect: str | None = None
    retry_after: str | None = None
    hangs: bool = False
    hangs_after: bool = False
    answers: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    all_sent: threading.Event = field(default_factory=threading.Event)

    def url(self, name: str = "file.zip", *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{name}"


@contextmanager
def serve(server: FileServer) -> Iterator[FileServer]:
    """Serves until the block ends."""

    class Handler(_Handler):
        plan = server

    web = _Quiet(("127.0.0.1", 0), Handler)
    server.port = web.server_address[1]
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        web.shutdown()
        web.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    plan: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        plan = self.plan
        plan.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        if plan.hangs:
            plan.over.wait(10)
        elif plan.redirect is not None and not self.path.endswith("/moved"):
            self._head(302, {"Location": plan.redirect, "Content-Length": "0"})
        elif plan.answers:
            extra = {} if plan.retry_after is None else {"Retry-After": plan.retry_after}
            self._head(plan.answers.pop(0), {"Content-Length": "0", **extra})
        else:
            self._file()

    def _file(self) -> None:
        plan = self.plan
        start, total = self._start(), len(plan.content)
        headers = {}
        if plan.etag is not None:
            headers["ETag"] = plan.etag
        if plan.modified is not None:
            headers["Last-Modified"] = plan.modified
        if start is not None and start >= total:
            self._head(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
            return
        if start is not None:
            start += plan.shift
        body = plan.content[start or 0 :]
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if plan.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif plan.says_length:
            headers["Content-Length"] = str(len(body) if plan.length is None else plan.length)
        if plan.chunked:
            self.protocol_version = "HTTP/1.1"
        self._head(200 if start is None else 206, headers)
        cut = plan.cuts.pop(0) if plan.cuts else None
        self._body(body if cut is None else body[:cut], whole=cut is None)
        plan.all_sent.set()
        if plan.hangs_after:
            plan.over.wait(30)

    def _start(self) -> int | None:
        asked = self.headers.get("Range")
        if asked is None or not self.plan.ranges:
            return None
        condition = self.headers.get("If-Range")
        if self.plan.if_range and condition is not None and condition not in (self.plan.etag, self.plan.modified):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, body: bytes, *, whole: bool) -> None:
        for start in range(0, len(body), 2**16):
            piece = body[start : start + 2**16]
            if self.plan.chunked:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            else:
                self.wfile.write(piece)
            self.plan.sent += len(piece)
        if self.plan.chunked and whole:
            self.wfile.write(b"0\r\n\r\n")
