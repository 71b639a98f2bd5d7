"""From the network's input back to the image that it was made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.images.preprocess import Placement


def lay_over(
    values: NDArray[np.float32], placement: Placement, size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """The map as it lies over the image, (height, width); zero where the network does not look.

    What it says of padding is left out. Between its values it is interpolated; made smaller, it is averaged.

    Args:
        values: (H, W), in the network's input.
        placement: of that input in the image.
        size: width and height to show the image in; its own when None.

    >>> half = Placement(size=(4, 2), box=(2, 0, 2, 2), mirrored=True, filled=(2, 2))
    >>> lay_over(np.array([[1, 2, 0], [3, 4, 0], [0, 0, 0]], np.float32), half).tolist()
    [[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 4.0, 3.0]]
    """
    width, height = size or placement.size
    seen = values[: placement.filled[1], : placement.filled[0]]
    if placement.mirrored:
        seen = seen[:, ::-1]
    across, down = width / placement.size[0], height / placement.size[1]
    left, top, box_width, box_height = placement.box
    first, last = round(left * across), round((left + box_width) * across)
    upper, lower = round(top * down), round((top + box_height) * down)
    result = np.zeros((height, width), dtype=np.float32)
    shown = (max(last - first, 1), max(lower - upper, 1))
    picture = Image.fromarray(np.ascontiguousarray(seen)).resize(shown, Image.Resampling.BILINEAR)
    target = result[upper : upper + shown[1], first : first + shown[0]]
    target[...] = np.asarray(picture)[: target.shape[0], : target.shape[1]]
    return result
