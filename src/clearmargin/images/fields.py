"""The field around a patch, put together from its neighbours: a wider view at a lower resolution.

Each patch of a slide is reduced to a thumbnail once; a field is the thumbnails of a patch and its neighbours, side by
side, white where there is none. So a field costs no second decoding, and 300 bytes a patch of memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHITE = 240
"""Of glass without tissue, which is what is missing around a patch."""


class Fields:
    """(N, field * thumbnail, field * thumbnail, C) uint8, made when rows are asked for, like an array of images.

    Args:
        thumbnails: (N, thumbnail, thumbnail, C) uint8.
        neighbours: (N, field, field) row numbers, -1 where there is no patch.
    """

    def __init__(self, thumbnails: NDArray[np.uint8], neighbours: NDArray[np.int64]) -> None:
        nothing = np.full((1, *thumbnails.shape[1:]), _WHITE, dtype=np.uint8)
        self._thumbnails = np.concatenate([thumbnails, nothing])  # so that row -1 is white
        self._neighbours = neighbours
        size = neighbours.shape[1] * thumbnails.shape[1]
        self.shape = (len(neighbours), size, size, thumbnails.shape[3])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer] | slice) -> NDArray[np.uint8]:
        """(B, H, W, C) uint8 of these rows."""
        parts = self._thumbnails[self._neighbours[rows]]  # (B, field, field, thumbnail, thumbnail, C)
        return np.ascontiguousarray(parts.transpose(0, 1, 3, 2, 4, 5)).reshape(len(parts), *self.shape[1:])


def make_thumbnails(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, size, size, C) of images (N, H, W, C), each pixel the mean of the image's pixels whose middle it covers.

    The same for an image by itself as among others. A memory map is read in order.
    """
    channels = images.shape[3]
    result = np.empty((len(images), size, size, channels), dtype=np.uint8)
    for image, thumbnail in zip(images, result, strict=True):
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        thumbnail[...] = np.asarray(picture.resize((size, size), Image.Resampling.BOX)).reshape(thumbnail.shape)
    return result
