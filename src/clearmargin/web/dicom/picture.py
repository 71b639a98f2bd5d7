"""The picture of a Secondary Capture: what `explain` draws, between a band that says what it is for and a line on the
model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from clearmargin.explanation.draw import show_image
from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.lettering import load_font, spell, wrap, zoom_of
from clearmargin.explanation.picture import FAINT, INK, PAPER, Ink, draw_picture
from clearmargin.images.limits import Pixels
from clearmargin.types import Prediction
from clearmargin.web.answers import ModelAnswer
from clearmargin.web.dicom.filing import say_figures, say_model, say_prediction

BAND = "FOR RESEARCH ONLY - NOT FOR DIAGNOSIS"
_BAND_COLOUR, _BAND_INK = (150, 20, 20), (255, 255, 255)
_NARROWEST, _MARGIN, _LINE, _FONT = 640, 16, 20, 14
_Line = tuple[str, Ink]


def draw_capture(
    pixels: Pixels, prediction: Prediction, explanation: Explanation | None, model: ModelAnswer
) -> NDArray[np.uint8]:
    """(H, W, 3) the image beside the map with its legend, or, refused, the image by itself with the reason.

    Args:
        pixels: of the image, uint8 or uint16, (H, W, 1) or (H, W, 3).
        prediction: of this image.
        explanation: of this image; None where it was refused.
        model: that says it.
    """
    lines: list[_Line] = [(say_figures(model), FAINT), (say_model(model), FAINT)]
    if explanation is None:
        body = ImageOps.expand(show_image(pixels), _MARGIN, PAPER)
        lines.insert(0, (say_prediction(prediction, model), INK))
    else:
        body = draw_picture(pixels, [explanation])
    return np.asarray(_framed(body, lines))


def _framed(body: Image.Image, lines: list[_Line]) -> Image.Image:
    width = max(body.width, _NARROWEST)
    zoom = zoom_of(width)
    font, line, band = load_font(_FONT * zoom), round(_LINE * zoom), round(2 * _LINE * zoom)
    inner = width - 2 * _MARGIN
    written = [(part, ink) for text, ink in lines for part in wrap(spell(text), inner, font)]
    canvas = Image.new("RGB", (width, band + body.height + line * len(written) + 2 * _MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle([(0, 0), (width, band)], fill=_BAND_COLOUR)
    draw.text((width / 2, band / 2), BAND, fill=_BAND_INK, font=load_font(1.4 * _FONT * zoom, bold=True), anchor="mm")
    canvas.paste(body, ((width - body.width) // 2, band + 1))
    y = band + body.height + _MARGIN
    for text, ink in written:
        draw.text((_MARGIN, y), text, fill=ink, font=font)
        y += line
    return canvas
