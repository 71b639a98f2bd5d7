"""The region where the decision is withheld, so that a promised share of a new patient's answers is not wrong.

Split conformal prediction by patient: patients can be exchanged for one another, patches of one patient
and of another cannot. Applying the region is elsewhere (`decision.decide`), its figures are in `selective.py`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.decision import Abstention, Calibration, probability
from clearmargin.evaluation.metrics import Floats, Labels
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import MALIGNANT

_ROUNDING = 1e-9
"""A sum of masses may fall short by so much of what it would be without rounding."""
_WIDER = 1e-12
"""Relative. The probability of a lower logit may be higher by a last digit, and must not leave the region."""


def fit_abstention(
    labels: Labels,
    logits: NDArray[np.floating],
    patients: NDArray[np.generic] | None,
    *,
    coverage: float,
    calibration: Calibration,
    threshold: float,
) -> Abstention | str:
    """The region of abstention, or one line on why the coverage is not attainable.

    The promise: averaged over new patients, and over such validation splits, at least `coverage` of a patient's
    images are answered rightly or withheld. It holds whatever the distribution and however much images of a
    patient resemble each other, as long as new patients come from where these came from. It is not made for
    each class, and not for each patient.

    The score of an image is its logit towards the wrong class; `critical_score` is the score that the promised
    share does not exceed. An image whose logit is within it on both sides could be either, and is withheld.
    The region on the calibrated probability is the least closed interval that also holds every image whose
    decision by the threshold would contradict the scores. Neither calibration nor threshold can break the
    promise, though both were fitted to the same patients: the answers it needs depend on logits alone.

    Args:
        labels: (N,), 0 benign or 1 malignant, of validation.
        logits: (N,), uncalibrated.
        patients: (N,), any hashable id of the patient of each image; None makes every image its own unit.
        coverage: in (0, 1).
        calibration: gives the probabilities that `decide` compares with the region.
        threshold: in (0, 1], of the operating point.

    Raises:
        DataError: there is no image, or an image has no patient.
        ValueError: a logit is not a number.

    Source: Lee, Barber and Willett, Distribution-free inference with hierarchical data, arXiv:2306.06342 (2023).

    >>> from clearmargin.decision import Temperature
    >>> labels, logits = np.tile([0, 1], 10), np.tile([-2.0, 3.0], 10)
    >>> fit_abstention(
    ...     labels, logits, np.arange(20) // 2, coverage=0.95, calibration=Temperature(), threshold=0.5
    ... )
    'a coverage of 0.95 needs at least 19 validation patients, and there are 10'
    """
    scores = np.where(np.asarray(labels) == MALIGNANT, -1.0, 1.0) * np.asarray(logits, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("a logit is not a number, so no region of abstention can be fitted")
    units, n_units = number_units(patients, len(scores))
    unit: Literal["patient", "image"] = "image" if patients is None else "patient"
    if n_units < (least := least_units(coverage)):
        there_are = "there is 1" if n_units == 1 else f"there are {n_units:,}"
        return f"a coverage of {coverage:g} needs at least {least:,} validation {unit}s, and {there_are}"
    critical = critical_score(scores, units, n_units, coverage=coverage)
    between = _region(critical, calibration, threshold)
    low, high = between or (None, None)
    return Abstention(coverage=coverage, low=low, high=high, n_units=n_units, unit=unit)


def least_units(coverage: float) -> int:
    """The fewest patients with which the coverage can be promised.

    >>> least_units(0.9), least_units(0.95)
    (9, 19)
    """
    return math.ceil(coverage / (1 - coverage) - _ROUNDING)


def critical_score(scores: Floats, units: NDArray[np.integer], n_units: int, *, coverage: float) -> float:
    """The least score that `coverage` of the mass does not exceed.

    Each of the K units has the mass 1 / (K + 1), spread evenly over its images; the rest, the new patient's,
    is at infinity.

    Args:
        scores: (N,).
        units: (N,), each in [0, n_units), none of them without images.
        n_units: K, `least_units(coverage)` or more.
        coverage: in (0, 1).

    >>> critical_score(np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 1, 1, 2]), 3, coverage=0.5)  # 1 + 1/2 + 1/2 of 4
    3.0
    """
    order = np.argsort(scores, kind="stable")
    masses = np.cumsum((1 / np.bincount(units, minlength=n_units))[units][order])
    place = min(int(np.searchsorted(masses, coverage * (n_units + 1) - _ROUNDING)), len(order) - 1)
    return float(scores[order[place]])


def _region(critical: float, calibration: Calibration, threshold: float) -> tuple[float, float] | None:
    """The closed interval of probabilities where the threshold's decision alone is not enough.

    Benign must be among the answers for logits up to `critical`, malignant for those from -`critical` on. The
    threshold fails to say so from itself up to the first, and from the second up to itself.
    """
    from_malignant, to_benign = probability(np.array([-critical, critical]), calibration).tolist()
    low, high = from_malignant * (1 - _WIDER), min(to_benign * (1 + _WIDER), 1.0)
    if high < threshold <= low:
        return None
    return min(low, threshold), max(high, threshold)
