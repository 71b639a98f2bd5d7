"""The figures themselves, as pure functions of labels and probabilities, or of a confusion table.

Figures of the ranking and of calibration take `labels` and `probabilities`; figures at a threshold take
the table that `confusion` makes, so that one definition serves a single table and thousands of resampled
ones. A figure that is undefined is NaN here, never a made-up 0; the words for it are put in
`evaluation/assemble.py`, and intervals are made in `evaluation/bootstrap.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from clearmargin.decision import decide
from clearmargin.types import LABEL_NAMES, MALIGNANT

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]
Table = NDArray[np.integer] | NDArray[np.floating]

ECE_BINS = 15


def auroc(labels: Labels, probabilities: Probabilities) -> float:
    """Area under the ROC curve: the chance that a malignant image ranks above a benign one, ties counting half.

    In [0, 1]; 1 means that every malignant image ranks above every benign one, 0.5 is chance. NaN when a
    class is absent.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1]; only their order matters.

    Source: Hanley and McNeil, Radiology 143:29 (1982); computed by scikit-learn.

    >>> auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]))  # pairs won: 1, 0.5, 1, 1 of 4
    0.875
    """
    if np.all(labels == 0) or np.all(labels == 1):
        return float("nan")
    return float(sklearn_metrics.roc_auc_score(labels, probabilities))


def auprc(labels: Labels, probabilities: Probabilities) -> float:
    """Average precision: PPV at each distinct threshold, weighted by the gain in sensitivity, not interpolated.

    In [0, 1]; 1 means that every malignant image ranks above every benign one; a model that knows nothing
    has the share of malignant images. NaN when no image is malignant.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1]; only their order matters.

    Source: the definition of `sklearn.metrics.average_precision_score`, which computes it.

    >>> round(auprc(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7])), 4)  # 1/2 * 1/1 + 1/2 * 2/3
    0.8333
    """
    if np.all(labels == 0):
        return float("nan")
    return float(sklearn_metrics.average_precision_score(labels, probabilities))


def calls(probabilities: Probabilities, threshold: float) -> NDArray[np.bool_]:
    """True where `decision.decide` calls the image malignant: (N,).

    >>> calls(np.array([0.2, 0.5]), 0.5).tolist()
    [False, True]
    """
    return np.equal(decide(probabilities, threshold), LABEL_NAMES[MALIGNANT])


def confusion(labels: Labels, called: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts [[tn, fp], [fn, tp]]: rows are the truth, columns the call, benign first.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        called: (N,), True where the image was called malignant.

    >>> confusion(np.array([0, 0, 0, 1, 1]), np.array([False, False, True, False, True])).tolist()
    [[2, 1], [1, 1]]
    """
    cells = 2 * np.asarray(labels, dtype=np.int64) + np.asarray(called, dtype=np.int64)
    return np.bincount(cells, minlength=4).astype(np.int64).reshape(2, 2)


def sensitivity(table: Table) -> Floats:
    """Share of the malignant images that were called malignant, tp / (tp + fn).

    In [0, 1]; 1 means that no malignant image was missed. NaN when no image is malignant.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(sensitivity(np.array([[2, 1], [1, 3]])))
    0.75
    """
    return _share(table[..., 1, 1], table[..., 1, 0])


def specificity(table: Table) -> Floats:
    """Share of the benign images that were called benign, tn / (tn + fp).

    In [0, 1]; 1 means no false alarm. NaN when no image is benign.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(specificity(np.array([[2, 2], [1, 3]])))
    0.5
    """
    return _share(table[..., 0, 0], table[..., 0, 1])


def ppv(table: Table) -> Floats:
    """Positive predictive value (precision): share of the images called malignant that are, tp / (tp + fp).

    In [0, 1]; 1 means that each such call was right. It moves with the share of malignant images in the
    data. NaN when nothing was called malignant.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(ppv(np.array([[2, 1], [1, 3]])))
    0.75
    """
    return _share(table[..., 1, 1], table[..., 0, 1])


def npv(table: Table) -> Floats:
    """Negative predictive value: share of the images called benign that are, tn / (tn + fn).

    In [0, 1]; 1 means that each such call was right. It moves with the share of malignant images in the
    data. NaN when nothing was called benign.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(npv(np.array([[3, 2], [1, 3]])))
    0.75
    """
    return _share(table[..., 0, 0], table[..., 1, 0])


def accuracy(table: Table) -> Floats:
    """Share of the images whose call was right, (tn + tp) / all.

    In [0, 1]; 1 means no error. Where classes are unequal, always calling the larger one scores its share.
    NaN for an empty table.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(accuracy(np.array([[2, 1], [1, 4]])))
    0.75
    """
    return _share(table[..., 0, 0] + table[..., 1, 1], table[..., 0, 1] + table[..., 1, 0])


