"""Decoding PNG, JPEG, BMP, PGM/PPM and TIFF, 8 bit and 16-bit grey, with Pillow.

What a decoder returns is complete: a file that ends early is an error even where the decoder would fill the
rest (`complete.py`).
"""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
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
from clearmargin.images.limits import Limits, Pixels
from clearmargin.images.plain_png import decode_plain_png

# The plug-ins imported above register themselves; only they may look at a file.
_PLUGINS = (BmpImagePlugin, JpegImagePlugin, PngImagePlugin, PpmImagePlugin, TiffImagePlugin)
_KINDS = "PNG, JPEG, BMP, PGM, TIFF or DICOM"
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF")
# How Pillow's decoders say that bytes are missing.
_TRUNCATED = re.compile("truncated|not enough image data|EOF", re.IGNORECASE)


def decode_raster(data: bytes, name: str, limits: Limits = Limits()) -> tuple[Pixels, str]:
    """The pixels in `data`, uint8 or uint16 (H, W, 1 or 3), and the true format; `name` is used in messages only.

    Grey stays grey, 16-bit grey stays 16 bit; palettes, CMYK and other colour spaces become RGB;
    transparency is laid over white; the EXIF orientation is applied.

    Raises:
        ImageError: of kind not_an_image, truncated, unreadable, unsupported or too_large.
    """
    damage = find_damage(data)
    if damage is not None:
        raise ImageError(damage[0], name, damage[1])
    plain = decode_plain_png(data)
    if plain is not None and plain.shape[0] * plain.shape[1] <= limits.max_pixels:
        return plain, "PNG"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
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
        raise ImageError("not_an_image", name, f"the content is not a {_KINDS} image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("too_large", name, f"more pixels than the limit of {limits.max_pixels:,}") from None
    except Exception as error:  # a decoder may raise anything at all on damaged or hostile bytes
        text = " ".join(str(error).split()) or type(error).__name__
        kind = "truncated" if _TRUNCATED.search(text) or isinstance(error, EOFError) else "unreadable"
        raise ImageError(kind, name, f"cannot be decoded ({text})") from None
    return pixels, image_format


def _check_size(image: Image.Image, name: str, limits: Limits) -> None:
    if image.width * image.height > limits.max_pixels:
        size = f"{image.width:,} × {image.height:,} pixels"
        raise ImageError("too_large", name, f"{size}, more than the limit of {limits.max_pixels:,}")


def _check_single(image: Image.Image, name: str) -> None:
    # Not n_frames, which walks through all pages, of which a file may promise millions.
    if image.format == "TIFF" and getattr(image, "is_animated", False):
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
