"""AUROCs of independent cases with their covariance, without resampling (DeLong).

It holds only where every case is a unit of its own, such as one image or one pooled probability a patient;
images of one patient need the bootstrap (`bootstrap.py`). The interval is made in `intervals.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clearmargin.evaluation.metrics import Floats, Labels
from clearmargin.types import MALIGNANT


def delong(labels: Labels, scores: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """AUROC of each row of scores, (k,) in [0, 1], and the covariance of these AUROCs, (k, k).

    The variance of the difference of models i and j is c[i, i] + c[j, j] - 2 c[i, j]. A covariance of 0 for
    an AUROC of 0 or 1 shows the limit of the method, not certainty.

    Args:
        labels: (N,), 0 benign or 1 malignant; at least two cases of each.
        scores: (k, N), of k models on the same cases; only their order matters, and ties count half.

    Raises:
        ValueError: a shape does not fit, a score is NaN, or a class has fewer than two cases.

    Source: DeLong et al., Biometrics 44:837 (1988); by midranks, in O(k N log N): Sun and Xu, IEEE Signal
    Processing Letters 21:1389 (2014).

    >>> areas, covariance = delong(np.array([0, 1, 0, 1]), np.array([[0.1, 0.4, 0.4, 0.8]]))
    >>> areas.tolist(), covariance.tolist()  # places (0.75, 1) and (1, 0.75): each variance is 1/32, and halved
    ([0.875], [[0.03125]])
    """
    truth = np.asarray(labels)
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or truth.shape != values.shape[1:]:
        raise ValueError(f"scores have the shape {values.shape}, and there are {len(truth)} labels: give (models, N)")
    if np.isnan(values).any():
        raise ValueError("a score is not a number, which has no rank")
    is_malignant = truth == MALIGNANT
    n_malignant, n_benign = int(is_malignant.sum()), int((~is_malignant).sum())
    if min(n_malignant, n_benign) < 2:
        raise ValueError(f"{n_malignant} malignant and {n_benign} benign cases: at least two of each are needed")
    ranks = stats.rankdata(values, axis=1)
    # The place of a case is the share of the other class's cases that it is on the right side of.
    malignant_places = (ranks[:, is_malignant] - stats.rankdata(values[:, is_malignant], axis=1)) / n_benign
    benign_places = 1 - (ranks[:, ~is_malignant] - stats.rankdata(values[:, ~is_malignant], axis=1)) / n_malignant
    covariance = np.cov(malignant_places) / n_malignant + np.cov(benign_places) / n_benign
    return malignant_places.mean(axis=1), np.atleast_2d(covariance)
