"""The one way from a path to pixels, within limits; every failure is an ImageError with its kind.

A path is a file, a member of an archive, a row of an array, a frame or a box of one (`place.py`). What the
bytes are is decided by their content, never by the name. Kinds with a large or complicated decoder are
decoded in a child process (`isolate.py`). Nothing is resized here; the one implementation of preprocessing
is `preprocess.py`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from clearmargin.errors import DataError, ImageError
from clearmargin.images.archive import has_member
from clearmargin.images.array import ARRAY_SIGNATURE, decode_array
from clearmargin.images.complete import is_costly, signature_format
from clearmargin.images.dicom import decode_dicom, is_dicom
from clearmargin.images.file_names import name_on_disk, written_name
from clearmargin.images.limits import Limits, Pixels, Window
from clearmargin.images.npz import read_inside
from clearmargin.images.place import Box, Place, file_of, parse_place, split_archive
from clearmargin.images.raster import decode_raster

FORMAT_OF_EXTENSION = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".npy": "NPY",
}
IMAGE_EXTENSIONS = frozenset(FORMAT_OF_EXTENSION)
_SLIDE_EXTENSIONS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms"})

SIGNATURE_BYTES = 4096
"""Tell what a file is: a DICOM file without the preamble is known by its first two elements, which are short."""
# O_NONBLOCK: opening a named pipe must not wait for a writer. O_BINARY: Windows would translate line ends.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels: uint8 or uint16 of shape (H, W, C), C = 1 (grey) or 3 (RGB), and the true format."""

    pixels: Pixels
    format: str


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes at a place, not yet decoded; `name` is the path as it was given, for messages."""

    data: bytes
    place: Place
    name: str

    @property
    def sha256(self) -> str:
        """The identity of the content: of the bytes, and of the frame and the box that are meant."""
        digest = hashlib.sha256(self.data)
        if self.place.fragment:
            digest.update(self.place.fragment.encode())
        return digest.hexdigest()

    def decode(self, limits: Limits = Limits(), *, window: Window = "stored") -> DecodedImage:
        """The pixels; see `decode_image`."""
        return decode_image(self.data, self.name, limits, window=window, frame=self.place.frame, box=self.place.box)


def read_image(path: str | Path, limits: Limits = Limits(), *, window: Window = "stored") -> Pixels:
    """The pixels at the path, uint8 or uint16 of shape (H, W, C) with C = 1 (grey) or 3 (RGB).

    Raises:
        ImageError: the file is missing, empty, not an image, damaged or too large.
    """
    return read_encoded(path, limits).decode(limits, window=window).pixels


def read_encoded(path: str | Path, limits: Limits = Limits()) -> EncodedImage:
    """The bytes at the path, and the part of them that is meant.

    Raises:
        ImageError: it is missing, no regular file, empty, not readable, or above `limits.max_bytes`.
    """
    place = parse_place(str(path))
    if place.fragment and (inside := split_archive(str(path))) is not None and has_member(*inside):
        place = Place(str(path))  # a member whose own name looks like that
    return EncodedImage(read_bytes(place.file, limits), place, written_name(str(path)))


def read_bytes(path: str | Path, limits: Limits = Limits(), *, at_most: int | None = None) -> bytes:
    """The bytes of the file, or of the member of an archive, or of a row of an array as an .npy file.

    With `at_most`, the first bytes of a file of any size: enough to tell what it is.

    Raises:
        ImageError: it is missing, no regular file, empty, not readable, or above `limits.max_bytes`.
    """
    name = written_name(str(path))
    try:
        handle = _open(path)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
                raise ImageError("unreadable", name, f"is {what}, not a file")
            _check_no_slide(name)  # before its size is, which is large
            if at_most is not None and at_most < status.st_size:
                return os.read(handle, at_most)
            if status.st_size > limits.max_bytes:
                raise _too_many_bytes(name, status.st_size, limits)
            with open(handle, "rb", closefd=False) as file:
                # Not max_bytes: the buffer of the size asked for is allocated whole.
                data = file.read(status.st_size + 1)
            if len(data) != status.st_size:
                what = "grew" if len(data) > status.st_size else "was cut"
                raise ImageError("unreadable", name, f"{what} while it was read; wait until it is written")
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        inside = split_archive(str(path))  # where a name may be longer than one on disk
        if inside is not None and inside[0] != str(path):
            return _read_inside(*inside, name, limits, at_most)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ImageError("missing", name, "no such file") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError("unreadable", name, f"cannot be opened ({reason})") from None
    if not data:
        raise ImageError("empty", name, "the file is empty (0 bytes)")
    return data


def decode_image(
    data: bytes,
    name: str,
    limits: Limits = Limits(),
    *,
    window: Window = "stored",
    frame: int | None = None,
    box: Box | None = None,
    isolated: bool = True,
) -> DecodedImage:
    """The image in `data`.

    Grey stays grey, 16-bit grey stays 16 bit; palettes, CMYK and other colour spaces become RGB;
    transparency is laid over white; the EXIF orientation is applied. DICOM values run through the modality
    LUT, the VOI LUT or window, and MONOCHROME1 is inverted last.

    Args:
        data: the whole file.
        name: used in messages only.
        limits: what it may cost.
        window: of DICOM, `stored` for the file's own VOI LUT or window, `full` for its whole range of values.
        frame: which frame of a multi-frame image, counted from 1.
        box: left, top, width, height of the part that is meant.
        isolated: decode in a child process what `limits` say; only that child says False.

    Raises:
        ImageError: of kind not_an_image, truncated, unreadable, unsupported or too_large.
    """
    _check_no_slide(name)
    kind = _kind(data, name)
    if frame is not None and kind != "DICOM":
        raise ImageError("unsupported", name, "has no frames to choose from")
    if isolated and (limits.isolate == "all" or kind == "DICOM" or (not kind and is_costly(data))):
        from clearmargin.images.isolate import decode_isolated  # noqa: PLC0415  (most runs need no child)

        pixels, image_format = decode_isolated(data, name, limits, window=window, frame=frame)
    elif kind == "DICOM":
        pixels, image_format = decode_dicom(data, name, limits, window=window, frame=frame), kind
    elif kind == "NPY":
        pixels, image_format = decode_array(data, name, limits), kind
    else:
        pixels, image_format = decode_raster(data, name, limits)
    return DecodedImage(pixels if box is None else _cut(pixels, box, name), image_format)


def is_image(path: str) -> bool:
    """The name ends like an image's."""
    return os.path.splitext(file_of(path))[1].lower() in IMAGE_EXTENSIONS


