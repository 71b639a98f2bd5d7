"""Calibration: the temperature that makes probabilities honest, and the bins that show whether they are.

Applying the temperature is elsewhere (`decision.probability`); so are the Brier score and the ECE (`metrics.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from clearmargin.decision import probability
from clearmargin.errors import DataError
from clearmargin.evaluation.metrics import Floats, Labels, Probabilities, bin_index
from clearmargin.types import LABEL_NAMES

TEMPERATURE_RANGE = (0.05, 20.0)


def fit_temperature(labels: Labels, logits: NDArray[np.floating]) -> float:
    """The temperature T that minimises the log loss of sigmoid(logit / T), within [0.05, 20].

    Above 1 the model was too certain, below 1 too hesitant; the order of the images never changes. The
    lower bound is met when the logits separate the classes, the upper when they know nothing of them; when
    all logits are 0 no T changes anything, and it is 1.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images that the model was not trained on.
        logits: (N,), finite.

    Raises:
        DataError: one class only, or a logit that is not finite.

    Source: Guo et al., ICML 2017. The loss is convex in 1 / T, so its minimum is the one zero of its slope.

    >>> round(fit_temperature(np.array([0, 0, 0, 1]), np.array([-2.0, -2.0, -2.0, -2.0])), 3)  # 2 / ln 3
    1.82
    """
    truth, values = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    check_both_classes(truth, "a temperature cannot be fitted")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"the logit of row {row + 1} is {values[row]}, so no temperature can be fitted: the training diverged; "
            "try a lower train.learning_rate."
        )
    if not values.any():
        return 1.0
    lowest, highest = (math.log(bound) for bound in TEMPERATURE_RANGE)

    def slope(log_temperature: float) -> float:
        """Of the log loss in 1 / T: below 0 where the temperature is too high."""
        return float(np.mean((probability(values, math.exp(log_temperature)) - truth) * values))

    if slope(lowest) <= 0:
        return TEMPERATURE_RANGE[0]
    if slope(highest) >= 0:
        return TEMPERATURE_RANGE[1]
    return math.exp(optimize.brentq(slope, lowest, highest, xtol=1e-12))


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """Probability against observed share of malignant in bins of equal width; every array is (n_bins,).

    `lower` and `upper` are the edges; `count` the images; `mean_probability` and `observed` the mean
    probability and the share of malignant images; `low` and `high` the Wilson 95 % interval of that share.
    The last four are NaN in an empty bin.
    """

    lower: Floats
    upper: Floats
    count: NDArray[np.int64]
    mean_probability: Floats
    observed: Floats
    low: Floats
    high: Floats


def reliability_bins(labels: Labels, probabilities: Probabilities, *, n_bins: int = 10) -> ReliabilityBins:
    """The bins of a reliability diagram: [i / n_bins, (i + 1) / n_bins), the last one closed.

    The Wilson interval counts images as independent; where a patient has many images the truth is wider.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        n_bins: 1 or more.

    Source: Wilson, J. Am. Stat. Assoc. 22:209 (1927), by SciPy.

    >>> bins = reliability_bins(np.array([0, 1, 1, 1]), np.array([0.1, 0.3, 0.8, 1.0]), n_bins=2)
    >>> bins.count.tolist(), bins.mean_probability.round(3).tolist(), bins.observed.tolist()
    ([2, 2], [0.2, 0.9], [0.5, 1.0])
    """
    bins = bin_index(probabilities, n_bins)
    count = np.bincount(bins, minlength=n_bins).astype(np.int64)
    malignant = np.bincount(bins, weights=labels, minlength=n_bins).astype(np.int64)
    summed = np.bincount(bins, weights=probabilities, minlength=n_bins)
    filled = count > 0
    mean_probability, observed, low, high = np.full((4, n_bins), np.nan)
    mean_probability[filled] = summed[filled] / count[filled]
    observed[filled] = malignant[filled] / count[filled]
    for place in np.flatnonzero(filled):
        test = stats.binomtest(int(malignant[place]), int(count[place]))
        low[place], high[place] = test.proportion_ci(confidence_level=0.95, method="wilson")
    edges = np.arange(n_bins + 1) / n_bins
    return ReliabilityBins(
        lower=edges[:-1],
        upper=edges[1:],
        count=count,
        mean_probability=mean_probability,
        observed=observed,
        low=low,
        high=high,
    )


def check_both_classes(labels: Labels, consequence: str) -> None:
    """Nothing, when both classes are there.

    Raises:
        DataError: otherwise; its line begins with the consequence.
    """
    present = np.unique(labels)
    if len(present) == 0:
        raise DataError(f"{consequence} without images: give the validation split some.")
    if len(present) == 1:
        raise DataError(
            f"{consequence} on one class (all {len(labels):,} images are {LABEL_NAMES[int(present[0])]}): put patients "
            "of both classes into the validation split, for example with a larger share (--set "
            "split.fractions=[0.6,0.2,0.2])."
        )
