"""What of a DICOM file is refused, and the image that the rest shows.

The order is the standard's: modality LUT, then VOI LUT or window, polarity (MONOCHROME1) last. Other modalities,
and files that are no images, are refused with a reason. No message holds anything of the header but the modality,
the colour space, the kind of transfer syntax and numbers.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import ImageError
from clearmargin.images.dicom.frames import NATIVE, PLUGINS, PixelFormat, read_frame
from clearmargin.images.dicom.grey import grey_table, look_up, stored_values
from clearmargin.images.dicom.header import PIXEL_DATA, Header, read_header, silenced_pydicom
from clearmargin.images.limits import Limits, Pixels, Window

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PALETTE = "PALETTE COLOR"
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})
_RETIRED = frozenset({"HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB"})
_TABLES = tuple(f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue"))
_KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "Modality", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope"),
    *("ModalityLUTSequence", "VOILUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{table}{part}" for table in _TABLES for part in ("Descriptor", "Data")),
    "SegmentedRedPaletteColorLookupTableData",
)
_MAX_READS = 1_000_000  # real headers have some thousand elements, a hostile one 64 million empty ones
_MAX_VALUE_BYTES = 16 * 2**20  # pixel data apart; the longest are look-up tables (128 KiB) and groups of each frame

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_IMAGES = {  # PS3.4, B.5: the beginning of the class, and what it is
    "1.2.840.10008.1.3.10": "a DICOM directory (DICOMDIR)",
    f"{_STORAGE}11.": "a presentation state",
    f"{_STORAGE}66.": "a segmentation or a registration",
    f"{_STORAGE}88.": "a structured report",
    f"{_STORAGE}104.": "a document",
}
_BREAST_CLASSES = frozenset(  # mammography, tomosynthesis, projections of it; ultrasound, the retired classes too
    f"{_STORAGE}{number}" for number in ["1.2", "1.2.1", "13.1.3", "13.1.4", "13.1.5", "3", "3.1", "6", "6.1", "6.2"]
)
_SYNTAX_NAMES = {  # PS3.6, annex A: the beginning of the transfer syntax, and what it is
    "1.2.840.10008.1.2.4.10": "video",  # MPEG-2, MPEG-4 and HEVC: 100 to 108
    "1.2.840.10008.1.2.4.11": "JPEG XL",
    "1.2.840.10008.1.2.4.20": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.9": "JPEG 2000, part 2",
    "1.2.840.10008.1.2.4.": "a retired or rare JPEG",
    "1.2.840.10008.1.2.7": "video",
    "1.2.840.10008.1.2.8": "deflated frames",
    "1.2.840.10008.": "a standard one, but rare",
}
_SHOWN_MODALITY = re.compile(r"[A-Z]{2,16}")
_MODALITY_NAMES = {
    "CR": "an X-ray image",
    "CT": "a CT image",
    "DX": "an X-ray image",
    "MR": "an MR image",
    "NM": "a nuclear medicine image",
    "OT": "a captured or derived picture",
    "PR": "a presentation state",
    "PT": "a PET image",
    "SEG": "a segmentation",
    "SM": "a microscopy image",
    "SR": "a structured report",
}


def decode_file(data: bytes, name: str, limits: Limits, *, window: Window, frame: int | None) -> Pixels:
    """As `decode_dicom` says."""
    with silenced_pydicom():
        try:
            header = read_header(data, name, _KEYWORDS, max_reads=_MAX_READS, max_value_bytes=_MAX_VALUE_BYTES)
            _check_kind(header)
            form = _read_format(header, limits)
            return _shown(header, form, data, window, _frame_index(header, form, frame))
        except ImageError:
            raise
        except MemoryError:
            raise ImageError("too_large", name, "needs more memory than an image may") from None
        except Exception as error:  # a decoder may raise anything at all on hostile bytes; its text may quote them
            raise ImageError("unreadable", name, f"cannot be decoded ({type(error).__name__})") from None


def _check_kind(header: Header) -> None:
    sop_class = header.text("SOPClassUID") or header.media_sop_class or ""
    modality = header.word("Modality")
    for beginning, what in _NO_IMAGES.items():
        if sop_class.startswith(beginning):
            raise header.error("unsupported", f"is {what}, not an image")
    if modality is None and sop_class not in _BREAST_CLASSES:
        reason = "does not say what it shows (no modality); mammograms and ultrasound are read"
        raise header.error("unsupported", reason)
    if modality not in (None, "MG", "US"):
        what = _MODALITY_NAMES.get(modality, "another kind of image")
        shown = f" (modality {modality})" if _SHOWN_MODALITY.fullmatch(modality) else ""
        raise header.error("unsupported", f"is {what}{shown}, not a mammogram or an ultrasound")
    syntax = header.syntax
    if syntax not in NATIVE and syntax not in PLUGINS:
        names = (what for beginning, what in _SYNTAX_NAMES.items() if syntax.startswith(beginning))
        kind = next(names, "a maker's own")
        raise header.error("unsupported", f"its transfer syntax ({kind}) is not read; save it uncompressed")


def _read_format(header: Header, limits: Limits) -> PixelFormat:
    if header.pixels is None:
        raise header.error("unsupported", "holds no image")
    if header.pixels.tag != PIXEL_DATA:
        raise header.error("unsupported", "has float pixels; save it with 8 or 16 bits")
    rows, columns = header.integer("Rows"), header.integer("Columns")
    if not rows or not columns or rows < 0 or columns < 0:
        raise header.error("unreadable", "its header does not say how large the image is")
    if rows * columns > limits.max_pixels:
        size = f"{columns:,} × {rows:,} pixels"
        raise header.error("too_large", f"{size}, more than the limit of {limits.max_pixels:,}")
    samples, photometric = _colours(header)
    bits = _bits(header)
    if samples == 3 and bits != (8, 8, 0):
        raise header.error("unsupported", f"has colours of {bits[1]} bits; save it with 8")
    planar = header.integer("PlanarConfiguration")
    if samples == 3 and planar not in (0, 1) and header.syntax not in PLUGINS:
        raise header.error("unreadable", "its header does not say in which order its colours are stored")
    frames = header.integer("NumberOfFrames") or 1
    if frames < 0:
        raise header.error("unreadable", f"its header says that it has {frames} frames")
    return PixelFormat(rows, columns, samples, photometric, int(planar == 1), *bits, frames)


def _colours(header: Header) -> tuple[int, str]:
    photometric, samples = header.word("PhotometricInterpretation"), header.integer("SamplesPerPixel")
    if photometric is None or samples is None:
        raise header.error("unreadable", "its header does not say whether the image is grey or in colour")
    if photometric not in _GREY | _COLOUR | {_PALETTE}:
        known = photometric if photometric in _RETIRED else "not one of the standard"
        raise header.error("unsupported", f"its colour space ({known}) is not read; save it as grey or RGB")
    if samples != (3 if photometric in _COLOUR else 1):
        raise header.error("unreadable", f"its header says {photometric} with {samples} values a pixel")
    return samples, photometric


def _bits(header: Header) -> tuple[int, int, int]:
    names = ("BitsAllocated", "BitsStored", "PixelRepresentation", "HighBit")
    allocated, stored, signed, high_bit = (header.integer(keyword) for keyword in names)
    if allocated is None or stored is None or signed not in (0, 1):
        raise header.error("unreadable", "its header does not say how its pixels are stored")
    if allocated not in (8, 16):
        raise header.error("unsupported", f"has {allocated}-bit pixels; save it with 8 or 16 bits")
    if not 1 <= stored <= allocated:
        raise header.error("unreadable", f"its header says that {stored} of {allocated} bits are used")
    if high_bit not in (None, stored - 1):
        raise header.error("unsupported", f"its highest bit is {high_bit} where {stored} bits are used")
    return allocated, stored, signed


def _frame_index(header: Header, form: PixelFormat, frame: int | None) -> int:
    if frame is None and form.number_of_frames > 1:
        raise header.error("unsupported", f"has {form.number_of_frames:,} frames; choose one with --frame")
    if frame is not None and not 1 <= frame <= form.number_of_frames:
        frames = "1 frame" if form.number_of_frames == 1 else f"{form.number_of_frames:,} frames"
        raise header.error("unsupported", f"has {frames}; there is no frame {frame:,}")
    return (frame or 1) - 1


def _shown(header: Header, form: PixelFormat, data: bytes, window: Window, frame: int) -> Pixels:
    stored = read_frame(header, form, data, frame)
    if (stored == stored[:1, :1]).all():
        raise header.error("unreadable", "every pixel has the same value; the decoder or the file is broken")
    if form.photometric_interpretation in _GREY:
        shown = grey_table(header, form, window=window, frame=frame)[stored][:, :, np.newaxis]
        if shown.min() == shown.max():
            raise header.error("unreadable", "every pixel is shown with the same value; its window or padding is wrong")
        return shown
    if form.photometric_interpretation == _PALETTE:
        return _palette(header, form)[stored]
    return stored


def _palette(header: Header, form: PixelFormat) -> NDArray[np.uint8]:
    """The colour of each stored value, (2**bits, 3); the high byte of 16-bit colours (PS3.3, C.7.6.3.1.5)."""
    if "SegmentedRedPaletteColorLookupTableData" in header.dataset:
        raise header.error("unsupported", "has a segmented palette, which is not read; save it as RGB")
    values = stored_values(form)
    planes = [look_up(header, header, table, values) for table in _TABLES]
    return np.stack([plane // 256 if bits == 16 else plane for plane, bits in planes], axis=1).astype(np.uint8)