def is_whole_slide(path: str) -> bool:
    """The name ends like that of a whole-slide file, of which none is read."""
    return os.path.splitext(file_of(path))[1].lower() in _SLIDE_EXTENSIONS


def starts_like_dicom(path: str | Path) -> bool:
    """The first bytes are those of a DICOM file, whatever its name; a file that cannot be read is none."""
    try:
        return is_dicom(read_bytes(path, at_most=SIGNATURE_BYTES))
    except ImageError:
        return False


def _check_no_slide(name: str) -> None:
    if is_whole_slide(name):
        raise ImageError("unsupported", name, "is a whole-slide file, which is not read yet: cut it into patches")


def _kind(data: bytes, name: str) -> str:
    if data.startswith(ARRAY_SIGNATURE):
        return "NPY"
    if not is_dicom(data):
        return ""
    other = signature_format(data)
    if other is not None:
        raise ImageError("unsupported", name, f"is a {other} and a DICOM image at once; save the one that you mean")
    return "DICOM"


def _cut(pixels: Pixels, box: Box, name: str) -> Pixels:
    left, top, width, height = box
    if left + width > pixels.shape[1] or top + height > pixels.shape[0]:
        size = f"{pixels.shape[1]} × {pixels.shape[0]}"
        raise ImageError("unsupported", name, f"the box reaches beyond the image, which is {size} pixels")
    return pixels[top : top + height, left : left + width].copy()


def _read_inside(archive: str, member: str, name: str, limits: Limits, at_most: int | None) -> bytes:
    try:
        return read_inside(archive, member, limits, at_most=at_most)
    except ImageError as error:
        raise ImageError(error.kind, name, error.reason) from None
    except DataError as error:
        raise ImageError("unreadable", name, str(error).removeprefix(f"{archive}: ")) from None


def _open(path: str | Path) -> int:
    try:
        return os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        real = name_on_disk(str(path))
        if real == str(path):
            raise
        return os.open(real, _OPEN_FLAGS)


def _too_many_bytes(name: str, size: int, limits: Limits) -> ImageError:
    return ImageError("too_large", name, f"{size:,} bytes, more than the limit of {limits.max_bytes:,}")
