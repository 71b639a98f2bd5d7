"""Values that a notebook shows as what they are: the parts that make them do not know how they are drawn.

Drawing is the work of `display/`, which stands above nearly every part. It is found by its name, and only when a
notebook asks: the one import upwards, and the reason why nothing of it is loaded anywhere else.
"""

from __future__ import annotations

import importlib


class Shown:
    """Has a picture in notebooks, if `clearmargin.display.RENDERERS` has the name of its class."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        """A part of an HTML page that needs nothing else; None leaves a notebook to the plain text."""
        text: str | None = importlib.import_module("clearmargin.display").render(self)
        return text
