"""Decisions on the images of one request."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from clearmargin.web.answers import PredictAnswer
from clearmargin.web.readable import check_has_similar, check_readable
from clearmargin.web.served import Decided
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import BODY, receive
from clearmargin.web.work import do_work

router = APIRouter(tags=["images"])


@router.post("/predict", response_model=PredictAnswer, openapi_extra=BODY)
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
    if similar:
        check_has_similar(served)
    with serving.folder() as folder:
        uploads = await receive(request, folder, serving.limits)

        def work(cancelled: threading.Event) -> list[Decided]:
            return list(
                served.decide(uploads, similar=similar, context=context, prevalence=prevalence, cancelled=cancelled)
            )

        decided = await do_work(request, serving, work)
    predictions = [each.prediction for each in decided]
    serving.metrics.decided(prediction.decision for prediction in predictions)
    check_readable(predictions, [upload.name for upload in uploads])
    rows: list[dict[str, Any]] = [each.row for each in decided]
    point = asdict(served.model.decision_point)
    return JSONResponse({"model": served.name, "operating_point": point, "predictions": rows})
