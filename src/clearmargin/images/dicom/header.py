"""The wanted elements of a DICOM file, read by pydicom within bounds, quietly, and never from a cut file.

Patient data that nobody asked for are not kept. pydicom takes an element that ends behind the end of the file for a
shorter one, inflates deflated files without bound and follows an endless header to its end; here all three are errors.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from clearmargin.errors import ImageError

PIXEL_DATA = 0x7FE00010
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})  # float, double float, integer
_MEDIA_SOP_CLASS, _TRANSFER_SYNTAX = 0x00020002, 0x00020010
# The second and third: images that are elsewhere (JPIP), in a deflated file.
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_BYTES_OF_A_READ = 100  # a longer one counts as several

_quiet = threading.Lock()


@contextmanager
def silenced_pydicom() -> Iterator[None]:
    """What pydicom says of a file goes nowhere, since it may quote it; one thread at a time, since that is global."""
    logger, settings = logging.getLogger("pydicom"), config.settings
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logger.level, settings.reading_validation_mode
        logger.setLevel(logging.CRITICAL + 1)  # of its own loggers below it too
        settings.reading_validation_mode = config.IGNORE
        try:
            yield
        finally:
            logger.setLevel(before[0])
            settings.reading_validation_mode = before[1]


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a file, or of one item of a sequence; every getter raises an ImageError where one is damaged."""

    name: str
    dataset: Dataset

    def error(self, kind: str, reason: str) -> ImageError:
        return ImageError(kind, self.name, reason)

    def values(self, keyword: str) -> list[object]:
        """The values of the element; empty where it is missing or empty."""
        try:
            value = self.dataset[keyword].value if keyword in self.dataset else None
        except Exception:
            raise self.damaged(keyword) from None
        if value is None or value == "":
            return []
        return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]

    def text(self, keyword: str) -> str | None:
        """The text without padding; None where it is missing or empty."""
        return "\\".join(map(str, self.values(keyword))).strip(" \0\t\r\n") or None

    def word(self, keyword: str) -> str | None:
        """The first of the values of a coded text, in capitals."""
        return (self.text(keyword) or "").split("\\")[0].strip().upper() or None

    def numbers(self, keyword: str) -> list[float]:
        try:
            numbers = [float(value) for value in self.values(keyword)]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise self.damaged(keyword) from None
        if not all(map(math.isfinite, numbers)):
            raise self.damaged(keyword)
        return numbers

    def integer(self, keyword: str) -> int | None:
        """The first number, which must be an integer; None where the element is missing or empty."""
        number = next(iter(self.numbers(keyword)), None)
        if number is not None and not number.is_integer():
            raise self.damaged(keyword)
        return None if number is None else int(number)

    def items(self, keyword: str) -> list[Elements]:
        """The items of a sequence."""
        items = self.values(keyword)
        if not all(isinstance(item, Dataset) for item in items):
            raise self.damaged(keyword)
        return [Elements(self.name, item) for item in items if isinstance(item, Dataset)]

    def damaged(self, keyword: str) -> ImageError:
        tag = tag_for_keyword(keyword) or 0
        return self.error("unreadable", f"its header is damaged at element ({tag >> 16:04X},{tag & 0xFFFF:04X})")


@dataclass(frozen=True, slots=True)
class PixelElement:
    """The element that holds the pixels."""

    tag: int
    vr: str | None
    start: int
    length: int | None
    """None where the file leaves it open, which is how compressed pixels are stored."""


@dataclass(frozen=True, slots=True)
class Header(Elements):
    """The wanted elements of a file, and how and where its pixels are stored."""

    syntax: str
    """The transfer syntax; a file that does not say it is uncompressed."""
    media_sop_class: str | None
    pixels: PixelElement | None


class _Reader(io.BytesIO):
    """A file that knows whether more was asked of it than it has, and ends a reading that no real file needs."""

    def __init__(self, data: bytes, max_reads: int) -> None:
        super().__init__(data)
        self.is_cut = False
        self._left = max_reads
        self._size = len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self._left -= 1 + len(part) // _BYTES_OF_A_READ
        if self._left < 0:
            raise RuntimeError
        # Nothing at all is how the file ends behind a complete element.
        self.is_cut |= 0 < len(part) < (size or 0)
        return part

    def seek(self, place: int, whence: int = 0, /) -> int:
        place = super().seek(place, whence)
        self.is_cut |= place > self._size
        return place


def read_header(
    data: bytes,
    name: str,
    keywords: Sequence[str],
    *,
    max_reads: int,
    max_value_bytes: int,
    last_tag: int = PIXEL_DATA,
) -> Header:
    """The elements of these names up to `last_tag` or the pixels, which are only located; for `silenced_pydicom`.

    Args:
        data: the file.
        name: used in messages only.
        keywords: the names of the elements, as the standard writes them.
        max_reads: an element takes about three.
        max_value_bytes: a longer value is an error where it is used.
        last_tag: elements come in the order of their tags.

    Raises:
        ImageError: the file is cut inside what is read, damaged, or deflated.
    """
    reader = _Reader(data, max_reads)
    pixels: PixelElement | None = None

    def stop_when(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal pixels
        if tag in _PIXELS:
            pixels = PixelElement(int(tag), vr, reader.tell(), None if length == 0xFFFFFFFF else length)
        return tag in _PIXELS or tag > last_tag

    try:
        syntax, media_sop_class = _read_meta(reader, data, name)
        # pydicom looks itself whether value representations are implicit, since writers err.
        dataset = read_dataset(
            reader,
            False,
            syntax != ExplicitVRBigEndian,
            stop_when=stop_when,
            defer_size=max_value_bytes,
            specific_tags=[tag_for_keyword(keyword) or 0 for keyword in keywords],
        )
    except ImageError:
        raise
    except Exception as error:  # pydicom may raise anything at all on hostile bytes, and may quote them
        if not reader.is_cut and reader.tell() < len(data):
            raise ImageError("unreadable", name, f"its header is damaged ({type(error).__name__})") from None
        reader.is_cut = True
    if reader.is_cut:
        raise ImageError("truncated", name, "the file ends before the end of its DICOM header")
    return Header(name, dataset, syntax, media_sop_class, pixels)


def _read_meta(reader: _Reader, data: bytes, name: str) -> tuple[str, str | None]:
    """The transfer syntax and the SOP class in the file's own header; the reader is behind that then."""
    start = reader.seek(132 if data[128:132] == b"DICM" else 0)
    meta = Elements(name, Dataset())
    if data[start : start + 2] == b"\x02\x00":  # always in little endian
        found = read_dataset(
            reader,
            False,
            True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != 0x0002,
            specific_tags=[_MEDIA_SOP_CLASS, _TRANSFER_SYNTAX],
        )
        meta, start = Elements(name, found), reader.tell()
    guess = ExplicitVRBigEndian if data[start : start + 2] == b"\x00\x08" else ExplicitVRLittleEndian
    syntax = meta.text("TransferSyntaxUID") or guess
    if syntax in _DEFLATED:
        raise ImageError("unsupported", name, "is deflated DICOM, which is not read; save it uncompressed")
    return syntax, meta.text("MediaStorageSOPClassUID")
