"""How packed images look, in a few numbers that a person can name: light, colour, sharpness, grain.

Measured on what the network sees, batch by batch, with arithmetic in small integers: it must cost next to nothing
beside reading an image and running a network on it. Nothing here judges; `clearmargin.gate` does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOOK: tuple[str, ...] = (
    "brightness",
    "contrast",
    "skew",
    "near_black",
    "near_white",
    "colour",
    "red_green",
    "blue_green",
    "colour_noise",
    "sharp",
    "fine",
    "coarse",
    "flat",
)
"""The statistics of `measure_look`, in its order."""
COLOURS = ("colour", "red_green", "blue_green", "colour_noise")
"""Those that are constant or arbitrary in images in shades of grey."""
VISIBLE: tuple[float, ...] = (0.02, 0.01, 0.2, 0.5, 0.5, 0.2, 0.02, 0.02, 0.1, 0.05, 0.05, 0.05, 0.05)
"""A difference in each that can be seen: a smaller spread in training counts as this."""

_CHUNK_PIXELS = 2**17  # stays in the cache
_BLACK, _WHITE = 26, 229  # a tenth of the range from either end
_FAINT = 8  # grey levels of ink below which a tint is noise
_LEVEL = 0.5  # grey levels added to a difference, so that rounding is no texture
_BLANK = 1 / 255  # standard deviation of grey: less than one grey level
_PALEST = 0.01  # saturation below which an image counts as grey

SHARE_ADDED = 0.01
"""What is added to a share before its logarithm is taken."""


def measure_look(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, len(LOOK)) statistics of each image.

    brightness and contrast: mean and standard deviation of grey, in 0..1. skew: its third moment, by the contrast.
    near_black, near_white: logarithm of the share of pixels in the lowest or highest tenth of the range. colour:
    logarithm of the saturation, the range of the channels by the ink (what is not white). red_green, blue_green:
    differences of the means of the channels, -1..1. colour_noise: logarithm of how much the channels change apart
    from each other between neighbouring pixels, by how much grey does. sharp: logarithm of how far pixels lie from
    the mean of those on either side, by the difference of neighbours: blur leaves no such bends. fine: logarithm of
    the difference of pixels that are neighbours by that of pixels four apart. coarse: logarithm of the latter by the
    contrast. flat: share of neighbours that are alike. Grey images, of one channel or of three, have no colour.

    Args:
        images: (N, H, W, C), C = 1 or 3.

    >>> measure_look(np.zeros((1, 8, 8, 1), dtype=np.uint8))[0, LOOK.index("near_black")].round(2).item()
    0.01
    """
    if len(images) == 0:
        return np.empty((0, len(LOOK)))
    rows = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    return np.concatenate([_measure(np.asarray(images[first : first + rows])) for first in range(0, len(images), rows)])


def is_blank(look: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) images of one shade, from `measure_look`."""
    blank: NDArray[np.bool_] = look[:, LOOK.index("contrast")] < _BLANK
    return blank


def is_grey(look: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) images without colour, from `measure_look`."""
    grey: NDArray[np.bool_] = look[:, LOOK.index("colour")] < np.log(SHARE_ADDED + _PALEST)
    return grey


def _measure(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    n, height, width, channels = images.shape
    area = height * width
    planes = np.ascontiguousarray(images.reshape(n, area, channels).transpose(2, 0, 1))
    grey = planes[0] if channels == 1 else _grey(planes)
    square = grey.reshape(n, height, width)
    light = grey.astype(np.float32)
    mean = light.mean(axis=1)
    light -= mean[:, None]
    squared = light * light
    deviation = np.sqrt(squared.mean(axis=1))
    skew = np.einsum("ij,ij->i", squared, light) / area / (deviation + 1) ** 3
    neighbours, apart = _differences(square, 1), _differences(square, 4)
    fine, coarse = _mean(neighbours, n), _mean(apart, n) if apart else _mean(neighbours, n)
    alike = [difference <= 1 for difference in neighbours]
    columns = [
        mean / 255,
        deviation / 255,
        skew,
        np.log((grey < _BLACK).mean(axis=1) + SHARE_ADDED),
        np.log((grey > _WHITE).mean(axis=1) + SHARE_ADDED),
        *_colours(planes, fine, (height, width)),
        np.log((2 * _mean(_bends(square), n) + _LEVEL) / (fine + _LEVEL)),
        np.log((fine + _LEVEL) / (coarse + _LEVEL)),
        np.log((coarse + _LEVEL) / (deviation + _LEVEL)),
        _mean(alike, n),
    ]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _grey(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = planes
    weighted = red.astype(np.uint16) * 77  # ITU-R 601 in 256ths
    weighted += green.astype(np.uint16) * 150
    weighted += blue.astype(np.uint16) * 29
    grey: NDArray[np.uint8] = (weighted >> 8).astype(np.uint8)
    return grey


def _colours(planes: NDArray[np.uint8], fine: NDArray[np.float64], size: tuple[int, int]) -> list[NDArray[np.float64]]:
    n, area = planes.shape[1:]
    none = np.zeros(n)
    if len(planes) == 1:
        return [np.full(n, np.log(SHARE_ADDED)), none, none, np.log(_LEVEL / (fine + _LEVEL))]
    red, green, blue = planes
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    chroma = (high - low).sum(axis=1, dtype=np.uint32) / area
    ink = 255 - low.sum(axis=1, dtype=np.uint32) / area
    means = [plane.sum(axis=1, dtype=np.uint32) / area for plane in planes]
    # Half of it, from -127 to 127, has room in a byte.
    apart = (red >> 1) - (green >> 1) + np.uint8(128)
    noise = 2 * _mean(_differences(apart.reshape(n, *size), 1), n)
    return [
        np.log(chroma / (ink + _FAINT) + SHARE_ADDED),
        (means[0] - means[1]) / 255,
        (means[2] - means[1]) / 255,
        np.log((noise + _LEVEL) / (fine + _LEVEL)),
    ]


def _differences(square: NDArray[np.uint8], step: int) -> list[NDArray[np.uint8]]:
    """Absolute differences of pixels so far apart, along either axis that is long enough."""
    found = []
    if square.shape[1] > step:
        first, second = square[:, step:], square[:, :-step]
        found.append(np.maximum(first, second) - np.minimum(first, second))
    if square.shape[2] > step:
        first, second = square[:, :, step:], square[:, :, :-step]
        found.append(np.maximum(first, second) - np.minimum(first, second))
    return found


def _bends(square: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """How far each pixel lies from the mean of the two beside it, along either axis that is long enough."""
    found = []
    if square.shape[1] > 2:
        found.append(_bend(square[:, :-2], square[:, 1:-1], square[:, 2:]))
    if square.shape[2] > 2:
        found.append(_bend(square[:, :, :-2], square[:, :, 1:-1], square[:, :, 2:]))
    return found


def _bend(before: NDArray[np.uint8], here: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    mean = (before & after) + ((before ^ after) >> 1)  # rounded down, without leaving the byte
    bend: NDArray[np.uint8] = np.maximum(mean, here) - np.minimum(mean, here)
    return bend


def _mean(parts: list[NDArray[np.uint8]] | list[NDArray[np.bool_]], n: int) -> NDArray[np.float64]:
    """(n,) the mean over the values of each image."""
    if not parts:  # one pixel has no neighbours
        return np.zeros(n)
    total = sum(part.reshape(n, -1).sum(axis=1, dtype=np.uint32) for part in parts)
    mean: NDArray[np.float64] = total / sum(part[0].size for part in parts)
    return mean
