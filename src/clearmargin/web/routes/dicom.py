"""What a model says of one DICOM image as a DICOM object."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from clearmargin.errors import ImageError, UnknownName, one_line
from clearmargin.images.limits import Pixels
from clearmargin.images.read import decode_image, read_bytes
from clearmargin.predict.predictor import Predictor
from clearmargin.types import Prediction
from clearmargin.web.errors import ApiError, Code
from clearmargin.web.served import Served
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import BODY, Upload, receive
from clearmargin.web.work import check_cancelled, do_work

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from clearmargin.web.dicom.source import Source

router = APIRouter(tags=["images"])

Object = Literal["secondary_capture", "structured_report"]
MEDIA_TYPE = "application/dicom"
_CODES: dict[str, Code] = {"unsupported": "unsupported", "not_an_image": "unsupported", "too_large": "too_large"}


@router.post(
    "/dicom",
    response_class=Response,
    openapi_extra=BODY,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def dicom(
    request: Request,
    serving: Annotated[Serving, Depends(serving_of)],
    model: Annotated[str | None, Query()] = None,
    kind: Annotated[Object, Query(alias="object")] = "secondary_capture",
    method: Annotated[str | None, Query()] = None,
    frame: Annotated[int | None, Query(ge=1, le=999_999)] = None,
) -> Response:
    """A Secondary Capture (the picture) or a Structured Report (the numbers), filed in the study of the image."""
    served = serving.find(model)
    with serving.folder() as folder:
        uploads = await receive(request, folder, serving.limits)
        if uploads[0].refusal is not None:
            raise ApiError("unsupported", f"the file {uploads[0].refusal}; send one DICOM image.")
        if len(uploads) != 1:
            raise ApiError("unprocessable", f"the body has {len(uploads):,} files; send one DICOM image at a time.")

        def work(cancelled: threading.Event) -> tuple[Prediction, bytes]:
            return _answer(uploads[0], served, kind=kind, method=method, frame=frame, cancelled=cancelled)

        prediction, content = await do_work(request, serving, work)
    serving.metrics.decided([prediction.decision])
    # The client's name of the file may hold that of a patient.
    disposition = f'attachment; filename="clearmargin_{kind}.dcm"'
    return Response(content, media_type=MEDIA_TYPE, headers={"Content-Disposition": disposition})


def _answer(
    upload: Upload,
    served: Served,
    *,
    kind: Object,
    method: str | None,
    frame: int | None,
    cancelled: threading.Event,
) -> tuple[Prediction, bytes]:
    """What was decided, and the file of the object; blocks."""
    # highdicom and torch take seconds to import, which only those who ask for DICOM should pay.
    from clearmargin.explanation.methods import DEFAULT_METHOD, find_method  # noqa: PLC0415
    from clearmargin.web.dicom.secondary_capture import secondary_capture  # noqa: PLC0415
    from clearmargin.web.dicom.structured_report import structured_report  # noqa: PLC0415
    from clearmargin.web.facts import model_facts  # noqa: PLC0415

    try:
        find_method(method or DEFAULT_METHOD)
    except UnknownName as error:
        raise ApiError("unprocessable", f"query.method: {error}") from None
    source, pixels = _read(upload, served.predictor, frame)
    check_cancelled(cancelled)
    model = model_facts(served)
    made: Dataset
    if kind == "structured_report":
        prediction = served.predictor.predict_pixels(pixels)
        made = structured_report(source, prediction, model)
    else:
        with served.explaining(cancelled) as explainer:
            explained = explainer.explain(pixels, methods=[method or DEFAULT_METHOD])
        prediction = explained.prediction
        made = secondary_capture(source, pixels, prediction, next(iter(explained.explanations), None), model)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return prediction, file.getvalue()


def _read(upload: Upload, predictor: Predictor, frame: int | None) -> tuple[Source, Pixels]:
    """The header and the pixels of the upload."""
    from clearmargin.web.dicom.source import read_source  # noqa: PLC0415

    limits, window = predictor.limits, predictor.bundle.model.preprocessing.dicom_window
    try:
        data = read_bytes(upload.path, limits)
        source = read_source(data, upload.name, frame=frame)
        return source, decode_image(data, upload.name, limits, window=window, frame=frame).pixels
    except ImageError as error:
        reason = one_line(error.reason)
        detail = {"path": upload.name, "kind": error.kind, "reason": reason}
        raise ApiError(
            _CODES.get(error.kind, "unprocessable"), f"the image cannot be used: {reason}.", details=[detail]
        ) from None
