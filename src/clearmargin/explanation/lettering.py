"""Text in pictures: the font, letters that it lacks, and lines that are too short for their text."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from clearmargin.errors import one_line

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_LEGIBLE_PX = 900
_NO_LETTER = "\U0010ffff"


def zoom_of(width: int) -> float:
    """How much larger than their own size texts are in a picture so many pixels wide, which is shown reduced.

    >>> zoom_of(640), zoom_of(1800), zoom_of(20_000)
    (1.0, 2.0, 2.5)
    """
    return min(max(width / _LEGIBLE_PX, 1.0), 2.5)


@lru_cache(maxsize=64)
def load_font(size: float, *, bold: bool = False) -> Font:
    """DejaVu Sans, which comes with matplotlib; where that has come without it, the few letters of Pillow's own."""
    file = _font_folder() / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size) if file.is_file() else ImageFont.load_default(size=size)


@lru_cache(maxsize=1)
def _font_folder() -> Path:
    found = find_spec("matplotlib")  # does not import it, which would take a second
    package = Path(found.origin).parent if found is not None and found.origin else Path()
    return package / "mpl-data" / "fonts" / "ttf"


def spell(text: str) -> str:
    r"""The text on one line in letters that the font has, any other as its code.

    >>> print(spell("Brüste – 日.png"))
    Brüste – \u65e5.png
    """
    composed = unicodedata.normalize("NFC", one_line(text))
    return "".join(letter if _is_there(letter) else ascii(letter)[1:-1] for letter in composed)


@lru_cache(maxsize=4096)
def _is_there(letter: str) -> bool:
    if letter.isascii():
        return True
    font = load_font(16)
    return bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


def wrap(text: str, width: float, font: Font) -> list[str]:
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
                fits = next(end for end in range(len(rest), 0, -1) if end == 1 or font.getlength(rest[:end]) <= width)
                lines[-1], rest = rest[:fits], rest[fits:]
                lines.append("")
    return [line for line in lines if line]


def fit(text: str, width: float, font: Font) -> str:
    """The text, its beginning left out where it is too long: the end of a name tells more."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[max(1, len(text) // 50) :]
    return "…" + text
