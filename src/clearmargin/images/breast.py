"""Where the breast lies in a mammogram: its box, and whether it comes in from the left or the right edge.

The background of a mammogram is darker than the breast, and the breast is the largest thing in it: side
markers, tape and labels are smaller pieces. The threshold is Otsu's (IEEE Trans. Syst. Man Cybern. 9, 1979) on the
logarithm of a small copy, which keeps the thin tissue below the skin with the breast.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clearmargin.images.limits import Pixels
from clearmargin.images.place import Box

Side = Literal["left", "right"]

_SMALL_PX = 256
_MARGIN = 0.02
_LEAST_SHARE = 0.02
_BINS = 128


def find_breast(pixels: Pixels) -> tuple[Box, Side] | None:
    """Box of the breast (left, top, width, height in pixels) with a margin of 2 %, and the edge it comes in from.

    None where nothing stands out from the background, or what does covers less than 2 % of the image.

    Args:
        pixels: uint8 or uint16, (H, W, 1) or (H, W, 3), the background dark.
    """
    height, width = pixels.shape[:2]
    step = max(1, -(-max(height, width) // _SMALL_PX))
    small = np.log1p(ndimage.uniform_filter(pixels[::step, ::step].mean(axis=2, dtype=np.float32), 3))
    if float(np.ptp(small)) == 0:
        return None
    pieces, count = ndimage.label(ndimage.binary_opening(small > _otsu(small), iterations=2))
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    breast = pieces == sizes.argmax()
    if sizes.max() < _LEAST_SHARE * breast.size:
        return None
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    margin = round(_MARGIN * max(height, width))
    top, bottom = max(0, int(rows[0]) * step - margin), min(height, (int(rows[-1]) + 1) * step + margin)
    left, right = max(0, int(columns[0]) * step - margin), min(width, (int(columns[-1]) + 1) * step + margin)
    half = breast.shape[1] / 2
    middle = float(np.average(np.arange(breast.shape[1]) + 0.5, weights=breast.sum(axis=0)))
    return (left, top, right - left, bottom - top), "left" if middle <= half else "right"


def _otsu(values: NDArray[np.float32]) -> float:
    """The threshold that separates the values into the two classes with the largest variance between them."""
    counts, edges = np.histogram(values, bins=_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = np.cumsum((counts * centres)[::-1])[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(edges[int(between.argmax()) + 1])
