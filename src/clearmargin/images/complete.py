"""Whether a file ends where its format says that it ends, and, for PNG, arrived unchanged.

Decoders accept a file that is cut short whenever the pixels happen to be there, fill the rest with grey, or,
for a TIFF whose directory is cut, decode it wrongly. What is found here depends on the file's structure
alone. Binary PGM and PPM and BMP need no check: their pixels come last, and a decoder misses them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_TIFF_SIGNATURES = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}

# A marker is FF and a code; in coded data FF is followed by 00 (stuffing) or a restart marker, D0 to D7.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_END, _JPEG_WITHOUT_LENGTH = 0xD9, (0x01, 0xD8)

_TIFF_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_TIFF_PRIVATE = 32768  # tags from here on belong to vendors, who let them point anywhere


def signature_format(data: bytes) -> str | None:
    r"""The format that the first bytes promise: PNG, JPEG, TIFF, or None for all others.

    >>> signature_format(b"II*\0")
    'TIFF'
    """
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data.startswith(_JPEG_SIGNATURE):
        return "JPEG"
    return "TIFF" if data[:4] in _TIFF_SIGNATURES else None


def find_damage(data: bytes) -> tuple[str, str] | None:
    """The kind of damage (`truncated` or `unreadable`) and the reason, or None where nothing is wrong.

    Bytes after the image's end are nobody's business: cameras and archives put other things there.
    """
    image_format = signature_format(data)
    if image_format == "PNG":
        return _png_damage(data)
    if (image_format == "JPEG" and not _jpeg_ends(data)) or (image_format == "TIFF" and _tiff_is_cut(data)):
        return "truncated", f"the file ends before the end of its {image_format} image"
    return None


def _png_damage(data: bytes) -> tuple[str, str] | None:
    place = len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            part = name.decode("ascii", "backslashreplace")
            return "unreadable", f"the bytes of its part '{part}' changed: the checksum is wrong"
        if name == b"IEND":
            return None
        place = end
    return "truncated", "the file ends before the end of its PNG image"


def _jpeg_ends(data: bytes) -> bool:
    place = 2
    while (match := _JPEG_MARKER.search(data, place)) is not None:
        marker = match[1][0]
        if marker == _JPEG_END:
            return True
        place = match.end()
        if marker not in _JPEG_WITHOUT_LENGTH:  # what a segment holds, a preview with its own end, is skipped
            place += int.from_bytes(data[place : place + 2], "big")
    return False


def _tiff_is_cut(data: bytes) -> bool:
    """The first directory, or a value that it points to, lies beyond the end of the file."""
    try:
        return any(end > len(data) for end in _tiff_ends(data))
    except (struct.error, OverflowError):
        return True


def _tiff_ends(data: bytes) -> Iterator[int]:
    order = _TIFF_SIGNATURES[data[:4]]
    big = 43 in data[2:4]
    head, entry, word = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    (place,) = struct.unpack_from(f"{order}{word}", data, 8 if big else 4)
    (entries,) = struct.unpack_from(f"{order}{head}", data, place)
    place += struct.calcsize(f"<{head}")
    inside = struct.calcsize(f"<{word}")
    for _ in range(entries):
        tag, kind, count = struct.unpack_from(f"{order}{entry}", data, place)
        place += struct.calcsize(f"<{entry}")
        size = _TIFF_VALUE_BYTES.get(kind, 0) * count
        if size > inside and tag < _TIFF_PRIVATE:
            yield int(struct.unpack_from(f"{order}{word}", data, place)[0]) + size
        place += inside
    yield place + inside  # where the next directory is
