"""Figures of deciding only some of the images: of the stored abstention, and of deciding the surest first.

Both are resampled by patient, as every figure is. Where to abstain is chosen in `conformal.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearmargin.decision import logit
from clearmargin.evaluation.bootstrap import draw_units
from clearmargin.evaluation.metrics import Floats, Labels, Probabilities, calls
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import LABEL_NAMES, MALIGNANT

Mask = NDArray[np.bool_]

ABSTENTION_FIGURES = ("covered", "covered_malignant", "covered_benign", "deferred", "error_decided", "error_all")


def resampled_abstention(
    labels: Labels,
    probabilities: Probabilities,
    decisions: NDArray[np.str_],
    patients: NDArray[np.generic] | None,
    *,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, Floats]]:
    """Each figure of ABSTENTION_FIGURES with its value in each resample of the patients, (resamples,).

    All are in [0, 1], and NaN where nothing is there to share. `covered` is the mean over patients of the
    share of a patient's images that were decided rightly or withheld, the share that the abstention
    promises; `covered_malignant` and `covered_benign` are the same of one class, over the patients who have
    images of it. `deferred` is the share of images withheld; `error_decided` the share wrong of the others;
    `error_all` the share wrong if the threshold decided all.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), calibrated, in [0, 1].
        decisions: (N,), `benign`, `malignant` or `abstain`.
        patients: (N,), any hashable id of the patient of each image; None makes every image its own unit.
        threshold: of the operating point.
        resamples: number of resamples.
        seed: as in `resampled_figures`, with whose resamples these agree.

    Raises:
        DataError: there is no image, or an image has no patient.

    >>> labels, decisions = np.array([0, 0, 1, 1]), np.array(["benign", "abstain", "benign", "malignant"])
    >>> figures = resampled_abstention(
    ...     labels, np.array([0.1, 0.6, 0.2, 0.9]), decisions, None, threshold=0.5, resamples=10, seed=0
    ... )
    >>> {name: round(value, 3) for name, (value, _) in figures.items()}
    {'covered': 0.75, 'covered_malignant': 0.5, 'covered_benign': 1.0, 'deferred': 0.25, 'error_decided': 0.333, \
'error_all': 0.5}
    """
    units, n_units = number_units(patients, len(labels))
    is_malignant = np.asarray(labels) == MALIGNANT
    withheld = np.equal(decisions, "abstain")
    wrong = ~withheld & (np.equal(decisions, LABEL_NAMES[MALIGNANT]) != is_malignant)
    wrong_if_all = calls(probabilities, threshold) != is_malignant
    sums = _abstention_sums(units, is_malignant, withheld=withheld, wrong=wrong, wrong_if_all=wrong_if_all)
    totals = np.empty((resamples, *sums.shape[1:]))
    for resample in range(resamples):
        drawn = draw_units(n_units, resample=resample, seed=seed)
        totals[resample] = np.tensordot(np.bincount(drawn, minlength=n_units), sums, axes=1)
    values, resampled = _quotient(sums.sum(axis=0)), _quotient(totals)
    return {name: (float(values[i]), resampled[:, i]) for i, name in enumerate(ABSTENTION_FIGURES)}


def _abstention_sums(
    units: NDArray[np.int64], is_malignant: Mask, *, withheld: Mask, wrong: Mask, wrong_if_all: Mask
) -> Floats:
    """What each unit adds to the two sides of the quotient of each figure, (n_units, 6, 2)."""
    every = np.ones(len(units), dtype=bool)

    def count(which: Mask) -> Floats:
        return np.bincount(units, weights=which).astype(np.float64)

    def share(part: Mask, whole: Mask) -> Floats:
        """A unit with such images counts as one, whatever their number."""
        counted = count(whole)
        return np.stack([count(part & whole) / np.maximum(counted, 1), counted > 0], axis=1)

    return np.stack(
        [
            share(~wrong, every),
            share(~wrong, is_malignant),
            share(~wrong, ~is_malignant),
            np.stack([count(withheld), count(every)], axis=1),
            np.stack([count(wrong), count(~withheld)], axis=1),
            np.stack([count(wrong_if_all), count(every)], axis=1),
        ],
        axis=1,
    )


def _quotient(sums: Floats) -> Floats:
    """The first over the second of the last axis, NaN where that is 0."""
    part, whole = sums[..., 0], sums[..., 1]
    quotient: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotient


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """The error among the surest images, by how many are decided.

    `decided` (points,) are shares of the images from 1 down; `error` (points,) is the share wrong among so
    many of the surest, and `area` its mean over every number of images from 1 to all. `resampled_error`
    (resamples, points) and `resampled_area` (resamples,) are the same on resamples of the patients.
    """

    decided: Floats
    error: Floats
    area: float
    resampled_error: Floats
    resampled_area: Floats


def risk_coverage(
    labels: Labels,
    probabilities: Probabilities,
    threshold: float,
    patients: NDArray[np.generic] | None,
    *,
    resamples: int,
    seed: int,
    points: int = 20,
) -> RiskCoverage:
    """What would be won by deciding only the surest images: the risk-coverage curve and the area under it.

    An image is the surer, the farther its logit lies from that of the threshold. Of images equally sure,
    each counts in part: the error is the mean over every order of them. 0 is perfect; a curve that does not
    fall with fewer images decided means that the probability does not know where the model errs.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), calibrated, in [0, 1].
        threshold: of the operating point.
        patients: (N,), any hashable id of the patient of each image; None makes every image its own unit.
        resamples: number of resamples.
        seed: as in `resampled_figures`, with whose resamples these agree.
        points: how many shares, evenly spaced: 1, 1 - 1 / points, ..., 1 / points.

    Raises:
        DataError: there is no image, or an image has no patient.

    Source: Geifman and El-Yaniv, NeurIPS 2017; the area: Geifman, Uziel and El-Yaniv, ICLR 2019.

    >>> curve = risk_coverage(
    ...     np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.7, 0.4]), 0.5, None, resamples=1, seed=0, points=4
    ... )
    >>> curve.decided.tolist(), curve.error.round(3).tolist()  # surest first: right, right, wrong, wrong
    ([1.0, 0.75, 0.5, 0.25], [0.5, 0.333, 0.0, 0.0])
    >>> round(curve.area, 4)  # (0 + 0 + 1/3 + 1/2) / 4
    0.2083
    """
    units, n_units = number_units(patients, len(labels))
    values = np.asarray(probabilities, dtype=np.float64)
    doubt = -np.abs(logit(values) - logit(np.array([threshold])))
    order = np.argsort(doubt, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(doubt[order]) > 0, True))
    wrong = (calls(values, threshold) != (np.asarray(labels) == MALIGNANT))[order]
    shares = np.arange(points, 0, -1) / points

    def curve(times: NDArray[np.int64]) -> tuple[Floats, float]:
        of_image = times[units[order]]
        n_images = np.append(0, np.cumsum(of_image)[ends])
        n_wrong = np.append(0, np.cumsum(of_image * wrong)[ends])
        decided = shares * n_images[-1]
        numbers = np.arange(1, n_images[-1] + 1)
        area = np.mean(np.interp(numbers, n_images, n_wrong) / numbers)
        return np.interp(decided, n_images, n_wrong) / decided, float(area)

    error, area = curve(np.ones(n_units, dtype=np.int64))
    resampled_error, resampled_area = np.empty((resamples, points)), np.empty(resamples)
    for resample in range(resamples):
        drawn = draw_units(n_units, resample=resample, seed=seed)
        resampled_error[resample], resampled_area[resample] = curve(np.bincount(drawn, minlength=n_units))
    return RiskCoverage(shares, error, area, resampled_error, resampled_area)
