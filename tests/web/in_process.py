"""An application in this process, with its start and its end, behind an ordinary httpx client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from clearmargin.web.serving import Serving

URL = "http://127.0.0.1:8000"
_Result = TypeVar("_Result")


class _Bridge(httpx.BaseTransport):
    """Hands requests to an application that lives on the loop of another thread; several threads may send at once."""

    def __init__(self, app: FastAPI, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop = httpx.ASGITransport(app, raise_app_exceptions=False), loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


class InProcess(httpx.Client):
    """A client, and the application that it asks."""

    def __init__(self, app: FastAPI, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport=_Bridge(app, loop), base_url=URL, timeout=60)
        self.app, self._loop = app, loop

    @property
    def serving(self) -> Serving:
        serving: Serving = self.app.state.serving
        return serving

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of work on the loop of the application."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def send_parts(self, path: str, parts: Sequence[bytes | str], **headers: str) -> Exchange:
        """A request whose body comes in parts, or does not: `disconnect` and `nothing` are words for what happens."""
        return self.run(_send_parts(self.app, path, parts, headers))


@dataclass
class Exchange:
    """What an application sent in answer to a request; `status` is None where it sent nothing."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def _send_parts(app: FastAPI, path: str, parts: Sequence[bytes | str], headers: dict[str, str]) -> Exchange:
    async def come() -> AsyncIterator[dict[str, Any]]:
        for number, part in enumerate(parts):
            if part == "disconnect":
                yield {"type": "http.disconnect"}
            elif part == "nothing":
                await asyncio.Event().wait()
            else:
                yield {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        await asyncio.Event().wait()

    coming, exchange = come(), Exchange()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            exchange.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            exchange.body += message.get("body", b"")

    named = {"host": "127.0.0.1:8000", "transfer-encoding": "chunked"} | headers
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, coming.__anext__, send)
    return exchange


@contextmanager
def in_process(app: FastAPI) -> Iterator[InProcess]:
    """A client of the application, which starts and ends with the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    lifespan = app.router.lifespan_context(app)
    asyncio.run_coroutine_threadsafe(lifespan.__aenter__(), loop).result()
    try:
        with InProcess(app, loop) as client:
            yield client
    finally:
        asyncio.run_coroutine_threadsafe(lifespan.__aexit__(None, None, None), loop).result()
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
