"""The stored values of one frame, decoded by pydicom with one plugin for each transfer syntax.

The size and kind that a compressed image states of itself are compared with the header first: a decoder would show
another picture, or one of gigapixels. Damage further inside is found by the decoders; GDCM's may end the process.
"""

from __future__ import annotations

import io
import itertools
import struct
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate, generate_fragments, get_frame
from pydicom.pixels.decoders.base import get_decoder

from clearmargin.images.dicom.header import Header, PixelElement
from clearmargin.images.limits import Pixels

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
# The decoder of each syntax; the markers of the JPEG family that it allows (T.81, table B.1; T.87, C.1.1), where
# decoders read the first three alike and writers call all of them baseline.
PLUGINS = {
    uid.RLELossless: ("pydicom", ()),
    uid.JPEGBaseline8Bit: ("pillow", (0xFFC0, 0xFFC1, 0xFFC2)),
    uid.JPEGExtended12Bit: ("pillow", (0xFFC0, 0xFFC1, 0xFFC2)),
    uid.JPEGLossless: ("gdcm", (0xFFC3,)),
    uid.JPEGLosslessSV1: ("gdcm", (0xFFC3,)),
    uid.JPEGLSLossless: ("pyjpegls", (0xFFF7,)),
    uid.JPEGLSNearLossless: ("pyjpegls", (0xFFF7,)),
    uid.JPEG2000Lossless: ("gdcm", ()),
    uid.JPEG2000: ("gdcm", ()),
}
_LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000})
_JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000})
_FRAME_MARKERS = frozenset({*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC})
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_J2K_START = b"\xff\x4f\xff\x51"
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The fields of the image pixel module (PS3.3, C.7.6.3), checked; named as pydicom names its options."""

    rows: int
    columns: int
    samples_per_pixel: int
    """1 or 3."""
    photometric_interpretation: str
    planar_configuration: int
    bits_allocated: int
    """8 or 16."""
    bits_stored: int
    """The lowest ones, at most `bits_allocated`."""
    pixel_representation: int
    """1 for signed values."""
    number_of_frames: int


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a compressed image says of itself."""

    rows: int
    columns: int
    samples: int
    bits: int
    marker: int = 0
    is_adobe_ycc: bool = False
    """It says in an Adobe segment that its colours are YCbCr, which Pillow then makes RGB."""


def read_frame(header: Header, form: PixelFormat, data: bytes, frame: int) -> Pixels:
    """The stored bits, unsigned, those above them cleared, (H, W); or RGB of shape (H, W, 3).

    Raises:
        ImageError: the pixels are cut or damaged, or are not what the header says.
    """
    assert header.pixels is not None
    options = asdict(form) | {"pixel_keyword": "PixelData", "pixel_vr": header.pixels.vr or "OW"}
    file = io.BytesIO(data)
    file.seek(header.pixels.start)
    if header.syntax in PLUGINS:
        _check_fragments(header, header.pixels, data)
        coded = _coded_frame(header, form, file, frame)
        options |= {"number_of_frames": 1} | _codec_options(header, form, coded)
        file, frame = io.BytesIO(encapsulate([coded], has_bot=False)), 0
    else:
        _check_length(header, form, header.pixels, len(data))
    try:
        pixels, properties = get_decoder(header.syntax).as_array(file, index=frame, **options)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        raise header.error("unreadable", "its pixels cannot be decoded; they are damaged") from None
    if form.samples_per_pixel == 3:
        if properties["photometric_interpretation"] != "RGB" and not options.get("raw"):
            said = form.photometric_interpretation
            raise header.error("unreadable", f"its header says {said}, which only JPEG 2000 has")
        return np.ascontiguousarray(pixels, np.uint8)
    mask = (1 << form.bits_stored) - 1
    if header.syntax in _LOSSY:  # a lossy value may lie beyond the range; its bits must not wrap
        low = -(options["pixel_representation"] << form.bits_stored - 1)
        pixels = pixels.clip(low, low + mask)
    bits: Pixels = (pixels.astype(np.int32) & mask).astype(np.uint16)
    return bits


def _check_length(header: Header, form: PixelFormat, element: PixelElement, end: int) -> None:
    if element.length is None:
        raise header.error("unreadable", "its header says that the pixels are uncompressed; they are compressed")
    if form.photometric_interpretation == "YBR_FULL_422" and form.columns % 2:
        raise header.error("unreadable", "has colours for pairs of pixels and an odd width")
    if element.start + element.length > end:
        raise header.error("truncated", "the file ends before the end of its pixels")
    samples = 2 if form.photometric_interpretation == "YBR_FULL_422" else form.samples_per_pixel
    promised = form.rows * form.columns * samples * form.bits_allocated // 8 * form.number_of_frames
    lengths = f"has {element.length:,} bytes of pixels where its header promises {promised:,}"
    if element.length < promised:
        raise header.error("truncated", lengths)
    # A wrong width or height would shear the image. It leaves at least one row or column; padding is shorter.
    if element.length - promised >= max(2, min(form.rows, form.columns)):
        raise header.error("unreadable", lengths)


def _check_fragments(header: Header, element: PixelElement, data: bytes) -> None:
    """The fragments must follow each other up to the end of their sequence; pydicom makes do with what there is."""
    if element.length is not None:
        raise header.error("unreadable", "its header says that the pixels are compressed; they are not")
    place = element.start
    while data[place : place + 4] == _ITEM and place + 8 <= len(data):
        place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
    if place + 8 > len(data):
        raise header.error("truncated", "the file ends before the end of its pixels")
    if data[place : place + 4] != _SEQUENCE_END:
        raise header.error("unreadable", "its compressed pixels are damaged")


