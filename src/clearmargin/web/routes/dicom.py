"""What a model says of one DICOM image as a DICOM object."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from clearmargin.errors import ImageError, one_line
from clearmargin.images.limits import Pixels
from clearmargin.images.read import decode_image, read_bytes
from clearmargin.predict.predictor import Predictor
from clearmargin.web.errors import ApiError, Code
from clearmargin.web.served import Served
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import Upload, receive
from clearmargin.web.work import check_cancelled, do_work

if TYPE_CHECKING:
    from clearmargin.web.dicom.source import Source

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
    method: Annotated[str | None, Query()] = None,
    frame: Annotated[int | None, Query(ge=1, le=999_999)] = None,
) -> Response:
    """A Secondary Capture (the picture) or a Structured Report (the numbers), filed in the study of the image."""
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
    method: str | None = None,
    frame: int | None = None,
    cancelled: threading.Event | None = None,
) -> bytes:
    """The file of the object; blocks.

    Args:
        upload: of one DICOM image.
        served: the bundle that answers.
        kind: of object.
        method: of explanation, for a picture; the default one when None.
        frame: which one of several, counted from 1.
        cancelled: when it is set, the work ends with an error.

    Raises:
        ApiError: the image cannot be used; what a model refuses is an answer, not an error.
        Interrupted: it was cancelled.
    """
    # highdicom and torch take seconds to import, which only those who ask for DICOM should pay.
    from clearmargin.explanation.methods import DEFAULT_METHOD, METHODS  # noqa: PLC0415
    from clearmargin.web.dicom.facts import facts_of  # noqa: PLC0415
    from clearmargin.web.dicom.secondary_capture import secondary_capture  # noqa: PLC0415
    from clearmargin.web.dicom.structured_report import structured_report  # noqa: PLC0415

    method = method or DEFAULT_METHOD
    if method not in METHODS:
        raise ApiError("unprocessable", f"there is no method of this name. Known: {', '.join(METHODS)}.")
    predictor, facts = served.predictor, facts_of(served.predictor.bundle, served.name)
    source, pixels = _read(upload, predictor, frame)
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


def _read(upload: Upload, predictor: Predictor, frame: int | None) -> tuple[Source, Pixels]:
    """The header and the pixels of the upload."""
    from clearmargin.web.dicom.source import read_source  # noqa: PLC0415

    limits, window = predictor.limits, predictor.bundle.model.preprocessing.dicom_window
    try:
        if upload.refusal is not None:
            raise ImageError("unreadable", upload.name, upload.refusal)
        data = read_bytes(upload.path, limits)
        source = read_source(data, upload.name, frame=frame)
        return source, decode_image(data, upload.name, limits, window=window, frame=frame).pixels
    except ImageError as error:
        reason = one_line(error.reason)
        detail = {"path": upload.name, "kind": error.kind, "reason": reason}
        raise ApiError(_CODES.get(error.kind, "unprocessable"), f"the file {reason}.", details=[detail]) from None
