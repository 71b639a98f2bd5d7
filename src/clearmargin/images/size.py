"""How large an image is, told from its first bytes: for choosing between files without decoding any of them."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from clearmargin.errors import ImageError
from clearmargin.images.complete import header_size, signature_format
from clearmargin.images.dicom import is_dicom
from clearmargin.images.dicom.tags import read_dicom_tags
from clearmargin.images.limits import Limits
from clearmargin.images.raster import FORMATS
from clearmargin.images.read import read_bytes

HEAD_BYTES = 1 << 16
"""What is read first; the size stands there in nearly every file, and otherwise the whole file is read."""


def read_size(path: str | Path, limits: Limits = Limits()) -> tuple[int, int]:
    """Width and height of the image as it is stored, before an EXIF orientation is applied.

    Raises:
        ImageError: the file is missing, empty, above `limits.max_bytes`, or has no size because it is no image.
    """
    head = read_bytes(path, limits, at_most=HEAD_BYTES)
    try:
        return _size(head, str(path))
    except ImageError:
        if len(head) < HEAD_BYTES:
            raise
    return _size(read_bytes(path, limits), str(path))


def _size(data: bytes, name: str) -> tuple[int, int]:
    if is_dicom(data):
        tags = read_dicom_tags(data, name)
        if not tags.rows or not tags.columns:
            raise ImageError("not_an_image", name, "is a DICOM file without an image")
        return tags.columns, tags.rows
    try:
        # Opening a PNG or a TIFF with Pillow reads all of its parts, of which a file may have millions.
        if signature_format(data) in ("PNG", "TIFF"):
            return header_size(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # a parser may raise anything at all on damaged or hostile bytes
        raise ImageError("unreadable", name, "its header does not say how large the image is") from None
