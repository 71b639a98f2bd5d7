"""Writing and marks burned into a grey image: characters, calliper crosses, colour drawn over grey.

What an imaging device sees has passed through optics or a beam and is smooth at the scale of a pixel; what software
draws is not. A stroke is therefore sought as a thin run of pixels that both begins and ends with a jump from one
pixel to the next, several times larger than the jumps usual in the same image. Strokes that touch are a shape;
shapes of one height and one brightness in a row are writing. Nothing is read: no character is recognised.
Stained tissue has such jumps of its own, so coloured images are not searched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clearmargin.images.limits import Pixels

MIN_SIDE_PX = 64
"""Below, a legible word does not fit beside anything worth classifying, and a speckle is as large as a letter."""

_LONGEST_SIDE_PX = 1500
"""A larger image is thinned to it by leaving rows and columns out, which keeps jumps steep and strokes flat."""

_LEAST_JUMP, _USUAL_JUMPS = 32, 4
"""The jump at a stroke's edge, in 1/255 of the brightest pixel: an eighth of the range, and 4 times the jump that
one pixel in 20 exceeds. Were jumps normally distributed (1 in 20 beyond 2 sigma), that is 8 sigma."""

_WIDEST_STROKE_PX = 12
_LEAST_HEIGHT_PX = 5
"""The smallest height at which Latin capitals can be told apart (a 5×7 dot matrix, cut)."""

_MOST_PIECES, _MOST_SHAPES = 20_000, 400
"""A page of text has fewer. More pieces are texture, and none is looked at; of shapes, the largest are."""

_CROSS_ARMS_PX = (3, 4, 6, 9)
"""Lengths of a calliper cross's arms that are tried."""

_ONE_LEVEL = 40
"""How much the brightness of one cross varies at most, in 1/255: lossy compression rings beside a jump."""

_ALIKE = 25
"""How much the brightness of characters in one row varies at most: a tenth of the range."""

_GREY, _TINT = 8, 25
"""Largest minus smallest channel, in 1/255: what JPEG leaves of a grey, and a tint that is visible (a tenth)."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What was found: shapes like characters in the longest row, crosses, and the share of pixels tinted over grey.

    The shapes are not counted as a reader counts letters: two that touch are one, and the inside of an O is another.
    """

    characters: int = 0
    crosses: int = 0
    tinted: float = 0.0


@dataclass(frozen=True, slots=True)
class _Strokes:
    """The pixels (H, W) of strokes that are brighter, and of those that are darker, than what is beside them."""

    bright: NDArray[np.bool_]
    dark: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Connected strokes: boxes (n, 4) as top, left, height, width; brightness (n,) in 0..255."""

    boxes: NDArray[np.int64]
    levels: NDArray[np.float64]


def find_overlay(pixels: Pixels) -> Overlay:
    """What is burned into a grey image, uint8 or uint16 (H, W, C); C = 3 where its grey is stored as RGB.

    An image with a side below `MIN_SIDE_PX`, thinned or not, is not searched.
    """
    step = -(-max(pixels.shape[:2]) // _LONGEST_SIDE_PX)
    thinned = pixels[::step, ::step]
    if min(thinned.shape[:2]) < MIN_SIDE_PX:
        return Overlay()
    grey = _to_bytes(thinned[:, :, 1 if pixels.shape[2] == 3 else 0])
    across, along = _paint_strokes(grey), _paint_strokes(np.ascontiguousarray(grey.T))
    bright = _find_shapes(grey, across.bright | along.bright.T)
    dark = _find_shapes(255 - grey, across.dark | along.dark.T)  # written on a white label
    characters = max(_longest_row(bright), _longest_row(dark))
    crosses = _count_crosses(grey, across.bright, along.bright.T)
    tinted = _share_tinted(thinned) if pixels.shape[2] == 3 else 0.0
    return Overlay(characters, crosses, tinted)


def _to_bytes(plane: Pixels) -> NDArray[np.int16]:
    """The plane with its brightest pixel at 255; whole numbers, so that 8 and 16 bits of one image agree."""
    peak = max(int(plane.max()), 1)
    return (plane.astype(np.uint32) * 255 // np.uint32(peak)).astype(np.int16)


def _find_shapes(grey: NDArray[np.int16], strokes: NDArray[np.bool_]) -> _Shapes:
    labels, count = ndimage.label(strokes, np.ones((3, 3), dtype=np.int8))
    if not 0 < count <= _MOST_PIECES:
        return _Shapes(np.empty((0, 4), np.int64), np.empty(0))
    found = ndimage.find_objects(labels)
    sizes = np.array([(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in found])
    kept = np.flatnonzero(sizes.max(axis=1) >= _LEAST_HEIGHT_PX)
    kept = kept[np.argsort(-sizes[kept].max(axis=1), kind="stable")[:_MOST_SHAPES]]
    corners = [(rows.start, columns.start) for rows, columns in (found[number] for number in kept)]
    # The upper quartile is the core of a stroke: the edges of small letters are smoothed.
    inks = (np.sort(grey[found[number]][labels[found[number]] == number + 1]) for number in kept)
    levels = [float(ink[3 * ink.size // 4]) for ink in inks]
    return _Shapes(np.hstack([np.array(corners, np.int64).reshape(-1, 2), sizes[kept]]), np.array(levels))


def _paint_strokes(grey: NDArray[np.int16]) -> _Strokes:
    """The runs along rows: a jump at each end, of opposite sense, and none between."""
    jumps = grey[:, 1:] - grey[:, :-1]
    sample = np.abs(jumps.ravel()[:: max(1, jumps.size // 20_000)])
    rank = sample.size * 19 // 20
    least = max(_LEAST_JUMP, _USUAL_JUMPS * int(np.partition(sample, rank)[rank]))
    up, down = np.flatnonzero(jumps >= least), np.flatnonzero(jumps <= -least)
    return _Strokes(_paint_runs(up, down, grey.shape), _paint_runs(down, up, grey.shape))


def _paint_runs(start: NDArray[np.intp], stop: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Runs from a start to the stop that follows it; both are flat places in the (H, W - 1) jumps of a (H, W) image."""
    height, width = shape
    painted = np.zeros(height * width, dtype=bool)
    end = np.searchsorted(stop, start)
    start, end = start[end < stop.size], end[end < stop.size]
    stop = stop[end]
    innermost = np.append(start[1:], height * width) > stop
    same_row = start // (width - 1) == stop // (width - 1)
    run = innermost & same_row & (stop - start <= _WIDEST_STROKE_PX)
    start, length = start[run], (stop - start)[run]
    first = start + start // (width - 1) + 1
    for offset in range(int(length.max(initial=0))):
        painted[first[length > offset] + offset] = True
    return painted.reshape(height, width)