def _coded_frame(header: Header, form: PixelFormat, file: io.BytesIO, frame: int) -> bytes:
    tables = [table for keyword in _OFFSETS if keyword in header.dataset for table in header.values(keyword)]
    offsets: Any = tuple(tables) if len(tables) == len(_OFFSETS) else None
    try:
        if form.number_of_frames == 1:  # all that there is, whatever the table in front says
            coded = b"".join(itertools.islice(generate_fragments(file), 1, None))
        else:
            coded = get_frame(file, frame, number_of_frames=form.number_of_frames, extended_offsets=offsets)
    except (StopIteration, TypeError, ValueError, struct.error):
        raise header.error("unreadable", "its compressed pixels are damaged") from None
    # Some writers keep the boxes of a JP2 file around the codestream, and damaged ones.
    return coded[max(0, coded.find(_J2K_START)) :] if header.syntax in _JPEG_2000 else coded


def _codec_options(header: Header, form: PixelFormat, coded: bytes) -> dict[str, Any]:
    """How pydicom is to decode the compressed frame, which says nothing that the header does not."""
    syntax = uid.UID(header.syntax)
    plugin, markers = PLUGINS[syntax]
    options: dict[str, Any] = {"decoding_plugin": plugin}
    try:
        if syntax == uid.RLELossless:
            _check_rle(coded)
            return options
        stated = _j2k_header(coded) if syntax in _JPEG_2000 else _jpeg_header(coded)
    except (ValueError, struct.error):
        raise header.error("unreadable", "its compressed pixels are damaged") from None
    if b"\xff\xd9" not in coded[-10:]:  # padding may follow the end of the image
        raise header.error("truncated", "its compressed pixels end early")
    if markers and stated.marker not in markers:
        raise header.error("unreadable", "its compressed image is another kind of JPEG than its header says")
    if (stated.rows, stated.columns) != (form.rows, form.columns):
        sizes = f"{stated.columns:,} × {stated.rows:,} pixels where its header says {form.columns:,} × {form.rows:,}"
        raise header.error("unreadable", f"its compressed image has {sizes}")
    if stated.samples != form.samples_per_pixel:
        raise header.error("unreadable", "its compressed image and its header differ in grey or colour")
    is_12_bit = (syntax, stated.marker, stated.bits) == (uid.JPEGExtended12Bit, 0xFFC1, 12)
    if not 2 <= stated.bits <= (8 if plugin == "pillow" else 16) and not is_12_bit:
        raise header.error("unsupported", f"its compressed image has {stated.bits} bits, which is not read")
    if form.samples_per_pixel == 3 and stated.bits != 8:
        raise header.error("unsupported", f"its compressed image has colours of {stated.bits} bits; save it with 8")
    if syntax in uid.JPEGTransferSyntaxes:  # their plugins believe the header, not the image
        allocated = 8 if stated.bits <= 8 else 16
        options |= {"bits_allocated": allocated, "bits_stored": min(form.bits_stored, allocated)}
        options |= {"pixel_representation": 0, "correct_unused_bits": False}
    return options | ({"decoding_plugin": "gdcm12"} if is_12_bit else {}) | {"raw": stated.is_adobe_ycc}


def _check_rle(coded: bytes) -> None:
    """The segments must follow each other (PS3.5, G.5), which pydicom does not ask of them."""
    count, *starts = struct.unpack_from("<16I", coded)
    if starts[0] < 64 or starts[:count] != sorted(set(starts[:count])):
        raise ValueError


def _jpeg_header(coded: bytes) -> _Stated:
    """What the frame header of a JPEG or JPEG-LS image states (ITU-T T.81, B.2.2; T.87, C.2.2)."""
    place, is_adobe_ycc = 2, False
    while coded.startswith(b"\xff\xd8"):
        marker, length = struct.unpack_from(">HH", coded, place)
        if marker in _FRAME_MARKERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", coded, place + 4)
            return _Stated(rows, columns, samples, bits, marker, is_adobe_ycc and samples == 3)
        if marker == 0xFFEE and coded[place + 4 : place + 9] == b"Adobe":
            is_adobe_ycc = coded[place + 15] == 1
        if marker < 0xFFC0 or 0xFFD0 <= marker <= 0xFFDA or length < 2:
            break
        place += 1 if marker == 0xFFFF else 2 + length  # a marker may be filled up in front
    raise ValueError


def _j2k_header(coded: bytes) -> _Stated:
    """What the SIZ segment of a JPEG 2000 codestream states (ITU-T T.800, A.5.1)."""
    if not coded.startswith(_J2K_START):
        raise ValueError
    right, bottom, left, top = struct.unpack_from(">4I", coded, 8)
    samples, depth = struct.unpack_from(">HB", coded, 40)
    # Components of different size or depth, and signed colours: decoders would show something else.
    if coded[42 : 42 + 3 * samples] != bytes([depth, 1, 1]) * samples or (samples > 1 and depth > 127):
        raise ValueError
    return _Stated(bottom - top, right - left, samples, (depth & 0x7F) + 1)


get_decoder(uid.JPEGExtended12Bit).add_plugin("gdcm12", ("clearmargin.images.dicom.jpeg12", "decode_12_bit"))
