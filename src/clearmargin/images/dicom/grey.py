"""From stored values to shown ones: modality LUT, then VOI LUT or window, then polarity, then padding.

All four depend on the stored value alone, of which there are at most 65,536: pydicom works them out once, in float64,
for a table. Where the range of a step is needed it is the possible one, from the header, never the one that the
image happens to have; two images of one device stay comparable.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian

from clearmargin.images.dicom.frames import PixelFormat
from clearmargin.images.dicom.header import Elements, Header
from clearmargin.images.limits import Pixels, Window

Floats = NDArray[np.float64]

_INSTEAD = "read it with its whole stored range instead of its window"


def grey_table(header: Header, form: PixelFormat, *, window: Window, frame: int) -> Pixels:
    """What is shown for each stored value: 2**bits entries, indexed by the stored bits, sign included.

    uint8 where 8 bits are shown as they are stored, else uint16 over its full range; larger is brighter.

    Args:
        header: the file's.
        form: a MONOCHROME1 or MONOCHROME2 format.
        window: `stored` applies the first VOI LUT or else the first window, `full` the possible range.
        frame: counted from 0, for windows that are given for each frame.

    Raises:
        ImageError: a table, a window or a slope that cannot be applied.
    """
    stored = stored_values(form)
    values, low, high = _modality(header, stored, frame)
    shown = _voi(header, form, values, frame) if window == "stored" else None
    is_plain = shown is None and values is stored and form.bits_stored <= 8
    if shown is None:
        shown = (values - low) / (high - low)
    if form.photometric_interpretation == "MONOCHROME1":
        shown = 1 - shown
    shown[_is_padding(header, form, stored)] = 0  # last: padding is background, whichever way round the greys are
    if is_plain:
        return np.floor(shown * 255 + 0.5).astype(np.uint8)
    return np.floor(shown * 65535 + 0.5).astype(np.uint16)


def stored_values(form: PixelFormat) -> Floats:
    """The number that each pattern of stored bits stands for."""
    values = np.arange(2**form.bits_stored, dtype=np.float64)
    if form.pixel_representation:
        values[2 ** (form.bits_stored - 1) :] -= 2**form.bits_stored
    return values


def look_up(header: Header, elements: Elements, keyword: str, values: Floats) -> tuple[Floats, int]:
    """The entries of a table for these values, and their bits (PS3.3, C.11.1.1.1 and C.7.6.3.1.5).

    Not pydicom's, which counts the places of a table of 8 bits in 8 bits, knows no modality tables of 12, and does
    not swap the bytes of palettes: each would show another picture.
    """
    descriptor, data = elements.numbers(f"{keyword}Descriptor"), elements.values(f"{keyword}Data")
    if len(descriptor) != 3 or not data:
        raise header.error("unreadable", "a look-up table in its header is damaged")
    count, first, bits = (int(number) for number in descriptor)
    count = count % 65536 or 65536  # 65,536 does not fit and is written as 0
    if isinstance(data[0], bytes):
        is_packed = bits <= 8 and len(data[0]) < 2 * count
        kind = "u1" if is_packed else ">u2" if header.syntax == ExplicitVRBigEndian else "<u2"
        entries = np.frombuffer(data[0], kind, min(count, len(data[0]) // int(kind[-1])))
    else:
        entries = np.array(data[:count], np.int64)
    if len(entries) < count:
        raise header.error("unreadable", "a look-up table in its header is shorter than it says")
    if not 8 <= bits <= 16 or entries.max() >= 2**bits:
        raise header.error("unreadable", f"a look-up table in its header has values of more than {bits} bits")
    return entries[(np.floor(values + 0.5) - first).clip(0, count - 1).astype(np.int64)].astype(np.float64), bits


def _modality(header: Header, stored: Floats, frame: int) -> tuple[Floats, float, float]:
    """The values after the modality LUT and the lowest and highest possible; `stored` itself where there is none."""
    for item in header.items("ModalityLUTSequence")[:1]:
        values, bits = look_up(header, item, "LUT", stored)
        return values, 0.0, 2.0**bits - 1
    rescale = _for_frame(header, "PixelValueTransformationSequence", "RescaleSlope", frame)
    slope, intercept = (rescale.numbers(keyword)[:1] for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope in ([], [1.0]) and intercept in ([], [0.0]):
        return stored, stored.min(), stored.max()
    if slope == [0.0]:
        raise header.error("unreadable", "its rescale slope is 0, which makes every pixel the same")
    said = Dataset()
    said.RescaleSlope, said.RescaleIntercept = (slope or [1.0])[0], (intercept or [0.0])[0]
    values = apply_modality_lut(stored, said)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low) or low == high:
        raise header.error("unreadable", "its rescale slope and intercept are out of range")
    return values, low, high


def _voi(header: Header, form: PixelFormat, values: Floats, frame: int) -> Floats | None:
    """The values from 0 to 1 after the first VOI LUT or else the first window; None where there is neither."""
    for item in header.items("VOILUTSequence")[:1]:
        entries, bits = look_up(header, item, "LUT", values)
        return entries / (2.0**bits - 1)
    source = _for_frame(header, "FrameVOILUTSequence", "WindowCenter", frame)
    centers, widths = source.numbers("WindowCenter"), source.numbers("WindowWidth")
    if not centers and not widths:
        return None
    if not centers or not widths:
        raise header.error("unreadable", f"its window has a center or a width only; {_INSTEAD}")
    said = Dataset()
    said.PhotometricInterpretation, said.BitsStored, said.PixelRepresentation = form.photometric_interpretation, 1, 0
    said.WindowCenter, said.WindowWidth = centers[0], widths[0]  # of one bit, above: what comes out is from 0 to 1
    said.VOILUTFunction = source.word("VOILUTFunction") or "LINEAR"
    if said.VOILUTFunction not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise header.error("unsupported", f"its window is neither linear nor a sigmoid; {_INSTEAD}")
    try:
        with np.errstate(over="ignore"):  # of a steep sigmoid
            return apply_windowing(values, said)
    except ValueError:
        raise header.error("unreadable", f"its window has a width of {widths[0]:g}; {_INSTEAD}") from None


def _for_frame(header: Header, group: str, keyword: str, frame: int) -> Elements:
    """Where the element is: in the header, or in the functional group of this frame or of all (tomosynthesis)."""
    if keyword in header.dataset:
        return header
    own = header.items("PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    for item in itertools.chain(own, header.items("SharedFunctionalGroupsSequence")):
        for inner in item.items(group):
            if keyword in inner.dataset:
                return inner
    return header


def _is_padding(header: Header, form: PixelFormat, stored: Floats) -> NDArray[np.bool_]:
    keywords = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    bounds = [number for keyword in keywords for number in header.numbers(keyword)[:1]]
    if not bounds:
        return np.zeros(stored.shape, np.bool_)
    if form.pixel_representation:  # some writers give it the sign that the pixels do not have
        bounds = [number - 65536 if number > 32767 else number for number in bounds]
    else:
        bounds = [number + 65536 if number < 0 else number for number in bounds]
    return (stored >= min(bounds)) & (stored <= max(bounds))
