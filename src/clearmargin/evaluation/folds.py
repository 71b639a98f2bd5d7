"""Figures over the folds of a cross-validation, and over seeds: their mean, their spread, an honest interval.

Folds share most of their training images, so they are not independent, and the standard error of their mean is
larger than s / sqrt(n). The figures of one fold are computed elsewhere (`metrics.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from clearmargin.evaluation.bootstrap import LEVEL
from clearmargin.evaluation.metrics import Floats


def across_folds(
    values: Floats | Sequence[float], *, test_share: float, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> dict[str, Any]:
    """A figure over folds: `mean`, `sd`, the 95 % `ci` of what the procedure achieves, and `n`, the folds that have it.

    The interval is mean ± t * s * sqrt(1 / n + n_test / n_train) with n - 1 degrees of freedom, s the standard
    deviation over folds. What is left out or cannot be had is said in `note` or `reason`.

    Args:
        values: (repeats * folds,), NaN where the figure is undefined in a fold.
        test_share: share of the images (or patients) that are tested on in each fold, in (0, 1); 1 / folds.
        bounds: between which the figure lies by definition; the interval is cut off there. None for no bounds.

    Raises:
        ValueError: no value, or a share outside (0, 1).

    Source: Nadeau and Bengio, Machine Learning 52:239 (2003); for repeated folds: Bouckaert and Frank, PAKDD 2004.

    >>> across_folds([0.8, 0.9, 0.7, 0.8, float("nan")], test_share=0.2)["note"]
    'undefined in 1 of 5 folds, which is left out'
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) == 0:
        raise ValueError("there is no fold to average over")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share:g}, and it must lie between 0 and 1")
    defined = given[np.isfinite(given)]
    result: dict[str, Any] = _moments(defined) | {"ci": None, "n": len(defined)}
    if missing := len(given) - len(defined):
        verb = "is" if missing == 1 else "are"
        result["note"] = f"undefined in {missing} of {len(given)} folds, which {verb} left out"
    if len(defined) < 2:
        result["reason"] = f"defined in {len(defined)} of {len(given)} folds; an interval needs two"
        return result
    sd = float(result["sd"])
    if sd == 0:
        result["reason"] = "the folds agree, and an interval without width would look like certainty"
        return result
    error = sd * math.sqrt(1 / len(defined) + test_share / (1 - test_share))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(defined) - 1)) * error
    ends = np.array([result["mean"] - half, result["mean"] + half])
    result["ci"] = (ends if bounds is None else np.clip(ends, *bounds)).tolist()
    return result


def spread(values: Floats | Sequence[float]) -> dict[str, Any]:
    """A figure over seeds: `values` as given (null where undefined), and `mean`, `sd`, `min`, `max` of the defined.

    There is no interval: seeds tell how much luck in training moves the figure on the same patients, and nothing of
    other patients. What cannot be had is null.

    Args:
        values: (seeds,), NaN where the figure is undefined.

    >>> spread([0.8, 0.9])["min"], spread([0.8, 0.9])["max"]
    (0.8, 0.9)
    """
    given = np.asarray(values, dtype=np.float64)
    defined = given[np.isfinite(given)]
    return {
        "values": [float(value) if math.isfinite(value) else None for value in given],
        **_moments(defined),
        "min": float(defined.min()) if len(defined) else None,
        "max": float(defined.max()) if len(defined) else None,
    }


def _moments(defined: Floats) -> dict[str, float | None]:
    if len(defined) == 0:
        return {"mean": None, "sd": None}
    # Equal values have no spread, whatever the rounding of their mean says.
    sd = None if len(defined) < 2 else 0.0 if np.ptp(defined) == 0 else float(defined.std(ddof=1))
    return {"mean": float(defined.mean()), "sd": sd}
