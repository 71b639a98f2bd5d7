"""Whether a file ends where its format says that it ends, and, for PNG, arrived unchanged; what it may cost to decode.

Decoders accept a file that is cut short whenever the pixels happen to be there, fill the rest with grey, or,
for a TIFF whose directory is cut, decode it wrongly. What is found here depends on the file's structure
alone. Binary PGM and PPM and BMP need no check: their pixels come last, and a decoder misses them.

The size of an image does not bound the work of decoding it: a PNG may have millions of empty parts, a progressive
JPEG thousands of scans, each of which passes over all pixels, a TIFF more strips than pixels. The first two are
damage here; what else is not bounded by the size is told by `is_costly`.
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

_MAX_PNG_PARTS = 100_000  # a writer's buffer of 8 KiB makes 65,536 of the largest file that is read
_MAX_JPEG_SCANS = 100  # a usual progressive image has ten
_SCAN = 0xDA

_SHORT_OR_LONG = {3: "H", 4: "I"}
_TIFF_UNCOMPRESSED, _TIFF_PLAIN_BYTES = 1, 1 << 16
_BMP_UNCOMPRESSED = (0, 3)  # BI_RGB and BI_BITFIELDS
_BMP_OLD_HEADER = 12
_ASCII_PIXELS = re.compile(rb"P[123]\s")

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
    if image_format == "JPEG":
        return _jpeg_damage(data)
    if image_format == "TIFF" and _tiff_is_cut(data):
        return "truncated", "the file ends before the end of its TIFF image"
    return None


def is_costly(data: bytes) -> bool:
    """Whether the work and the memory of decoding are not bounded by the size of the image, or the decoder is complex.

    That is so of run lengths in BMP and of numbers written out in PGM and PPM, both decoded by Python itself, and of
    a TIFF that is compressed, has several pages or a long directory.
    """
    if data.startswith(b"BM"):
        header, compression = (int.from_bytes(data[place : place + 4], "little") for place in (14, 30))
        return header != _BMP_OLD_HEADER and compression not in _BMP_UNCOMPRESSED
    if signature_format(data) == "TIFF":
        return not _tiff_is_plain(data)
    return _ASCII_PIXELS.match(data) is not None


def header_size(data: bytes) -> tuple[int, int]:
    """Width and height that the header of a PNG or a TIFF states.

    Raises:
        ValueError: there is none, or it is 0.
    """
    try:
        if data.startswith(_PNG_SIGNATURE):
            name, width, height = struct.unpack_from(">4sII", data, 12)
            known = name == b"IHDR"
        else:
            order, _, entries, _ = _tiff_directory(data)
            sides = {
                tag: struct.unpack_from(f"{order}{_SHORT_OR_LONG[kind]}", data, value)[0]
                for tag, kind, _, value in entries
                if tag in (256, 257) and kind in _SHORT_OR_LONG
            }
            width, height, known = sides.get(256, 0), sides.get(257, 0), True
    except (struct.error, OverflowError):
        known = width = height = 0
    if not (known and width and height):
        raise ValueError("its header does not say how large the image is")
    return width, height


def _png_damage(data: bytes) -> tuple[str, str] | None:
    place, parts = len(_PNG_SIGNATURE), 0
    while place + 12 <= len(data):
        parts += 1
        if parts > _MAX_PNG_PARTS:
            return "unreadable", f"has more than {_MAX_PNG_PARTS:,} parts; no real image does"
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


def _jpeg_damage(data: bytes) -> tuple[str, str] | None:
    place, scans = 2, 0
    while (match := _JPEG_MARKER.search(data, place)) is not None:
        marker = match[1][0]
        if marker == _JPEG_END:
            return None
        place = match.end()
        scans += marker == _SCAN
        if scans > _MAX_JPEG_SCANS:
            return "unreadable", f"has more than {_MAX_JPEG_SCANS} scans; no real image does"
        if marker not in _JPEG_WITHOUT_LENGTH:  # what a segment holds, a preview with its own end, is skipped
            place += int.from_bytes(data[place : place + 2], "big")
    return "truncated", "the file ends before the end of its JPEG image"


def _tiff_is_cut(data: bytes) -> bool:
    """The first directory, or a value that it points to, lies beyond the end of the file."""
    try:
        return any(end > len(data) for end in _tiff_ends(data))
    except (struct.error, OverflowError):
        return True


def _tiff_is_plain(data: bytes) -> bool:
    """The first image is uncompressed (TIFF 6.0, tag Compression), nothing in its directory is long, and it is the
    only one.
    """
    try:
        order, word, entries, end = _tiff_directory(data)
        compression = [struct.unpack_from(f"{order}H", data, value)[0] for tag, _, _, value in entries if tag == 259]
        (following,) = struct.unpack_from(f"{order}{word}", data, end - struct.calcsize(word))
    except (struct.error, OverflowError):
        return False
    sizes = (_TIFF_VALUE_BYTES.get(kind, 8) * count for _, kind, count, _ in entries)
    is_short = max(sizes, default=0) <= _TIFF_PLAIN_BYTES and len(entries) * 12 <= _TIFF_PLAIN_BYTES
    return compression in ([], [_TIFF_UNCOMPRESSED]) and is_short and following == 0


def _tiff_ends(data: bytes) -> Iterator[int]:
    order, word, entries, end = _tiff_directory(data)
    for tag, kind, count, value in entries:
        size = _TIFF_VALUE_BYTES.get(kind, 0) * count
        if size > struct.calcsize(word) and tag < _TIFF_PRIVATE:
            yield int(struct.unpack_from(f"{order}{word}", data, value)[0]) + size
    yield end


def _tiff_directory(data: bytes) -> tuple[str, str, list[tuple[int, int, int, int]], int]:
    """Byte order, code of an offset, (tag, kind, count, place of the value) of each entry, and where it all ends."""
    order = _TIFF_SIGNATURES[data[:4]]
    big = 43 in data[2:4]
    head, entry, word = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    (place,) = struct.unpack_from(f"{order}{word}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{head}", data, place)
    place += struct.calcsize(f"<{head}")
    to_value, length = struct.calcsize(f"<{entry}"), struct.calcsize(f"<{entry}{word}")
    end = place + count * length + struct.calcsize(f"<{word}")  # behind the place of the next directory
    if end > len(data):
        raise struct.error("the directory is cut")
    places = range(place, place + count * length, length)
    entries = [(*struct.unpack_from(f"{order}{entry}", data, at), at + to_value) for at in places]
    return order, word, entries, end
