"""Images and maps in colour: the image as it is shown, and the map over it in grey.

Colour means the map and nothing else: warm towards malignant, cool towards benign, none where the map is zero, and the
same colour for the same value in every image of a bundle. Warm and cool stay apart for eyes that do not tell red from
green, and each grows darker or lighter steadily, so that it survives in print.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.errors import UsageError
from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.place import lay_over
from clearmargin.images.limits import Pixels

ALPHA = 0.6
"""How much of the image full colour hides."""
LEAST_ALPHA = 0.05
"""Less of a colour cannot be seen."""
SMALLEST_PX, LARGEST_PX = 400, 1024
"""The longer side of what is shown: smaller images are enlarged by a whole number, larger ones reduced."""

_WARM = ((0.0, (255, 214, 110)), (0.5, (247, 127, 20)), (1.0, (189, 0, 38)))
_COOL = ((0.0, (158, 220, 255)), (0.5, (46, 144, 222)), (1.0, (20, 45, 140)))
_DARKEST, _BRIGHTEST = 30, 225
"""Of the grey image below the colour, which must be told from black and white."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How large an image is shown."""

    size: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int]) -> Shown:
        """Small images a whole number of times as large, large ones reduced, others as they are.

        >>> Shown.of((50, 50)).size, Shown.of((700, 460)).size, Shown.of((4096, 2048)).size
        ((400, 400), (700, 460), (1024, 512))
        """
        longer = max(size)
        if longer > LARGEST_PX:
            scale = LARGEST_PX / longer
            return cls((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        times = max(1, SMALLEST_PX // longer)
        return cls((size[0] * times, size[1] * times))


def check_alpha(alpha: float) -> None:
    """Passes when full colour may hide so much of the image.

    Raises:
        UsageError: it may not.
    """
    if not isinstance(alpha, int | float) or not LEAST_ALPHA <= alpha <= 1:
        raise UsageError(f"alpha: {alpha!r} is no number from {LEAST_ALPHA:g} to 1.")


def show_image(pixels: Pixels) -> Image.Image:
    """The image in colour, 8 bit, at the size that it is shown in.

    Args:
        pixels: uint8 or uint16, (H, W, 1) or (H, W, 3); 16 bits are shown as the network sees them.
    """
    eight = pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257.0).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:2], 3)), dtype=np.uint8))
    size = Shown.of(picture.size).size
    larger = size[0] >= picture.size[0]
    return picture.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.BOX)


def draw_overlay(pixels: Pixels, explanation: Explanation, *, alpha: float = ALPHA) -> Image.Image:
    """The image in grey with the map over it in colour.

    Args:
        pixels: of the image, as for `show_image`.
        explanation: of this image.
        alpha: from 0 to 1, how much of the image full colour hides.
    """
    base = show_image(pixels)
    grey = np.asarray(base.convert("L"), dtype=np.float32) / 255
    grey = _DARKEST + (_BRIGHTEST - _DARKEST) * grey
    colour, cover = _paint_over(explanation, base.size)
    opacity = (alpha * cover)[:, :, None]
    mixed = grey[:, :, None] * (1 - opacity) + colour * opacity
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def draw_layer(explanation: Explanation) -> Image.Image:
    """The map alone, RGBA, as large as `show_image` shows its image; opaque where its colour is full."""
    colour, cover = _paint_over(explanation, Shown.of(explanation.placement.size).size)
    return Image.fromarray(np.rint(np.dstack([colour, 255 * cover])).astype(np.uint8))


def _paint_over(explanation: Explanation, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As `paint`, of the map as it lies over its image, shown in this size."""
    strength = lay_over(explanation.strength, explanation.placement, _map_size(explanation, size))
    return paint(np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.NEAREST)))


def paint(strength: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours (…, 3) from 0 to 255 and how far they cover (…), from 0 at zero to 1, of values from -1 to 1.

    >>> paint(np.array([0.0, 1.0, -1.0], np.float32))[1].tolist()
    [0.0, 1.0, 1.0]
    """
    size = np.abs(strength)
    warm, cool = (
        np.stack([np.interp(size, [at for at, _ in ramp], [rgb[band] for _, rgb in ramp]) for band in range(3)], -1)
        for ramp in (_WARM, _COOL)
    )
    colour = np.where((strength < 0)[..., None], cool, warm).astype(np.float32)
    return colour, np.minimum(1.0, 1.4 * size).astype(np.float32)


def draw_colours(size: tuple[int, int], *, signed: bool, alpha: float = ALPHA) -> Image.Image:
    """The colours of a scale from its lowest value on the left to its highest, over a medium grey.

    Args:
        size: width and height.
        signed: it begins at -1, else at 0.
        alpha: as for `draw_overlay`.
    """
    colour, cover = paint(np.linspace(-1 if signed else 0, 1, size[0], dtype=np.float32))
    opacity = (alpha * cover)[:, None]
    row = np.rint((_DARKEST + _BRIGHTEST) / 2 * (1 - opacity) + colour * opacity).astype(np.uint8)
    return Image.fromarray(np.repeat(row[None], size[1], axis=0))


def _map_size(explanation: Explanation, shown: tuple[int, int]) -> tuple[int, int]:
    """Small images are enlarged pixel by pixel, and the map with them."""
    size = explanation.placement.size
    return size if size[0] < shown[0] else shown
