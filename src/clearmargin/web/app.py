"""The application, put together: what is served, the guard, the errors, and the routers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

import clearmargin
from clearmargin.types import INTENDED_USE
from clearmargin.web.answers import ErrorAnswer
from clearmargin.web.errors import STATUS_OF, add_error_handlers
from clearmargin.web.guard import Guard
from clearmargin.web.jobs.running import run_jobs
from clearmargin.web.routes import dicom, explain, jobs, models, page, predict, status
from clearmargin.web.served import Served
from clearmargin.web.serving import API, ServeSettings, Serving

API_ROUTERS: tuple[APIRouter, ...] = (
    predict.router,
    explain.router,
    dicom.router,
    models.router,
    jobs.router,
    status.router,
)
"""Below /api/v1."""
PAGE_ROUTERS: tuple[APIRouter, ...] = (page.router,)
"""At the root."""
LIFESPANS: tuple[Callable[[Serving], AbstractAsyncContextManager[None]], ...] = (run_jobs,)
"""What lives as long as the server: entered in this order before the first request, left in the other."""


def make_app(served: Mapping[str, Served], settings: ServeSettings) -> FastAPI:
    """The application for these bundles.

    Args:
        served: by name, the first is the default.
        settings: its private folder is there.
    """
    serving = Serving(dict(served), settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in LIFESPANS:
                await stack.enter_async_context(each(serving))
            yield
        serving.stopping.set()
        serving.threads.shutdown()

    app = FastAPI(
        title="Clearmargin",
        version=clearmargin.__version__,
        description=INTENDED_USE,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.serving = serving
    add_error_handlers(app)
    errors: dict[int | str, dict[str, Any]] = {number: {"model": ErrorAnswer} for number in set(STATUS_OF.values())}
    for router in API_ROUTERS:
        app.include_router(router, prefix=API, responses=errors)
    for router in PAGE_ROUTERS:
        app.include_router(router, include_in_schema=False)
    app.add_middleware(Guard, serving=serving)
    return app
