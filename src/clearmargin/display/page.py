"""The pieces of which every picture is made: tags whose text is escaped, tables, thumbnails, decisions, bars.

A decision is a word and a shape, never a colour alone. Drawings are `<img>` with a `data:` address: viewers that
distrust a notebook drop `<svg>` and `<style>`, and keep these.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clearmargin.errors import ImageError
from clearmargin.images.limits import Pixels
from clearmargin.report.findings import clean
from clearmargin.report.svg import Picture
from clearmargin.report.thumbnails import LONGEST_PX, data_uri
from clearmargin.report.words import decimal
from clearmargin.types import Decision

DECISIONS: dict[Decision, tuple[str, str]] = {
    "malignant": ("◆", "Malignant"),
    "benign": ("○", "Benign"),
    "abstain": ("◪", "Cannot tell"),
    "refused": ("✕", "Refused"),
}
"""The shape and the word of each; those of the page of `serve`."""

Load = Callable[[str], Pixels]
Between = tuple[float, float] | None

_LARGEST_PICTURE = 120_000
"""Characters of a drawing; a curve through tens of thousands of images is left to the report."""
_BAR_PX = (140, 16)
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,sans-serif"


def block(*children: str) -> str:
    """The whole picture of a value: the children under our own style, which reaches nothing else."""
    return str(tag("div", tag("style", Markup(_style())), *children, class_="clearmargin"))


@functools.cache
def _style() -> str:
    lines = (Path(__file__).parent / "style.css").read_text(encoding="utf-8").splitlines()
    return " ".join(line.strip() for line in lines)


def tag(name: str, *children: str, **attributes: str | int | None) -> Markup:
    """An element; text and attributes are escaped, other elements are not, and an attribute that is None is left out.

    >>> print(tag("td", "a < b", tag("b", "c"), class_="n", title=None))
    <td class="n">a &lt; b<b>c</b></td>
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = Markup("").join(Markup(' {}="{}"').format(Markup(key), value) for key, value in given.items())
    opening = Markup("<{}{}>").format(Markup(name), inside)
    if name in ("img", "br"):
        return opening
    return opening + Markup("").join(children) + Markup("</{}>").format(Markup(name))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> Markup:
    """A table; the columns of these numbers stand to the right."""
    styles = [_to("right" if number in numbers else "left") for number in range(len(columns))]
    head = tag("tr", *(tag("th", name, scope="col", style=style) for name, style in zip(columns, styles, strict=True)))
    body = [tag("tr", *(tag("td", cell, style=to) for cell, to in zip(row, styles, strict=True))) for row in rows]
    return tag("table", tag("thead", head), tag("tbody", *body))


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A table of names and what is known of each."""
    rows = [
        tag("tr", tag("th", name, scope="row", class_="muted", style=_to("left")), tag("td", text, style=_to("left")))
        for name, text in pairs
    ]
    return tag("table", tag("tbody", *rows))


def _to(side: str) -> str:
    """In the cell itself, since notebooks have rules of their own for tables, and some drop style sheets."""
    return f"text-align:{side}"


def thumbnail(path: str, load: Load, *, px: int = 64) -> Markup:
    """The image, small, or a placeholder with the reason why there is none.

    Args:
        path: of the image.
        load: gives its pixels, or raises ImageError.
        px: of the longer side on the page.
    """
    name = clean(path.replace("\\", "/").rpartition("/")[2], 60)
    try:
        return picture_of(load(path), alt=name, px=px)
    except ImageError as error:
        return tag("span", f"no picture: {clean(error.reason, 80)}", class_="none")


def picture_of(pixels: Pixels, *, alt: str, px: int = 64) -> Markup:
    """Pixels as a small image, `px` long on the page, from which a smaller one is enlarged pixel by pixel."""
    source, width, height = data_uri(pixels, longest_px=max(px, LONGEST_PX))
    scale = px / max(width, height)
    size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
    return tag("img", src=source, alt=alt, class_="pixels", **size)


def figure(image: str, caption: str, *, wide: bool = False) -> Markup:
    return tag("figure", image, tag("figcaption", caption), class_="wide" if wide else None)


def drawing(picture: Picture, *, alt: str, px: int = 330) -> Markup:
    """A drawing of the report, in the colours that suit light and dark alike."""
    if len(picture.svg) > _LARGEST_PICTURE:
        return tag("span", f"{alt}: too large to be shown here; it is in the report.", class_="none")
    lettered = picture.svg.replace("<svg ", f'<svg font-family="{_FONT}" ', 1)
    return tag("img", src=_svg_uri(lettered), alt=alt, width=px)


def mark(decision: str) -> Markup:
    """A decision as shape and word; what is none of ours, as it is."""
    shape, word = next((both for name, both in DECISIONS.items() if name == decision), ("", clean(decision, 40)))
    return tag("span", tag("span", shape, aria_hidden="true"), f" {word}", class_=f"word {clean(decision, 40)}")


def bar(probability: float | None, threshold: float, between: Between) -> Markup:
    """A probability on a line from 0 to 1, with the threshold, and dashed where the decision is withheld."""
    width, height = _BAR_PX
    inner, middle = width - 8, height / 2

    def at(share: float) -> str:
        return f"{4 + inner * min(max(share, 0.0), 1.0):.1f}"

    parts = [f"<path d='M4 {middle}H{4 + inner}' stroke='#8886' stroke-width='4' stroke-linecap='round'/>"]
    words = []
    if probability is not None:
        parts.append(f"<path d='M4 {middle}H{at(probability)}' stroke='#c93a78' stroke-width='4'/>")
        parts.append(f"<circle cx='{at(probability)}' cy='{middle}' r='4' fill='#c93a78'/>")
        words.append(f"probability {decimal(probability)}")
    if between is not None:
        low, high = between
        span = max((high - low) * inner, 2.0)
        box = f"x='{at(low)}' y='1.5' width='{span:.1f}' height='{height - 3}'"
        parts.append(f"<rect {box} fill='none' stroke='#888' stroke-dasharray='3 2'/>")
        words.append(f"cannot tell from {decimal(low)} to {decimal(high)}")
    parts.append(f"<path d='M{at(threshold)} 0V{height}' stroke='#888' stroke-width='2'/>")
    words.append(f"malignant from {decimal(threshold)}")
    text = "".join(parts)
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'>{text}</svg>"
    return tag("img", src=_svg_uri(svg), alt="; ".join(words), width=width, height=height)


def more(total: int, shown: int, noun: str) -> list[Markup]:
    """That there is more than is shown."""
    return [tag("p", f"… and {total - shown:,} more {noun}.", class_="muted")] if total > shown else []


def text_or_none(value: Any) -> str | None:
    """The value as text on one line; None where it is missing."""
    return clean(value, 60) if isinstance(value, str) and value else None


def _svg_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
