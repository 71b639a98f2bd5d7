"""What notebooks show of our values, as a part of an HTML page that needs nothing else and asks for nothing.

Every picture has a bounded size, says in words what it says in colour, and escapes what comes from data. It keeps
its meaning where a notebook's viewer drops styles: tables, words and images of `data:` carry it. Values come here
through `shown.Shown`; a part is imported when its first value is shown.
"""

from __future__ import annotations

import importlib

from clearmargin.errors import ClearmarginError

RENDERERS = {
    "Manifest": "images.show_manifest",
    "Audit": "images.show_audit",
    "SplitTable": "images.show_split",
    "AugmentedImages": "images.show_augmented",
    "Run": "models.show_run",
    "Predictor": "models.show_predictor",
    "ComparisonTable": "models.show_comparison",
    "PredictionTable": "answers.show_predictions",
    "ExplanationTable": "answers.show_explanations",
}
"""The name of a class, and what draws its values: a module of this part, and a function there."""


def render(value: object) -> str | None:
    """The value as a part of a page; None where it is not what its class promises, as a table whose columns are gone.

    A value whose files cannot be read any more is shown as the line that says so.
    """
    name = next(kind.__name__ for kind in type(value).__mro__ if kind.__name__ in RENDERERS)
    module, _, function = RENDERERS[name].partition(".")
    try:
        drawn: str | None = getattr(importlib.import_module(f"clearmargin.display.{module}"), function)(value)
    except ClearmarginError as error:
        from clearmargin.display.page import block, tag  # noqa: PLC0415  (few values are damaged)

        return block(tag("p", str(error), class_="warn"))
    return drawn