def _count_crosses(grey: NDArray[np.int16], across: NDArray[np.bool_], along: NDArray[np.bool_]) -> int:
    """The number of places with four arms of one brightness and darker ground in the four corners between them.

    Args:
        grey: (H, W).
        across: strokes that are thin from left to right, as a cross's upper and lower arm.
        along: strokes that are thin from top to bottom, as its left and right arm.
    """
    height, width = grey.shape
    centres: list[tuple[int, int]] = []
    for arm in _CROSS_ARMS_PX:

        def moved(mask: NDArray[np.bool_], down: int, right: int, arm: int = arm) -> NDArray[np.bool_]:
            return mask[arm + down : height - arm + down, arm + right : width - arm + right]

        upright = moved(across, -arm, 0) | moved(across, arm, 0)
        level = moved(along, 0, -arm) | moved(along, 0, arm)
        y, x = (place + arm for place in np.nonzero(upright | level))
        half = arm // 2
        arms = np.stack([grey[y + down, x + right] for down, right in _axes(arm) + _axes(half)])
        corners = np.stack([grey[y + down, x + right] for down in (-arm, arm) for right in (-arm, arm)])
        even = np.abs(arms - grey[y, x]).max(axis=0) <= _ONE_LEVEL
        stands_out = arms.min(axis=0) - corners.max(axis=0) >= _LEAST_JUMP
        for centre in zip(y[even & stands_out].tolist(), x[even & stands_out].tolist(), strict=True):
            if all(max(abs(centre[0] - other[0]), abs(centre[1] - other[1])) > 2 * arm for other in centres):
                centres.append(centre)
    return len(centres)


def _axes(arm: int) -> list[tuple[int, int]]:
    return [(-arm, 0), (arm, 0), (0, -arm), (0, arm)]


def _longest_row(shapes: _Shapes) -> int:
    """The number of characters in the longest row or column of like shapes; 0 without a shape."""
    boxes = shapes.boxes
    turned = boxes[:, [1, 0, 3, 2]]
    return max(_longest_line(boxes, shapes.levels), _longest_line(turned, shapes.levels))


def _longest_line(boxes: NDArray[np.int64], levels: NDArray[np.float64]) -> int:
    height, width = boxes[:, 2], boxes[:, 3]
    usable = (height >= _LEAST_HEIGHT_PX) & (width <= 1.5 * height) & (height <= 12 * width)
    boxes, levels = boxes[usable], levels[usable]
    height, width = boxes[:, 2], boxes[:, 3]
    middle = boxes[:, 0] + height / 2
    longest = 0
    for anchor in range(len(boxes)):
        size = height[anchor]
        like = (
            (np.abs(middle - middle[anchor]) <= 0.35 * size)
            & (height >= 0.7 * size)
            & (height <= 1.4 * size)
            & (np.abs(levels - levels[anchor]) <= _ALIKE)
        )
        left = boxes[like, 1]
        order = np.argsort(left)
        gaps = left[order][1:] - (left + width[like])[order][:-1]
        breaks = np.flatnonzero(gaps > 2 * size)
        ends = np.concatenate([[-1], breaks, [left.size - 1]])
        longest = max(longest, int(np.diff(ends).max()))
    return longest


def _share_tinted(pixels: Pixels) -> float:
    """The share of pixels with a colour, where most others are a dark grey: colour drawn over ultrasound.

    0 where grey is not what most of the image consists of. Glass beside stained tissue is grey too, but bright.
    """
    red, green, blue = (_channel(pixels, index) for index in range(3))
    top = np.maximum(np.maximum(red, green), blue)
    chroma = top - np.minimum(np.minimum(red, green), blue)
    coloured = int(np.count_nonzero(chroma >= _TINT))
    dark_grey = int(np.count_nonzero((chroma <= _GREY) & (top <= 160)))
    return coloured / top.size if dark_grey >= 0.5 * top.size else 0.0


def _channel(pixels: Pixels, index: int) -> NDArray[np.int16]:
    plane = pixels[:, :, index]
    return (plane if plane.dtype == np.uint8 else plane // 257).astype(np.int16)
