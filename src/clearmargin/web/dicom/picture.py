"""The picture of a Secondary Capture: what `explain` draws, between a band that says what it is for and a line on the
model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from clearmargin.explanation.draw import draw_picture, show_image
from clearmargin.explanation.explainer import Explanation
from clearmargin.images.limits import Pixels
from clearmargin.types import Prediction
from clearmargin.web.answers import ModelAnswer
from clearmargin.web.dicom.filing import say_figures, say_model, say_prediction

BAND = "FOR RESEARCH ONLY - NOT FOR DIAGNOSIS"
_BAND_COLOUR, _BAND_INK = (150, 20, 20), (255, 255, 255)
_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 25), (105, 105, 105)
_NARROWEST, _MARGIN, _LINE, _FONT = 640, 16, 20, 14
_LEGIBLE_PX = 900
"""Width of a picture up to which texts are written in their own size; in wider ones they grow with them."""
_Line = tuple[str, tuple[int, int, int]]


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
    lines: list[_Line] = [(say_figures(model), _FAINT), (say_model(model), _FAINT)]
    if explanation is None:
        body = ImageOps.expand(show_image(pixels), _MARGIN, _PAPER)
        lines.insert(0, (say_prediction(prediction, model), _INK))
    else:
        body = draw_picture(pixels, [explanation])
        if prediction.reason:
            lines.insert(0, (f"{prediction.reason[:1].upper()}{prediction.reason[1:]}.", _INK))
    return np.asarray(_framed(body, lines))


def _framed(body: Image.Image, lines: list[_Line]) -> Image.Image:
    width = max(body.width, _NARROWEST)
    zoom = min(max(width / _LEGIBLE_PX, 1.0), 2.5)
    font, line, band = _font(_FONT * zoom), round(_LINE * zoom), round(2 * _LINE * zoom)
    inner = width - 2 * _MARGIN
    written = [(part, ink) for text, ink in lines for part in _wrapped(_drawable(text), inner, font)]
    canvas = Image.new("RGB", (width, band + body.height + line * len(written) + 2 * _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle([(0, 0), (width, band)], fill=_BAND_COLOUR)
    draw.text((width / 2, band / 2), BAND, fill=_BAND_INK, font=_font(1.4 * _FONT * zoom), anchor="mm")
    canvas.paste(body, ((width - body.width) // 2, band + 1))
    y = band + body.height + _MARGIN
    for text, ink in written:
        draw.text((_MARGIN, y), text, fill=ink, font=font)
        y += line
    return canvas


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The text in lines no wider than that; a word that is wider by itself is broken."""
    lines = [""]
    for word in text.split():
        rest = word
        while rest:
            joined = f"{lines[-1]} {rest}".strip()
            if font.getlength(joined) <= width:
                lines[-1], rest = joined, ""
            elif lines[-1]:
                lines.append("")
            else:
                fits = next(
                    end for end in range(len(rest) - 1, 0, -1) if end == 1 or font.getlength(rest[:end]) <= width
                )
                lines[-1], rest = rest[:fits], rest[fits:]
                lines.append("")
    return [line for line in lines if line]


def _drawable(text: str) -> str:
    """The text in letters that the font has."""
    return text.translate(_OTHER_SIGNS).encode("ascii", "replace").decode()


_OTHER_SIGNS = str.maketrans({"×": "x", "\N{MINUS SIGN}": "-", "…": "..."})


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
