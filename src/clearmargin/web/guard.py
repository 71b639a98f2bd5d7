"""What stands before every request: who may ask, how much may come and how slowly, and what every answer carries.

Plain ASGI, so that a body is judged as it comes. A page of another site can reach a server on this machine through the
browser of whoever looks at it: so the names in Host are checked (against DNS that turns round), and the browser's own
word on where a request comes from. There are no cookies, so nothing is sent along that such a page could use.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
import traceback
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearmargin.web.errors import INTERNAL, ApiError, error_response
from clearmargin.web.serving import API, Serving
from clearmargin.web.uploads import request_too_large
from clearmargin.web.work import ClientGone

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?", re.IGNORECASE)
_OPEN_PATHS = frozenset({f"{API}/health", f"{API}/ready"})
"""Without a token, and while the server stops."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_RETRY_SECONDS = "1"
_DRAINED_BYTES, _DRAIN_SECONDS = 1 << 20, 0.5
"""Of a body that nobody wants: read, so that a client that is still sending gets to read why."""
_GONE = 499
"""In the metrics: the client left before its answer."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_log = logging.getLogger("clearmargin.web")


class Guard:
    """Lets a request through to the application, or answers it itself."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app, self._serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        headers = Headers(scope=scope)
        body = _Body(receive, headers, self._serving)
        answer = _Answer(send, body, request_id, private=_is_api(scope["path"]))
        holds = False
        try:
            self._check(scope, headers)
            if scope["method"] in _WITH_BODY:
                self._take_slot()
                holds = True
            await self._app(scope, body.receive, answer.send)
        except ApiError as error:
            await error_response(error, request_id)(scope, receive, answer.send)
        except ClientGone:
            answer.status = _GONE
        except Exception as error:
            _log_without_words(request_id, error)
            if not answer.status:
                await error_response(ApiError("internal", INTERNAL), request_id)(scope, receive, answer.send)
        finally:
            if holds:
                self._serving.slots -= 1
            seconds = time.perf_counter() - started
            self._serving.metrics.answered(_route(scope), scope["method"], answer.status or _GONE, seconds)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Passes where the request may be answered.

        Raises:
            ApiError: it may not.
        """
        serving, path = self._serving, scope["path"]
        host = _checked_host(headers, serving.settings.hosts)
        _check_site(scope, headers, host)
        if path in _OPEN_PATHS:
            return
        if serving.settings.token is not None and _is_api(path):
            _check_token(headers, serving.settings.token)
        if serving.stopping.is_set():
            raise ApiError("stopping", "the server is stopping; ask again when it runs.")
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise ApiError("bad_request", "the header Content-Length is no number.")
        if int(length) > serving.limits.max_request_bytes:
            raise request_too_large(serving.limits)

    def _take_slot(self) -> None:
        if self._serving.slots >= self._serving.limits.concurrency:
            raise ApiError(
                "busy", "too many requests at once; ask again in a moment.", headers={"Retry-After": _RETRY_SECONDS}
            )
        self._serving.slots += 1


@dataclass
class _Body:
    """The body of a request, bounded in bytes and in time."""

    _receive: Receive
    _headers: Headers
    _serving: Serving
    _bytes: int = 0
    _until: float | None = None
    _broken: bool = False

    def __post_init__(self) -> None:
        self.has_ended = self._headers.get("content-length", "0") == "0" and "transfer-encoding" not in self._headers

    async def receive(self) -> Message:
        """The next part of it; after its end, what the server has to say.

        Raises:
            ApiError: too slow, or too large.
        """
        if self.has_ended:
            return await self._receive()
        limits, now = self._serving.limits, time.monotonic()
        if self._until is None:
            self._until = now + limits.body_seconds
        try:
            async with asyncio.timeout(min(limits.idle_seconds, self._until - now)):
                message = await self._receive()
        except TimeoutError:
            self._broken = True
            raise ApiError("too_slow", "the body did not come in time; send it again.") from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self._bytes > limits.max_request_bytes:
                raise request_too_large(limits)
            self.has_ended = not message.get("more_body", False)
        else:
            self.has_ended = True
        return message

    async def drain(self) -> None:
        """Reads a little of what is left."""
        if self._broken or "expect" in self._headers:
            return
        left = _DRAINED_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0 and not self.has_ended:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.has_ended = not message.get("more_body", False)
        except TimeoutError:
            return


@dataclass
class _Answer:
    """An answer on its way, with the headers that every one has; `status` is 0 before it begins."""

    _send: Send
    _body: _Body
    _request_id: str
    private: bool
    status: int = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers["X-Request-ID"] = self._request_id
            if self.private:
                headers.setdefault("Cache-Control", "no-store")
            if not self._body.has_ended:
                await self._body.drain()
                headers["Connection"] = "close"
            self.status = message["status"]
        await self._send(message)


def _route(scope: Scope) -> str:
    """The template of the path that was asked for, which holds nothing of what was asked."""
    path: str = getattr(scope.get("route"), "path", "other")
    return f"{API}{path}" if path.startswith("/") and _is_api(scope["path"]) and not _is_api(path) else path


def _is_api(path: str) -> bool:
    return path == "/api" or path.startswith("/api/")


def _checked_host(headers: Headers, known: frozenset[str] | None) -> str:
    """The header Host.

    Raises:
        ApiError: none, several, or a name that is not this server's.
    """
    given = headers.getlist("host")
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None or (known is not None and match[1].lower() not in known):
        raise ApiError("bad_request", "the header Host does not name this server; use the address that it printed.")
    return given[0].lower()


def _check_site(scope: Scope, headers: Headers, host: str) -> None:
    """Passes where no page of another site asks.

    Raises:
        ApiError: one does.
    """
    origins = [origin.lower() for origin in headers.getlist("origin")]
    foreign = any(origin not in (f"http://{host}", f"https://{host}") for origin in origins)
    site = headers.get("sec-fetch-site", "none")
    follows_link = (
        scope["method"] == "GET"
        and not _is_api(scope["path"])
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if foreign or (site not in ("same-origin", "none") and not follows_link):
        raise ApiError("cross_site", "a page of another site may not ask this server.")


def _check_token(headers: Headers, token: str) -> None:
    """Passes where the request brings the token.

    Raises:
        ApiError: it does not.
    """
    kind, _, given = headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    if kind.lower() != "bearer" or not same:
        raise ApiError(
            "unauthorized",
            "a token is needed: send the header 'Authorization: Bearer TOKEN'.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _log_without_words(request_id: str, error: Exception) -> None:
    """Logs where in the code it happened; never the message, which may repeat a name."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-8:]))
    _log.error("request %s: %s in %s", request_id, type(error).__name__, places)
