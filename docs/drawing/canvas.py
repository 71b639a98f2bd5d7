"""How the pictures of docs/ are drawn, whatever they show: wide, on white paper, in the report's colours."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from PIL import Image

from clearmargin.report.svg import Picture, drawing

WIDE = 720
_LETTERS = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), 12)
_MARGIN = 10
_COLOURS = {
    "ink": "#1f1b1d",
    "muted": "#5f585c",
    "grid": "#e5dfdc",
    "accent": "#a5195f",
    "neutral": "#6f7f8f",
    "paper": "#ffffff",
}


@contextmanager
def wide(height: float) -> Iterator[Figure]:
    """`drawing`, as wide as a page."""
    with drawing(height=height) as figure, matplotlib.rc_context(_LETTERS):
        figure.set_size_inches(WIDE / 72, height / 72)
        yield figure


def squares(axes: Axes, cells: Sequence[tuple[int, int]], *, color: str, alpha: float, gap: float = 0.1) -> None:
    """A square in each cell (column, row), all in one outline, which keeps the file small."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * (1 - 2 * gap) + gap
    outlines = [Outline(corners + cell, closed=True) for cell in cells]
    axes.add_patch(PathPatch(Outline.make_compound_path(*outlines), color=color, alpha=alpha, linewidth=0))


def outline(cells: Sequence[tuple[int, int]]) -> Outline:
    """The edges between these cells (column, row) and others."""
    inside = set(cells)
    edges = []
    for column, row in cells:
        sides = {
            (-1, 0): ((0, 0), (0, 1)),
            (1, 0): ((1, 0), (1, 1)),
            (0, -1): ((0, 0), (1, 0)),
            (0, 1): ((0, 1), (1, 1)),
        }
        for (right, down), edge in sides.items():
            if (column + right, row + down) not in inside:
                edges.append(Outline(np.add(edge, (column, row))))
    return Outline.make_compound_path(*edges)


def bare(axes: Axes, columns: int, rows: int) -> None:
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def percent(axes: Axes, *, absolute: bool = False) -> None:
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * (abs(value) if absolute else value):.3g} %")


def as_data(image: Image.Image, kind: str, **options: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def write(path: Path, picture: Picture, *, larger: float = 1.0) -> None:
    """The picture on white paper, with the size, colours and font that an image cannot have from its page."""
    (box,) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture.svg)
    width, height = (float(side) + 2 * _MARGIN for side in box)
    corner = f'x="{-_MARGIN}" y="{-_MARGIN}" width="{width:g}" height="{height:g}"'
    body = re.sub(r"var\(--plot-(\w+),[^)]*\)", lambda name: _COLOURS[name[1]], picture.svg)
    body = body.replace("</title>", f'</title><rect {corner} rx="6" fill="{_COLOURS["paper"]}"/>', 1)
    body = re.sub(r'viewBox="[^"]*"', f'viewBox="{-_MARGIN} {-_MARGIN} {width:g} {height:g}"', body, count=1)
    own = f'width="{width * larger:g}" height="{height * larger:g}" font-family="system-ui, sans-serif"'
    path.write_text(body.replace("<svg", f"<svg {own}", 1) + "\n", encoding="utf-8")
