"""How an image looks, in a few numbers, taken once while it is decoded; what they mean is judged in `quality.py`.

A small patch costs tens of microseconds. A large image is measured on rows from all over it, at full resolution, so
that time does not grow with its size; writing and marks are sought, by `overlay.py`, in grey images only.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.audit.overlay import find_overlay
from clearmargin.images.limits import Pixels

MEASURES = (
    "red",
    "green",
    "blue",
    "spread",
    "peak",
    "dark",
    "bright",
    "clipped",
    "coloured",
    "blur_px",
    "frame",
    "frame_even",
    "inside",
    "skew",
    "characters",
    "crosses",
    "tinted",
)
"""The columns of a measured image. Brightness is in 0..1 of what the file's type can hold, shares are in 0..1.

red, green, blue: means. spread: standard deviation of grey. peak: the brightest grey. dark, bright: share of pixels at
zero, and at the peak. clipped: share of pixels that have a colour and a channel at its end. coloured: share of pixels
with a colour. blur_px: width of the blur, see `_blur_px`. Of grey images only, else 0: frame: median of the outermost
pixels; frame_even: share of those within 3 % of it; inside: mean of the others; skew: skewness of grey. characters,
crosses, tinted: see `overlay.Overlay`.
"""

Measures = NDArray[np.float32]
"""(len(MEASURES),): an array, because a table of 277,524 images is measured before any is judged."""

_SAMPLE_PX = 2**18
"""Larger images are measured on rows taken three by three from all over, at full resolution."""

_FRAME_SAMPLE_PX = 256
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601
_COLOUR = 12.5 / 255
"""Largest minus smallest channel: what lossy compression leaves of a grey stays below."""
_DARK = 1.5 / 255
_LEAST_SPREAD = 1e-5
_AT_PEAK, _AT_TOP, _EVEN = 0.9901, 253.5 / 255, 0.0301
"""No whole grey level lies just on them, so that 8 and 16 bits of one image give the same shares."""
MOSTLY_COLOURED = 0.3
"""Share of pixels with a colour above which an image is a coloured one: stained tissue, not a scan in grey."""
_GLASS_COLOURED, _GLASS_MEAN = 0.02, 0.601
"""A bright image with a little colour in it is stained tissue beside glass."""


def measure_image(pixels: Pixels) -> Measures:
    """The measures of an image, uint8 or uint16 (H, W, C) with C = 1 or 3; finite for every image that has a pixel."""
    planes = _sample_planes(pixels)
    means = planes.reshape(len(planes), -1).mean(axis=1).tolist()
    clipped = coloured = 0.0
    rounding = 1 / (12 * _whole_steps(pixels) ** 2)
    if len(planes) == 3:
        grey = (_LUMA @ planes.reshape(3, -1)).reshape(planes.shape[1:])
        top = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
        has_colour = top - np.minimum(np.minimum(planes[0], planes[1]), planes[2]) > _COLOUR
        clipped = np.count_nonzero(has_colour & (top >= _AT_TOP)) / top.size
        coloured = np.count_nonzero(has_colour) / top.size
        rounding *= float(_LUMA @ _LUMA) if coloured else 1.0  # three channels are rounded independently
    else:
        grey, means = planes[0], means * 3
    centred = grey - grey.mean()
    spread = _exact_zero(float(np.sqrt(np.vdot(centred, centred) / grey.size)), pixels)
    peak = float(grey.max())
    dark, bright = (np.count_nonzero(at) / grey.size for at in (grey <= _DARK, grey >= _AT_PEAK * peak))
    scan: tuple[float, ...] = (0.0,) * 7
    if coloured <= MOSTLY_COLOURED and not (coloured > _GLASS_COLOURED and sum(means) > 3 * _GLASS_MEAN):
        overlay = find_overlay(pixels)
        scan = (*_measure_frame(pixels), overlay.characters, overlay.crosses, overlay.tinted)
    columns = (*means, spread, peak, dark, bright, clipped, coloured, _blur_px(grey, rounding), *scan)
    return np.array(columns, dtype=np.float32)


def build_measures(rows: Iterable[Measures]) -> pd.DataFrame:
    """The table of measured images, one row each, with the columns MEASURES as float32."""
    listed = list(rows)
    table = np.stack(listed) if listed else np.empty((0, len(MEASURES)), dtype=np.float32)
    return pd.DataFrame(table, columns=list(MEASURES))


def _exact_zero(spread: float, pixels: Pixels) -> float:
    """The spread, and 0 for a constant image only: neither rounding nor the sample decides what is constant."""
    if spread >= _LEAST_SPREAD:
        return spread
    return 0.0 if bool((pixels == pixels[0, 0]).all()) else _LEAST_SPREAD


def _whole_steps(pixels: Pixels) -> int:
    """In how many steps the range is divided: 255 too where 16 bits hold an image of 8."""
    if pixels.dtype == np.uint8 or not (pixels[:: max(1, len(pixels) // 8)] % 257).any():
        return 255
    return 65535


def _sample_planes(pixels: Pixels) -> NDArray[np.float32]:
    """(C, bands, rows, W) in 0..1: the whole image as one band, or bands of three rows from all over a large one."""
    height, width, channels = pixels.shape
    bands = pixels[np.newaxis]
    if height * width > _SAMPLE_PX and height >= 6:
        every = max(3, min(height, 3 * height * width // _SAMPLE_PX))
        bands = pixels[: height // every * every].reshape(-1, every, width, channels)[:, :3]
    planes = bands.transpose(3, 0, 1, 2).astype(np.float32, order="C")
    planes *= np.float32(1 / np.iinfo(pixels.dtype).max)
    return planes


def _blur_px(grey: NDArray[np.float32], rounding: float) -> float:
    """The standard deviation, in pixels, of the Gaussian that would blur white noise to the same sharpness.

    Of such noise the spectrum is exp(-(s k)^2), so that the mean square of the gradient over that of the Laplacian is
    s^2 / 2, whatever the contrast. White noise itself gives 0.32, differences being taken between pixels; 0 stands for
    an image without any difference. What rounding adds is taken off first, because in a soft image of 8 bits it is
    most of the Laplacian. Where slopes are not far above rounding either, this alone may not double the width.

    Args:
        grey: (bands, rows, W); bands are measured apart, and pooled.
        rounding: the variance of its rounding error.
    """
    if min(grey.shape[1:]) < 3:
        return 0.0
    inner = grey[:, 1:-1, 1:-1]
    up, down, left, right = grey[:, :-2, 1:-1], grey[:, 2:, 1:-1], grey[:, 1:-1, :-2], grey[:, 1:-1, 2:]
    laplacian = up + down
    laplacian += left
    laplacian += right
    laplacian -= 4 * inner
    across, along = right - left, down - up
    sharp = float(np.vdot(laplacian, laplacian)) / laplacian.size
    slope = float(np.vdot(across, across) + np.vdot(along, along)) / (4 * laplacian.size)
    if sharp <= 1e-9:
        return 0.0
    sharp -= min(20 * rounding, sharp * (0.95 if slope >= 10 * rounding else 0.67))
    slope -= min(rounding, slope * 0.67)
    return float(np.sqrt(2 * slope / sharp))


def _measure_frame(pixels: Pixels) -> tuple[float, float, float, float]:
    """Frame, frame_even, inside and skew of a grey image, as in MEASURES, on a thinned copy."""
    step = -(-max(pixels.shape[:2]) // _FRAME_SAMPLE_PX)
    grey = pixels[::step, ::step, pixels.shape[2] // 2].astype(np.float32)
    grey *= np.float32(1 / np.iinfo(pixels.dtype).max)
    thick = max(1, min(grey.shape) // 40)
    inner = grey[thick:-thick, thick:-thick]
    frame = np.concatenate(
        [
            grey[:thick].ravel(),
            grey[-thick:].ravel(),
            grey[thick:-thick, :thick].ravel(),
            grey[thick:-thick, -thick:].ravel(),
        ]
    )
    level = float(np.median(frame))
    even = np.count_nonzero(np.abs(frame - level) <= _EVEN * max(float(grey.max()), 1e-6)) / frame.size
    centred = grey - grey.mean()
    variance = float(np.mean(centred**2))
    skew = float(np.mean(centred**3)) / variance**1.5 if variance > 1e-9 else 0.0
    return level, even, float(inner.mean()) if inner.size else level, skew
