"""From logit to decision: temperature, threshold, abstention, pooling. NumPy only.

Evaluation, the command line, Python, REST and slides all decide with this code, so that a figure in
the report and a decision on a new image can never disagree. Choosing the temperature and the
threshold is elsewhere (`evaluation/`); here they are only applied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearmargin.types import LABEL_NAMES

Floats = NDArray[np.float64]


def probability(logits: NDArray[np.floating], temperature: float = 1.0) -> Floats:
    """Calibrated probability of malignant, sigmoid(logit / temperature).

    Args:
        logits: any shape, any float dtype.
        temperature: above 0; 1 leaves the model's own probability.

    >>> probability(np.array([0.0, 2.0]), temperature=2.0).round(3).tolist()
    [0.5, 0.731]
    """
    with np.errstate(over="ignore"):  # an infinite quotient has the probability 0 or 1, as it should
        scaled = np.asarray(logits, dtype=np.float64) / temperature
    # The two-sided form never overflows: exp is taken of non-positive numbers only.
    decay = np.exp(-np.abs(scaled))
    return np.where(scaled >= 0, 1.0, decay) / (1.0 + decay)


def decide(
    probabilities: NDArray[np.floating],
    threshold: float,
    *,
    abstain_between: tuple[float, float] | None = None,
) -> NDArray[np.str_]:
    """Decision for each probability: `benign`, `malignant` or `abstain`.

    Args:
        probabilities: (N,), calibrated, in [0, 1].
        threshold: at or above it an image is called malignant.
        abstain_between: (low, high), open on both sides; inside it the decision is withheld.

    Raises:
        ValueError: a probability is NaN; it would otherwise pass for benign.

    >>> decide(np.array([0.1, 0.5, 0.9]), 0.5).tolist()
    ['benign', 'malignant', 'malignant']
    >>> decide(np.array([0.1, 0.5, 0.9]), 0.5, abstain_between=(0.2, 0.8)).tolist()
    ['benign', 'abstain', 'malignant']
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("a probability is not a number, which no threshold can decide")
    decisions = np.where(values >= threshold, LABEL_NAMES[1], LABEL_NAMES[0])
    if abstain_between is not None:
        low, high = abstain_between
        decisions = np.where((values > low) & (values < high), "abstain", decisions)
    return decisions


def pool_mean(values: NDArray[np.floating], groups: NDArray[np.integer], n_groups: int) -> Floats:
    """Mean of the values in each group (a slide, a patient); NaN for a group without values.

    Args:
        values: (N,).
        groups: (N,), each in [0, n_groups).
        n_groups: length of the result.

    >>> pool_mean(np.array([0.2, 0.4, 1.0]), np.array([0, 0, 1]), 3).round(3).tolist()
    [0.3, 1.0, nan]
    """
    sums = np.bincount(groups, weights=np.asarray(values, dtype=np.float64), minlength=n_groups)
    counts = np.bincount(groups, minlength=n_groups)
    means: Floats = np.divide(sums, counts, out=np.full(n_groups, np.nan), where=counts > 0)
    return means
