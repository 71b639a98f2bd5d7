"""The picture of an explanation: the image, beside it the map over it, and a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from clearmargin.explanation.draw import ALPHA, draw_colours, draw_overlay, show_image
from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.lettering import Font, fit, load_font, spell, wrap, zoom_of
from clearmargin.explanation.methods import find_method
from clearmargin.explanation.words import DISCLAIMER, say_decision, say_end, say_reasons, say_remarks
from clearmargin.images.limits import Pixels

_NARROWEST = 640
_MARGIN, _GAP = 16, 12
_BAR = (260, 14)
_TEXT, _SMALL = 14, 12
"""Sizes of letters, in pixels."""
_SPACED = 1.4
"""Height of a line, by that of its letters."""
Ink = tuple[int, int, int]
INK, FAINT, PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)


def draw_picture(pixels: Pixels, explanations: Sequence[Explanation], *, alpha: float = ALPHA) -> Image.Image:
    """The image as it is, the map over it, and below what the colours mean and what was decided.

    Args:
        pixels: of the image.
        explanations: of this image, one panel each.
        alpha: as for `draw_overlay`.
    """
    panels = [show_image(pixels), *(draw_overlay(pixels, each, alpha=alpha) for each in explanations)]
    width, height = panels[0].size
    total = max(len(panels) * width + (len(panels) - 1) * _GAP, _NARROWEST) + 2 * _MARGIN
    zoom, inner = zoom_of(total), total - 2 * _MARGIN
    parts = [_draw_scale(each, inner, alpha=alpha, zoom=zoom) for each in explanations]
    parts.append(_draw_words(explanations[0], inner, zoom))
    gap = round(_GAP * zoom)
    legend = sum(part.height for part in parts) + (len(parts) - 1) * gap
    canvas = Image.new("RGB", (total, height + legend + 3 * _MARGIN), PAPER)
    for number, panel in enumerate(panels):
        canvas.paste(panel, (_MARGIN + number * (width + _GAP), _MARGIN))
    y = height + 2 * _MARGIN
    for part in parts:
        canvas.paste(part, (_MARGIN, y))
        y += part.height + gap
    return canvas


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    font: Font
    ink: Ink
    height: int


def _lines(text: str, width: int, *, size: float, ink: Ink = INK, bold: bool = False) -> list[_Line]:
    """The text in as many lines as it needs."""
    font = load_font(size, bold=bold)
    return [_Line(part, font, ink, round(_SPACED * size)) for part in wrap(spell(text), width, font)]


def _write(lines: Sequence[_Line], canvas: Image.Image, x: int) -> None:
    draw, y = ImageDraw.Draw(canvas), 0
    for line in lines:
        draw.text((x, y), line.text, fill=line.ink, font=line.font)
        y += line.height


def _draw_words(explanation: Explanation, width: int, zoom: float) -> Image.Image:
    """Name, decision, and what the picture is no evidence of."""
    size = _TEXT * zoom
    lines = _lines(say_decision(explanation), width, size=size, bold=True)
    for reason in say_reasons(explanation):
        lines += _lines(reason, width, size=size)
    lines += _lines(DISCLAIMER, width, size=size, ink=FAINT)
    name = Path(explanation.record.path).name  # a picture is passed on; where it lay is nobody's business
    if name:
        font = load_font(size)
        lines.insert(0, _Line(fit(spell(name), width, font), font, FAINT, round(_SPACED * size)))
    canvas = Image.new("RGB", (width, sum(line.height for line in lines)), PAPER)
    _write(lines, canvas, 0)
    return canvas


def _draw_scale(explanation: Explanation, width: int, *, alpha: float, zoom: float) -> Image.Image:
    """The colours with their values, and beside them what they mean."""
    method = find_method(explanation.method)
    bar_width, bar_height = (round(side * zoom) for side in _BAR)
    right = bar_width + round(2 * _GAP * zoom)
    meaning = "warm towards malignant, cool towards benign" if method.signed else "warm towards malignant"
    lines = [
        *_lines(f"{method.title}: {meaning}", width - right, size=_TEXT * zoom),
        *_lines(f"{method.unit}; same scale for every image", width - right, size=_SMALL * zoom, ink=FAINT),
    ]
    for remark in say_remarks(explanation):
        lines += _lines(remark, width - right, size=_SMALL * zoom, bold=True)
    top, tick, small = round(3 * zoom), round(4 * zoom), load_font(_SMALL * zoom)
    below = top + bar_height + tick + round(_SPACED * _SMALL * zoom)
    canvas = Image.new("RGB", (width, max(below, sum(line.height for line in lines))), PAPER)
    _write(lines, canvas, right)
    canvas.paste(draw_colours((bar_width, bar_height), signed=method.signed, alpha=alpha), (0, top))
    draw, full = ImageDraw.Draw(canvas), explanation.scale.saturation
    ends = (-full, 0.0, full) if method.signed else (0.0, full)
    for number, value in enumerate(ends):
        at, under = number * (bar_width - 1) / (len(ends) - 1), top + bar_height
        draw.line([(at, under), (at, under + tick)], fill=INK)
        anchor = "la" if number == 0 else "ra" if number == len(ends) - 1 else "ma"
        draw.text((at, under + tick + 1), say_end(value), fill=INK, font=small, anchor=anchor)
    return canvas
