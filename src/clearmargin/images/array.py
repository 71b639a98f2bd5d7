"""Reading .npy files: headers, arrays, and images; arrays of Python objects are never loaded.

The header is text that looks like Python. It is matched, not evaluated: NumPy's own reader warns, raises a dozen
kinds of errors on damaged ones, and takes a negative size for one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import ImageError, one_line
from clearmargin.images.limits import Limits, Pixels

ARRAY_SIGNATURE = b"\x93NUMPY"
HEADER_BYTES = 10_012
"""The longest header that is read, the signature and the length before it included."""

_MOST_DIMENSIONS = 32
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # by version
_HEADER = re.compile(r"\{(?P<items>.*)\}\s*", re.DOTALL)
_ITEM = re.compile(
    r"""\s*(?P<quote>['"])(?:
        (?P<is_type>descr)(?P=quote)\s*:\s*(?P<type>'[^'\\]*'|"[^"\\]*"|\[.*\])
        |(?P<is_order>fortran_order)(?P=quote)\s*:\s*(?P<order>True|False)
        |(?P<is_shape>shape)(?P=quote)\s*:\s*\((?P<shape>(?:\s*\d{1,18}L?\s*(?:,|(?=\))))*\s*)\)
    )\s*(?:,|\Z)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_TYPE = re.compile(r"[|<>=]?(?P<kind>[?biufcSUVmMO])(?P<size>\d{0,6})(?:\[[\w ]{1,8}\])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What an .npy file says of its array; `start` is where the values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_array_header(data: bytes) -> ArrayHeader:
    r"""The header at the beginning of the bytes of an .npy file, of which the first HEADER_BYTES are enough.

    Raises:
        ValueError: it is damaged, or of an array of Python objects or of records.

    >>> text = b"{'descr': '<u2', 'fortran_order': False, 'shape': (3, 4)}"
    >>> read_array_header(ARRAY_SIGNATURE + b"\1\0" + len(text).to_bytes(2, "little") + text).shape
    (3, 4)
    """
    version = data[6] if data.startswith(ARRAY_SIGNATURE) and len(data) > 7 and data[7] == 0 else 0
    if version not in _LENGTH_BYTES:
        raise ValueError("not an .npy file of version 1, 2 or 3")
    place = 8 + _LENGTH_BYTES[version]
    start = place + int.from_bytes(data[8:place], "little")
    if len(data) < place or start > min(len(data), HEADER_BYTES):
        raise ValueError("it is cut, or longer than any real one")
    items = _parse_items(data[place:start].decode("latin-1"))
    shape = tuple(int(number.strip(" L")) for number in items["shape"].split(",") if number.strip())
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"it has {len(shape):,} dimensions")
    return ArrayHeader(shape, _parse_type(items["type"]), items["order"] == "True", start)


def read_array_values(data: bytes, header: ArrayHeader) -> NDArray[np.generic]:
    """The array behind the header, in the machine's byte order where it is not in that already.

    Raises:
        ValueError: the values end early.
    """
    if len(data) - header.start < header.size:
        raise ValueError("the file ends before the end of its array")
    count = math.prod(header.shape)
    values = np.frombuffer(data, header.dtype, count, header.start) if header.size else np.empty(count, header.dtype)
    array = values.reshape(header.shape, order="F" if header.fortran_order else "C")
    return np.asarray(array, dtype=header.dtype.newbyteorder("="), order="C")


def decode_array(data: bytes, name: str, limits: Limits) -> Pixels:
    """The image, uint8 or uint16 of shape (H, W, 1) or (H, W, 3), of an array of (H, W), (H, W, 1) or (H, W, 3).

    Raises:
        ImageError: damaged, cut short, or an array of another kind.
    """
    try:
        header = read_array_header(data)
    except ValueError as error:
        raise ImageError("unreadable", name, f"its header is damaged ({error})") from None
    shape = header.shape
    if header.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ImageError("unsupported", name, f"has values of type {header.dtype}; save whole numbers of 8 or 16 bits")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)) or 0 in shape:
        raise ImageError("unsupported", name, f"has the shape {shape}; an image is (H, W), (H, W, 1) or (H, W, 3)")
    if shape[0] * shape[1] > limits.max_pixels:
        size = f"{shape[1]:,} × {shape[0]:,} pixels"
        raise ImageError("too_large", name, f"{size}, more than the limit of {limits.max_pixels:,}")
    try:
        pixels = read_array_values(data, header)
    except ValueError as error:
        raise ImageError("truncated", name, str(error)) from None
    wide = pixels.reshape(*shape[:2], shape[2] if len(shape) == 3 else 1)
    return wide.view(np.uint16) if wide.dtype.itemsize == 2 else wide.view(np.uint8)


def _parse_items(text: str) -> dict[str, str]:
    """The type, the order and the shape as they are written."""
    whole = _HEADER.fullmatch(text)
    items: dict[str, str] = {}
    place, end = (whole.start("items"), whole.end("items")) if whole else (0, 0)
    while (match := _ITEM.match(text, place, end)) is not None:
        for name in ("type", "order", "shape"):
            if match[name] is not None:
                items[name] = match[name]
        place = match.end()
    if len(items) != 3 or text[place:end].strip():
        raise ValueError("it does not say type, order and shape")
    return items


def _parse_type(text: str) -> np.dtype[np.generic]:
    match = _TYPE.fullmatch(text[1:-1])
    if match is None or text.startswith("["):
        raise ValueError(f"its values are records or of an unknown type, {one_line(text)[:50]}")
    if match["kind"] == "O":
        raise ValueError("it holds Python objects, which are never loaded: they can run code")
    try:
        return np.dtype(text[1:-1])
    except (TypeError, ValueError):
        raise ValueError(f"its values are of an unknown type, {one_line(text)[:50]}") from None
