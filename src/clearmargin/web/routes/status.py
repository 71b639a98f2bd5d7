"""Whether the server lives, is ready, and what it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse, Response

import clearmargin
from clearmargin.types import INTENDED_USE
from clearmargin.web.answers import HealthAnswer, ReadyAnswer, VersionAnswer
from clearmargin.web.errors import ApiError
from clearmargin.web.metrics import CONTENT_TYPE
from clearmargin.web.serving import Serving, serving_of

router = APIRouter(tags=["status"])


@router.get("/health")
async def health() -> HealthAnswer:
    """The process lives; needs no token."""
    return HealthAnswer(status="ok")


@router.get("/ready")
async def ready(serving: Annotated[Serving, Depends(serving_of)]) -> ReadyAnswer:
    """New requests are taken; 503 while the server stops. Needs no token."""
    if serving.stopping.is_set():
        raise ApiError("stopping", "the server is stopping.")
    return ReadyAnswer(status="ready")


@router.get("/version")
async def version() -> VersionAnswer:
    """Which software answers, and what it may be used for."""
    return VersionAnswer(clearmargin=clearmargin.__version__, api="v1", intended_use=INTENDED_USE)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(serving: Annotated[Serving, Depends(serving_of)]) -> Response:
    """Figures of the server for Prometheus."""
    return Response(serving.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
