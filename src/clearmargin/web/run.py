"""The server process: address, token, private folder, uvicorn, signals.

Nothing is logged of requests: their paths and names may be those of patients.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from clearmargin.errors import UsageError
from clearmargin.web.errors import ApiError, error_body
from clearmargin.web.serving import Serving

TOKEN_VARIABLE = "CLEARMARGIN_TOKEN"
_SHORTEST_TOKEN = 16
_KEEP_ALIVE_SECONDS = 10
_MAX_HEAD_BYTES = 32_768
_HEAD_SECONDS = 15
"""From a connection, or from the first byte of a further request on it, to the end of the request's head."""
_MOST_CONNECTIONS = 900
_OURS = re.compile(r"clearmargin-serve-(\d+)-\w+")


def is_loopback(host: str) -> bool:
    """Only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_token(host: str, file: Path | None) -> str | None:
    """The token that requests must bring, None where none is demanded.

    Raises:
        UsageError: one is demanded and there is none, it is too short, or the file cannot be read.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    where = TOKEN_VARIABLE
    if file is not None:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {file}: cannot be read ({error}).") from None
    token = token.strip()
    how = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(f"{where}: a token is {_SHORTEST_TOKEN} ASCII characters or more without spaces; {how}")
    if not token and (file is not None or not is_loopback(host)):
        raise UsageError(f"--host {host}: others can reach it, so a token is needed, in {where} or --token-file; {how}")
    return token or None


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address.

    Raises:
        UsageError: it is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot be opened ({error.strerror}). Give another port; 0 takes a free one."
        ) from None
    # Connections inherit it. asyncio sets it only where the protocol is named; without it an answer takes 40 ms more.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def address_of(opened: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for uploads that nobody else can read, gone at the end, as are those of servers that were killed."""
    for left in Path(tempfile.gettempdir()).glob("clearmargin-serve-*"):
        made_by = _OURS.fullmatch(left.name)
        if made_by is not None and not _lives(int(made_by[1])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"clearmargin-serve-{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


class _Protocol(H11Protocol):
    """Of uvicorn, with an end to waiting for the head of a request, and with our shape of an error."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self.loop.call_later(_HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._end_wait()
        elif self._head is None:
            self._head = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's own words)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = ApiError("bad_request", "the request is not HTTP, or its head is too long.")
            body = json.dumps(error_body(error, token_hex(8))).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            with suppress(h11.LocalProtocolError):
                for event in (h11.Response(status_code=400, headers=headers), h11.Data(body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _end_wait(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, serving: Serving, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._serving, self._ready = serving, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._serving.stopping.set()
        super().handle_exit(sig, frame)


def run(app: FastAPI, opened: socket.socket, *, grace: float, ready: Callable[[], None]) -> None:
    """Serves until a signal ends it.

    Args:
        app: of `make_app`.
        opened: where it listens.
        grace: seconds that requests under way have when it ends.
        ready: called when the first request can come.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    try:
        _Server(config, app.state.serving, ready).run(sockets=[opened])
    except KeyboardInterrupt:  # uvicorn raises the signal again when all is done
        return
