"""DICOM mammograms and ultrasound images, read with pydicom in the order that the standard gives.

Here is only what costs nothing to import, since every reader of images asks what a file is. `header` reads elements,
`decode` says what is refused and gives what is shown, `frames` gets stored values, `grey` says how they are shown,
`tags` reads facts for the data sources.
"""

from __future__ import annotations

import struct

from clearmargin.images.limits import Limits, Pixels, Window

# PS3.5, table 7.1-1: the value representations whose length has four bytes.
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def is_dicom(data: bytes) -> bool:
    r"""Whether the bytes begin like a DICOM file, with or without its preamble.

    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"\x08\x00\x05\x00CS\x02\x00AB\x08\x00\x16\x00UI\x00\x00")
    (True, True)
    >>> is_dicom(b"\x89PNG\r\n\x1a\n"), is_dicom(b"\x08\x00 and so on, a text")
    (False, False)
    """
    if data[128:132] == b"DICM":
        return True
    if data[:2] not in (b"\x08\x00", b"\x00\x08", b"\x02\x00"):
        return False
    # Without a preamble, two elements must follow each other as the standard orders them.
    order = "<" if data[0] else ">"
    try:
        first, place = _step_over(data, 0, order)
        second, _ = _step_over(data, place, order)
    except struct.error:
        return False
    return first < second and second >> 16 in (0x0002, 0x0008, 0x0009, 0x0010)


def decode_dicom(
    data: bytes, name: str, limits: Limits, *, window: Window = "stored", frame: int | None = None
) -> Pixels:
    """The image as shown, uint8 or uint16 over its full range, (H, W, C) with C = 1 (grey) or 3 (RGB, uint8).

    For a child process only (`isolate.py`): its decoders can crash, and it silences pydicom in the whole process.

    Args:
        data: the file.
        name: used in messages only.
        limits: `max_pixels` bounds one frame; the size of `data` is the caller's to check.
        window: `stored` shows the file's VOI LUT or first window where it has one, `full` always the whole range
            that the values can have.
        frame: which one of several, counted from 1.

    Raises:
        ImageError: of kind unsupported, too_large, truncated or unreadable.
    """
    from clearmargin.images.dicom.decode import decode_file  # noqa: PLC0415  (most runs need no DICOM)

    return decode_file(data, name, limits, window=window, frame=frame)


def _step_over(data: bytes, place: int, order: str) -> tuple[int, int]:
    """The tag of the element at `place`, and where the next one begins."""
    group, number, vr, short = struct.unpack_from(f"{order}HH2sH", data, place)
    start, length = place + 8, short
    if vr in _LONG_VRS:
        start, (length,) = place + 12, struct.unpack_from(f"{order}I", data, place + 8)
    elif not (vr.isalpha() and vr.isupper()):
        (length,) = struct.unpack_from(f"{order}I", data, place + 4)
    return group << 16 | number, start + length
