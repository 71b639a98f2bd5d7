"""Decisions on the images of one request."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from clearmargin.web.answers import PredictAnswer
from clearmargin.web.errors import ApiError
from clearmargin.web.served import Decided
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import receive
from clearmargin.web.work import do_work

router = APIRouter(tags=["images"])


@router.post("/predict", response_model=PredictAnswer)
async def predict(
    request: Request,
    serving: Annotated[Serving, Depends(serving_of)],
    model: Annotated[str | None, Query()] = None,
    similar: Annotated[int, Query(ge=0, le=50)] = 0,
    context: Annotated[bool, Query()] = True,
    prevalence: Annotated[float | None, Query(gt=0, lt=1)] = None,
) -> JSONResponse:
    """A row for each image: what the model says of it, and where it says nothing, why."""
    served = serving.find(model)
    with serving.folder() as folder:
        uploads = await receive(request, folder, serving.limits)

        def work(cancelled: threading.Event) -> list[Decided]:
            return list(
                served.decide(uploads, similar=similar, context=context, prevalence=prevalence, cancelled=cancelled)
            )

        decided = await do_work(request, serving, work)
    check_readable(decided)
    rows: list[dict[str, Any]] = [each.row for each in decided]
    point = asdict(served.model.decision_point)
    return JSONResponse({"model": served.name, "operating_point": point, "predictions": rows})


def check_readable(decided: list[Decided]) -> None:
    """Passes where at least one image could be read.

    Raises:
        ApiError: none could.
    """
    kinds = [each.prediction.unreadable for each in decided]
    if not all(kinds):
        return
    details = [
        {"path": each.row["path"], "kind": each.prediction.unreadable, "reason": each.prediction.reason or ""}
        for each in decided
    ]
    if all(kind in ("not_an_image", "unsupported") for kind in kinds):
        raise ApiError("unsupported", "no file is an image of a known kind; see details.", details=details)
    if all(kind == "too_large" for kind in kinds):
        raise ApiError("too_large", "every image has more pixels than the limit; see details.", details=details)
    raise ApiError("unprocessable", "no image can be read; see details.", details=details)
