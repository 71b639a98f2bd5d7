"""Small PNG files that hold nothing but pixels, as patches are, in four fifths of the time that a full reader takes.

The pixels come from Pillow's own decoder, so they are those that its reader gives. Whatever is not plain, or cannot be
decoded, is None here, and for `raster.py` to judge.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from clearmargin.images.limits import Pixels

_BEGIN = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER, _PART = struct.Struct(">II5s"), struct.Struct(">I4s")
_MODES = {b"\x08\0\0\0\0": "L", b"\x08\2\0\0\0": "RGB"}
"""By depth, colour type, compression, filter and interlace."""
_MAX_PIXELS = 2**18
"""Of larger images the reader's share of the time is small."""


def decode_plain_png(data: bytes) -> Pixels | None:
    """The pixels (H, W, 1 or 3), or None for any file but a small grey or RGB one of 8 bits without further parts.

    Args:
        data: a whole file, see `complete.find_damage`.
    """
    if not data.startswith(_BEGIN):
        return None
    width, height, kind = _HEADER.unpack_from(data, len(_BEGIN))
    mode = _MODES.get(kind)
    packed = _packed_pixels(data)
    if mode is None or packed is None or not 0 < width * height <= _MAX_PIXELS:
        return None
    try:
        pixels = np.asarray(Image.frombytes(mode, (width, height), packed, "zip", mode))
    except Exception:  # a decoder may raise anything at all on damaged or hostile bytes
        return None
    return pixels[:, :, np.newaxis] if mode == "L" else pixels


def _packed_pixels(data: bytes) -> bytes | None:
    """What the IDAT parts hold, or None where there are parts that may say how the pixels are meant."""
    place, found = 33, []  # behind IHDR
    while True:
        length, name = _PART.unpack_from(data, place)
        if name == b"IDAT":
            found.append(data[place + 8 : place + 8 + length])
        elif name == b"IEND" or found or name != b"tIME":
            break
        place += 12 + length
    return b"".join(found) if name == b"IEND" else None
