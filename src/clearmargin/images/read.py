"""Reading one image file to an array, within limits; every failure is an ImageError with its kind.

PNG, JPEG, BMP, PGM/PPM and TIFF, 8 bit and 16-bit grey. What a decoder returns is complete: a file that
ends early is an error even where the decoder would fill the rest (`complete.py`). Nothing is resized
here; the one implementation of preprocessing is `preprocess.py`.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from clearmargin.errors import ImageError
from clearmargin.images.complete import find_damage, signature_format
from clearmargin.images.file_names import name_on_disk, written_name

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

# The plug-ins imported above register themselves; only they may look at a file.
_PLUGINS = (BmpImagePlugin, JpegImagePlugin, PngImagePlugin, PpmImagePlugin, TiffImagePlugin)
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF")
FORMAT_OF_EXTENSION = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
IMAGE_EXTENSIONS = frozenset(FORMAT_OF_EXTENSION)

# How Pillow's decoders say that bytes are missing.
_TRUNCATED = re.compile("truncated|not enough image data|EOF", re.IGNORECASE)

# O_NONBLOCK: opening a named pipe must not wait for a writer. O_BINARY: Windows would translate line ends.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost at most."""

    max_bytes: int = 512 * 2**20
    max_pixels: int = 89_478_485  # Pillow's own bound against decompression bombs


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of a file: uint8 or uint16 of shape (H, W, C), C = 1 (grey) or 3 (RGB), and its true format."""

    pixels: Pixels
    format: str


def read_image(path: str | Path, limits: Limits = Limits()) -> Pixels:
    """The pixels of the file, uint8 or uint16 of shape (H, W, C) with C = 1 (grey) or 3 (RGB).

    Raises:
        ImageError: the file is missing, empty, not an image, damaged or too large.
    """
    return decode_image(read_bytes(path, limits), written_name(str(path)), limits).pixels


def read_bytes(path: str | Path, limits: Limits = Limits()) -> bytes:
    """The bytes of the file.

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
            if status.st_size > limits.max_bytes:
                raise _too_many_bytes(name, status.st_size, limits)
            with open(handle, "rb", closefd=False) as file:
                # Not max_bytes: the buffer of the size asked for is allocated whole.
                data = file.read(status.st_size + 1)
            if len(data) > status.st_size:
                raise ImageError("unreadable", name, "grew while it was read; wait until it is written")
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise ImageError("missing", name, "no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError("unreadable", name, f"cannot be opened ({reason})") from None
    if not data:
        raise ImageError("empty", name, "the file is empty (0 bytes)")
    return data


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


def decode_image(data: bytes, name: str, limits: Limits = Limits()) -> DecodedImage:
    """The image in `data`; `name` is used in messages only.

    Grey stays grey, 16-bit grey stays 16 bit; palettes, CMYK and other colour spaces become RGB;
    transparency is laid over white; the EXIF orientation is applied.

    Raises:
        ImageError: of kind not_an_image, truncated, unreadable, unsupported or too_large.
    """
    damage = find_damage(data)
    if damage is not None:
        raise ImageError(damage[0], name, damage[1])
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, name, limits)
            _check_single(image, name)
            image.load()
            pixels = _to_array(image, name)
            image_format = "JPEG" if image.format == "MPO" else str(image.format)
    except ImageError:
        raise
    except UnidentifiedImageError:
        promised = signature_format(data)
        if promised is not None:
            raise ImageError("unreadable", name, f"begins like a {promised} image, but its header is damaged") from None
        raise ImageError("not_an_image", name, "the content is not a PNG, JPEG, BMP, PGM or TIFF image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("too_large", name, f"more pixels than the limit of {limits.max_pixels:,}") from None
    except Exception as error:  # a decoder may raise anything at all on damaged or hostile bytes
        text = " ".join(str(error).split()) or type(error).__name__
        kind = "truncated" if _TRUNCATED.search(text) or isinstance(error, EOFError) else "unreadable"
        raise ImageError(kind, name, f"cannot be decoded ({text})") from None
    return DecodedImage(pixels, image_format)


def _check_size(image: Image.Image, name: str, limits: Limits) -> None:
    if image.width * image.height > limits.max_pixels:
        size = f"{image.width:,} × {image.height:,} pixels"
        raise ImageError("too_large", name, f"{size}, more than the limit of {limits.max_pixels:,}")


def _check_single(image: Image.Image, name: str) -> None:
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise ImageError("unsupported", name, "has several pages; save the page you mean as one image")


def _to_array(image: Image.Image, name: str) -> Pixels:
    image = _upright(image)
    mode, transparent = image.mode, "transparency" in image.info
    if mode.startswith("I"):
        wide = np.asarray(image)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise ImageError("unsupported", name, "has 32-bit values; save it with 8 or 16 bits")
        pixels = wide.astype(np.uint16)
        if transparent:
            pixels[pixels == image.info["transparency"]] = 65535
    elif transparent or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        is_grey = mode in ("1", "L", "LA", "La")
        pixels = np.asarray(Image.alpha_composite(white, layered).convert("L" if is_grey else "RGB"))
    elif mode in ("L", "RGB"):
        pixels = np.asarray(image)
    elif mode == "1":
        pixels = np.asarray(image.convert("L"))
    elif mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        pixels = np.asarray(image.convert("RGB"))
    else:
        raise ImageError("unsupported", name, f"has pixels of type '{mode}'; save it with 8 or 16 bits")
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def _upright(image: Image.Image) -> Image.Image:
    if "exif" not in image.info:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the parser may raise anything on a damaged block, which says nothing of the pixels
        return image


# What Pillow warns of is either an error of ours, with a message, or harmless: a damaged EXIF block, a bad second
# frame. Its bound on pixels is checked above. Filters, because catching warnings is not safe between threads.
_MODULES = r"PIL\.(Image|TiffImagePlugin|JpegImagePlugin|PngImagePlugin)$"
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=_MODULES)
warnings.filterwarnings("ignore", category=UserWarning, module=_MODULES)
