"""Pictures of explanations: the image in grey with the map over it, beside the image as it is, above a legend.

Colour means the map and nothing else: warm towards malignant, cool towards benign, none where the map is zero, and the
same colour for the same value in every image of a bundle. Warm and cool stay apart for eyes that do not tell red from
green, and each grows darker or lighter steadily, so that it survives in print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clearmargin.errors import one_line
from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.methods import find_method
from clearmargin.explanation.place import lay_over
from clearmargin.images.limits import Pixels

ALPHA = 0.6
"""How much of the image full colour hides."""
SMALLEST_PX, LARGEST_PX = 400, 1024
"""The longer side of what is shown: smaller images are enlarged by a whole number, larger ones reduced."""

_WARM = ((0.0, (255, 214, 110)), (0.5, (247, 127, 20)), (1.0, (189, 0, 38)))
_COOL = ((0.0, (158, 220, 255)), (0.5, (46, 144, 222)), (1.0, (20, 45, 140)))
_DARKEST, _BRIGHTEST = 30, 225
"""Of the grey image below the colour, which must be told from black and white."""
_MARGIN, _GAP, _LINE = 16, 12, 20
_NARROWEST = 640
_LEGIBLE_PX = 900
"""Width of a picture up to which the legend is written in its own size; in wider ones it grows with them."""
_INK, _FAINT, _PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)
_BAR = (220, 14)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
DISCLAIMER = "Evidence for this network, not for disease."


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


def draw_picture(
    pixels: Pixels, explanations: Sequence[Explanation], *, alpha: float = ALPHA, note: str = ""
) -> Image.Image:
    """The image as it is, the map over it, and below what the colours mean and what was decided.

    Args:
        pixels: of the image.
        explanations: of this image, one panel each.
        alpha: as for `draw_overlay`.
        note: one more line, such as what a probability leaves out.
    """
    panels = [show_image(pixels), *(draw_overlay(pixels, each, alpha=alpha) for each in explanations)]
    width, height = panels[0].size
    inner = len(panels) * width + (len(panels) - 1) * _GAP
    total = max(inner, _NARROWEST) + 2 * _MARGIN
    lines = _lines(explanations[0], note)
    zoom = min(max(total / _LEGIBLE_PX, 1.0), 2.5)
    line = round(_LINE * zoom)
    legend = line * (len(lines) + 3 * len(explanations))
    canvas = Image.new("RGB", (total, height + legend + 3 * _MARGIN), _PAPER)
    for number, panel in enumerate(panels):
        canvas.paste(panel, (_MARGIN + number * (width + _GAP), _MARGIN))
    draw, y = ImageDraw.Draw(canvas), height + 2 * _MARGIN
    for each in explanations:
        _draw_bar(canvas, draw, each, (_MARGIN, y), alpha=alpha, zoom=zoom)
        y += 3 * line
    font = _font(14 * zoom)
    for text, ink in lines:
        draw.text((_MARGIN, y), _fit(draw, text, total - 2 * _MARGIN, font), fill=ink, font=font)
        y += line
    return canvas


def _map_size(explanation: Explanation, shown: tuple[int, int]) -> tuple[int, int]:
    """Small images are enlarged pixel by pixel, and the map with them."""
    size = explanation.placement.size
    return size if size[0] < shown[0] else shown


def _lines(explanation: Explanation, note: str) -> list[tuple[str, tuple[int, int, int]]]:
    words = {"abstain": "cannot tell"}
    decision = words.get(explanation.decision, explanation.decision)
    lines = [
        (
            f"{decision.capitalize()}: probability of malignant {explanation.probability:.3f}, malignant from "
            f"{explanation.threshold:.3f}.",
            _INK,
        ),
        (DISCLAIMER + (f" {note}" if note else ""), _FAINT),
    ]
    name = Path(explanation.record.path).name  # a picture is passed on; where it lay is nobody's business
    return [(one_line(name), _FAINT), *lines] if name else lines


def _draw_bar(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    explanation: Explanation,
    corner: tuple[int, int],
    *,
    alpha: float,
    zoom: float,
) -> None:
    method, (x, y), (width, height) = find_method(explanation.method), corner, (round(side * zoom) for side in _BAR)
    small, large = _font(12 * zoom), _font(14 * zoom)
    values = np.linspace(-1 if method.signed else 0, 1, width, dtype=np.float32)
    colour, cover = paint(values)
    middle = (_DARKEST + _BRIGHTEST) / 2
    opacity = (alpha * cover)[:, None]
    row = np.rint(middle * (1 - opacity) + colour * opacity).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(row[None], height, axis=0)), (x, y))
    full = explanation.scale.saturation
    ends = (-full, 0.0, full) if method.signed else (0.0, full)
    for number, value in enumerate(ends):
        at = x + number * (width - 1) / (len(ends) - 1)
        draw.line([(at, y + height), (at, y + height + 4)], fill=_INK)
        anchor = "la" if number == 0 else "ra" if number == len(ends) - 1 else "ma"
        draw.text((at, y + height + 5), f"{value:.3g}", fill=_INK, font=small, anchor=anchor)
    right = x + width + _GAP
    meaning = "warm towards malignant, cool towards benign" if method.signed else "warm towards malignant"
    draw.text((right, y - 3), f"{method.title}: {meaning}", fill=_INK, font=large)
    draw.text((right, y + _LINE * zoom - 4), f"{method.unit}; same scale for every image", fill=_FAINT, font=small)


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: _Font) -> str:
    """The text, its beginning left out where it is too long: the end of a name tells more."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength("…" + text, font=font) > width:
        text = text[max(1, len(text) // 50) :]
    return "…" + text


def _font(size: float) -> _Font:
    return ImageFont.load_default(size=size)
