"""The blocking work of a request, done in a thread that ends with it.

The work is told to stop when its time is over, when its client is gone and when the server stops. The request is then
answered at once; the place that it had among those at work is free when the thread has heard.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

from clearmargin.errors import Interrupted
from clearmargin.web.errors import ApiError
from clearmargin.web.serving import Serving

_Result = TypeVar("_Result")


class ClientGone(Exception):
    """Nobody is there to answer."""


async def do_work(request: Request, serving: Serving, work: Callable[[threading.Event], _Result]) -> _Result:
    """What the work gives.

    Args:
        request: whose body has been read.
        serving: of the server.
        work: blocks; ends soon, by `Interrupted`, when the event that it gets is set.

    Raises:
        ApiError: `timeout`.
        ClientGone: nobody waits for it any more.
    """
    cancelled = threading.Event()
    loop = asyncio.get_running_loop()
    doing = loop.run_in_executor(serving.threads, work, cancelled)
    leaving = asyncio.ensure_future(_client_leaves(request))
    try:
        both: set[asyncio.Future[Any]] = {doing, leaving}
        await asyncio.wait(both, timeout=serving.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if leaving.done():
            raise ClientGone
        seconds = serving.limits.seconds
        raise ApiError("timeout", f"the work took longer than {seconds:g} s; send fewer files, or make a job of it.")
    finally:
        leaving.cancel()
        cancelled.set()
        if not doing.done():
            serving.slots += 1
            doing.add_done_callback(partial(_give_back, serving))


def _give_back(serving: Serving, ended: asyncio.Future[Any]) -> None:
    serving.slots -= 1
    if not ended.cancelled():
        ended.exception()  # nobody else asks


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def check_cancelled(cancelled: threading.Event | None) -> None:
    """Passes while work is wanted.

    Raises:
        Interrupted: it is not.
    """
    if cancelled is not None and cancelled.is_set():
        raise Interrupted("the work was cancelled.")
