"""What figures and probabilities become where malignant images are more or less common than in the data.

Both rest on one assumption: that benign and malignant images look the same there, and only their shares differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clearmargin.errors import UsageError
from clearmargin.evaluation.metrics import Floats


def ppv_npv_at(sensitivity: ArrayLike, specificity: ArrayLike, prevalence: float) -> tuple[Floats, Floats]:
    """PPV and NPV at the prevalence, by Bayes' theorem, each of the shape of the two arguments together.

    NaN where the argument is, and where nothing is called malignant (PPV) or benign (NPV).

    Args:
        sensitivity: in [0, 1]; one number, or one for each resample.
        specificity: likewise.
        prevalence: share of malignant images, in [0, 1].

    Raises:
        UsageError: a prevalence outside [0, 1].

    >>> ppv, npv = ppv_npv_at(0.9, 0.9, 0.1)  # 0.09 true and 0.09 false alarms
    >>> round(float(ppv), 6), round(float(npv), 4)
    (0.5, 0.9878)
    """
    if not 0 <= prevalence <= 1:
        raise UsageError(f"prevalence is {prevalence:g}; it is a share, from 0 to 1.")
    found, spared = np.asarray(sensitivity, dtype=np.float64), np.asarray(specificity, dtype=np.float64)
    true_alarms, false_alarms = found * prevalence, (1 - spared) * (1 - prevalence)
    true_rest, false_rest = spared * (1 - prevalence), (1 - found) * prevalence
    return _share(true_alarms, false_alarms), _share(true_rest, false_rest)


def shift_prior(probabilities: NDArray[np.floating], from_prevalence: float, to_prevalence: float) -> Floats:
    """The probabilities of malignant where its prevalence is another: the odds times the ratio of the odds.

    Args:
        probabilities: any shape, in [0, 1], calibrated at `from_prevalence`.
        from_prevalence: share of malignant images in the data that calibrated them, in (0, 1).
        to_prevalence: the share where they are to hold, in (0, 1).

    Raises:
        UsageError: a prevalence of 0, 1 or beyond.

    Source: Saerens, Latinne and Decaestecker, Neural Computation 14:21 (2002), equation 2.4.

    >>> shift_prior(np.array([0.0, 0.5, 1.0]), 0.5, 0.01).tolist()
    [0.0, 0.01, 1.0]
    """
    for prevalence in (from_prevalence, to_prevalence):
        if not 0 < prevalence < 1:
            raise UsageError(
                f"prevalence is {prevalence:g}; it must lie between 0 and 1 for a probability to follow it."
            )
    values = np.asarray(probabilities, dtype=np.float64)
    malignant = values * (to_prevalence / from_prevalence)
    benign = (1 - values) * ((1 - to_prevalence) / (1 - from_prevalence))
    return _share(malignant, benign)


def _share(part: Floats, rest: Floats) -> Floats:
    whole = np.asarray(part + rest)
    share = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
