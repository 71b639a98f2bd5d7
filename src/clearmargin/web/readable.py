"""What can be asked of a bundle and of uploads, and what is said where it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from clearmargin.types import Prediction
from clearmargin.web.errors import ApiError
from clearmargin.web.served import Served

_NO_IMAGE = ("not_an_image", "unsupported")


def check_readable(predictions: Sequence[Prediction], names: Sequence[str]) -> None:
    """Passes where at least one upload could be read.

    Args:
        predictions: of the uploads.
        names: of the uploads.

    Raises:
        ApiError: none could; with a detail for each.
    """
    kinds = [prediction.unreadable for prediction in predictions]
    if not all(kinds):
        return
    details = [
        {"path": name, "kind": prediction.unreadable, "reason": prediction.reason or ""}
        for name, prediction in zip(names, predictions, strict=True)
    ]
    if all(kind in _NO_IMAGE for kind in kinds):
        raise ApiError("unsupported", "no file is an image of a known kind; see details.", details=details)
    if all(kind == "too_large" for kind in kinds):
        raise ApiError("too_large", "every image is larger than the limits; see details.", details=details)
    raise ApiError("unprocessable", "no image can be read; see details.", details=details)


def check_has_similar(served: Served) -> None:
    """Passes where the bundle carries training images.

    Raises:
        ApiError: it does not.
    """
    if served.model.cases is None:
        raise ApiError("unprocessable", "query.similar: this model carries no training images to show; leave it out.")
