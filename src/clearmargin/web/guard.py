"""What stands before every request: who may ask, how much may come, and what every answer carries."""

from __future__ import annotations

import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearmargin.web.errors import INTERNAL, ApiError, error_response
from clearmargin.web.serving import Serving
from clearmargin.web.work import ClientGone


class Guard:
    """Plain ASGI middleware."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app, self._serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_guarded)
        except ClientGone:
            return
        except Exception:
            if not started:
                await error_response(ApiError("internal", INTERNAL), request_id)(scope, receive, send_guarded)
