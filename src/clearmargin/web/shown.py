"""Pictures that a served bundle brings: figures of its run, drawn examples, thumbnails of training images."""

from __future__ import annotations

import io
import re
import threading
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from clearmargin.types import LABEL_NAMES, Label
from clearmargin.web.answers import ExampleAnswer, FigureAnswer
from clearmargin.web.errors import ApiError
from clearmargin.web.served import Served
from clearmargin.web.serving import API

_EXAMPLES_OF_EACH = 3
_LABELS: tuple[Label, Label] = (0, 1)
_EXAMPLES: dict[str, tuple[Label, int]] = {
    f"{LABEL_NAMES[label]}-{number + 1}.png": (label, number)
    for number in range(_EXAMPLES_OF_EACH)
    for label in _LABELS
}
_STYLE = re.compile(r' style="([^"]*)"')
_drawing = threading.Lock()
"""matplotlib's settings are those of the whole process."""


def example_answers(served: Served) -> list[ExampleAnswer]:
    """The examples and where they are."""
    return [
        ExampleAnswer(name=name, label=_label_name(label), url=f"{API}/examples/{name}?model={quote(served.name)}")
        for name, (label, _) in _EXAMPLES.items()
    ]


def draw_example(served: Served, name: str) -> bytes:
    """An example as a PNG, as large as the model's input is, up to what the phantom draws.

    Raises:
        ApiError: there is none of this name.
    """
    if name not in _EXAMPLES:
        raise ApiError("not_found", "there is no such example; /api/v1/examples lists them.")
    spec = served.model.preprocessing
    return _draw(*_EXAMPLES[name], min(max(16, spec.width, spec.height), 256))


@lru_cache(maxsize=64)
def _draw(label: Label, seed: int, px: int) -> bytes:
    from clearmargin.data.phantom import draw_patch  # noqa: PLC0415  (SciPy, which few ask for)

    return _png(draw_patch(label, seed, px))


def draw_thumbnail(served: Served, case: int) -> bytes:
    """The picture of a training image as a PNG."""
    return _png(served.predictor.similar_cases.cases.thumbnails[case])


def figure_answers(served: Served) -> list[FigureAnswer]:
    """The figures of the run in whose folder the bundle lies; those that name patients are left out."""
    return [] if served.run is None else list(_figures(served.run))


@lru_cache(maxsize=16)
def _figures(run: Path) -> tuple[FigureAnswer, ...]:
    from clearmargin.report.document import plain  # noqa: PLC0415  (matplotlib)
    from clearmargin.report.pictures import general_plots  # noqa: PLC0415
    from clearmargin.report.run_files import read_run  # noqa: PLC0415

    with _drawing:
        plots = general_plots(read_run(run))
    return tuple(
        FigureAnswer(
            name=plot.name, title=plot.title, caption=plain(plot.caption), svg=without_styles(plot.picture.svg)
        )
        for plot in plots
        if plot is not None and plot.picture is not None
    )


def without_styles(svg: str) -> str:
    """The drawing with attributes in the place of styles, which a page that forbids inline styles would not apply.

    >>> without_styles('<path style="fill: none; stroke-width: 2"/>')
    '<path fill="none" stroke-width="2"/>'
    """
    return _STYLE.sub(lambda style: "".join(map(_attribute, style[1].split(";"))), svg)


def _attribute(declaration: str) -> str:
    name, _, value = (part.strip() for part in declaration.partition(":"))
    return f' {name}="{value}"' if value else ""


def _label_name(label: Label) -> str:
    return LABEL_NAMES[label]


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()
