"""Tables that the Python functions give: pandas, and shown in a notebook as what they are.

They are data frames in every respect. What is made of them (a slice, a copy, a sum) is a plain pandas.DataFrame, and
so is what a pickle of them holds, which can be read where Clearmargin is not installed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pandas as pd

from clearmargin.shown import Shown


class _LikeAnyFrame(type):
    """Takes every data frame for one of its own, so that `pandas.testing.assert_frame_equal` does."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, pd.DataFrame)


class ShownTable(Shown, pd.DataFrame, metaclass=_LikeAnyFrame):
    """The frame, its `attrs` too.

    Args:
        frame: whose columns and rows it takes.
        about: what a picture of it needs to know besides.

    >>> table = ShownTable(pd.DataFrame({"x": [1, 2, 3]}))
    >>> type(table[table["x"] > 1]).__name__
    'DataFrame'
    """

    _metadata = ("about",)

    def __init__(self, frame: pd.DataFrame, *, about: Mapping[str, Any] | None = None) -> None:
        pd.DataFrame.__init__(self, frame)  # type: ignore[call-arg]
        self.attrs = dict(frame.attrs)
        self.about = dict(about or {})

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str | None:
        drawn = Shown._repr_html_(self)
        return self.plain()._repr_html_() if drawn is None else drawn  # type: ignore[operator]

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return copy.copy, (self.plain(),)

    def plain(self) -> pd.DataFrame:
        """The same table as nothing but a pandas.DataFrame."""
        return self.copy()


class PredictionTable(ShownTable):
    """What `Predictor.predict` gives; `about` has `alone` and `context`, the rules, and `in_context` by row."""


class SplitTable(ShownTable):
    """What `split` gives."""


class ComparisonTable(ShownTable):
    """What `compare` gives."""


class ExplanationTable(ShownTable):
    """What `explain` gives; `about` has `folder`, where the pictures are."""
