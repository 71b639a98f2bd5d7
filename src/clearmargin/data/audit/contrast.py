"""In which fact two sides of a table differ most, in words: benign and malignant images, or training and test.

Knows facts and their names only; whether a difference would hold for other patients is estimated in `trivial.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEW_VALUES = 16
"""A fact with no more values than this is a category: every value may have its own meaning."""

FACT_WORDS = {
    "width": "the width",
    "height": "the height",
    "aspect": "the ratio of width to height",
    "format": "the file format",
    "channels": "the number of channels",
    "bit_depth": "the bit depth",
    "bytes_per_pixel": "the file size in bytes per pixel",
    "site": "the site",
    "side": "the side",
    "view": "the view",
    "red": "the mean red",
    "green": "the mean green",
    "blue": "the mean blue",
    "spread": "the spread of grey",
}


@dataclass(frozen=True, slots=True)
class Sides:
    """Facts of images on two sides: `table` has a row for each image, `labels` (N,) is 0 or 1, `names` says of what."""

    table: pd.DataFrame
    labels: NDArray[np.int8]
    names: tuple[str, str]

    def of(self, fact: str) -> tuple[pd.Series, pd.Series]:
        """The values of a fact on either side."""
        values = self.table[fact]
        return values.loc[self.labels == 0], values.loc[self.labels == 1]


def find_separation(sides: Sides, facts: tuple[str, ...], *, most_values: int | None = None) -> str | None:
    """What separates the two sides without an exception, as a clause; None where no fact alone does.

    Args:
        sides: the images.
        facts: columns of the table, keys of FACT_WORDS.
        most_values: facts with more values than this are passed over.
    """
    for fact in facts:
        n_values = sides.table[fact].nunique(dropna=False)
        if most_values is not None and n_values > most_values:
            continue
        first, second = sides.of(fact)
        if n_values <= FEW_VALUES:
            if not _values(first) & _values(second):
                one, two = (_value_list(values) for values in (first, second))
                return (
                    f"{FACT_WORDS[fact]} is {one} in every one of the {sides.names[0]} images "
                    f"and {two} in every one of the {sides.names[1]}"
                )
        elif pd.api.types.is_numeric_dtype(first) and sides.table[fact].notna().all():
            for low, high, names in ((first, second, sides.names), (second, first, sides.names[::-1])):
                if low.max() < high.min():
                    return f"{FACT_WORDS[fact]} of every {names[0]} image is below that of every {names[1]} one"
    return None


def describe_difference(sides: Sides, facts: tuple[str, ...]) -> str:
    """The fact that by itself differs most between the two sides, as a clause."""
    return max(_difference(sides, fact) for fact in facts)[1]


def _difference(sides: Sides, fact: str) -> tuple[float, str]:
    """How far apart the sides are in one fact, 0 to 1, and the clause that says it."""
    values, what = sides.table[fact], FACT_WORDS[fact]
    if values.nunique(dropna=False) <= FEW_VALUES or not pd.api.types.is_numeric_dtype(values):
        one, two = (side.map(_written).value_counts(normalize=True) for side in sides.of(fact))
        gaps = one.sub(two, fill_value=0).abs()
        here = str(gaps.idxmax())
        shares = [_percent(float(side.get(here, 0))) for side in (one, two)]
        clause = (
            f"{what} is {here} in {shares[0]} of the {sides.names[0]} and {shares[1]} of the {sides.names[1]} images"
        )
        return float(gaps.sum() / 2), clause
    from clearmargin.evaluation.metrics import auroc  # noqa: PLC0415  (a second to import)

    numbers = values.fillna(values.median()).to_numpy(dtype=np.float64)
    medians = [_written(float(side.median())) for side in sides.of(fact)]
    clause = (
        f"{what} has the median {medians[0]} in the {sides.names[0]} and {medians[1]} in the {sides.names[1]} images"
    )
    return abs(2 * auroc(sides.labels, numbers) - 1), clause


def _values(values: pd.Series) -> set[object]:
    missing: set[object] = {None} if values.isna().any() else set()
    return set(values.dropna().unique()) | missing


def _value_list(values: pd.Series) -> str:
    met = values.map(_written).value_counts().index.tolist()
    return " or ".join(met[:3]) + (f" or one of {len(met) - 3:,} more" if len(met) > 3 else "")


def _written(value: object) -> str:
    """A value as a reader wants it.

    >>> _written(700.0), _written(0.12345), _written("PNG"), _written(float("nan"))
    ('700', '0.123', 'PNG', 'not given')
    """
    if isinstance(value, (int, float, np.number)):
        number = float(value)
        if np.isnan(number):
            return "not given"
        return f"{number:,.0f}" if number.is_integer() else f"{number:.3g}"
    return str(value) if isinstance(value, str) else "not given"


def _percent(share: float) -> str:
    """A share in per cent that is 0 or 100 only where that is exact.

    >>> _percent(0.9999), _percent(1.0), _percent(0.004)
    ('more than 99 %', '100 %', 'less than 1 %')
    """
    if 0.99 < share < 1:
        return "more than 99 %"
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
