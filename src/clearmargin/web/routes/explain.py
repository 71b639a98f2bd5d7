"""Which places of an image moved the network."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from clearmargin.errors import UnknownName
from clearmargin.types import Prediction, Record
from clearmargin.web.answers import ExplainAnswer
from clearmargin.web.errors import ApiError
from clearmargin.web.readable import check_readable
from clearmargin.web.served import Served, record_of_upload, refused
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import BODY, Upload, receive
from clearmargin.web.work import check_cancelled, do_work

if TYPE_CHECKING:
    from PIL import Image

    from clearmargin.explanation.explainer import Explained, Explanation

router = APIRouter(tags=["images"])
MOST_MAPS = 64
"""Of a request: files times methods; each is some hundred kilobytes of pictures."""
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post("/explain", response_model=ExplainAnswer, responses=_PNG, openapi_extra=BODY)
async def explain(
    request: Request,
    serving: Annotated[Serving, Depends(serving_of)],
    model: Annotated[str | None, Query()] = None,
    method: Annotated[list[str] | None, Query()] = None,
    alpha: Annotated[float, Query(ge=0.05, le=1)] = 0.6,
) -> Response:
    """A map of each image by each method, as pictures; with `Accept: image/png` the picture of one."""
    served = serving.find(model)
    as_picture = request.headers.get("accept", "").split(",")[0].split(";")[0].strip() == "image/png"
    with serving.folder() as folder:
        uploads = await receive(request, folder, serving.limits)

        def work(cancelled: threading.Event) -> tuple[list[Prediction], list[dict[str, Any]] | bytes]:
            return _explain(served, uploads, method, alpha, as_picture=as_picture, cancelled=cancelled)

        predictions, answer = await do_work(request, serving, work)
    serving.metrics.decided(prediction.decision for prediction in predictions)
    check_readable(predictions, [upload.name for upload in uploads])
    if not isinstance(answer, bytes):
        return JSONResponse({"model": served.name, "explanations": answer})
    if not answer:
        raise ApiError("unprocessable", f"the image was refused: {predictions[0].reason}.")
    return Response(answer, media_type="image/png")


def _explain(
    served: Served,
    uploads: list[Upload],
    wanted: list[str] | None,
    alpha: float,
    *,
    as_picture: bool,
    cancelled: threading.Event,
) -> tuple[list[Prediction], list[dict[str, Any]] | bytes]:
    """What was decided, and what explains it: an object for each image, or the picture of the one."""
    from clearmargin.explanation.methods import find_methods  # noqa: PLC0415  (torch)

    try:
        methods = find_methods(wanted or ())
    except UnknownName as error:
        raise ApiError("unprocessable", f"query.method: {error}") from None
    if as_picture and (len(uploads) != 1 or len(methods) != 1):
        raise ApiError("unprocessable", "a picture is of one file and one method; send one, or ask for JSON.")
    if len(uploads) * len(methods) > MOST_MAPS:
        raise ApiError("too_large", f"more than {MOST_MAPS} maps, files times methods; send fewer at a time.")
    predictions, answers, picture = list[Prediction](), list[dict[str, Any]](), b""
    with served.explaining(cancelled) as explainer:
        records = [record_of_upload(upload) for upload in uploads if upload.refusal is None]
        explained = explainer.explain_records(records, methods=methods)
        for upload in uploads:
            image = next(explained) if upload.refusal is None else None
            check_cancelled(cancelled)
            predictions.append(refused(upload) if image is None else image.prediction)
            if as_picture and image is not None:
                picture = _picture(image, upload.name, alpha)
            elif not as_picture:
                answers.append(_told(upload.name, predictions[-1], image, alpha))
    return predictions, picture if as_picture else answers


def _told(name: str, prediction: Prediction, image: Explained | None, alpha: float) -> dict[str, Any]:
    from clearmargin.explanation.draw import draw_layer, show_image  # noqa: PLC0415  (torch)
    from clearmargin.explanation.methods import find_method  # noqa: PLC0415
    from clearmargin.explanation.picture import draw_picture  # noqa: PLC0415

    answer: dict[str, Any] = {
        "path": name,
        "decision": prediction.decision,
        "probability": prediction.probability,
        "reason": prediction.reason,
        "width": None,
        "height": None,
        "image": None,
        "maps": [],
    }
    if image is None or image.pixels is None:
        return answer
    height, width = image.pixels.shape[:2]
    answer |= {"width": width, "height": height, "image": _data_url(show_image(image.pixels))}
    for each in _named(image, name):
        method = find_method(each.method)
        answer["maps"].append(
            {
                "method": each.method,
                "title": method.title,
                "unit": method.unit,
                "signed": method.signed,
                "scale": each.scale.model_dump(),
                "logit": each.logit,
                "layer": _data_url(draw_layer(each)),
                "picture": _data_url(draw_picture(image.pixels, [each], alpha=alpha)),
            }
        )
    return answer


def _picture(image: Explained, name: str, alpha: float) -> bytes:
    """The PNG with its legend; empty where the image was refused."""
    from clearmargin.explanation.picture import draw_picture  # noqa: PLC0415  (torch)

    return b"" if image.pixels is None else _png(draw_picture(image.pixels, _named(image, name), alpha=alpha))


def _named(image: Explained, name: str) -> list[Explanation]:
    """The explanations of an image under the name that the client gave it, which the legend shows."""
    return [replace(each, record=Record(name)) for each in image.explanations]


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _data_url(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()