def balanced_accuracy(table: Table) -> Floats:
    """Mean of sensitivity and specificity.

    In [0, 1]; 1 means no error, 0.5 is what calling everything the same scores. NaN when a class is absent.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(balanced_accuracy(np.array([[2, 2], [1, 3]])))  # (0.75 + 0.5) / 2
    0.625
    """
    return (sensitivity(table) + specificity(table)) / 2


def f1(table: Table) -> Floats:
    """F1 of the malignant class, 2 tp / (2 tp + fp + fn), the harmonic mean of sensitivity and PPV.

    In [0, 1]; 1 means that all malignant images and nothing else were called malignant. NaN when no image
    is malignant and none was called so.

    Args:
        table: (..., 2, 2), [[tn, fp], [fn, tp]]; the result has the leading shape.

    >>> float(f1(np.array([[9, 1], [1, 3]])))  # 6 / (6 + 1 + 1)
    0.75
    """
    return _share(2 * table[..., 1, 1], table[..., 0, 1] + table[..., 1, 0])


def brier(labels: Labels, probabilities: Probabilities) -> float:
    """Mean squared difference between probability and label.

    In [0, 1]; 0 is perfect, 1 means certain and always wrong; always saying 0.5 scores 0.25. NaN without
    images.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].

    Source: Brier, Monthly Weather Review 78:1 (1950), for two classes.

    >>> round(brier(np.array([0, 1]), np.array([0.2, 0.6])), 4)  # (0.04 + 0.16) / 2
    0.1
    """
    if len(labels) == 0:
        return float("nan")
    return float(np.mean((np.asarray(probabilities, dtype=np.float64) - labels) ** 2))


def ece(labels: Labels, probabilities: Probabilities, *, n_bins: int = ECE_BINS) -> float:
    """Expected calibration error of the probability of malignant, over bins of equal width.

    The mean, weighted by images, of each bin's |mean probability - observed share of malignant|. In [0, 1];
    0 is perfect in the limit of many images, 1 means certain and always wrong. NaN without images.

    On small data it is biased upwards: a perfectly calibrated model scores above 0, since a bin of n images
    with probability p misses its share by about sqrt(p (1 - p) / n) by chance. Compare it only between
    tables of about the same size. Resampling adds such gaps once more, so the bootstrap's percentiles for a
    well calibrated model can all lie above the value itself.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        n_bins: bins are [i / n_bins, (i + 1) / n_bins), the last one closed.

    Source: Naeini et al., AAAI 2015, applied to the probability of one class.

    >>> round(ece(np.array([0, 1, 1]), np.array([0.1, 0.6, 0.8]), n_bins=2), 4)  # 1/3 * 0.1 + 2/3 * 0.3
    0.2333
    """
    if len(labels) == 0:
        return float("nan")
    gaps = np.asarray(probabilities, dtype=np.float64) - labels
    per_bin = np.bincount(bin_index(probabilities, n_bins), weights=gaps, minlength=n_bins)
    return float(np.abs(per_bin).sum() / len(gaps))


def bin_index(probabilities: Probabilities, n_bins: int) -> NDArray[np.intp]:
    """The bin of equal width that each probability falls in, from 0; 1.0 belongs to the last.

    >>> bin_index(np.array([0.0, 0.5, 0.99, 1.0]), 2).tolist()
    [0, 1, 1, 1]
    """
    inner_edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(inner_edges, np.asarray(probabilities, dtype=np.float64), side="right")


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Mean negative log-likelihood (binary cross-entropy) in nats.

    0 or above; 0 is perfect, ln 2 = 0.693 is what always saying 0.5 scores. A probability of exactly 0 or 1
    is taken as 2.2e-16 away from it, so the figure stays finite. NaN without images.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].

    Computed by scikit-learn.

    >>> round(log_loss(np.array([0, 1]), np.array([0.5, 0.25])), 4)  # (ln 2 + ln 4) / 2
    1.0397
    """
    if len(labels) == 0:
        return float("nan")
    values = np.asarray(probabilities, dtype=np.float64)
    return float(sklearn_metrics.log_loss(labels, values, labels=[0, 1]))


PROBABILITY_FIGURES: Mapping[str, Callable[[Labels, Probabilities], float]] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "ece": ece,
}
THRESHOLD_FIGURES: Mapping[str, Callable[[Table], Floats]] = {
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "ppv": ppv,
    "npv": npv,
    "f1": f1,
}
FIGURES: tuple[str, ...] = ("auroc", "auprc", *THRESHOLD_FIGURES, "brier", "ece")
"""Every figure that has an interval, in the order of metrics.json."""


def _share(part: Table, rest: Table) -> Floats:
    """The first as a share of both, NaN where both are 0."""
    whole = np.asarray(part + rest, dtype=np.float64)
    share = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
