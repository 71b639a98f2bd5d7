"""What a model says of one DICOM image as a DICOM object."""

from __future__ import annotations

import io
import threading
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from clearmargin.errors import ImageError, one_line
from clearmargin.explanation.methods import DEFAULT_METHOD, METHODS
from clearmargin.images.read import decode_image, read_bytes
from clearmargin.web.errors import ApiError, Code
from clearmargin.web.served import Served
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import Upload, receive
from clearmargin.web.work import check_cancelled, do_work

router = APIRouter(tags=["images"])

Object = Literal["secondary_capture", "structured_report"]
MEDIA_TYPE = "application/dicom"
_CODES: dict[str, Code] = {"unsupported": "unsupported", "not_an_image": "unsupported", "too_large": "too_large"}


@router.post(
    "/dicom",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def dicom(
    request: Request,
    serving: Annotated[Serving, Depends(serving_of)],
    model: Annotated[str | None, Query()] = None,
    kind: Annotated[Object, Query(alias="object")] = "secondary_capture",
    method: Annotated[str, Query()] = DEFAULT_METHOD,
    frame: Annotated[int | None, Query(ge=1, le=999_999)] = None,
) -> Response:
    """A Secondary Capture (the picture) or a Structured Report (the numbers), filed in the study of the image."""
    if method not in METHODS:
        raise ApiError("unprocessable", f"there is no method of this name. Known: {', '.join(METHODS)}.")
    served = serving.find(model)
    with serving.folder() as folder:
        uploads = await receive(request, folder, serving.limits)
        if len(uploads) != 1:
            raise ApiError("unprocessable", f"the body has {len(uploads):,} files; send one DICOM image at a time.")

        def work(cancelled: threading.Event) -> bytes:
            return answer(uploads[0], served, kind=kind, method=method, frame=frame, cancelled=cancelled)

        content = await do_work(request, serving, work)
    # The client's name of the file may hold that of a patient.
    disposition = f'attachment; filename="clearmargin_{kind}.dcm"'
    return Response(content, media_type=MEDIA_TYPE, headers={"Content-Disposition": disposition})


def answer(
    upload: Upload,
    served: Served,
    *,
    kind: Object,
    method: str = DEFAULT_METHOD,
    frame: int | None = None,
    cancelled: threading.Event | None = None,
) -> bytes:
    """The file of the object; blocks.

    Args:
        upload: of one DICOM image.
        served: the bundle that answers.
        kind: of object.
        method: of explanation, for a picture.
        frame: which one of several, counted from 1.
        cancelled: when it is set, the work ends with an error.

    Raises:
        ApiError: the image cannot be used; what a model refuses is an answer, not an error.
        Interrupted: it was cancelled.
    """
    # highdicom takes a second to import, which only those who ask for DICOM should pay.
    from clearmargin.web.dicom.facts import facts_of  # noqa: PLC0415
    from clearmargin.web.dicom.secondary_capture import secondary_capture  # noqa: PLC0415
    from clearmargin.web.dicom.source import read_source  # noqa: PLC0415
    from clearmargin.web.dicom.structured_report import structured_report  # noqa: PLC0415

    predictor, facts = served.predictor, facts_of(served.predictor.bundle, served.name)
    try:
        if upload.refusal is not None:
            raise ImageError("unreadable", upload.name, upload.refusal)
        data = read_bytes(upload.path, predictor.limits)
        source = read_source(data, upload.name, frame=frame)
        window = predictor.bundle.model.preprocessing.dicom_window
        pixels = decode_image(data, upload.name, predictor.limits, window=window, frame=frame).pixels
    except ImageError as error:
        reason = one_line(error.reason)
        details = [{"path": upload.name, "kind": error.kind, "reason": reason}]
        code = _CODES.get(error.kind, "unprocessable")
        raise ApiError(code, f"the file {reason}." if code == "unsupported" else f"the image: {reason}.", details=details) from None
    check_cancelled(cancelled)
    if kind == "structured_report":
        made = structured_report(source, predictor.predict_pixels(pixels), facts)
    else:
        explained = served.explainer.explain(pixels, methods=[method])
        explanation = explained.explanations[0] if explained.explanations else None
        made = secondary_capture(source, pixels, explained.prediction, explanation, facts)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
