"""Tests of two models on the same cases, and the correction for many of them. The bootstrap's is in `intervals.py`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clearmargin.evaluation.delong import delong
from clearmargin.evaluation.metrics import Floats, Labels

Mask = NDArray[np.bool_]

_NORMAL_QUANTILE = float(stats.norm.ppf(0.975))


def holm(p_values: Floats) -> Floats:
    """The p-values (n,) corrected for their number: below 0.05 by mere chance, any of them is in 5 %, at most.

    NaN stays, and does not count.

    Source: Holm, Scandinavian Journal of Statistics 6:65 (1979).

    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(3).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    order = np.argsort(p_values, kind="stable")[: np.isfinite(p_values).sum()]
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def mcnemar(right_a: Mask, right_b: Mask) -> float:
    """The exact two-sided p-value that A and B are right equally often, each case a person of its own.

    Only the cases that just one of the two has right count; without any, it is 1.

    Args:
        right_a: (N,), whether A was right.
        right_b: (N,), whether B was.

    Source: McNemar, Psychometrika 12:153 (1947); the binomial distribution is SciPy's.

    >>> mcnemar(np.array([True] * 6 + [False]), np.array([False] * 6 + [True]))  # 2 (1 + 7) / 2 ** 7
    0.125
    """
    discordant = int((right_a != right_b).sum())
    if discordant == 0:
        return 1.0
    return float(stats.binomtest(int((right_a & ~right_b).sum()), discordant).pvalue)


def clustered_mcnemar(right_a: Mask, right_b: Mask, patients: NDArray[np.integer]) -> float:
    """The two-sided p-value that A and B are right equally often, for K patients with several images.

    The chi-squared statistic is (K - 1) / K times the squared sum, by the sum of squares, of each patient's
    images that A alone has right less those that B alone has. It needs some dozen patients to hold. NaN for one.

    Args:
        right_a: (N,), whether A was right.
        right_b: (N,), whether B was.
        patients: (N,), the patient of each image, any number.

    Source: Obuchowski, Statistics in Medicine 17:1495 (1998).

    >>> right = np.array([True, True, False, True])
    >>> round(clustered_mcnemar(right, ~right, np.array([0, 0, 1, 2])), 3)  # 2/3 * (2 - 1 + 1) ** 2 / (4 + 1 + 1)
    0.505
    """
    names, units = np.unique(patients, return_inverse=True)
    gains = np.bincount(units, weights=right_a.astype(np.float64) - right_b)
    if len(names) < 2:
        return math.nan
    squares = float((gains**2).sum())
    if squares == 0:
        return 1.0
    return float(stats.chi2.sf((len(names) - 1) / len(names) * gains.sum() ** 2 / squares, df=1))


def delong_difference(labels: Labels, probabilities: Floats) -> tuple[float, float, float] | None:
    """(low, high, p): the 95 % interval of AUROC A - B and its p-value, each case a person of its own.

    None where DeLong's variance does not hold: fewer than two cases of a class, or a variance of 0.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (2, N), of A and of B.

    Source: as `delong`.

    >>> delong_difference(np.array([0, 1]), np.array([[0.2, 0.4], [0.3, 0.1]])) is None
    True
    """
    if np.bincount(np.asarray(labels), minlength=2).min() < 2:
        return None
    areas, covariance = delong(labels, probabilities)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= np.finfo(np.float64).eps:
        return None
    difference, error = float(areas[0] - areas[1]), math.sqrt(variance)
    low, high = difference - _NORMAL_QUANTILE * error, difference + _NORMAL_QUANTILE * error
    return max(low, -1.0), min(high, 1.0), float(2 * stats.norm.sf(abs(difference) / error))
