"""The server process: address, token, uvicorn, signals."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from clearmargin.errors import UsageError

TOKEN_VARIABLE = "CLEARMARGIN_TOKEN"
_SHORTEST_TOKEN = 16
_KEEP_ALIVE_SECONDS = 10
_MAX_HEAD_BYTES = 32_768


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
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot be opened ({error.strerror}). Give another port; 0 takes a free one."
        ) from None


def address_of(opened: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._ready = app, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: object) -> None:
        self._app.state.serving.stopping.set()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


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
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    try:
        _Server(config, app, ready).run(sockets=[opened])
    except KeyboardInterrupt:  # uvicorn raises the signal again when all is done
        return
