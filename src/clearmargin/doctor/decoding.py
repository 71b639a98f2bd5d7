"""Checks that images of each kind are decoded, through the child process that decodes them for everybody.

The images are drawn here and encoded with other libraries than those that decode them, as far as there are others.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clearmargin.doctor.outcome import Outcome, failed, ok

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Grey = NDArray[np.uint8]

SIDE = 16
_SLACK = 24
"""Of a lossy picture, the largest difference of a pixel."""
LOSSLESS_JPEG = bytes.fromhex(
    "ffd8ffc3000b080010001001011100ffc400240000000000110000000000000000000000000102030405060708090a0b0c0d"
    "0e0f10ffda000801010001000038924924924924924924924924924924924923c49249249249249249249249249249249247"
    "89249249249249249249249249249249248f12492492492492492492492492492492491e2492492492492492492492492492"
    "4924923c4924924924924924924924924924924924789249249249249249249249249249249248f124924924924924924924"
    "92492492492491e24924924924924924924924924924924923c4924924924924924924924924924924924789249249249249"
    "249249249249249249248f12492492492492492492492492492492491e24924924924924924924924924924924923c492492"
    "4924924924924924924924924924789249249249249249249249249249249248f1249249249249249249249249249249249f"
    "ffd9"
)
"""The picture of `draw` as lossless JPEG (ITU-T T.81, annex H, predictor 1), which no library here can write."""


def draw() -> Grey:
    """(16, 16) grey, smooth, every value another row and column away."""
    import numpy as np

    y, x = np.mgrid[:SIDE, :SIDE]
    drawn: Grey = (x * 9 + y * 6 + 10).astype(np.uint8)
    return drawn


def check_decoders() -> Outcome:
    """Every kind of image comes back as it was drawn, or nearly so where it is lossy."""
    import numpy as np

    from clearmargin.errors import ImageError
    from clearmargin.images.limits import Limits
    from clearmargin.images.read import decode_image

    drawn, limits = draw(), Limits(isolate="all")
    wrong, lossy = [], ("JPEG", "DICOM JPEG")
    examples = {**_plain(), **_dicom()}
    for name, encode in examples.items():
        try:
            data = encode()
        except Exception as error:  # of whatever library writes it
            wrong.append(f"{name} (cannot be written: {type(error).__name__}: {error})")
            continue
        try:
            pixels = decode_image(data, name, limits).pixels
        except ImageError as error:
            wrong.append(f"{name} ({error.reason})")
            continue
        apart = np.abs(pixels[:, :, 0].astype(int) - drawn) if pixels.shape[:2] == drawn.shape else None
        if apart is None or apart.max() > (_SLACK if name in lossy else 0):
            wrong.append(f"{name} (comes back as another picture)")
    if wrong:
        return failed(
            f"not decoded: {'; '.join(wrong)}", "Install pillow, pydicom, python-gdcm and pyjpegls anew with pip."
        )
    return ok(f"{', '.join(examples)}: as they were drawn, each in a child process")


def _plain() -> dict[str, Callable[[], bytes]]:
    return {kind: lambda kind=kind: _saved(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP")}  # type: ignore[misc]


def _dicom() -> dict[str, Callable[[], bytes]]:
    from pydicom import uid

    frames: dict[str, tuple[uid.UID, Callable[[], bytes]]] = {
        "DICOM": (uid.ExplicitVRLittleEndian, lambda: draw().tobytes()),
        "DICOM RLE": (uid.RLELossless, _rle),
        "DICOM JPEG": (uid.JPEGBaseline8Bit, lambda: _saved("JPEG")),
        "DICOM lossless JPEG": (uid.JPEGLosslessSV1, lambda: LOSSLESS_JPEG),
        "DICOM JPEG-LS": (uid.JPEGLSLossless, _jpeg_ls),
        "DICOM JPEG 2000": (uid.JPEG2000Lossless, lambda: _saved("JPEG2000", no_jp2=True, irreversible=False)),
    }
    return {
        name: lambda syntax=syntax, frame=frame: _file(syntax, frame())  # type: ignore[misc]
        for name, (syntax, frame) in frames.items()
    }


def _saved(kind: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(draw()).save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg_ls() -> bytes:
    import jpeg_ls

    return bytes(jpeg_ls.encode_buffer(draw().tobytes(), SIDE, SIDE, 1, 8, 0, 0))


def _rle() -> bytes:
    """Each row of the picture as one literal run (PS3.5, annex G)."""
    rows = b"".join(bytes([SIDE - 1]) + row.tobytes() for row in draw())
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    return header + rows


def _file(syntax: Any, frame: bytes) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UltrasoundImageStorage, generate_uid

    dataset, meta = Dataset(), FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundImageStorage, generate_uid()
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = encapsulate([frame + bytes(len(frame) % 2)]) if syntax.is_encapsulated else frame
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
