"""Reading one image file to an array, within limits; every failure is an ImageError with its kind.

PNG, JPEG, BMP, PGM/PPM and TIFF, 8 bit and 16-bit grey. What a decoder returns is complete: a file that
ends early is an error even where the decoder would fill the rest. Nothing is resized here; the one
implementation of preprocessing is `preprocess.py`.
"""

from __future__ import annotations

import io
import os
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

_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"


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
    return decode_image(read_bytes(path, limits), str(path), limits).pixels


def read_bytes(path: str | Path, limits: Limits = Limits()) -> bytes:
    """The bytes of the file.

    Raises:
        ImageError: it is missing, no regular file, empty, not readable, or above `limits.max_bytes`.
    """
    name = str(path)
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            if size > limits.max_bytes:
                raise ImageError("too_large", name, f"{size:,} bytes, more than the limit of {limits.max_bytes:,}")
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        raise ImageError("missing", name, "no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError("unreadable", name, f"cannot be opened ({reason})") from None
    if not data:
        raise ImageError("empty", name, "the file is empty (0 bytes)")
    return data


def decode_image(data: bytes, name: str, limits: Limits = Limits()) -> DecodedImage:
    """The image in `data`; `name` is used in messages only.

    Grey stays grey, 16-bit grey stays 16 bit; palettes, CMYK and other colour spaces become RGB;
    transparency is laid over white; the EXIF orientation is applied.

    Raises:
        ImageError: of kind not_an_image, truncated, unreadable, unsupported or too_large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, name, limits)
            _check_complete(image.format, data, name)
            _check_single(image, name)
            image.load()
            pixels = _to_array(image, name)
            image_format = "JPEG" if image.format == "MPO" else str(image.format)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image", name, "the content is not a PNG, JPEG, BMP, PGM or TIFF image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", name, f"more pixels than the limit of {limits.max_pixels:,}") from error
    except Exception as error:  # a decoder may raise anything at all on damaged or hostile bytes
        text = " ".join(str(error).split()) or type(error).__name__
        kind = "truncated" if "truncated" in text.lower() or isinstance(error, EOFError) else "unreadable"
        raise ImageError(kind, name, f"cannot be decoded ({text})") from None
    return DecodedImage(pixels, image_format)


def _check_size(image: Image.Image, name: str, limits: Limits) -> None:
    if image.width * image.height > limits.max_pixels:
        size = f"{image.width:,} × {image.height:,} pixels"
        raise ImageError("too_large", name, f"{size}, more than the limit of {limits.max_pixels:,}")


def _check_single(image: Image.Image, name: str) -> None:
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise ImageError("unsupported", name, "has several pages; save the page you mean as one image")


def _check_complete(image_format: str | None, data: bytes, name: str) -> None:
    # Decoders accept a file whose last bytes are missing when all pixels happen to be there.
    end = {"PNG": _PNG_END, "JPEG": _JPEG_END}.get(image_format or "")
    if end is not None and end not in data[-65536:]:
        raise ImageError("truncated", name, f"the file ends before the end of its {image_format} image")


def _to_array(image: Image.Image, name: str) -> Pixels:
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode in ("L", "RGB"):
        pixels = np.asarray(image)
    elif mode == "1":
        pixels = np.asarray(image.convert("L"))
    elif mode.startswith("I"):
        wide = np.asarray(image)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise ImageError("unsupported", name, "has 32-bit values; save it with 8 or 16 bits")
        pixels = wide.astype(np.uint16)
    elif mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        pixels = np.asarray(Image.alpha_composite(white, layered).convert("RGB"))
    elif mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        pixels = np.asarray(image.convert("RGB"))
    else:
        raise ImageError("unsupported", name, f"has pixels of type '{mode}'; save it with 8 or 16 bits")
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


# The limit is checked above with a message of ours; the warning would only repeat it on standard error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.Image")
